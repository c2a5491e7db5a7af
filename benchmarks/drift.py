"""Which changes of live pictures the drift rules see, after how many, and how often without any.

    python benchmarks/drift.py [--runs 5]

Trees learn digits, and others patches of photographs; a stream of pictures that neither has seen
is judged by the alerts' own formulas of an hour each 50 pictures, from 200 to 1,000; how long it
has to last is left out. A test holds the formulas to a real Prometheus' answers.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_images
from sklearn.ensemble import ExtraTreesClassifier
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fair_gate import distort
from results import PROJECT, RESULTS, table, write

sys.path.insert(0, str(PROJECT / "src"))
sys.path.insert(0, str(PROJECT.parent))

from classifier.evaluation import behave
from delivery.model.drift import FEWEST, Behaviour, Feature
from workspace import behaviour

UNSHIFTED = 20  # runs of each data set
STEP, LONGEST = 50, 1000  # pictures from one look to the next, and of a run
VALIDATION, TEST, LIVE = 300, 300, 3000
SIDE, PLACES = 24, 3  # of a patch; in each of two photographs
STRENGTHS = ("weak", "middling", "strong")
Images = np.ndarray  # uint8 (N, H, W, C)
Labelled = tuple[np.ndarray, np.ndarray]  # pictures, and their classes (N,)
Rng = np.random.Generator


@dataclass(frozen=True)
class World:
    """A data set, a model of it, what that says of held-out pictures, and live ones."""

    name: str
    model: Any
    reference: dict[str, Any]
    images: Images
    labels: np.ndarray
    others: Images  # of no class that the model knows

    def answer(self, images: Images) -> np.ndarray:
        """The model's probabilities (N, K)."""
        return self.model.predict_proba(rows(images)).astype(np.float32)


