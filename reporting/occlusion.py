"""What an answer needs: parts of a picture covered one after the other, and what that changes.

Source: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, §4.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PLACES = 9  # of the square, along each side

Answer = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # pictures (N,H,W,C) → (N, K)


@dataclass(frozen=True)
class Explanation:
    """How much the probability of an answer falls with the square at each place, (rows, columns).

    Negative where it rises. `side` is the square's height and width in pixels.
    """

    fall: NDArray[np.float32]
    side: tuple[int, int]


def explain(
    image: NDArray[np.uint8], answered: int, answer: Answer, cover: NDArray[np.uint8]
) -> Explanation:
    """Cover squares of a picture (H,W,C) by a colour (C,), and ask for the answered class again.

    Squares are a quarter of each side, and overlap.
    """
    height, width, _ = image.shape
    side = max(1, height // 4), max(1, width // 4)
    tops, lefts = (
        np.unique(np.linspace(0, whole - part, PLACES).round().astype(int))
        for whole, part in zip((height, width), side, strict=True)
    )
    covered = np.repeat(image[None], len(tops) * len(lefts), axis=0)
    for k, (top, left) in enumerate((top, left) for top in tops for left in lefts):
        covered[k, top : top + side[0], left : left + side[1]] = cover
    before, after = answer(image[None])[0, answered], answer(covered)[:, answered]
    return Explanation((before - after).reshape(len(tops), len(lefts)), side)
