"""By which figure of confidence a new version may be judged: good ones refused, bad ones caught.

    python benchmarks/judged_confidence.py [--runs 5]

Trees of a few pictures serve. Other versions get as many requests as they, unchanged or changed as
`drift.py` changes them, and confidence is compared by two figures: with what each version's own
tests promise, as `components/judged` has it, and with the version before, bin by bin.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from tqdm import tqdm

import drift
from drift import CHANGES, LONGEST, STRENGTHS, Labelled, World, trees
from results import table, write
from workspace import behaviour

THRESHOLD = 0.2  # of both figures, where they are more than chance explains
WORSE = 0.1  # of the answers right, less than of the version before, is no longer as good
SURER = 0.1  # of confidence above accuracy, more than the version before, is no longer sound
Row = dict[str, Any]  # what came of a version and a stream
Found = tuple[float, float]  # a figure, and what chance explains of it


@dataclass(frozen=True)
class Sharp:
    """A model whose probabilities are raised to a power, as a forgotten temperature does."""

    model: Any
    power: float

    @property
    def classes_(self) -> np.ndarray:
        """Those of the model."""
        return self.model.classes_

    def predict_proba(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (N, K) that are nearer to 0 and 1."""
        raised = self.model.predict_proba(pixels) ** self.power
        return raised / raised.sum(axis=1, keepdims=True)


def part(labelled: Labelled, share: float) -> Labelled:
    """The first of some pictures."""
    count = round(share * len(labelled[1]))
    return labelled[0][:count], labelled[1][:count]


def both(one: Labelled, other: Labelled) -> Labelled:
    return np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])


def served(world: World, power: float) -> World:
    """A world whose model was tested as it is, and is served surer."""
    return replace(world, model=Sharp(world.model, power))


def versions(name: str, train: Labelled, held_out: Labelled) -> dict[str, World]:
    """The version that serves, by an empty name, and those after it."""

    def made(learnt: Labelled, model: Any) -> World:
        return drift.make(name, learnt, held_out, held_out[0], model)

    few, most = part(train, 0.2), part(train, 0.6)
    before = made(few, trees(0))
    tested = part(held_out, (drift.VALIDATION + drift.TEST) / len(held_out[1]))
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    again = made(few, trees(1))
    sure = Sharp(trees(1).fit(drift.rows(few[0]), few[1]), 3)
    return {
        "": before,
        "as it was, another seed": again,
        "three times the pictures": made(most, trees(1)),
        "five times the pictures": made(train, trees(1)),
        "another kind, linear": made(few, linear),
        "half the pictures": made(part(train, 0.1), trees(1)),
        "served surer, power 2": served(again, 2),
        "served surer, power 3": served(again, 3),
        "served wholly sure": served(again, 50),
        "surer at its tests, too, power 3": drift.tested(name, sure, held_out, held_out[0]),
        "its test pictures learnt": made(both(few, tested), trees(1)),
    }


def far(one: np.ndarray, other: np.ndarray) -> float:
    """Half the sum of the differences between shares."""
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)


def chance(bins: int, *pictures: float) -> float:
    """What chance explains of it."""
    return (np.sqrt(bins - 1) / 2 + 3) * np.sqrt(sum(1 / each for each in pictures))


@dataclass(frozen=True)
class Seen:
    """What a version answered to live pictures."""

    world: World
    answers: np.ndarray
    right: float

    def spread(self, by: World) -> np.ndarray:
        """Pictures in the bins of confidence that a version has."""
        feature = {"": by.reference["features"]["confidence"]}
        confidence = {"confidence": self.answers.max(axis=1).astype(float).round(behaviour.DIGITS)}
        return behaviour.counts(confidence, feature)[""]

    def strayed(self) -> float:
        """How far confidence is from that of its own tests."""
        counts = np.array(self.world.reference["features"]["confidence"]["counts"]) + 0.5
        return far(self.spread(self.world), counts)

    def too_sure(self) -> float:
        """How much surer it is than right."""
        return float(self.answers.max(axis=1).mean()) - self.right


def by_own(new: Seen, old: Seen) -> Found:
    """By how much more confidence strays from a version's tests than that of the one before."""
    tested = [each.world.reference["pictures"] for each in (new, old)]
    bins = len(new.world.reference["features"]["confidence"]["bins"])
    return new.strayed() - old.strayed(), chance(bins, LONGEST, LONGEST, *tested)


