"""The trials of a search: their figures, the record that outlives a kill, and the table of them."""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from classifier import networks
from classifier.params import Params, TrainParams, TuneParams
from tuning.search_space import Range
from workspace import markdown
from workspace.errors import UserError
from workspace.history import kept_epoch
from workspace.settings import Settings, SettingsError, check, parse_json, read_text

FIGURES = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
Figures = dict[str, float]  # those, of one epoch


@dataclass(frozen=True)
class Search:
    """What is searched: the parameters of all trials, those of trial 0 untuned."""

    network: str
    current: TrainParams  # what params.yaml says
    ranges: dict[str, Range]  # of the parameters that are searched, such as `options.width`
    candidates: list[Params]
    section: TuneParams
    folder: Path
    runs: list[Path]  # of each trial's checkpoints and logs, in that folder


@dataclass(frozen=True)
class Trial:
    """A training that has ended: with which parameters, how, and the figures of its epochs.

    Trial 0 is the untuned one.
    """

    number: int
    train: TrainParams
    # finished; stopped, as others were better at the same epoch; failed, by its parameters; or
    # broken, by the machine, which the next search tries again
    ended: str
    epochs: list[Figures]
    reason: str  # of a failure

    @property
    def has_figures(self) -> bool:
        """Whether it can be compared."""
        return self.ended in ("finished", "stopped")

    @property
    def figures(self) -> Figures:
        """Those of the epoch whose weights are kept."""
        return kept_epoch(self.epochs)


def score(figures: Figures, objective: str) -> float:
    """The objective as a number of which less is better."""
    return -figures[objective] if objective == "validation_accuracy" else figures[objective]


def ranked(trials: Iterable[Trial], objective: str) -> list[Trial]:
    """Trials from the best to the worst; equal accuracies by loss, failures last."""

    def key(trial: Trial) -> tuple[float, float]:
        return score(trial.figures, objective), trial.figures["validation_loss"]

    in_turn = sorted(trials, key=lambda trial: trial.number)
    failures = [trial for trial in in_turn if not trial.has_figures]
    return sorted((trial for trial in in_turn if trial.has_figures), key=key) + failures


class Record:
    """A file with a line for each trial that has ended, on disk before anybody hears of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # of a kill in the middle of a line

    def add(self, trial: Trial) -> None:
        """Write a line and wait until it is on the disk."""
        # without its number, its place in a list that may be another one next time
        content = {
            "train": trial.train.model_dump(),
            "ended": trial.ended,
            "epochs": trial.epochs,
            "reason": trial.reason,
        }
        with self.path.open("a") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self, candidates: Sequence[Params]) -> list[Trial]:
        """The trials of those candidates that have ended, numbered by their place."""
        lines = [self._line(*line) for line in enumerate(read_text(self.path).splitlines(), 1)]
        by_parameters = {parameters(line.pop("train")): line for line in lines}
        keys = [parameters(candidate.train.model_dump()) for candidate in candidates]
        return [
            Trial(number, candidate.train, **by_parameters[key])
            for number, (candidate, key) in enumerate(zip(candidates, keys, strict=True))
            if key in by_parameters
        ]

    def _line(self, number: int, text: str) -> dict[str, Any]:
        where = f"{self.path} line {number}"
        try:
            return check(Line, parse_json(text, where), where).model_dump()
        except SettingsError as error:
            raise UserError(f"{error}; remove the line, and its trial runs again") from None


class Line(Settings, allow_inf_nan=True):
    """A line of the record; a loss that grew without end is no number."""

    train: dict[str, Any]
    ended: Literal["finished", "stopped", "failed", "broken"]
    epochs: list[dict[str, int | float]]
    reason: str


def parameters(section: dict[str, Any]) -> str:
    """Text that equal parameters share."""
    return json.dumps(section, sort_keys=True)


def value_at(train: TrainParams, place: str) -> Any:
    """The value at a place such as `options.width`, be it the network's default."""
    value: Any = train.model_dump()
    value["options"] = networks.defaults(train.network) | train.options
    for name in place.split("."):
        value = value[name]
    return value


def described(train: TrainParams, places: Iterable[str]) -> str:
    """The values at some places, in words, without the sections that they are in."""
    return ", ".join(f"{place.split('.')[-1]} {value_at(train, place)}" for place in places)


def table(trials: Sequence[Trial], places: Collection[str], objective: str) -> str:
    """A Markdown table of all trials, the best first; the best and the untuned one in bold."""
    head = ["trial", "validation loss", "accuracy, %", "epochs", "", *(f"`{p}`" for p in places)]
    numbers = set(range(len(head))) - {0, 4}
    ordered = ranked(trials, objective)
    rows = [row(trial, places, trial is ordered[0]) for trial in ordered]
    return markdown.table(head, rows, right=numbers)


def row(trial: Trial, places: Collection[str], best: bool) -> list[str]:
    """Cells of a trial."""
    name = str(trial.number) + (" (untuned)" if trial.number == 0 else "")
    loss, accuracy, ended = "–", "–", f"{trial.ended}: {trial.reason}"
    if trial.has_figures:
        loss = f"{trial.figures['validation_loss']:.4f}"
        accuracy = f"{100 * trial.figures['validation_accuracy']:.2f}"
        ended = trial.ended
    values = [value_at(trial.train, place) for place in places]
    return [
        f"**{name}**" if best or trial.number == 0 else name,
        *(loss, accuracy, str(len(trial.epochs))),
        *map(markdown.cell, [ended, *values]),
    ]
