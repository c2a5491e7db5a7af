"""What the parts of a check find, say and could not do."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from workspace.errors import UserError, printable, sentence

LONGEST = 200  # lines of a folded text that a comment can hold


@dataclass(frozen=True)
class Finding:
    """Why a pull request is refused: one sentence about a line of a file."""

    path: str
    line: int
    sentence: str

    def __str__(self) -> str:
        """Return the sentence with its place, on one line."""
        return printable(f"{self.path}, line {self.line}: {self.sentence}")


@dataclass
class Part:
    """One part of a check, as far as it got.

    Attributes:
        name: what was looked at.
        findings: for which the pull request is refused.
        undone: what could not be looked at, and why; then nothing passes.
        without: what was left out because this machine lacks it, which does not refuse.
        told: Markdown of what a reviewer should know, a paragraph each.
        folded: Markdown that is longer, by title.
        seconds: that it took.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    undone: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    folded: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Nothing is wrong, and nothing was left undone."""
        return not self.findings and not self.undone

    @property
    def outcome(self) -> str:
        """What became of it, in a word or two."""
        if self.findings:
            return "**refused**"
        return "**not done**" if self.undone else "passed"

    def refuse(self, path: str, line: int, sentences: Iterable[str]) -> None:
        """Add a finding for each sentence about a line."""
        self.findings += [Finding(path, line, each) for each in sentences]


def tried(name: str, path: str, work: Callable[[Part], None]) -> Part:
    """Do a part of a check; what it raises is a finding about the file `path`, never a pass."""
    part, begun = Part(name), time.monotonic()
    try:
        work(part)
    except UserError as error:
        part.refuse(path, 1, [sentence(error)])
    except Exception as error:  # what is looked at was written by somebody else
        part.undone.append(f"{name} could not be judged: {sentence(error)}")
    part.seconds = time.monotonic() - begun
    return part


def first_unlike(text: str, wanted: str) -> tuple[int, str, str]:
    """Return number and both forms of the first line in which two texts differ."""
    pairs = zip_longest(text.split("\n"), wanted.split("\n"), fillvalue="the end of the file")
    return next((n, here, there) for n, (here, there) in enumerate(pairs, 1) if here != there)
