"""What Argo CD would apply of one commit and not, or otherwise, of another."""

import difflib
from pathlib import Path

import yaml

from delivery.git import Repository
from delivery.manifests.rendering import Documents, build
from delivery.manifests.snapshot import MANIFESTS, snapshot
from workspace.errors import UserError

# What Argo CD follows besides environments and training: built by Kustomize, or taken as it is.
BUILT = ("apps", "base/platform/configs")
RAW = ("root.yaml", "base/platform/controllers", "base/argo-cd")


def differences(repository: Repository, tree: str, folder: Path) -> dict[str, str]:
    """Say how a tree changes what Argo CD applies of the checked-out commit, by path.

    `folder` is for what is compared. A path that cannot be built has the reason. Raises GitError.
    """
    if not repository.run("diff", "--name-only", "HEAD", tree, "--", MANIFESTS):
        return {}
    was = manifests(repository, "HEAD", folder / "was")
    will = manifests(repository, tree, folder / "will")
    released = [path.parent for path in sorted(will.glob("environments/*/model.yaml"))]
    running = [path.parent for path in will.glob("training/run.yaml")]
    built = [str(path.relative_to(will)) for path in released + running] + list(BUILT)
    found = {}
    for place in [*built, *RAW]:
        read = texts if place in RAW else built_texts
        try:
            found[place] = difference(read(was / place), read(will / place))
        except UserError as error:
            found[place] = str(error).replace(f"{folder}/", "")
    return {f"{MANIFESTS}/{place}": text for place, text in found.items() if text}


def manifests(repository: Repository, commit: str, folder: Path) -> Path:
    """Write the manifests of a commit, which may have none, below a folder; return their own."""
    if repository.files(commit, MANIFESTS):
        snapshot(repository, commit, folder)
    return folder / MANIFESTS


def built_texts(folder: Path) -> dict[str, str]:
    """Return the objects that Kustomize builds of a folder. Raises UserError."""
    return written(build(folder)) if (folder / "kustomization.yaml").is_file() else {}


def written(documents: Documents) -> dict[str, str]:
    """Return the text of each document by its kind and name."""
    return {" ".join(key): yaml.safe_dump(each, sort_keys=False) for key, each in documents.items()}


def documents_difference(was: Documents, will: Documents) -> str:
    """Return the lines in which what was built differs; only what does is written out."""
    differ = [key for key in {**was, **will} if was.get(key) != will.get(key)]
    sides = ({key: side[key] for key in differ if key in side} for side in (was, will))
    return difference(*map(written, sides))


def texts(place: Path) -> dict[str, str]:
    """Return the files at a place, or the file."""
    files = [path for path in [place, *place.glob("*")] if path.is_file()]
    return {path.name: path.read_text(errors="replace") for path in files}


def difference(was: dict[str, str], will: dict[str, str]) -> str:
    """Return the lines that differ, by name of what they are in."""
    lines: list[str] = []
    for name in sorted(was.keys() | will.keys()):
        old, new = (side.get(name, "").splitlines() for side in (was, will))
        lines += difflib.unified_diff(old, new, f"{name} (now)", f"{name} (then)", lineterm="")
    return "\n".join(lines)
