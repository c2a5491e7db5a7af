"""Runs side by side: their figures, the parameters in which they differ, their pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reporting.pages import beside, data_address, page_template
from workspace import files

LESS_IS_BETTER = ("loss", "calibration_error")
NEUTRAL = ("support",)
SHOWN = (  # of metrics.json
    *("accuracy", "macro_f1", "macro_precision", "macro_recall"),
    *("loss", "calibration_error", "support"),
)


@dataclass(frozen=True)
class Run:
    """A run, by what a person calls it: its figures and parameters by name, pictures as PNG."""

    name: str
    about: str
    data: str  # the SHA-256 of its test data, or empty
    metrics: Mapping[str, Any]
    params: Mapping[str, Any]
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def write(runs: Sequence[Run], page: Path) -> None:
    """Write the page."""
    content = page_template("compare_page.html").render(
        runs=runs,
        figures=figures(runs),
        params=differing(runs),
        plots=pictures(runs),
        css=beside("page.css"),
    )
    files.write(page, content)


def figures(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for each figure that any run has, and one for the test data."""
    same = {run.data: "" if run.data == runs[0].data else "worse" for run in runs}
    cells = [{"text": run.data[:12], "verdict": same[run.data]} for run in runs]
    rows: list[dict[str, Any]] = [{"name": "test data", "cells": cells}]
    for name in SHOWN:
        values = [run.metrics.get(name) for run in runs]
        if any(isinstance(value, int | float) for value in values):
            judged = [(told(value), verdict(name, values[0], value)) for value in values]
            cells = [{"text": text, "verdict": word} for text, word in judged]
            rows.append({"name": name, "cells": cells})
    return rows


def told(value: Any) -> str:
    """A figure as a person reads it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    return "–" if value is None else str(value)


def verdict(name: str, first: Any, value: Any) -> str:
    """Whether a figure is better or worse than the first run's."""
    numbers = all(isinstance(each, int | float) for each in (first, value))
    if not numbers or first == value or name in NEUTRAL:
        return ""
    return "better" if (value < first) == (name in LESS_IS_BETTER) else "worse"


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Parameters that are not the same in all runs, with the value in each."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    rows = [(name, [run.params.get(name, "–") for run in runs]) for name in names]
    return [
        (name, [str(value) for value in values])
        for name, values in rows
        if any(value != values[0] for value in values)
    ]


def pictures(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Pictures that any run has, as data addresses."""
    names = dict.fromkeys(name for run in runs for name in run.pictures)
    return [(name, [address(run.pictures.get(name)) for run in runs]) for name in names]


def address(png: bytes | None) -> str:
    """A picture as a data address; an empty one where there is none."""
    return data_address(png, "png") if png else ""
