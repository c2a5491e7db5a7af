"""Who would break: the served model's golden requests, sent to a candidate as its clients would."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.model import golden
from delivery.model.interface import Interface, read_interface
from delivery.triton.client import connect
from delivery.triton.server import Ports
from workspace.errors import said

FAILS, OTHER, MISREAD = "fails", "another class", "read as another class"
OUTCOMES = (FAILS, OTHER, MISREAD)


@dataclass
class Replay:
    """What became of requests, counted by the class that the served model answers.

    Attributes:
        requests: how many were sent.
        outcomes: of each class: FAILS, OTHER where the answer is not that class any more, MISREAD
            where a client that has the served model's labels takes the answer for another class.
        reason: why the first one failed.
    """

    requests: Counter[str] = field(default_factory=Counter)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    reason: str = ""

    def count(self, outcome: str) -> int:
        """Return how many requests had an outcome."""
        return sum(counted[outcome] for counted in self.outcomes.values())

    def __str__(self) -> str:
        """Say what became of all of them."""
        why = f" ({self.reason})" if self.reason else ""
        return (
            f"of {self.requests.total()} golden requests {self.count(FAILS)} fail{why}, "
            f"{self.count(OTHER)} are answered with another class, and {self.count(MISREAD)} "
            "answers are read as another class by clients that keep the labels"
        )


def replay(ports: Ports, served: Path, candidate: Path) -> Replay:
    """Send each golden request of a served model, alone, to the server of a candidate.

    Both folders are model repositories. Raises DeliveryError when they cannot be read.
    """
    before, after = read_interface(served), read_interface(candidate)
    recorded, made = golden.load(served / "classifier/golden.npz"), Replay()
    with connect("http", ports) as client:
        for picture, probabilities in zip(recorded.images, recorded.probabilities, strict=True):
            known = before.labels[int(probabilities.argmax())]
            made.requests[known] += 1
            try:
                answer = client.infer(picture[None], names=(before.input, before.output))
            except DeliveryError as error:
                outcome, made.reason = FAILS, made.reason or said(str(error))
            else:
                outcome = compared(int(answer.probabilities[0].argmax()), known, before, after)
            made.outcomes.setdefault(known, Counter())[outcome] += 1
    return made


def compared(place: int, known: str, before: Interface, after: Interface) -> str:
    """Say what an answer, by the place of its class, is to a client who had the class `known`."""
    now, read = (each.labels[place : place + 1] for each in (after, before))
    return MISREAD if now != read else OTHER if now != (known,) else ""
