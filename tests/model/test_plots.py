"""The pictures of an evaluation: with few and many classes, whatever these are called."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from reporting import plots, tuning_picture

LONG = "the name of a class that goes on and on, with $math$, "


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures, laid out as they are written."""
    found: list[Figure] = []

    @contextmanager
    def figure(root: Path, name: str, width: float, height: float) -> Iterator[Figure]:
        drawing = plt.figure(figsize=(width, height), layout="constrained")
        yield drawing
        drawing.canvas.draw()
        found.append(drawing)
        plt.close(drawing)

    monkeypatch.setattr(plots, "figure", figure)
    return found


def collisions(drawing: Figure, texts: list[Text]) -> int:
    """How many of the texts lie on their neighbour."""
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    return sum(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize("count", [3, 10, 40])
def test_labels_of_classes_neither_collide_nor_leave_the_picture(
    count: int, drawn: list[Figure], tmp_path: Path
) -> None:
    names = [f"{LONG if k % 2 else ''}class {k}" for k in range(count)]
    row = {"precision": 0.9, "recall": 0.97, "f1": 0.93, "support": 12.0}
    plots.per_class(dict.fromkeys(names, row), tmp_path)
    plots.confusion(np.eye(count, dtype=np.int64) * 100, names, tmp_path)
    per_class, confusion = drawn
    assert per_class.axes[0].get_xlim() == (0, 100)
    for drawing in drawn:
        axes = drawing.axes[0]
        assert collisions(drawing, axes.get_yticklabels()) == 0
        assert collisions(drawing, axes.get_xticklabels()) == 0
        edge = drawing.bbox
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            box = text.get_window_extent()
            assert box.x0 >= edge.x0 and box.y0 >= edge.y0, text.get_text()
    assert len({text.get_text() for text in confusion.axes[0].get_yticklabels()}) == count


@pytest.mark.parametrize("epochs", [1, 2, 3, 40])
def test_the_kept_epoch_is_marked_and_ticks_are_whole_epochs(
    epochs: int, drawn: list[Figure], tmp_path: Path
) -> None:
    rows = [
        {
            "epoch": str(epoch),
            "train_loss": "0.5",
            "validation_loss": str(0.1 + abs(epoch - 2)),
            "validation_accuracy": "0.9",
        }
        for epoch in range(1, epochs + 1)
    ]
    plots.learning_curves(rows, tmp_path)
    for axes in drawn[0].axes:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) >= 1 for tick in ticks)
        _, labels = axes.get_legend_handles_labels()
        assert f"kept: epoch {min(epochs, 2)}" in labels


@pytest.mark.parametrize("count", [1, 2, 7])
def test_trials_and_their_epochs_have_whole_ticks(
    count: int, drawn: list[Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning_picture, "figure", plots.figure)
    epochs = [{"epoch": epoch, "validation_loss": 0.5 / epoch} for epoch in range(1, count + 1)]
    trials = [
        tuning_picture.Trial(number, False, epochs, epochs[-1], {"width": 8})
        for number in range(count)
    ]
    ranges = {"width": SimpleNamespace(choice=(8, 16), log_uniform=())}
    tuning_picture.draw(trials, trials[0], ranges, "validation_loss", tmp_path)
    for axes in drawn[0].axes[:2]:
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert ticks and all(tick == round(tick) for tick in ticks)
