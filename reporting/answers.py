"""A model's answers on a test set: written, read and counted."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from workspace.errors import UserError, shown
from workspace.files import replacing
from workspace.settings import read_text

FIELDS = ("sha256", "file", "label", "predicted", "confidence")
PROBABILITY = "p_"  # before the name of a class, in the heading of its column
LARGEST = 1_000_000_000  # bytes: a million pictures of a hundred classes


@dataclass(frozen=True)
class Answers:
    """Of N pictures and K classes: labels and answers int64 (N,), their probabilities (N, K).

    A label or an answer is the place of its class among `classes`; a label that is none of them,
    as of another model's test set, is -1.
    """

    classes: list[str]
    sha256: list[str]
    files: list[str]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each is right."""
        return self.labels == self.predicted

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of each answer."""
        return self.probabilities[np.arange(len(self.predicted)), self.predicted]

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Counts of true class against predicted class, (K, K)."""
        size = len(self.classes)
        known = self.labels >= 0
        cells = self.labels[known] * size + self.predicted[known]
        return np.bincount(cells, minlength=size * size).reshape(size, size)


def write_answers(
    path: Path,
    pictures: Iterable[tuple[str, str, str]],
    classes: Sequence[str],
    probabilities: NDArray[np.float32],
) -> None:
    """Write a predictions.csv of N pictures: SHA-256, file and label of each, probabilities (N, K).

    The answer is the most probable of the K classes; a label may be none of them.
    """
    with replacing(path, newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([*FIELDS, *(f"{PROBABILITY}{name}" for name in classes)])
        for about, row in zip(pictures, probabilities, strict=True):
            written = [f"{probability:.6f}" for probability in row]
            answer = int(row.argmax())
            rows.writerow([*about, classes[answer], written[answer], *written])


def read_answers(path: Path) -> Answers:
    """Read a predictions.csv. Raises UserError for a file that `evaluate` has not written."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run `make pipeline`")
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, LARGEST)), strict=True))
        head, rows = rows[0], rows[1:]
        classes = [name.removeprefix(PROBABILITY) for name in head[len(FIELDS) :]]
        place = {name: k for k, name in enumerate(classes)}
        table = [row[len(FIELDS) :] for row in rows]
        answers = Answers(
            classes,
            [row[0] for row in rows],
            [row[1] for row in rows],
            np.array([place.get(row[2], -1) for row in rows], np.int64),
            np.array([place[row[3]] for row in rows], np.int64),
            np.array(table, np.float32).reshape(len(rows), len(classes)),
        )
        if tuple(head[: len(FIELDS)]) != FIELDS or len(place) < len(classes) or not rows:
            raise ValueError(",".join(head[: len(FIELDS)]))
    except (csv.Error, IndexError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is no table of answers as `evaluate` writes it ({shown(str(error))}): remove "
            "it and run `make pipeline`"
        ) from None
    return answers


def wilson(right: int, total: int, confidence: float) -> tuple[float, float]:
    """Return the score interval of a share, `right` of `total`; all of 0 to 1 where there is none.

    Source: Wilson, Probable Inference, JASA 22 (1927), eq. 7. Unlike the normal interval it is not
    empty where all or none are right.
    """
    if not total:
        return 0.0, 1.0
    z, share = NormalDist().inv_cdf((1 + confidence) / 2), right / total
    middle = share + z * z / (2 * total)
    half = z * ((share * (1 - share) + z * z / (4 * total)) / total) ** 0.5
    scale = 1 + z * z / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bins_of(confidence: NDArray[np.floating], bins: int) -> NDArray[np.int64]:
    """Which of so many equally wide bins each confidence (N,) lies in, (N,) from 0."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


@dataclass(frozen=True)
class Bin:
    """Answers whose confidence lies between two bounds."""

    low: float
    high: float
    count: int
    right: int
    confidence: float  # their mean


def reliability(answers: Answers, bins: int) -> list[Bin]:
    """Put the answers into bins of confidence of one width; empty ones are left out."""
    which = bins_of(answers.confidence, bins)
    found = []
    for k in np.unique(which).tolist():
        here = which == k
        count, right = int(here.sum()), int(answers.right[here].sum())
        mean = float(answers.confidence[here].mean(dtype=np.float64))
        found.append(Bin(k / bins, (k + 1) / bins, count, right, mean))
    return found


@dataclass(frozen=True)
class Change:
    """What is answered otherwise than another model does, by places in both tables."""

    both: int  # pictures that both have answered
    newly_right: Sequence[tuple[int, int]]  # here, there
    newly_wrong: Sequence[tuple[int, int]]
    other_right: int
    own_right: int


def changes(own: Answers, other: Answers) -> Change:
    """Compare two models on the pictures that both have answered, by the pictures' content."""
    there = {digest: j for j, digest in enumerate(other.sha256)}
    pairs = [(i, there[digest]) for i, digest in enumerate(own.sha256) if digest in there]

    def is_right(j: int, label: str) -> bool:
        return other.classes[other.predicted[j]] == label

    right = [(i, j, is_right(j, own.classes[own.labels[i]])) for i, j in pairs]
    return Change(
        len(pairs),
        [(i, j) for i, j, was in right if own.right[i] and not was],
        [(i, j) for i, j, was in right if not own.right[i] and was],
        sum(was for *_, was in right),
        sum(bool(own.right[i]) for i, _ in pairs),
    )
