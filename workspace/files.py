"""Files that are there whole or not at all, and folders that one process at a time works in."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from workspace.errors import UserError

LOOK = 1.0  # seconds in which whoever looks at a lock has surely let go of it


@contextmanager
def replacing(
    path: Path,
    mode: str = "w",
    final: Callable[[], Path] | None = None,
    private: bool = False,
    **options: Any,
) -> Iterator[IO[Any]]:
    """Give a stream whose content takes the place of a file when the block ends well.

    Until then, and after a failure, the file is as it was. What has taken its place is on disk, not
    only in memory. A file named after its content gets the path that `final` returns at the end.
    What is `private` nobody else may read at any time. `options` are those of `open`; folders are
    made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, mode, **options) as stream:
            yield stream
            stream.flush()
            if not private:  # as mkstemp's are
                os.fchmod(stream.fileno(), 0o666 & ~_umask())
            os.fsync(stream.fileno())
        place = final() if final else path
        place.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(place.parent)


def write(path: Path, content: str | bytes, private: bool = False) -> None:
    """Write a file whole or not at all, as `replacing` does."""
    with replacing(path, "wb", private=private) as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have on disk what a file holds, or the names in a folder: a power loss forgets the rest."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Have all that is in a folder on disk: a plan or a new name may outlive it otherwise."""
    for parent, _, names in os.walk(folder):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def publish(folder: Path, place: Path) -> None:
    """Rename a complete folder, whose content is on disk before its new name is.

    Raises OSError when there is something else in the place.
    """
    sync_all(folder)
    folder.rename(place)
    sync(place.parent)


def discard(path: Path) -> None:
    """Remove a file or folder, as far as that is possible, however deep and odd it is.

    `rm` needs neither a stack nor paths of the length of the tree's depth, as `shutil.rmtree` does.
    """
    subprocess.run(["rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False)


@contextmanager
def only_one(lock: Path, busy: str) -> Iterator[None]:
    """Hold a lock file, which the kernel releases however the process ends.

    Raises UserError with the sentence `busy` when another process holds it, longer than `is_held`
    does.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=LOOK):
            yield
    except Timeout:
        raise UserError(busy) from None


def is_held(lock: Path) -> bool:
    """Tell whether a process holds a lock file; where none does, it is held for a moment."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, blocking=False):
            return False
    except Timeout:
        return True


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
