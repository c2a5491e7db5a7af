"""The root of the project: the working directory of its commands.

Paths are relative to it, so that what is written down of them, as in release files, `dvc.lock` and
sentences, is the same on every machine.
"""

from pathlib import Path

from workspace.errors import UserError

MARKS = ("params.yaml", "dvc.yaml")  # the files that make a folder a project's root


def check_root() -> None:
    """Raise UserError unless the working directory is the root of a project."""
    here = Path.cwd()
    missing = [name for name in MARKS if not (here / name).is_file()]
    if missing:
        raise UserError(
            f"{here} is not the root of a project, as it lacks {' and '.join(missing)}: "
            "`cd` to the folder that has them"
        )
