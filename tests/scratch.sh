#!/bin/sh
# Print where tests keep their files: in memory, where there is enough of it and programs may run there,
# because a disk takes twice as long to make and remove as many; otherwise where everybody does.
memory=/dev/shm
enough=10000000 # kilobytes, of which the tests' own programs take more than their files
free=$(awk '/^MemAvailable:/ {print $2}' /proc/meminfo 2>/dev/null)
room=$(df -Pk "$memory" 2>/dev/null | awk 'END {print $4}')
if [ "${free:-0}" -gt $enough ] && [ "${room:-0}" -gt $enough ]; then
    if file=$(mktemp "$memory/runs.XXXXXX"); then
        printf '#!/bin/sh\n' >"$file" && chmod +x "$file" && "$file" 2>/dev/null && runs=yes
        rm -f "$file"
    fi
fi
if [ "${runs:-}" ]; then echo "$memory"; else echo "${TMPDIR:-/tmp}"; fi
