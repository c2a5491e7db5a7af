"""How often the gate refuses a model that is no worse, and passes one that is, by the rule.

A data set grows by batches, and for each batch five models are candidates against the one that is
served. What they are worth is known from a pool of pictures that none of them has seen. The rules:
the figures that each model had on its own test set, dealt anew with every batch, against a flat
tolerance; the same with the served model judged again, on pictures of which it has learnt many;
and those on one test set that keeps its pictures, of which the last is the gate's.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import f1_score
from sklearn.pipeline import Pipeline, make_pipeline
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))
sys.path.insert(0, str(PROJECT.parent))

from classifier import splits
from classifier.cleaning import NEW
from classifier.data import SPLITS
from delivery.model.paired import Paired, compare

BATCHES, CANDIDATES = 40, 5  # of each batch
FIRST, MORE = 1000, 50  # pictures of the first batch, and of each other
POOL = 20_000  # pictures of which the worth of a model is known to a tenth of a percentage point
SHARES = (0.1, 0.2)  # validation, test
TOLERANCE, CONFIDENCE = 0.005, 0.9  # of params.yaml
OTHERS = (0.8, 0.95)  # confidences, for what they would change
MUCH = 0.02  # what nobody wants to lose
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")
RULES = {
    "figures of two test sets, dealt anew, flat tolerance": "recorded",
    "both on the test set dealt anew, flat tolerance": "dealt_anew",
    "both on the test set that stays, flat tolerance": "stays",
    **{f"the same in pairs, with confidence {each:g}": f"paired {each}" for each in OTHERS},
    f"the same in pairs, with confidence {CONFIDENCE:g}: the gate": f"paired {CONFIDENCE}",
}


@dataclass(frozen=True)
class Pictures:
    """Rows of pixels (N, 64), their labels (N,), and digests of their content, S64 (N,)."""

    rows: np.ndarray
    labels: np.ndarray
    contents: np.ndarray

    def at(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and labels at some indices."""
        return self.rows[indices], self.labels[indices]


@dataclass(frozen=True)
class Recipe:
    """How a model is made: of which share of the training pictures, how many with a wrong label."""

    share: float
    wrong: float
    components: int  # of the kernel: more of them learn more


SERVED = Recipe(share=1.0, wrong=0.0, components=150)


@dataclass(frozen=True)
class Verdict:
    """What a candidate is worth, as a change of accuracy on the pool, and whether a rule refuses.

    The worth differs with the deal, as the models learn from other pictures.
    """

    worth: float
    refused: bool


def draw(count: int, rng: np.random.Generator) -> Pictures:
    """Draw handwritten digits, each turned, moved and blotched anew."""
    digits = load_digits()
    chosen = rng.integers(0, len(digits.images), count)
    rows = np.stack([distort(digits.images[i], rng) for i in chosen]).reshape(count, -1)
    contents = np.array([rng.bytes(32).hex().encode() for _ in range(count)], "S64")
    return Pictures(rows.astype(np.float32), digits.target[chosen], contents)


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a picture (8, 8) by up to 20°, move it by up to a pixel, add noise."""
    angle, shift = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-1, 1, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = affine_transform(image, turn, 3.5 - turn @ np.full(2, 3.5) + shift, order=1)
    return (moved + rng.normal(0, 1.5, moved.shape)) / 16


def train(pictures: Pictures, indices: np.ndarray, recipe: Recipe, seed: int) -> Pipeline:
    """Fit kernel ridge regression to a part of the pictures, some with a wrong label."""
    rng = np.random.default_rng(seed)
    used = rng.permutation(indices)[: round(recipe.share * len(indices))]
    rows, labels = pictures.at(used)
    mistaken = rng.random(len(labels)) < recipe.wrong
    labels = np.where(mistaken, rng.integers(0, 10, len(labels)), labels)
    kernel = Nystroem(gamma=0.05, n_components=recipe.components, random_state=seed)
    return make_pipeline(kernel, RidgeClassifier(0.1)).fit(rows, labels)


def recipes(rng: np.random.Generator) -> Iterator[Recipe]:
    """Give candidates of a batch: the served model's recipe, and others by chance."""
    yield SERVED
    for _ in range(CANDIDATES - 1):
        wrong = max(0.0, rng.uniform(-0.2, 0.2))
        yield Recipe(rng.uniform(0.6, 1.0), wrong, round(150 * 2 ** rng.uniform(-1, 1)))


# -- the rules -------------------------------------------------------------------------------------


def flat(candidate: tuple[float, float], served: tuple[float, float]) -> bool:
    """Refuse what is worse in accuracy or macro F1 by more than the tolerance."""
    return any(one < other - TOLERANCE for one, other in zip(candidate, served, strict=True))


