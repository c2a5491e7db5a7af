"""The epochs of a training, by the figures of each: in memory numbers, in `history.csv` texts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

KEPT_BY = "validation_loss"  # the lowest
Epoch = TypeVar("Epoch", bound=Mapping[str, Any])


def kept_epoch(epochs: Iterable[Epoch]) -> Epoch:
    """The epoch whose weights training keeps: of several with the same loss, the first."""

    def loss(figures: Epoch) -> float:
        value = float(figures[KEPT_BY])
        return math.inf if math.isnan(value) else value  # as Lightning's ModelCheckpoint has it

    return min(epochs, key=loss)
