"""The test set since a release: which pictures are new, and which that model was trained on.

The ledger of splits at the release's commit tells. No stage of the pipeline does, because what it
writes would then depend on what is served, and could not be made again.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from delivery.git import GitError, Repository
from workspace.settings import SettingsError, read_text

LEDGER = "data/splits.csv"
PICTURES = Path("data/prepared/test/pictures.csv")
LEARNT = ("train", "validation")
DIGITS = 16  # of a picture's SHA-256, in the ledger


@dataclass(frozen=True)
class Tested:
    """Numbers of test pictures: all, those new since a commit, those that were trained on then."""

    pictures: int
    new: int
    trained_on: int

    def describe(self, model: str) -> str:
        """Say it of a released model, such as "model 7"."""
        said = f"{self.new} of {self.pictures} pictures are new since {model}"
        if not self.trained_on:
            return f"{said}, which was trained on none of all"
        return (
            f"{said}, which was trained on {self.trained_on} others, so it looks better than it is"
        )


def tested_since(repository: Repository, commit: str) -> Tested | None:
    """Compare the prepared test set with the ledger of a commit; None where one is missing.

    Raises SettingsError when the list of pictures can't be read.
    """
    places = ledger(repository, commit)
    if not places or not (repository.folder / PICTURES).is_file():
        return None
    rows = csv.DictReader(read_text(repository.folder / PICTURES).splitlines())
    then = [places.get(str(row.get("sha256"))[:DIGITS]) for row in rows]
    trained_on = sum(place in LEARNT for place in then)
    return Tested(len(then), then.count(None), trained_on)


def learnt(repository: Repository, commit: str) -> frozenset[str]:
    """Return the pictures, by the first DIGITS of their SHA-256, that a commit's model learnt from.

    None are known where the commit or its ledger is not here, or cannot be read.
    """
    try:
        places = ledger(repository, commit)
    except (GitError, SettingsError):
        return frozenset()
    return frozenset(key for key, place in places.items() if place in LEARNT)


def ledger(repository: Repository, commit: str) -> dict[str, str]:
    """Return the splits of a commit's pictures, which are known by the start of their SHA-256."""
    content = repository.read(commit, LEDGER) or b""
    lines = (line.partition(",") for line in content.decode(errors="replace").splitlines())
    return {key: place for key, _, place in lines}