def figures(labels: np.ndarray, answers: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1."""
    return float((labels == answers).mean()), float(f1_score(labels, answers, average="macro"))


def in_pairs(pair: Paired, confidence: float) -> bool:
    """Refuse as the gate does."""
    return any(each.is_loss(TOLERANCE, confidence) for each in (pair.accuracy, pair.macro_f1))


# -- a data set that grows -------------------------------------------------------------------------


def deal(pictures: Pictures, known: np.ndarray, seed: int) -> np.ndarray:
    """Deal pictures to splits as `prepare` does; `known` are those that have one already."""
    groups, classes = np.arange(len(known)), [str(label) for label in range(10)]
    contents, labels = pictures.contents[: len(known)], pictures.labels[: len(known)]
    return splits.split(labels, groups, known, contents, SHARES, classes, False, seed)


def simulate(batches: int, seed: int) -> dict[str, list[Verdict]]:
    """Let the data set grow and judge the candidates of each batch by each rule."""
    rng = np.random.default_rng(seed)
    pictures, pool = draw(FIRST + batches * MORE, rng), draw(POOL, rng)
    verdicts: dict[str, list[Verdict]] = {name: [] for name in RULES.values()}
    anew, stays = (deal(pictures, np.full(FIRST, NEW), seed) for _ in range(2))
    for batch in tqdm(range(1, batches + 1), "batches", file=sys.stderr):
        before = anew, stays
        there = FIRST + batch * MORE
        anew = deal(pictures, np.full(there, NEW), seed + batch)
        stays = deal(pictures, np.append(stays, np.full(MORE, NEW)), seed)
        tried = [(recipe, int(rng.integers(2**31))) for recipe in recipes(rng)]
        for places, earlier, is_old in ((anew, before[0], True), (stays, before[1], False)):
            served = train(pictures, np.flatnonzero(earlier == TRAIN), SERVED, seed + batch)
            recorded = judged(served, pictures, np.flatnonzero(earlier == TEST))
            now = pictures.at(np.flatnonzero(places == TEST))
            served_now, standard = served.predict(now[0]), worth(served, pool)
            for recipe, number in tried:
                model = train(pictures, np.flatnonzero(places == TRAIN), recipe, number)
                change, answers = worth(model, pool) - standard, model.predict(now[0])
                candidate, again = figures(now[1], answers), figures(now[1], served_now)
                if is_old:
                    verdicts["recorded"].append(Verdict(change, flat(candidate, recorded)))
                    verdicts["dealt_anew"].append(Verdict(change, flat(candidate, again)))
                else:
                    pair = compare(now[1], answers, served_now, CONFIDENCE)
                    verdicts["stays"].append(Verdict(change, flat(candidate, again)))
                    for each in (*OTHERS, CONFIDENCE):
                        verdicts[f"paired {each}"].append(Verdict(change, in_pairs(pair, each)))
    return verdicts


def judged(model: Pipeline, pictures: Pictures, indices: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1 of a model on some pictures."""
    rows, labels = pictures.at(indices)
    return figures(labels, model.predict(rows))


def worth(model: Pipeline, pool: Pictures) -> float:
    """Accuracy of a model on the pool."""
    return float((model.predict(pool.rows) == pool.labels).mean())


# -- the table -------------------------------------------------------------------------------------


def summarise(name: str, verdicts: list[Verdict]) -> dict[str, Any]:
    """Count, of the models of a kind, those that a rule decides wrongly on."""
    kinds = {
        "refused, no worse": [v.refused for v in verdicts if v.worth >= 0],
        "passed, worse by more than the tolerance": [
            not v.refused for v in verdicts if v.worth < -TOLERANCE
        ],
        "passed, worse by more than 2 points": [not v.refused for v in verdicts if v.worth < -MUCH],
    }
    wrong = {kind: {"wrong": sum(found), "of": len(found)} for kind, found in kinds.items()}
    return {"rule": name, "wrong": wrong}


def row(summary: dict[str, Any]) -> list[str]:
    """Cells of a summary."""
    counts = summary["wrong"].values()
    shares = [
        f"{100 * c['wrong'] / max(1, c['of']):.0f} % ({c['wrong']}/{c['of']})" for c in counts
    ]
    return [summary["rule"], *shares]


def main() -> int:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=BATCHES, help=f"default: {BATCHES}")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with threadpool_limits(1):  # on small matrices threads mostly wait for each other
        verdicts = simulate(arguments.batches, arguments.seed)
    summaries = [summarise(name, verdicts[key]) for name, key in RULES.items()]
    header = ("rule", *(summaries[0]["wrong"]))
    body = (
        f"{arguments.batches} batches of {MORE} pictures after the first {FIRST}, {CANDIDATES} "
        f"candidates each, {arguments.batches * CANDIDATES} in all; a fifth of the pictures "
        f"tests.\nWorth is accuracy on {POOL:,} pictures that no model has seen.\n\n"
    )
    write("fair_gate", "A fair gate", body + table(header, map(row, summaries)), summaries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
