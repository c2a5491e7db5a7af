"""The code that makes the model: what `dvc.yaml` says that its stages read of `src/`, `serving/`.

`export` names all of it, so that it is what a model is said to be made by; the stages before it
name the modules that they import.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workspace.errors import UserError
from workspace.settings import read_yaml

PIPELINE = "dvc.yaml"
FOLDERS = ("src/", "serving/")


def code_sha256(root: Path, stage: str = "export") -> str:
    """Return the SHA-256 of a stage's code on disk.

    A hash of the content, not a commit: code is the same before and after it is committed. Raises
    UserError as `code_files` does.
    """
    return sha256({path: (root / path).read_bytes() for path in code_files(root, stage)})


def sha256(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 over "path NUL sha256-of-content newline" of files, sorted by path."""
    total = hashlib.sha256()
    for path in sorted(files):
        content = hashlib.sha256(stored(files[path])).hexdigest()
        total.update(f"{path}\0{content}\n".encode())
    return total.hexdigest()


def stored(content: bytes) -> bytes:
    """Return text as Git stores it at the latest where lines end otherwise; Python reads the same.

    On disk lines end as `core.autocrlf` and .gitattributes have it, and where there is no Git as
    they did where the files came from.
    """
    return content.replace(b"\r\n", b"\n")


def code_files(root: Path, stage: str = "export") -> list[str]:
    """Return the paths of a stage's code below `root`, sorted; a folder's are its Python modules.

    Raises UserError when `dvc.yaml` has no such stage, or it reads code that is not there.
    """
    named = named_code(read_yaml(root / PIPELINE), PIPELINE, stage)
    return sorted({file for path in named for file in _files(root, path)})


def named_code(pipeline: Any, name: str, stage: str = "export") -> list[str]:
    """Return the files and folders of code that a stage names in the content of a `dvc.yaml`.

    Raises UserError, with the file's `name`, when there is no such stage.
    """
    try:
        return [path for path in pipeline["stages"][stage]["deps"] if path.startswith(FOLDERS)]
    except (KeyError, TypeError, AttributeError):
        raise UserError(
            f"{name} has no stage {stage!r} with deps, which say what code makes the model: "
            "put it back"
        ) from None


def _files(root: Path, path: str) -> list[str]:
    place = root / path
    if place.is_dir():
        return [file.relative_to(root).as_posix() for file in place.rglob("*.py")]
    if not place.is_file():
        raise UserError(f"{PIPELINE}: {path} is not there: correct the deps")
    return [path]
