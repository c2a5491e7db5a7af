"""The run file: which training runs on the cluster."""

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass

import yaml

from delivery.errors import DeliveryError
from delivery.proposals.git import Repository
from workspace.settings import LOADER

RUN_FILE = "argocd/training/run.yaml"
RUN_NAME = "training-run"


class RunFileError(DeliveryError):
    """A run file that does not say what to run."""


@dataclass(frozen=True)
class Run:
    """One training run: what `run.yaml` says, as values.

    `run` counts from 1 and names the job; `image` is a reference by digest; `nodes` is the number
    of machines; `commit` is what the image was built from.
    """

    run: int
    image: str
    nodes: int
    commit: str

    def to_yaml(self) -> str:
        """Return the text of the run file; equal runs give equal text."""
        lines = [f"  {name}: {json.dumps(str(value))}\n" for name, value in asdict(self).items()]
        head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {RUN_NAME}\ndata:\n"
        return head + "".join(lines)


def read_run(repository: Repository, commit: str) -> int | None:
    """Return the number of the run in the run file at a commit, or None where there is none.

    Raises RunFileError.
    """
    content = repository.read(commit, RUN_FILE)
    if content is None:
        return None
    try:
        number = yaml.load(content, Loader=LOADER)["data"]["run"]
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise ValueError(number)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunFileError(
            f'{RUN_FILE} at {commit[:12]} has no number of a run, such as run: "3": put it right '
            "on main, or remove the file"
        ) from error
    return int(number)


def next_run(repository: Repository, commit: str) -> int:
    """Return one more than the highest run ever merged: a name that was used would not run again.

    Raises RunFileError for the newest file; one that could not be read in the past ran nothing.
    """
    numbers = [read_run(repository, commit) or 0]
    for each in repository.history(commit, RUN_FILE):
        with suppress(RunFileError):
            numbers.append(read_run(repository, each) or 0)
    return 1 + max(numbers)
