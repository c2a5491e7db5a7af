"""The manifests of a commit as files, apart from the working tree: its objects, byte for byte.

Attributes of the commit change nothing. Argo CD's checkout follows none that `git archive` does,
and filters are programs that only a machine's own settings name.
"""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from delivery.errors import DeliveryError
from delivery.git import Repository
from workspace.files import discard

MANIFESTS = "argocd"
LARGEST = 64 * 2**20  # bytes of all manifests together
LINK, SUBMODULE, EXECUTABLE = 0o120000, 0o160000, 0o111


@dataclass(frozen=True)
class Entry:
    """A file of a commit, a link or a submodule; `content` is empty for the last."""

    path: str
    mode: int
    content: bytes


def snapshot(repository: Repository, commit: str, folder: Path) -> Path:
    """Write the manifests of a commit into `folder`, in place of what was there; return it.

    Raises DeliveryError when the commit has none, or one that leads out of them.
    """
    discard(folder)
    entries = sorted(read_entries(repository, commit), key=lambda entry: entry.mode == LINK)
    if not entries:
        raise DeliveryError(f"commit {commit[:12]} has no folder {MANIFESTS}: put it back")
    (folder / MANIFESTS).mkdir(parents=True)
    for entry in entries:  # links last, so that nothing is written through one
        place(entry, folder)
    for entry in entries:
        if entry.mode == LINK:
            check_link(entry, folder)
    return folder


def read_entries(repository: Repository, commit: str) -> list[Entry]:
    """Read all files below the manifests' folder at a commit. Raises DeliveryError."""
    listed = repository.run("ls-tree", "-r", "-l", "-z", commit, "--", f"{MANIFESTS}/")
    found = [line.partition(b"\t") for line in listed.split(b"\0") if line]
    described = [(head.split(), os.fsdecode(name)) for head, _, name in found]
    size = sum(int(size) for (_, kind, _, size), _ in described if kind == b"blob")
    if size > LARGEST:
        raise DeliveryError(
            f"{MANIFESTS} holds {size} bytes at commit {commit[:12]} and at most {LARGEST} are "
            "read: keep in it what describes the cluster only"
        )
    blobs = (sha.decode() for (_, kind, sha, _), _ in described if kind == b"blob")
    contents = repository.contents(blobs)
    return [
        Entry(name, int(mode, 8), contents.get(sha.decode(), b""))
        for (mode, _, sha, _), name in described
    ]


def place(entry: Entry, folder: Path) -> None:
    """Write one file or link. Raises DeliveryError for what cannot be one."""
    if entry.mode == SUBMODULE:
        raise DeliveryError(f"{entry.path!r} is a submodule: keep its files in {MANIFESTS} instead")
    if ".." in PurePosixPath(entry.path).parts:
        raise DeliveryError(f"{entry.path!r} leads out of {MANIFESTS}: remove it")
    path = folder / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == LINK:
        path.symlink_to(os.fsdecode(entry.content))
        return
    with path.open("xb") as file:
        file.write(entry.content)
    if entry.mode & EXECUTABLE:
        path.chmod(path.stat().st_mode | EXECUTABLE)


def check_link(entry: Entry, folder: Path) -> None:
    """Raise DeliveryError unless a link, through all others, stays among the manifests."""
    target = os.fsdecode(entry.content)
    try:
        end = (folder / entry.path).resolve()
    except RuntimeError:  # a circle of links
        end = Path()
    if PurePosixPath(target).is_absolute() or not end.is_relative_to(folder.resolve() / MANIFESTS):
        raise DeliveryError(
            f"{entry.path!r} is a link to {target!r}, which leads out of {MANIFESTS}: "
            "put the file itself there"
        )
