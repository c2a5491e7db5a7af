"""Plots of the evaluation, as PNG files in `plots/`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray

matplotlib.use("Agg")

FOLDER = Path("plots")
BLUE, ORANGE, GREY = "#2f6db3", "#d9762b", "#8a8f98"


@contextmanager
def figure(root: Path, name: str, width: float, height: float) -> Iterator[Figure]:
    """A figure of that size in inches, written as plots/<name>.png at the end."""
    drawing = plt.figure(figsize=(width, height), layout="constrained")
    try:
        yield drawing
        (root / FOLDER).mkdir(exist_ok=True)
        drawing.savefig(root / FOLDER / f"{name}.png", dpi=120, metadata={"Software": None})
    finally:
        plt.close(drawing)


def learning_curves(history: Sequence[Mapping[str, str]], root: Path) -> None:
    """Loss of both splits and validation accuracy over the epochs."""
    epochs = [int(row["epoch"]) for row in history]
    with figure(root, "learning_curves", 9, 3.4) as drawing:
        loss, accuracy = drawing.subplots(1, 2)
        for name, colour in (("train_loss", BLUE), ("validation_loss", ORANGE)):
            values = [float(row[name]) for row in history]
            loss.plot(epochs, values, color=colour, label=name.split("_")[0])
        loss.set(title="Loss", xlabel="epoch", yscale="log")
        loss.legend(frameon=False)
        values = [100 * float(row["validation_accuracy"]) for row in history]
        accuracy.plot(epochs, values, color=ORANGE)
        accuracy.set(title="Validation accuracy (%)", xlabel="epoch")
        for axes in (loss, accuracy):
            axes.spines[["top", "right"]].set_visible(False)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], root: Path) -> None:
    """Counts of true class against predicted class, coloured by the share of the true class."""
    size = max(4.5, 0.5 * len(classes))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    with figure(root, "confusion", size + 0.5, size) as drawing:
        axes = drawing.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted class", ylabel="true class", title="Confusion matrix (pictures)")
        axes.set_xticks(
            range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 2 else 0
        )
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(matrix):
            if count and len(classes) <= 30:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(
                    column, row, str(count), ha="center", va="center", color=colour, fontsize=8
                )


def per_class(rows: Mapping[str, Mapping[str, float]], root: Path) -> None:
    """Precision, recall and F1 of every class."""
    positions = np.arange(len(rows))
    lowest = min(row[name] for row in rows.values() for name in ("precision", "recall", "f1"))
    with figure(root, "per_class", max(6, 0.6 * len(rows) + 1), 3.4) as drawing:
        axes = drawing.subplots()
        for offset, (name, colour) in enumerate(
            (("precision", BLUE), ("recall", ORANGE), ("f1", GREY))
        ):
            values = [100 * row[name] for row in rows.values()]
            axes.bar(positions + 0.27 * (offset - 1), values, 0.25, color=colour, label=name)
        axes.set_xticks(positions, list(rows))
        axes.set(ylabel="%", title="Figures per class", ylim=(max(0, 100 * lowest - 5), 100.5))
        axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.1))
        axes.spines[["top", "right"]].set_visible(False)


def reliability(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], bins: int, root: Path
) -> None:
    """Accuracy against confidence, and how many answers have that confidence."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    accuracy = np.bincount(which, right, bins)[filled] / counts[filled]
    mean_confidence = np.bincount(which, confidence, bins)[filled] / counts[filled]
    with figure(root, "reliability", 4.5, 4.5) as drawing:
        above, below = drawing.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
        above.plot(mean_confidence, accuracy, "o-", color=BLUE, label="model")
        above.set(title="Calibration", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
        above.legend(frameon=False)
        below.bar((np.arange(bins) + 0.5) / bins, counts, 0.9 / bins, color=BLUE)
        below.set(xlabel="confidence", ylabel="pictures", yscale="log")
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)


def predictions(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    root: Path,
) -> None:
    """Test pictures with their answers, the mistakes and the least sure first."""
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    order = np.lexsort((confidence, predicted == labels))[:24]
    with figure(root, "predictions", 9, 5.2) as drawing:
        drawing.suptitle("Mistakes, then the least certain answers")
        for axes in drawing.subplots(3, 8).flat:
            axes.set_axis_off()
        for axes, index in zip(drawing.axes, order, strict=False):
            image = images[index]
            axes.imshow(image.squeeze(), cmap="gray" if image.shape[-1] == 1 else None)
            true, answer = labels[index], predicted[index]
            title = f"{classes[answer]}  {100 * confidence[index]:.0f} %"
            if true != answer:
                title += f"\ntrue: {classes[true]}"
            axes.set_title(title, fontsize=8, color="black" if true == answer else "#b3261e")
