"""Small charts as SVG that stands in a page and follows its colours."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 28, 32  # margins
TICKS = 5


def lines(
    title: str, series: Mapping[str, Sequence[float]], kept: int, logarithmic: bool = False
) -> Markup:
    """Draw figures of the epochs, from 1; a dashed line marks the one that is kept."""
    values = [value for line in series.values() for value in line if math.isfinite(value)]
    epochs = max(len(line) for line in series.values())
    scale = math.log10 if logarithmic and min(values) > 0 else float
    low, high = scale(min(values)), scale(max(values))
    high += high == low

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((epoch - 1) / max(1, epochs - 1))

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(value) - low) / (high - low)

    parts = [_text(LEFT, 16, title, "start")]
    back = (lambda v: 10**v) if scale is math.log10 else float
    for k in range(TICKS):
        tick = back(low + (high - low) * k / (TICKS - 1))
        parts.append(_rule(LEFT, y(tick), WIDTH - RIGHT, y(tick)))
        parts.append(_text(LEFT - 6, y(tick) + 4, f"{tick:.3g}", "end"))
    step = max(1, math.ceil(epochs / 8))
    for epoch in range(1, epochs + 1, step):
        parts.append(_text(x(epoch), HEIGHT - 14, str(epoch), "middle"))
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 1, "epoch", "middle"))
    parts.append(_rule(x(kept), TOP, x(kept), HEIGHT - BOTTOM, "stroke-dasharray='4 3'", "--ink"))
    for k, (name, line) in enumerate(series.items()):
        colour = "--blue" if name == "training" else "--orange"
        points = " ".join(
            f"{x(n):.1f},{y(value):.1f}" for n, value in enumerate(line, 1) if math.isfinite(value)
        )
        if len(line) == 1:
            parts.append(_dot(x(1), y(line[0]), 3, colour))
        parts.append(
            f"<polyline fill='none' stroke='var({colour})' stroke-width='2' points='{points}'/>"
        )
        parts.append(_text(WIDTH - RIGHT - 90 * (len(series) - 1 - k), 16, name, "end", colour))
    return _svg(parts, title)


def diagonal(title: str, dots: Sequence[tuple[float, float, float, float, float]]) -> Markup:
    """Draw shares against shares: x, y, the ends of its interval, and the size from 0 to 1."""
    side = HEIGHT - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - side * value

    parts = [_text(LEFT, 16, title, "start")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_rule(LEFT, y(share), WIDTH - RIGHT, y(share)))
        parts.append(_text(LEFT - 6, y(share) + 4, f"{share:.0%}", "end"))
        parts.append(
            _text(x(share) - (6 if share == 1 else 0), HEIGHT - 14, f"{share:.0%}", "middle")
        )
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 1, "confidence", "middle"))
    parts.append(_rule(x(0), y(0), x(1), y(1), "stroke-dasharray='4 3'", "--soft"))
    for across, up, low, high, size in dots:
        parts.append(_rule(x(across), y(low), x(across), y(high), "", "--blue"))
        parts.append(_dot(x(across), y(up), 2.5 + 5 * math.sqrt(size), "--blue"))
    return _svg(parts, title)


def _svg(parts: Sequence[str], title: str) -> Markup:
    head = f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{escape(title)}'>"
    return Markup(head + "".join(parts) + "</svg>")


def _text(x: float, y: float, text: str, anchor: str, colour: str = "--soft") -> str:
    style = f"fill:var({colour})"
    place = f"x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'"
    return f"<text {place} style='{style}'>{escape(text)}</text>"


def _rule(
    x1: float, y1: float, x2: float, y2: float, more: str = "", colour: str = "--line"
) -> str:
    ends = f"x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}'"
    return f"<line {ends} stroke='var({colour})' {more}/>"


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='var({colour})'/>"
