"""The picture of a review, plots/review.png: the first pictures that wait for a decision."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reporting import plots

SHOWN = 48  # pictures
PLOT = "review"


class Question(Protocol):
    """What is asked of a picture, all as text."""

    @property
    def image(self) -> str:
        """Where it is."""

    @property
    def label(self) -> str:
        """The class that it came with."""

    @property
    def suggestion(self) -> str:
        """The class that is suggested."""

    @property
    def confidence(self) -> str:
        """How sure that is, from 0 to 1, or empty."""


def draw(questions: Sequence[Question], images: Sequence[NDArray[np.uint8]], root: Path) -> None:
    """Draw the first pictures (H,W,C) that wait for a decision, each with what is asked of it."""
    chosen = questions[:SHOWN]
    columns = min(8, len(chosen))
    rows = -(-len(chosen) // columns)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script the font lacks
        with plots.figure(root, PLOT, max(4.8, 1.4 * columns), 1.9 * rows + 0.6) as drawing:
            more = f", the first {len(chosen)}" if len(chosen) < len(questions) else ""
            drawing.suptitle(f"Label → suggestion of {len(questions)} pictures{more}", fontsize=11)
            panels = drawing.subplots(rows, columns, squeeze=False).ravel()
            for axes in panels:
                axes.set_axis_off()
            for axes, image, question in zip(panels, images, chosen, strict=False):
                _thumbnail(axes, image, question)


def _thumbnail(axes: Axes, image: np.ndarray, question: Question) -> None:
    axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
    title = f"{plots.short(question.label)}\n→ {plots.short(question.suggestion, 13)}"
    if question.confidence:
        title += f"  {float(question.confidence):.0%}"
    axes.set_title(title, fontsize=7, parse_math=False)
    below: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
    name = plots.short(question.image, 24)
    axes.text(0.5, -0.04, name, fontsize=6, color=plots.GREY, parse_math=False, **below)
