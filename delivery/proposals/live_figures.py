"""What was measured of a version's live requests, as pictures that Mermaid draws of a text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from workspace.markdown import chart, code

COLOURS = "#bcd3f2, #b42318"
ROOM = 20_000  # characters of a pull request's text, which ends at 65,536


@dataclass(frozen=True)
class Curve:
    """A figure over time, and above which value it takes a version away, where that is known."""

    name: str
    limit: float | None
    points: Sequence[tuple[datetime, float]]

    @property
    def values(self) -> list[float]:
        """What was measured, the first first."""
        return [value for _, value in self.points]


def draw(version: int, curves: Iterable[Curve]) -> str:
    """Draw each figure of a version with its limit, as far as there is room."""
    text = ""
    for each in curves:
        drawn = f"\n{picture(each)}\n{caption(version, each)}\n"
        text += drawn if len(text) + len(drawn) <= ROOM else ""
    return text


def picture(curve: Curve) -> str:
    """Draw the values as bars, as a line of one is invisible, and the limit as a line."""
    limits = [] if curve.limit is None else [curve.limit] * len(curve.values)
    low, high = min(0, *curve.values), max(0, *curve.values, *limits)
    moments = ", ".join(f'"{moment:%H:%M:%S}"' for moment, _ in curve.points)
    marks = [("bar", curve.values), ("line", limits)]
    return chart(
        f"UTC [{moments}]",
        f'"{curve.name}" {low:.4f} --> {1.1 * high or 1:.4f}',
        [mark for mark in marks if mark[1]],
        COLOURS,
    )


def caption(version: int, curve: Curve) -> str:
    """Say what is drawn, and its figures to whom nothing is drawn."""
    values = ", ".join(f"{each:.4g}" for each in curve.values)
    limit = "" if curve.limit is None else f"; red: above {curve.limit:g} it is taken away"
    return f"{code(curve.name)} of model {version} as its analysis measured it: {values}{limit}."
