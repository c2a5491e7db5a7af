"""The picture of a search, plots/tuning.png: its trials, how they learned, what they were given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from reporting.plots import BLUE, GREY, ORANGE, figure


@dataclass(frozen=True)
class Trial:
    """What is drawn of a trial: its figures at each epoch and at the one kept, its parameters."""

    number: int  # 0 is the untuned one
    stopped: bool
    epochs: Sequence[Mapping[str, float]]
    figures: Mapping[str, float]
    values: Mapping[str, Any]  # of what is searched, by its place


class Range(Protocol):
    """What a parameter may be: one of a list, or between two numbers by their logarithm or not."""

    @property
    def choice(self) -> tuple[Any, ...]:
        """The list, or empty."""

    @property
    def log_uniform(self) -> tuple[Any, ...]:
        """Both ends, or empty."""


def draw(
    trials: Sequence[Trial], best: Trial, ranges: Mapping[str, Range], objective: str, root: Path
) -> None:
    """Every trial in its turn, its learning curve, and its parameters against what came of it."""
    columns = min(len(ranges), 5)
    rows = -(-len(ranges) // columns)
    with figure(root, "tuning", 12, 3.8 + 2.5 * rows) as drawing:
        parts: Any = drawing.subfigures(2, 1, height_ratios=(3.8, 2.5 * rows))
        above, below = parts
        turns, curves = above.subplots(1, 2, sharey=True)
        in_turn(turns, trials, best, objective)
        learning(curves, trials, best, objective)
        panels = below.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (place, limits) in zip(panels.flat, ranges.items(), strict=False):
            against(axes, trials, best, place, limits, objective)
        for axes in panels.flat[len(ranges) :]:
            axes.set_axis_off()
        for axes in panels[:, 0]:
            axes.set_ylabel(objective.replace("_", " "))
        for axes in drawing.axes:
            axes.spines[["top", "right"]].set_visible(False)
            if objective == "validation_loss":
                axes.set_yscale("log")
        above.legend(*turns.get_legend_handles_labels(), loc="outside upper center", ncols=5)


def in_turn(axes: Axes, trials: Sequence[Trial], best: Trial, objective: str) -> None:
    """What came of every trial, and the best so far."""
    for look, some in looks(trials, best):
        values = [trial.figures[objective] for trial in some]
        axes.scatter([trial.number for trial in some], values, **look)
    pick = np.minimum if objective == "validation_loss" else np.maximum
    so_far = pick.accumulate([trial.figures[objective] for trial in trials])
    axes.step(
        [trial.number for trial in trials], so_far, where="post", color=ORANGE, label="best so far"
    )
    axes.set(xlabel="trial", ylabel=objective.replace("_", " "), title="Trials")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def learning(axes: Axes, trials: Sequence[Trial], best: Trial, objective: str) -> None:
    """The learning curve of every trial, and where it was stopped."""
    for look, some in looks(trials, best):
        for trial in some:
            values = [figures[objective] for figures in trial.epochs]
            epochs = [figures["epoch"] for figures in trial.epochs]
            weight = 2 if trial in (best, trials[0]) else 0.8
            axes.plot(epochs, values, color=look["color"], linewidth=weight, zorder=look["zorder"])
            if trial.stopped:
                axes.plot(epochs[-1], values[-1], "x", color=look["color"], markersize=5)
    axes.set(xlabel="epoch", title="Learning curves (×: stopped)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def against(
    axes: Axes, trials: Sequence[Trial], best: Trial, place: str, limits: Range, objective: str
) -> None:
    """What came of every trial over one of its parameters."""
    chosen = list(limits.choice)
    chosen += [v for v in (trial.values[place] for trial in trials) if v not in chosen]
    for look, some in looks(trials, best):
        values: list[Any] = [trial.values[place] for trial in some]
        if limits.choice:
            values = [chosen.index(value) for value in values]
        axes.scatter(values, [trial.figures[objective] for trial in some], **look)
    if limits.choice:
        axes.set_xticks(range(len(chosen)), map(str, chosen))
        axes.set_xlim(-0.5, len(chosen) - 0.5)
    elif limits.log_uniform:
        axes.set_xscale("log")
        low, high = limits.log_uniform
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high < 100 * low else (1,)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())  # the labels would lie on each other
    axes.set_xlabel(place)


def looks(trials: Sequence[Trial], best: Trial) -> list[tuple[dict[str, Any], list[Trial]]]:
    """How each kind of trial is drawn, and the trials of that kind."""
    untuned = [trial for trial in trials if trial.number == 0]
    rest = [trial for trial in trials if trial not in (*untuned, best)]
    kinds = [
        ("stopped", GREY, "o", 18, [trial for trial in rest if trial.stopped]),
        ("finished", BLUE, "o", 26, [trial for trial in rest if not trial.stopped]),
        ("untuned", "black", "D", 40, untuned),
        ("best", ORANGE, "*", 150, [best]),
    ]
    return [
        ({"label": name, "color": colour, "marker": sign, "s": size, "zorder": 2 + order}, some)
        for order, (name, colour, sign, size, some) in enumerate(kinds)
        if some
    ]
