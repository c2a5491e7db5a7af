"""The code that makes the model: what `dvc.yaml` says that its stages read of `src/`, `serving/`.

`export` names all of it, so that it is what a model is said to be made by; the stages before it
name the modules that they import.
"""

import hashlib
from pathlib import Path

from workspace import settings
from workspace.errors import UserError

PIPELINE = "dvc.yaml"
FOLDERS = ("src/", "serving/")


def code_sha256(root: Path, stage: str = "export") -> str:
    """SHA-256 over "path NUL sha256-of-content newline" of a stage's code, sorted by path.

    A hash of the content, not a commit: code is the same before and after it is committed. Raises
    UserError as `code_files` does.
    """
    total = hashlib.sha256()
    for path in code_files(root, stage):
        content = hashlib.sha256((root / path).read_bytes()).hexdigest()
        total.update(f"{path}\0{content}\n".encode())
    return total.hexdigest()


def code_files(root: Path, stage: str = "export") -> list[str]:
    """Paths of a stage's code below `root`, sorted; a folder's are its Python modules.

    Raises UserError when `dvc.yaml` has no such stage, or it reads code that is not there.
    """
    content = settings.read_yaml(root / PIPELINE)
    try:
        named = [path for path in content["stages"][stage]["deps"] if path.startswith(FOLDERS)]
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{PIPELINE} has no stage {stage!r} with deps: put it back") from None
    files = [file for path in named for file in _files(root, path)]
    return sorted(set(files))


def _files(root: Path, path: str) -> list[str]:
    place = root / path
    if place.is_dir():
        return [file.relative_to(root).as_posix() for file in place.rglob("*.py")]
    if not place.is_file():
        raise UserError(f"{PIPELINE}: {path} is not there: correct the deps")
    return [path]
