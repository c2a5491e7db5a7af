"""Accuracy of the networks on the handwritten digits, beside scikit-learn on the same folds.

Three times stratified 5-fold cross-validation. A counterpart learns from the whole training fold;
ours takes the validation share of params.yaml out of it, to pick the checkpoint. Exits with 1 when
a bound is broken.
"""

import argparse
import contextlib
import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC
from tqdm import tqdm

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import params, sources, training
from classifier.data import Split
from classifier.params import Params

FOLDS = 5
CLOSE = 1.0  # percentage points between a classical network and its counterpart
FLOOR = 99.05  # per cent, of the default network: what a support vector machine with RBF reaches
GAMMA = 0.001 * 36.2  # 0.001 for pixels 0..16 as recorded, whose variance is 36.2

# Each classical network minimises its counterpart's own objective. It is convex, so any optimizer
# will do that gets to the bottom: L-BFGS on the whole set where the loss is smooth; for the hinge,
# which has kinks, small batches and a rate that falls to zero.
PLAIN: dict[str, Any] = {"weight_decay": 0.0, "augmentation": {}}
SMOOTH = PLAIN | {
    "optimizer": "lbfgs",
    "learning_rate": 1.0,
    "schedule": "constant",
    "batch_size": 10_000,
    "epochs": 20,
}
HINGE = PLAIN | {
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "schedule": "one_cycle",
    "batch_size": 64,
    "epochs": 60,
}


class LeastSquares(ClassifierMixin, BaseEstimator):
    """LinearRegression on one-hot targets; the largest answer wins."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> "LeastSquares":
        """Learn from inputs (N, D) and labels (N,)."""
        self.classes_ = np.unique(y)
        self.regression = LinearRegression().fit(x, y[:, None] == self.classes_)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Labels (N,) of inputs (N, D)."""
        return self.classes_[self.regression.predict(x).argmax(1)]


@dataclasses.dataclass(frozen=True)
class Contest:
    """A network with its changes to the section `train`, a counterpart, and what must hold."""

    network: str
    train: dict[str, Any]
    name: str
    counterpart: Any
    bound: str = ""  # "close": to the counterpart; "floor": a fixed accuracy


CONTESTS = [
    Contest("linear_regression", SMOOTH, "LinearRegression, one-hot", LeastSquares(), "close"),
    Contest(
        "logistic_regression",
        SMOOTH | {"options": {"c": 1.0}},
        "LogisticRegression",
        LogisticRegression(C=1, max_iter=1000),
        "close",
    ),
    Contest(
        "linear_svm",
        HINGE | {"options": {"c": 1.0}},
        "LinearSVC",
        LinearSVC(C=1, max_iter=20_000),
        "close",
    ),
    Contest(
        "kernel_svm",
        # every training image is a landmark, so the kernel is exact
        HINGE | {"options": {"c": 1.0, "gamma": GAMMA, "landmarks": 1300}, "epochs": 30},
        "SVC, RBF",
        SVC(C=1, gamma=GAMMA),
        "close",
    ),
    Contest(
        "mlp",
        {"options": {"width": 256}, "learning_rate": 0.002},
        "MLPClassifier",
        MLPClassifier((256, 256), max_iter=500, random_state=0),
    ),
    Contest("default", {}, "SVC, RBF", SVC(C=1, gamma=GAMMA), "floor"),
]


def load() -> Split:
    """The digits as `prepare` stores them: uint8 (N, 8, 8, 1), labels (N,)."""
    source = sources.digits()
    images = np.stack([np.asarray(source.open_image(i)) for i in range(len(source.labels))])
    return Split(images[..., None], source.labels)


def folds(digits: Split, repetitions: int) -> Iterator[tuple[Split, Split]]:
    """Training and test part of every fold of every repetition."""
    for repetition in range(repetitions):
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=repetition)
        for train, test in splitter.split(digits.images, digits.labels):
            yield take(digits, train), take(digits, test)


def take(split: Split, indices: np.ndarray) -> Split:
    """Part of a split."""
    return Split(split.images[indices], split.labels[indices])


