"""Markdown of reports, in which no value can break a table, a span or a block of code."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from workspace.errors import printable


def cell(value: Any) -> str:
    """Return a value for a table's cell: on one line, with its special characters escaped."""
    text = printable(" ".join(str(value).split()))
    for special in "\\`*_{}[]<>|~#&":
        text = text.replace(special, f"\\{special}")
    return text


def code(value: Any) -> str:
    """Return a value as a span of code: on one line, between more backticks than it has."""
    text = printable(" ".join(str(value).split()))
    fence = _fence(text, 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


def block(text: str, language: str = "") -> str:
    """Return lines as a block of code, between more backticks than any line has."""
    fence = _fence(text, 3)
    lines = [printable(line) for line in text.expandtabs().split("\n")]
    return "\n".join([f"{fence}{language}", *lines, fence])


def cut(text: str, most: int) -> str:
    """Return the first lines of a text, and how many more it has."""
    lines = text.splitlines()
    more = [f"… and {len(lines) - most} lines more"] if len(lines) > most else []
    return "\n".join([*lines[:most], *more])


def chart(x: str, y: str, marks: Iterable[tuple[str, Sequence[float]]], colours: str) -> str:
    """Return a picture that Mermaid draws: two axes, and marks such as a line, in their colours."""
    drawn = [
        f"    {kind} [{', '.join(f'{each:.4f}' for each in values)}]" for kind, values in marks
    ]
    lines = [
        '%%{init: {"xyChart": {"width": 800, "height": 300}, "themeVariables": {"xyChart": '
        f'{{"plotColorPalette": "{colours}"}}}}}}}}%%',
        "xychart-beta",
        *(f"    x-axis {x}", f"    y-axis {y}"),
        *drawn,
    ]
    return block("\n".join(lines), "mermaid")


def lines(values: Iterable[Any]) -> str:
    """Return values for a table's cell, each on a line of its own."""
    return "<br>".join(cell(value) for value in values)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> str:
    """Return a table; cells are Markdown already; `right` are the columns of numbers."""
    right = set(right)
    rule = ["---:" if index in right else "---" for index in range(len(head))]
    lines = [head, rule, *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def _fence(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])
