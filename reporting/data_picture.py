"""The picture of the prepared data, plots/data.png: how many there are of each class, examples."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reporting import plots

ROWS = 20  # classes shown
COLUMNS = 10  # example pictures of each
CELL = 0.5  # inches
COLOURS = ("#4c72b0", "#dd8452", "#55a868")  # train, validation, test


class Split(Protocol):
    """One split: pictures uint8 (N,H,W,C), labels int64 (N,)."""

    @property
    def images(self) -> np.ndarray:
        """The pictures."""

    @property
    def labels(self) -> np.ndarray:
        """The place of each one's class in the list of classes."""


def plot(splits: Mapping[str, Split], classes: Sequence[str], path: Path) -> None:
    """Draw the class balance and examples from the first split, a row for each class."""
    counts = np.array(
        [np.bincount(part.labels, minlength=len(classes)) for part in splits.values()]
    )
    first = next(iter(splits.values()))
    shown = _shown_classes(counts.sum(axis=0))
    height, width = first.images.shape[1:3]
    rows, cell = len(shown) * CELL, CELL * min(3.0, max(1 / 3, width / height))
    names = [plots.short(classes[k], 22) for k in shown]
    start = 0.4 + 0.09 * max(len(name) for name in names)
    wide, high = start + 4.6 + COLUMNS * cell, rows + 1.4
    figure = Figure(figsize=(wide, high), dpi=120)
    balance = figure.add_axes((start / wide, 0.6 / high, 4.2 / wide, rows / high))
    examples = figure.add_axes(
        ((start + 4.4) / wide, 0.6 / high, COLUMNS * cell / wide, rows / high)
    )
    _plot_balance(balance, dict(zip(splits, counts[:, shown], strict=True)), names)
    _plot_examples(examples, first, shown)
    hidden = f", the {len(shown)} largest and smallest" if len(shown) < len(classes) else ""
    figure.text(
        start / wide,
        1 - 0.35 / high,
        f"{counts.sum():,} pictures of {len(classes)} classes{hidden}",
        fontsize=13,
        fontweight="bold",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class name in a script the font lacks
        figure.savefig(path, metadata={"Software": None})


def _shown_classes(counts: np.ndarray) -> np.ndarray:
    if len(counts) <= ROWS:
        return np.arange(len(counts))
    by_size = np.argsort(-counts, kind="stable")
    return np.concatenate([by_size[: ROWS // 2], by_size[-ROWS // 2 :]])


def _plot_balance(axes: Axes, counts: Mapping[str, np.ndarray], names: list[str]) -> None:
    left = np.zeros(len(names), dtype=np.int64)
    for (name, images), colour in zip(counts.items(), COLOURS, strict=True):
        label = f"{name} ({images.sum():,})"
        axes.barh(range(len(names)), images, left=left, height=0.75, color=colour, label=label)
        left += images
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("pictures")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _plot_examples(axes: Axes, split: Split, shown: np.ndarray) -> None:
    height, width, channels = split.images.shape[1:]
    step = max(1, max(height, width) // 128)  # a thumbnail needs no more pixels
    gap = 0.05
    for row, label in enumerate(shown):
        for column, i in enumerate(np.flatnonzero(split.labels == label)[:COLUMNS]):
            pixels = split.images[i, ::step, ::step]
            axes.imshow(
                pixels if channels == 3 else pixels[:, :, 0],
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                aspect="auto",
                extent=(column + gap, column + 1 - gap, row + 0.5 - gap, row - 0.5 + gap),
            )
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_title("examples from the training split", loc="left", fontsize=9)
    axes.axis("off")