def change(shipped: Params, contest: Contest) -> Params:
    """The shipped parameters with the contest's changes."""
    content = shipped.model_dump()
    if contest.network != "default":
        content["train"] |= {"network": contest.network, "options": {}}
    content["train"] |= contest.train
    return params.parse(content)


def compare(contest: Contest, settings: Params, train: Split, test: Split) -> dict[str, float]:
    """Accuracy in per cent of ours and of the counterpart, and our processor time in seconds."""
    share = settings.prepare.validation_share / (1 - 1 / FOLDS)
    parts = train_test_split(
        np.arange(len(train.labels)), test_size=share, stratify=train.labels, random_state=0
    )
    learn, validation = (take(train, part) for part in parts)
    shape = training.shape_of(train, [str(digit) for digit in range(10)])
    before = time.process_time()
    with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
        model, *_ = training.fit(settings, shape, learn, validation, Path(run))
    seconds = time.process_time() - before
    scores, labels = training.scores_of(model, test)
    inputs = [
        model.normalise(torch.from_numpy(part.images)).flatten(1).numpy() for part in (train, test)
    ]
    counterpart = contest.counterpart.fit(inputs[0], train.labels)
    return {
        "ours": 100 * (scores.argmax(1) == labels).double().mean().item(),
        "counterpart": 100 * counterpart.score(inputs[1], test.labels),
        "seconds": seconds,
    }


def summarise(contest: Contest, rows: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation over the folds, and whether the bound holds."""
    ours, theirs, seconds = (
        np.array([row[key] for row in rows]) for key in ("ours", "counterpart", "seconds")
    )
    holds = {
        "close": abs(ours.mean() - theirs.mean()) <= CLOSE,
        "floor": ours.mean() >= FLOOR,
        "": True,
    }
    return {
        "network": contest.network,
        "counterpart": contest.name,
        "accuracy": mean_and_spread(ours),
        "counterpart_accuracy": mean_and_spread(theirs),
        "difference": mean_and_spread(ours - theirs),
        "seconds": float(np.median(seconds)),
        "bound": contest.bound,
        "holds": bool(holds[contest.bound]),
        "folds": rows,
    }


def mean_and_spread(values: np.ndarray) -> dict[str, float]:
    """Mean and sample standard deviation."""
    return {"mean": float(values.mean()), "std": float(values.std(ddof=1))}


def row(summary: dict[str, Any]) -> list[str]:
    """Cells of a summary."""
    bounds = {"close": f"within {CLOSE:g} point", "floor": f"at least {FLOOR} %", "": "–"}
    verdict = "" if not summary["bound"] else ": holds" if summary["holds"] else ": **broken**"
    return [
        f"`{summary['network']}`",
        spread(summary["accuracy"], ""),
        summary["counterpart"],
        spread(summary["counterpart_accuracy"], ""),
        spread(summary["difference"], "+"),
        f"{summary['seconds']:.1f}",
        bounds[summary["bound"]] + verdict,
    ]


def spread(figure: dict[str, float], sign: str) -> str:
    """Mean ± standard deviation with two decimals."""
    return f"{figure['mean']:{sign}.2f} ± {figure['std']:.2f}".replace("-", "−")


def main() -> int:
    """Run the contests and write the table; return 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="of the folds (default: 3)")
    repetitions = parser.parse_args().repetitions
    torch.set_num_threads(1)  # 8×8 pixels: a second thread gains nothing, and sums stay the same
    parts, shipped = list(folds(load(), repetitions)), params.load(PROJECT)
    summaries = []
    for contest in CONTESTS:
        settings, bar = change(shipped, contest), tqdm(parts, contest.network, file=sys.stderr)
        summaries.append(summarise(contest, [compare(contest, settings, *part) for part in bar]))
    header = ("ours", "accuracy, %", "scikit-learn", "accuracy, %", "difference", "s", "bound")
    body = (
        f"Mean ± standard deviation over {len(parts)} folds: {repetitions} × stratified "
        f"{FOLDS}-fold.\n`default` is `{shipped.train.network}` with params.yaml as shipped; s is "
        "our processor time for one training, the median.\n\n"
    )
    write("digits", "Digits", body + table(header, map(row, summaries)), summaries)
    return 0 if all(summary["holds"] for summary in summaries) else 1


if __name__ == "__main__":
    sys.exit(main())
