"""The root of the project: the working directory of its commands.

Paths are relative to it, so that what is written down of them, as in release files, `dvc.lock` and
sentences, is the same on every machine.
"""

import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from workspace.errors import UserError

MARKS = ("params.yaml", "dvc.yaml")  # the files that make a folder a project's root
CAPTURED = Path(".local/captured")  # batches of pictures that were kept, by what a model answered


def check_root() -> None:
    """Raise UserError unless the working directory is the root of a project.

    From here on its Git repository is the only one, for all that this process starts.
    """
    for name in git_variables():
        os.environ.pop(name, None)
    here = Path.cwd()
    missing = [name for name in MARKS if not (here / name).is_file()]
    if missing:
        raise UserError(
            f"{here} is not the root of a project, as it lacks {' and '.join(missing)}: "
            "`cd` to the folder that has them"
        )


@functools.cache
def git_variables() -> frozenset[str]:
    """Return the names of the variables by which Git tells its hooks which repository to use.

    One, by which it forbids a hook to move branches before a push is taken, Git does not list.
    """
    command = ["git", "rev-parse", "--local-env-vars"]
    try:
        names = subprocess.run(command, capture_output=True, text=True).stdout.split()
        return frozenset([*names, "GIT_QUARANTINE_PATH"])
    except OSError:  # no Git, as in the training image
        return frozenset()


def without_outer_repository(variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Git finds the repository of the folder that it runs in."""
    return {name: value for name, value in variables.items() if name not in git_variables()}
