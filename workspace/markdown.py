"""Markdown of reports, in which no value can break a table."""

from collections.abc import Iterable, Sequence
from typing import Any


def cell(value: Any) -> str:
    """Return a value for a table's cell: on one line, with its special characters escaped."""
    text = " ".join(str(value).split())
    for special in "\\`*_{}[]<>|":
        text = text.replace(special, f"\\{special}")
    return text


def lines(values: Iterable[Any]) -> str:
    """Return values for a table's cell, each on a line of its own."""
    return "<br>".join(cell(value) for value in values)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], right: Iterable[int] = ()) -> str:
    """Return a table; cells are Markdown already; `right` are the columns of numbers."""
    right = set(right)
    rule = ["---:" if index in right else "---" for index in range(len(head))]
    lines = [head, rule, *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
