"""Two models on the same pictures: how their figures differ, and whether chance explains a loss.

Pure statistics, without files. A picture enters by three names only: its class, what the candidate
answers, what the served model answers. So all is counted in cells, (class, answer, answer).

Sources: McNemar, Psychometrika 12 (1947), and its mid-p value: Fagerland, Lydersen & Laake, BMC
Medical Research Methodology 13:91 (2013), which holds its level and notices more than the exact
one on small sets. For macro F1, which is no mean over pictures, the same idea by drawing:
approximate randomization, Yeh, COLING (2000). Intervals: percentile bootstrap over pictures,
Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.9  # where nobody asks for another
DRAWS = 4000  # of each bootstrap and each randomization: a chance of 5 % is known to 0.35 %
AT_ONCE = 2**22  # counts in memory


@dataclass(frozen=True)
class Difference:
    """One figure of both models on the same pictures.

    Attributes:
        candidate, served: the figure of each, from 0 to 1.
        low, high: paired interval of candidate − served.
        chance: of such a loss, or a larger one, if both models were equally good; from 0 to 1.
    """

    candidate: float
    served: float
    low: float
    high: float
    chance: float

    @property
    def change(self) -> float:
        """How much higher the candidate's figure is."""
        return self.candidate - self.served

    def is_loss(self, tolerance: float, confidence: float) -> bool:
        """Tell whether more is lost than the tolerance, and chance does not explain a loss."""
        rounding = 1e-9
        return self.change < -tolerance - rounding and self.chance < 1 - confidence


@dataclass(frozen=True)
class Paired:
    """Two models on the same pictures; `gained` only the candidate gets right, `lost` the other."""

    pictures: int
    gained: int
    lost: int
    accuracy: Difference
    macro_f1: Difference


@dataclass(frozen=True)
class Cells:
    """Pictures counted by (class, candidate's answer, served model's answer).

    Each int64 (M,): `counts` of pictures and three indices of classes below `classes`; an answer
    that is none of them is `classes`.
    """

    counts: NDArray[np.int64]
    label: NDArray[np.int64]
    candidate: NDArray[np.int64]
    served: NDArray[np.int64]
    classes: int


def compare(
    labels: Sequence[Any],
    candidate: Sequence[Any],
    served: Sequence[Any],
    confidence: float = CONFIDENCE,
) -> Paired:
    """Compare two models' answers (N,) to the same N ≥ 1 pictures, whose classes are `labels`.

    Classes are names or numbers of any one type; macro F1 is the mean over those of the labels. The
    same answers give the same result: what is drawn does not depend on anything else.
    """
    cells = count(np.asarray(labels), np.asarray(candidate), np.asarray(served))
    right = cells.candidate == cells.label, cells.served == cells.label
    gained = int(cells.counts[right[0] & ~right[1]].sum())
    lost = int(cells.counts[right[1] & ~right[0]].sum())
    chances = chance_of_loss(gained, lost), chance_of_f1_loss(cells)
    before = figures(cells.counts[np.newaxis], cells.label, cells.served, cells.classes)
    after = figures(cells.counts[np.newaxis], cells.label, cells.candidate, cells.classes)
    ends = intervals(cells, confidence)
    accuracy, macro_f1 = (
        Difference(float(after[i, 0]), float(before[i, 0]), *ends[i], chances[i]) for i in (0, 1)
    )
    return Paired(int(cells.counts.sum()), gained, lost, accuracy, macro_f1)


def smallest_loss(confidence: float) -> int:
    """Return how many pictures must be lost, and none gained, before chance does not explain it."""
    return next(lost for lost in range(1, 64) if chance_of_loss(0, lost) < 1 - confidence)


def chance_of_loss(gained: int, lost: int) -> float:
    """Return McNemar's one-sided mid-p value.

    Of equally good models each is the right one of a pair that disagree with probability 1/2.
    """
    pairs = gained + lost
    fewer, ways = 0, 1  # whole numbers: exact for any number of pairs
    for right in range(gained):
        fewer += ways
        ways = ways * (pairs - right) // (right + 1)
    return (2 * fewer + ways) / 2 ** (pairs + 1)


def chance_of_f1_loss(cells: Cells) -> float:
    """Return the mid-p value of macro F1's loss when answers are exchanged at random, as pairs."""
    both = [cells.candidate, cells.served]
    label, first, second = (np.concatenate(each) for each in ([cells.label] * 2, both, both[::-1]))

    def loss(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        after = figures(counts, label, first, cells.classes)[1]
        return after - figures(counts, label, second, cells.classes)[1]

    rng = np.random.default_rng(0)
    kept = np.concatenate([cells.counts, np.zeros_like(cells.counts)])[np.newaxis]
    seen, smaller, equal = float(loss(kept)[0]), 0, 0
    for size in portions(len(label)):
        exchanged = rng.binomial(cells.counts, 0.5, size=(size, len(cells.counts)))
        drawn = loss(np.concatenate([cells.counts - exchanged, exchanged], axis=1))
        near = np.isclose(drawn, seen, rtol=0, atol=1e-9)
        smaller, equal = smaller + int((drawn < seen)[~near].sum()), equal + int(near.sum())
    return (smaller + equal / 2) / DRAWS


def intervals(cells: Cells, confidence: float) -> list[tuple[float, float]]:
    """Return paired percentile intervals of the differences of accuracy and macro F1."""
    rng, total = np.random.default_rng(0), int(cells.counts.sum())
    drawn = []
    for size in portions(len(cells.counts)):
        counts = rng.multinomial(total, cells.counts / total, size=size)
        after = figures(counts, cells.label, cells.candidate, cells.classes)
        drawn.append(after - figures(counts, cells.label, cells.served, cells.classes))
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    ends = np.quantile(np.concatenate(drawn, axis=1), tails, axis=1)
    return [(float(low), float(high)) for low, high in ends.T]


def figures(
    counts: NDArray[np.int64], label: NDArray[np.int64], answer: NDArray[np.int64], classes: int
) -> NDArray[np.float64]:
    """Return accuracy and macro F1 (2, B) of B sets of pictures, counted in M cells (B, M)."""
    names = np.arange(classes)
    is_label, is_answer = label[:, np.newaxis] == names, answer[:, np.newaxis] == names
    numbers = counts.astype(np.float64)
    right = numbers @ (is_label & is_answer).astype(np.float64)
    marked = numbers @ (is_label.astype(np.float64) + is_answer)
    f1 = 2 * right / np.maximum(marked, 1)
    return np.stack([right.sum(1) / numbers.sum(1), f1.mean(1)])


def count(labels: NDArray[Any], candidate: NDArray[Any], served: NDArray[Any]) -> Cells:
    """Count pictures by class and answers."""
    known = np.unique(labels)

    def index(names: NDArray[Any]) -> NDArray[np.int64]:
        place = np.minimum(np.searchsorted(known, names), len(known) - 1)
        return np.where(known[place] == names, place, len(known))

    rows = np.stack([index(labels), index(candidate), index(served)])
    cells, counts = np.unique(rows, axis=1, return_counts=True)
    return Cells(counts, cells[0], cells[1], cells[2], len(known))


def portions(cells: int) -> Iterator[int]:
    """Give sizes, DRAWS in all, of which each fits into memory."""
    most = max(1, AT_ONCE // cells)
    for start in range(0, DRAWS, most):
        yield min(most, DRAWS - start)