def by_before(new: Seen, old: Seen) -> Found:
    """By how much confidence is another than that of the version before."""
    counts = [each.spread(old.world) for each in (new, old)]
    return far(*counts), chance(len(counts[0]), LONGEST, LONGEST)


def asked(world: World, name: str, strength: int, seed: int) -> Seen:
    """What a version answers to a stream of its own."""
    images, labels = drift.stream(world, name, strength, np.random.default_rng(seed))
    answers = world.answer(images)
    return Seen(world, answers, float((answers.argmax(1) == labels).mean()))


def streams(runs: int) -> Iterator[tuple[str, int, int]]:
    """Changes of what comes, their strengths, and seeds; no change as often as a change."""
    yield from (("", 0, 3 * run) for run in range(3 * runs))
    for name in CHANGES:
        if not name.startswith(("red", "another")):
            yield from (
                (name, each, 7 * run) for each in range(len(STRENGTHS)) for run in range(runs)
            )


def sound(new: Seen, old: Seen) -> bool:
    """Whether a version is about as good as the one before at the pictures that came."""
    return new.right >= old.right - WORSE and new.too_sure() <= old.too_sure() + SURER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each change and strength")
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    few = drift.VALIDATION + drift.TEST + drift.LIVE
    digits = drift.draw_digits(6000, rng, 0, 1200), drift.draw_digits(few, rng, 1200, 1797)
    places = drift.draw_places(5000, rng, (0, 2)), drift.draw_places(few, rng, (1, 3))
    with threadpool_limits(1):
        tell([*compared("digits", *digits, runs), *compared("photographs", *places, runs)])


def compared(name: str, train: Labelled, held_out: Labelled, runs: int) -> Iterator[Row]:
    """Compare versions of a data set with the one before on streams that are alike."""
    made = versions(name, train, held_out)
    serving = made.pop("")
    for change, strength, seed in tqdm(list(streams(runs)), name):
        old = asked(serving, change, strength, seed)
        for version, world in made.items():
            new = asked(world, change, strength, seed + 1)
            figures = {"own": by_own(new, old), "before": by_before(new, old)}
            yield figures | {"version": version, "change": change, "sound": sound(new, old)}


def tell(found: list[Row]) -> None:
    """Write how often each version is refused by each figure, by what came and what it is."""
    versions = dict.fromkeys(row["version"] for row in found)
    figures = {
        version: {
            part: refused([row for row in found if row["version"] == version and belongs(row)])
            for part, belongs in PARTS.items()
        }
        for version in versions
    }
    head = ["version", *(f"{part}: {figure}" for part in PARTS for figure in FIGURES)]
    lines = [
        [version, *(cell(part, figure) for part in parts.values() for figure in FIGURES)]
        for version, parts in figures.items()
    ]
    title = "Confidence of a new version, judged"
    write("judged_confidence", title, f"{ABOUT}\n{table(head, lines)}", figures)


FIGURES = {"by its own": "own", "by bins": "before"}
PARTS: dict[str, Callable[[Row], bool]] = {
    "unchanged": lambda row: not row["change"],
    "changed, as good": lambda row: bool(row["change"]) and row["sound"],
    "changed, worse or too sure": lambda row: bool(row["change"]) and not row["sound"],
}
ABOUT = (
    f"Streams of {LONGEST} pictures to each version in which it is refused, of digits and of "
    "photographs together, and in brackets the largest value. By its own: how much more its "
    "confidence strays from its own tests than that of the version before; by bins: how much it "
    f"differs from the version before. As good: at most {100 * WORSE:.0f} points fewer right "
    f"answers in that stream, and at most {100 * SURER:.0f} points surer than right, more than the "
    "one before.\n"
)


def refused(rows: list[Row]) -> dict[str, Any]:
    """How often both figures refuse, and their largest values."""
    told: dict[str, Any] = {"streams": len(rows)}
    for figure in FIGURES.values():
        values = [row[figure] for row in rows]
        told[figure] = sum(bool(value > max(THRESHOLD, least)) for value, least in values)
        told[f"largest {figure}"] = round(max(value for value, _ in values), 3) if values else None
    return told


def cell(part: dict[str, Any], figure: str) -> str:
    """Write how often one refuses."""
    name, streams = FIGURES[figure], part["streams"]
    return f"{part[name]} of {streams} ({part[f'largest {name}']:.2f})" if streams else "–"


if __name__ == "__main__":
    main()
