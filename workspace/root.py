"""The root of the project, in which its commands run."""

from pathlib import Path

from workspace.errors import UserError

MARKS = ("params.yaml", "dvc.yaml")  # the files that make a folder a project's root


def find_root() -> Path:
    """Return the working directory. Raises UserError unless it is the root of a project."""
    here = Path.cwd()
    missing = [name for name in MARKS if not (here / name).is_file()]
    if missing:
        raise UserError(
            f"{here} is not the root of a project, as it lacks {' and '.join(missing)}: "
            "`cd` to the folder that has them"
        )
    return here
