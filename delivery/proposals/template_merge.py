"""What the template changed since a project was made, merged with what its owner changed.

Everything is made of objects beside the user's commits; the checkout changes last, in `check_out`.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from delivery.git import Repository
from delivery.signals import ENDS, held_signals

# What a project makes and its owner decides on: no template has a say in it.
OWNERS = (
    "argocd/environments/*/model.yaml",
    "argocd/training/run.yaml",
    "**/*.dvc",
    "dvc.lock",
    "infra/outputs.env",
    "reviews/**/*",
    "tuning/*.md",
)

YOURS, TEMPLATES = "yours", "template"  # the names in the markers of a conflict


@dataclass(frozen=True)
class Merge:
    """A tree of both sides' changes, and where they contradict each other.

    `unmerged` are the versions of the files in conflict, as Git's index lists them; `conflicts` are
    sentences of Git's; `deleted` are files that the template changed and the owner had deleted.
    """

    tree: str
    unmerged: tuple[str, ...]
    conflicts: tuple[str, ...]
    deleted: tuple[str, ...]


def store(repository: Repository, folder: Path) -> str:
    """Store a rendered project as a tree, whatever the user has Git ignore; return the tree."""
    _leave_out_the_owners(folder)
    _end_lines_as(repository, folder)
    place = ("-C", str(folder), "--work-tree", ".")
    git_folder = repository.ask("rev-parse", "--absolute-git-dir")
    with repository.index_apart("--empty") as index:
        repository.run("--git-dir", git_folder, *place, "add", "--all", "--force", index=index)
        return repository.ask("write-tree", index=index)


def _leave_out_the_owners(folder: Path) -> None:
    for pattern in OWNERS:
        for path in folder.glob(pattern):
            if path.is_file():
                path.unlink()


def _end_lines_as(repository: Repository, folder: Path) -> None:
    """End lines with CRLF where the owner does, or every line of such a file would conflict."""
    for line in repository.listed("ls-files", "--eol", "-z"):
        ends, _, name = line.partition("\t")
        path = folder / name
        if ends.startswith("i/crlf") and path.is_file() and b"\r\n" not in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def merge(repository: Repository, base: str, ours: str, theirs: str) -> Merge:
    """Merge two trees that came of a third one, as Git merges; renamed files are followed.

    Raises GitError, also when Git cannot merge.
    """
    ancestor = _commit(repository, base)
    try:
        for name, tree in ((YOURS, ours), (TEMPLATES, theirs)):
            side = _commit(repository, tree, "-p", ancestor)
            repository.run("update-ref", f"refs/update/{name}", side)
        return _read(repository, _merge_tree(repository))
    finally:
        for name in (YOURS, TEMPLATES):
            repository.run("update-ref", "-d", f"refs/update/{name}")


def _commit(repository: Repository, tree: str, *parents: str) -> str:
    return repository.ask("commit-tree", tree, *parents, "-m", "For a merge with the template")


def _merge_tree(repository: Repository) -> str:
    """Return what `git merge-tree` prints; it ends with 1 when there is a conflict."""
    # a new file of the owner's stays where it is when the template moves those beside it
    settings = ("merge.renames=true", "merge.directoryRenames=false")
    sides = [f"update/{name}" for name in (YOURS, TEMPLATES)]
    command = ("merge-tree", "--write-tree", "-z", *sides)
    return os.fsdecode(repository.run(*command, settings=settings, fine=(0, 1)))


def _read(repository: Repository, output: str) -> Merge:
    """Read what `git merge-tree -z` printed: a tree, versions of files in conflict, messages."""
    tree, *rest = output.split("\0")
    end = rest.index("") if "" in rest else len(rest)
    entries, notes = rest[:end], rest[end + 1 :]
    stages: dict[str, set[str]] = {}
    for entry in entries:
        description, _, path = entry.partition("\t")
        stages.setdefault(path, set()).add(description.split()[2])
    deleted = tuple(path for path, found in stages.items() if found == {"1", "3"})
    return Merge(
        tree=_without(repository, tree, deleted),
        unmerged=tuple(entry for entry in entries if entry.partition("\t")[2] not in deleted),
        conflicts=tuple(_conflicts(notes, deleted)),
        deleted=deleted,
    )


def _conflicts(notes: list[str], deleted: tuple[str, ...]) -> list[str]:
    """Pick the conflicts of Git's notes: the number of paths, the paths, a kind, a sentence."""
    found = []
    while notes and notes[0]:
        count = int(notes[0])
        paths, (kind, sentence) = notes[1 : count + 1], notes[count + 1 : count + 3]
        if kind.startswith("CONFLICT") and not set(paths) & set(deleted):
            found.append(sentence.strip())
        notes = notes[count + 3 :]
    return found


def _without(repository: Repository, tree: str, paths: tuple[str, ...]) -> str:
    """Return a tree without some files."""
    with repository.index_apart(tree) as index:
        listed = os.fsencode("\0".join(paths))
        repository.run("update-index", "-z", "--force-remove", "--stdin", stdin=listed, index=index)
        return repository.ask("write-tree", index=index)


def check_out(repository: Repository, merged: Merge, branch: str, message: str) -> None:
    """Put a merge on a new branch and check that out: committed, or with its conflicts to resolve.

    Raises GitError, before anything changed, when a file that Git ignores is in the way.
    """
    head = repository.head()
    commit = repository.commit_tree(merged.tree, head, message)
    with _uninterrupted():
        repository.run("switch", "--quiet", "--no-overwrite-ignore", "--create", branch, commit)
        if merged.unmerged:
            repository.run("reset", "--quiet", "--soft", head)
            _mark_as_unmerged(repository, merged.unmerged)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Have Ctrl-C and an end by `kill` wait, for Git as well.

    Git takes over what is blocked; here a thread of some library may get the signal all the same.
    """
    with held_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _mark_as_unmerged(repository: Repository, entries: tuple[str, ...]) -> None:
    """Put versions of files in conflict into the index, in place of the merged ones."""
    paths = sorted({entry.partition("\t")[2] for entry in entries})
    none = "0" * len(repository.head())
    lines = [f"0 {none}\t{path}" for path in paths] + list(entries)
    listed = os.fsencode("".join(f"{line}\0" for line in lines))
    repository.run("update-index", "-z", "--index-info", stdin=listed)
