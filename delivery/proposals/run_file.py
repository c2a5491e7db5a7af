"""The run file: which training runs on the cluster."""

from contextlib import suppress

from delivery.git import Repository
from delivery.proposals.config_map import parse_config_map, write_config_map
from delivery.proposals.release_file import COMMIT, IMAGE, Count, next_number
from workspace.settings import SMALL, Settings, SettingsError

RUN_FILE = "argocd/training/run.yaml"
RUN_NAME = "training-run"


class Run(Settings):
    """One training run: what `run.yaml` says, as values.

    `run` counts from 1 and names the job; `nodes` is the number of machines; `commit` is what the
    image was built from.
    """

    run: Count
    image: str = IMAGE
    nodes: Count
    commit: str = COMMIT

    def to_yaml(self) -> str:
        """Return the text of the run file; equal runs give equal text."""
        return write_config_map(RUN_NAME, self)


def next_run(repository: Repository, commit: str) -> int:
    """Return the number of a run that was never merged: a name that was used would not run again.

    Raises SettingsError for the newest file; one that could not be read in the past ran nothing.
    """
    numbers = []
    try:
        if (newest := repository.read(commit, RUN_FILE, SMALL)) is not None:
            parse_run(newest, f"{RUN_FILE} at {commit[:12]}")
    except SettingsError as error:
        raise SettingsError(f"{error}; put it right on main, or remove the file") from None
    for path, content in repository.versions(commit, RUN_FILE, SMALL):
        with suppress(Exception):  # whatever stood there
            numbers.append(parse_run(content, path).run)
    return next_number(numbers)


def parse_run(content: bytes, name: str) -> Run:
    """Read a run file's content. Raises SettingsError."""
    return parse_config_map(Run, content, RUN_NAME, name)