def rows(images: Images) -> np.ndarray:
    """What the trees look at: coarse pixels, and how bright and varied each channel is."""
    pixels = images.astype(np.float32) / 255
    step = max(1, images.shape[1] // 8)
    coarse = pixels[:, ::step, ::step].reshape(len(images), -1)
    return np.hstack([coarse, pixels.mean((1, 2)), pixels.std((1, 2))])


def draw_digits(count: int, rng: Rng, first: int, last: int) -> tuple[Images, np.ndarray]:
    """Handwritten digits of a part of the set, each turned, moved and blotched anew."""
    digits = load_digits()
    chosen = rng.integers(first, last, count)
    drawn = np.stack([distort(digits.images[index], rng) for index in chosen])
    return (drawn.clip(0, 1) * 255).astype(np.uint8)[..., None], digits.target[chosen]


def draw_places(count: int, rng: Rng, tiles: tuple[int, int]) -> tuple[Images, np.ndarray]:
    """Patches of six places in two photographs, from some columns of each, in any light."""
    labels, drawn = rng.integers(0, 2 * PLACES, count), []
    photographs = load_sample_images().images
    for label in labels:
        photograph = photographs[label // PLACES]
        place = photograph.shape[1] // PLACES
        tile = place // 4
        left = place * (label % PLACES) + tile * rng.choice(tiles) + rng.integers(0, tile - SIDE)
        top = rng.integers(0, photograph.shape[0] - SIDE)
        patch = photograph[top : top + SIDE, left : left + SIDE]
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        drawn.append(whole(patch * rng.uniform(0.9, 1.1) + rng.normal(0, 4, patch.shape)))
    return np.stack(drawn), labels


def grow(images: Images, like: Images) -> Images:
    """Pictures in the size and the colours of others."""
    _, height, width, channels = like.shape
    mode = "L" if channels == 1 else "RGB"
    made = [
        np.asarray(Image.fromarray(each.squeeze()).convert(mode).resize((width, height)))
        for each in images
    ]
    return np.stack(made).reshape(-1, height, width, channels)


def worlds() -> list[World]:
    """Digits and photographs; the one's pictures are nothing that the other's model knows."""
    rng = np.random.default_rng(0)
    few = VALIDATION + TEST + LIVE
    digits = [draw_digits(6000, rng, 0, 1200), draw_digits(few, rng, 1200, 1797)]
    places = [draw_places(5000, rng, (0, 2)), draw_places(few, rng, (1, 3))]
    return [
        make("digits", *digits, grow(places[1][0][:LIVE], digits[0][0])),
        make("photographs", *places, grow(digits[1][0][:LIVE], places[0][0])),
    ]


def trees(seed: int) -> ExtraTreesClassifier:
    """What learns all this fast."""
    return ExtraTreesClassifier(150, min_samples_leaf=2, random_state=seed)


def make(
    name: str, train: Labelled, held_out: Labelled, others: Images, model: Any = None
) -> World:
    """A model of a data set, and what `evaluate` would say of it."""
    if model is None:  # one that has not learnt yet has no length, either
        model = trees(0)
    return tested(name, model.fit(rows(train[0]), train[1]), held_out, others)


def tested(name: str, model: Any, held_out: Labelled, others: Images) -> World:
    """A model with what `evaluate` would say of it."""
    images, labels = held_out
    probabilities = model.predict_proba(rows(images)).astype(np.float32)
    parts = [(0, VALIDATION), (VALIDATION, VALIDATION + TEST)]
    seen = [behaviour.figures(images[a:b], probabilities[a:b]) for a, b in parts]
    classes = [str(each) for each in model.classes_]
    reference = behave(*seen, labels[:VALIDATION], classes)
    end = VALIDATION + TEST
    return World(name, model, reference, images[end:], labels[end:], others)


# -- changes ---------------------------------------------------------------------------------------


def each(change: Callable[[Images, Rng, float], Images], *strengths: float) -> Any:
    """A change of every picture."""
    return strengths, lambda world, images, labels, rng, by: change(images, rng, by)


def some(change: Callable[[World, Images, Rng], Images]) -> Any:
    """A change of a tenth, three tenths or all pictures."""

    def made(world: World, images: Images, _: Any, rng: Rng, share: float) -> Images:
        hit = rng.random(len(images)) < share
        return np.where(hit[:, None, None, None], change(world, images, rng), images)

    return (0.1, 0.3, 1.0), made


def whole(pixels: np.ndarray) -> Images:
    """Numbers as pictures have them."""
    return np.clip(pixels, 0, 255).astype(np.uint8)


def noise(images: Images, rng: Rng, deviation: float) -> Images:
    return whole(images + rng.normal(0, deviation, images.shape))


def blur(images: Images, _: Rng, share: float) -> Images:
    deviation = share * images.shape[1]
    return whole(ndimage.gaussian_filter(images.astype(float), (0, deviation, deviation, 0)))


def rotation(images: Images, _: Rng, degrees: float) -> Images:
    return whole(ndimage.rotate(images, degrees, (1, 2), reshape=False, order=1, mode="nearest"))


def darker(images: Images, _: Rng, factor: float) -> Images:
    return whole(images * factor)


def resized(images: Images, _: Rng, share: float) -> Images:
    side = images.shape[1]
    small = [int(place / share) for place in range(round(side * share))]
    back = (np.arange(side) * len(small) // side).clip(max=len(small) - 1)
    few = images[:, small][:, :, small]
    return few[:, back][:, :, back]


def older(images: Images, rng: Rng, much: float) -> Images:
    return noise(darker(rotation(images, rng, 7 * much), rng, 1 - 0.08 * much), rng, 8 * much)


CHANGES: dict[str, tuple[tuple[float, ...], Callable[..., Images]]] = {
    "noise": each(noise, 10, 25, 60),
    "blur": each(blur, 0.03, 0.07, 0.15),
    "inversion of some": some(lambda _, images, rng: 255 - images),
    "rotation": each(rotation, 10, 30, 90),
    "darker": each(darker, 0.9, 0.7, 0.4),
    "more of one class": ((2, 4, 10), lambda *_: None),  # by the choice of pictures, see below
    "another class among them": some(
        lambda world, images, rng: rng.permutation(world.others)[: len(images)]
    ),
    "resized there and back": each(resized, 0.75, 0.5, 0.25),
    "red for blue in some": some(lambda _, images, rng: images[..., ::-1]),
    "a stale model: a little of all": each(older, 1, 2, 3),
}


def stream(world: World, name: str, strength: int, rng: Rng) -> tuple[Images, np.ndarray]:
    """Live pictures, changed or not, and their classes; -1 is none that the model knows."""
    weights = np.ones(len(world.labels))
    if name == "more of one class":
        weights[world.labels == 3] = CHANGES[name][0][strength]
    chosen = rng.choice(len(weights), LONGEST, replace=False, p=weights / weights.sum())
    images, labels = world.images[chosen], world.labels[chosen]
    if name in ("", "more of one class"):
        return images, labels
    strengths, change = CHANGES[name]
    changed = change(world, images, labels, rng, strengths[strength])
    if name.startswith("another class"):
        labels = np.where((changed == images).all((1, 2, 3)), labels, -1)
    return changed, labels


# -- what the rules say ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """After how many pictures an alert came, None for never; for what; both accuracies."""

    after: int | None
    features: tuple[str, ...]
    accuracy: float
    estimate: float


def judge(world: World, images: Images, labels: np.ndarray) -> Verdict:
    """Look at a stream as the alerts do at an hour, from FEWEST pictures on."""
    answers = world.answer(images)
    seen = behaviour.figures(images, answers)
    features = world.reference["features"]
    found: Verdict | None = None
    for count in range(FEWEST, LONGEST + 1, STEP):
        counted = behaviour.counts({name: each[:count] for name, each in seen.items()}, features)
        now = compared(world.reference, counted)
        drifting = tuple(name for name, each in now.features.items() if now.drifting(each))
        drifting += ("accuracy",) if now.unsure() else ()
        if drifting and found is None:
            found = Verdict(count, drifting, 0, 0)
    accuracy = float((answers.argmax(1) == labels).mean())
    after, names = (found.after, found.features) if found else (None, ())
    return Verdict(after, names, accuracy, now.estimate())


def compared(reference: dict[str, Any], counted: dict[str, np.ndarray]) -> Behaviour:
    """What was counted beside what the model's image says."""
    made = {}
    for name, feature in reference["features"].items():
        shares = np.array(feature["counts"]) + 0.5
        made[name] = Feature(
            dict(zip(feature["bins"], counted[name].tolist(), strict=True)),
            dict(zip(feature["bins"], (shares / shares.sum()).tolist(), strict=True)),
        )
    about = (reference[name] for name in ("pictures", "labelled", "accuracy"))
    return Behaviour(made, *about)


def cell(verdicts: list[Verdict]) -> str:
    """How often an alert came, and after how many pictures in the middle."""
    after = [each.after for each in verdicts if each.after is not None]
    rate = f"{len(after)} of {len(verdicts)}"
    return f"{rate}, {median(after):.0f}" if after else rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each change and strength")
    runs = parser.parse_args().runs
    found: dict[str, dict[str, list[list[Verdict]]]] = {}
    quiet: dict[str, list[Verdict]] = {}
    with threadpool_limits(1):
        for world in worlds():
            print(f"{world.name}: accuracy {world.reference['accuracy']:.3f}", flush=True)
            quiet[world.name] = [
                judge(world, *stream(world, "", 0, np.random.default_rng(seed)))
                for seed in range(UNSHIFTED)
            ]
            names = [name for name in CHANGES if possible(world, name)]
            found[world.name] = {
                name: [
                    [
                        judge(world, *stream(world, name, strength, np.random.default_rng(seed)))
                        for seed in range(runs)
                    ]
                    for strength in range(len(STRENGTHS))
                ]
                for name in tqdm(names, world.name)
            }
    report(found, quiet, runs)


def possible(world: World, name: str) -> bool:
    """Grey pictures have no red."""
    return world.images.shape[3] == 3 or not name.startswith("red")


def report(
    found: dict[str, dict[str, list[list[Verdict]]]], quiet: dict[str, list[Verdict]], runs: int
) -> None:
    """Write the table, the figures and the picture."""
    header = ["change", *(f"{world}, {each}" for world in found for each in STRENGTHS), "seen by"]
    lines = []
    for name in CHANGES:
        cells = [found[world].get(name, [[]] * len(STRENGTHS)) for world in found]
        seen = [verdict for part in cells for verdicts in part for verdict in verdicts]
        by = sorted({each for verdict in seen for each in verdict.features})
        lines.append([name, *(cell(each) if each else "–" for part in cells for each in part)])
        lines[-1].append(", ".join(by) or "nothing")
    alarms = {
        world: sum(one.after is not None for one in verdicts) for world, verdicts in quiet.items()
    }
    calmly = [one for verdicts in quiet.values() for one in verdicts]
    parts = [part for of_world in found.values() for part in of_world.values()]
    changed = [one for part in parts for verdicts in part for one in verdicts]
    calm = "".join(
        f"{world}: {count} of {UNSHIFTED} runs without a change gave an alert.\n"
        for world, count in alarms.items()
    )
    body = (
        f"Runs with an alert of {runs}, and after how many pictures in the middle; {FEWEST} are "
        f"the fewest.\n\n{table(header, lines)}\n{calm}\nThe estimated accuracy was "
        f"{error(calmly):.1f} points from the true one without a change, and "
        f"{error(changed):.1f} with one.\n"
    )
    figures = {
        "unshifted": {world: [vars(one) for one in verdicts] for world, verdicts in quiet.items()},
        "shifted": {
            world: {
                name: [[vars(one) for one in verdicts] for verdicts in part]
                for name, part in parts.items()
            }
            for world, parts in found.items()
        },
    }
    write("drift", "Changes that the drift rules see", body, figures)
    paint(found)


def error(verdicts: list[Verdict]) -> float:
    """How far the estimated accuracy is from the true one, in points."""
    return 100 * float(np.mean([abs(one.accuracy - one.estimate) for one in verdicts]))


def paint(found: dict[str, dict[str, list[list[Verdict]]]]) -> None:
    """Draw how soon each change is seen."""
    figure, axes = plt.subplots(1, len(found), figsize=(9, 4.2), sharey=True, layout="constrained")
    for axis, (world, parts) in zip(axes, found.items(), strict=True):
        grid = np.full((len(CHANGES), len(STRENGTHS)), np.nan)
        for row, name in enumerate(CHANGES):
            for column, verdicts in enumerate(parts.get(name, [])):
                after = [LONGEST if each.after is None else each.after for each in verdicts]
                grid[row, column] = median(after)
                rate = sum(each.after is not None for each in verdicts) / len(verdicts)
                axis.text(column, row, f"{rate:.0%}", ha="center", va="center", fontsize=8)
        shown = axis.imshow(grid, cmap="viridis_r", vmin=0, vmax=LONGEST, alpha=0.6, aspect="auto")
        axis.set_title(world)
        axis.set_xticks(range(len(STRENGTHS)), STRENGTHS)
        axis.set_yticks(range(len(CHANGES)), list(CHANGES))
    figure.colorbar(shown, ax=axes, label="pictures until the alert; share of runs with one")
    figure.savefig(RESULTS / "drift.png", dpi=110)


if __name__ == "__main__":
    main()
