#!/bin/sh
# Run a command with a folder of its own for temporary files, which is gone afterwards with all that killed
# programs left there. It is in memory, where there is enough of it and programs may run there, because a
# disk takes twice as long to make and remove as many files. Its name is short, because sockets lie below it.
folder=
memory=/dev/shm
enough=10000000 # kilobytes, of which the tests' own programs take more than their files
free=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null)
room=$(df -Pk "$memory" 2>/dev/null | awk 'END {print $4}')
if [ "${free:-0}" -gt $enough ] && [ "${room:-0}" -gt $enough ] && folder=$(mktemp -d "$memory/mts.XXXX"); then
    printf '#!/bin/sh\n' >"$folder/runs" && chmod +x "$folder/runs"
    "$folder/runs" 2>/dev/null || { rm -rf "$folder" && folder=; }
    rm -f "$folder/runs"
fi
[ "$folder" ] || folder=$(mktemp -d "${TMPDIR:-/tmp}/mts.XXXX") || exit
trap : INT # the command ends by it, and then the folder goes
TMPDIR=$folder "$@"
code=$?
rm -rf "$folder"
exit $code
