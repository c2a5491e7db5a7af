"""Plots of the evaluation, as PNG files in `plots/`."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from workspace.history import kept_epoch

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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a name in a script the font lacks
            drawing.savefig(root / FOLDER / f"{name}.png", dpi=120, metadata={"Software": None})
    finally:
        plt.close(drawing)


def short(text: str, signs: int = 18) -> str:
    """A name with its middle left out if it is long: beginnings and ends tell names apart."""
    half = (signs - 1) // 2
    return text if len(text) <= signs else f"{text[: signs - 1 - half]}…{text[-half:]}"


def learning_curves(history: Sequence[Mapping[str, str]], root: Path) -> None:
    """Loss of both splits and validation accuracy over the epochs; the epoch kept is marked."""
    epochs = [int(row["epoch"]) for row in history]
    kept = kept_epoch(history)
    at = int(kept["epoch"])
    with figure(root, "learning_curves", 9, 3.4) as drawing:
        loss, accuracy = drawing.subplots(1, 2)
        for name, colour in (("train_loss", BLUE), ("validation_loss", ORANGE)):
            values = [float(row[name]) for row in history]
            mark = "o" if len(epochs) == 1 else None
            loss.plot(epochs, values, color=colour, marker=mark, label=name.split("_")[0])
        loss.set(title="Loss", yscale="log")
        values = [100 * float(row["validation_accuracy"]) for row in history]
        accuracy.plot(epochs, values, color=ORANGE)
        accuracy.plot(at, 100 * float(kept["validation_accuracy"]), "o", color=ORANGE)
        accuracy.set(title="Validation accuracy (%)")
        for axes in (loss, accuracy):
            axes.set_xlabel("epoch")
            axes.set_xlim(1 - 0.02 * len(epochs), epochs[-1] + 0.02 * len(epochs))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            label = f"kept: epoch {at}"
            axes.axvline(at, color=GREY, linestyle="--", linewidth=1, label=label)
            axes.legend(frameon=False)
            axes.spines[["top", "right"]].set_visible(False)


def confusion(matrix: NDArray[np.int64], classes: Sequence[str], root: Path) -> None:
    """Counts of true class against predicted class, coloured by the share of the true class."""
    cell = 0.5 if len(classes) <= 20 else 0.32
    size = max(4.5, cell * len(classes))
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [short(name) for name in classes]
    with figure(root, "confusion", size + 1.5, size + 1.2) as drawing:
        axes = drawing.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted class", ylabel="true class", title="Confusion matrix (pictures)")
        turn = 90 if max(map(len, names)) > 2 else 0
        axes.set_xticks(range(len(classes)), names, rotation=turn, parse_math=False)
        axes.set_yticks(range(len(classes)), names, parse_math=False)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                size_of_text = 8 if cell == 0.5 else 6
                text = axes.text(column, row, str(count), ha="center", va="center", color=colour)
                text.set_fontsize(size_of_text)


def per_class(rows: Mapping[str, Mapping[str, float]], root: Path) -> None:
    """Precision, recall and F1 of every class, from 0 to 100 %."""
    positions = np.arange(len(rows))
    with figure(root, "per_class", 8, max(2.6, 0.36 * len(rows) + 1.4)) as drawing:
        axes = drawing.subplots()
        for offset, (name, colour) in enumerate(
            (("precision", BLUE), ("recall", ORANGE), ("f1", GREY))
        ):
            values = [100 * row[name] for row in rows.values()]
            axes.barh(positions + 0.27 * (offset - 1), values, 0.25, color=colour, label=name)
        names = [f"{short(name, 28)} ({row['support']:g})" for name, row in rows.items()]
        axes.set_yticks(positions, names, parse_math=False)
        axes.set(xlabel="%", xlim=(0, 100), ylim=(len(rows) - 0.5, -0.5))
        axes.set_title("Figures per class (test pictures)", loc="left")
        axes.tick_params(left=False)
        drawing.legend(frameon=False, ncols=3, loc="outside lower center")
        axes.spines[["top", "right"]].set_visible(False)


def reliability(
    confidence: NDArray[np.float32],
    right: NDArray[np.bool_],
    which: NDArray[np.int64],
    bins: int,
    root: Path,
) -> None:
    """Accuracy against confidence, and how many answers have that confidence.

    Of N answers, of which each is in one of the bins, `which` from 0.
    """
    counts = np.bincount(which, minlength=bins)
    filled = counts > 0
    accuracy = np.bincount(which, right, bins)[filled] / counts[filled]
    mean_confidence = np.bincount(which, confidence, bins)[filled] / counts[filled]
    with figure(root, "reliability", 4.5, 4.5) as drawing:
        above, below = drawing.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        above.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="perfectly calibrated")
        above.plot(mean_confidence, accuracy, "o-", color=BLUE, label="model")
        above.set(title="Calibration", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1.02))
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
            title = f"{short(classes[answer], 13)} {100 * confidence[index]:.0f} %"
            if true != answer:
                title += f"\ntrue: {short(classes[true], 13)}"
            colour = "black" if true == answer else "#b3261e"
            axes.set_title(title, fontsize=7, color=colour, parse_math=False)
