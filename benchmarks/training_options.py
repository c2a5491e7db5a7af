"""Where each option of the training that is off by default helps: the digits, with one difficulty.

Each row trains twice on the same few digits with the same seeds, with one line of params.yaml
changed, and tests on digits with the difficulty that the line is there for.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import f1_score
from torchvision.transforms.v2 import functional as tv

from digits import load, take
from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import params, training
from classifier.data import Split

FEW = 200  # training pictures
TEST = 797
COMMON = {"epochs": 20, "batch_size": 32, "options": {"width": 16}, "threads": 1}
Change = Callable[[Split, np.random.Generator], Split]


def as_they_are(split: Split, rng: np.random.Generator) -> Split:
    """No difficulty but that there are few."""
    return split


def mirrored(split: Split, rng: np.random.Generator) -> Split:
    """Half of them seen from behind."""
    images = split.images.copy()
    behind = rng.random(len(images)) < 0.5
    images[behind] = images[behind, :, ::-1]
    return Split(images, split.labels)


def in_other_light(split: Split, rng: np.random.Generator) -> Split:
    """Darker, with less contrast."""
    return Split((split.images * 0.35 + 20).astype(np.uint8), split.labels)


def out_of_focus(split: Split, rng: np.random.Generator) -> Split:
    """Blurred by a Gaussian of one pixel."""
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2)
    return Split(
        tv.gaussian_blur(pixels, [5, 5], [1.0, 1.0]).permute(0, 2, 3, 1).numpy(), split.labels
    )


def covered(split: Split, rng: np.random.Generator) -> Split:
    """A square of 3×3 pixels of each is grey."""
    images = split.images.copy()
    for image in images:
        top, left = rng.integers(0, 6, 2)
        image[top : top + 3, left : left + 3] = 80
    return Split(images, split.labels)


def unbalanced(split: Split, rng: np.random.Generator) -> Split:
    """Of half the classes one picture in eight is left."""
    rare = (split.labels >= 5) & (np.arange(len(split.labels)) % 8 > 0)
    return take(split, np.flatnonzero(~rare))


def mislabelled(split: Split, rng: np.random.Generator, share: float = 0.2) -> Split:
    """One label in five is any."""
    labels = split.labels.copy()
    wrong = rng.random(len(labels)) < share
    labels[wrong] = rng.integers(0, 10, wrong.sum())
    return Split(split.images, labels)


def much_mislabelled(split: Split, rng: np.random.Generator) -> Split:
    """Two labels in five are any; 40 epochs without other augmentation."""
    return mislabelled(split, rng, 0.4)


@dataclass(frozen=True)
class Trial:
    """A line of `train`, and what training and test pictures are like."""

    line: str
    change: dict[str, Any]
    training: Change
    test: Change
    base: dict[str, Any]


NONE: dict[str, Any] = {}
LONG = {"epochs": 40, "augmentation": {}}
STILL = {"schedule": "constant", "learning_rate": 0.01}
TRIALS = [
    Trial("augmentation.flip: true", {"flip": True}, as_they_are, mirrored, NONE),
    Trial("augmentation.colour: 0.6", {"colour": 0.6}, as_they_are, in_other_light, NONE),
    Trial("augmentation.blur: 1.2", {"blur": 1.2}, as_they_are, out_of_focus, NONE),
    Trial("augmentation.erase: 0.5", {"erase": 0.5}, as_they_are, covered, NONE),
    Trial("augmentation.mixup: 0.4", {"mixup": 0.4}, mislabelled, as_they_are, NONE),
    Trial("augmentation.cutmix: 1.0", {"cutmix": 1.0}, much_mislabelled, as_they_are, LONG),
    Trial("class_weights: true", {"class_weights": True}, unbalanced, as_they_are, NONE),
    Trial("label_smoothing: 0.2", {"label_smoothing": 0.2}, much_mislabelled, as_they_are, LONG),
    Trial("ema: 0.97", {"ema": 0.97}, mislabelled, as_they_are, STILL),
]


def score(trial: Trial, change: dict[str, Any], seed: int, digits: Split) -> float:
    """Macro F1 in per cent of a training with a seed, on test pictures of its own."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.labels))
    learn, validation, test = np.split(order[: FEW + 100 + TEST], [FEW, FEW + 100])
    content = params.read(PROJECT)
    content = {name: content[name] for name in params.SECTIONS} | {"seed": seed}
    moved = {k: v for k, v in change.items() if trial.line.startswith("augmentation")}
    content["train"] |= COMMON | trial.base | {k: v for k, v in change.items() if k not in moved}
    content["train"]["augmentation"] = content["train"]["augmentation"] | moved
    settings = params.parse(content)
    known = trial.training(take(digits, learn), rng)
    shape = training.shape_of(known, [str(digit) for digit in range(10)])
    with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
        model, *_ = training.fit(settings, shape, known, take(digits, validation), Path(run))
    scores, labels = training.scores_of(model, trial.test(take(digits, test), rng))
    return 100 * float(f1_score(labels, scores.argmax(1), average="macro"))


def main() -> int:
    """Measure all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    digits, found = load(), []
    for trial in TRIALS:
        pairs = [
            (score(trial, {}, seed, digits), score(trial, trial.change, seed, digits))
            for seed in range(arguments.seeds)
        ]
        without, with_it = np.array(pairs).T
        gain = with_it - without
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else float("nan")
        found.append(
            {
                "line": trial.line,
                "training": (trial.training.__doc__ or "").rstrip("."),
                "test": (trial.test.__doc__ or "").rstrip("."),
                "without": float(without.mean()),
                "with": float(with_it.mean()),
                "gain": float(gain.mean()),
                "error": float(error),
            }
        )
        print(found[-1], file=sys.stderr, flush=True)
    header = (
        "line",
        "training pictures",
        "test pictures",
        "macro F1 without, %",
        "with, %",
        "gain",
    )
    rows = [
        (
            f"`{one['line']}`",
            *(str(one["training"]), str(one["test"])),
            *(f"{one['without']:.1f}", f"{one['with']:.1f}"),
            f"{one['gain']:+.1f} ± {one['error']:.1f}",
        )
        for one in found
    ]
    body = (
        f"{FEW} training digits, {TEST} test digits, `cnn` of width 16, {arguments.seeds} seeds; "
        "gain: mean of the pairs ± its standard error.\n\n"
    )
    write("training_options", "Options of the training", body + table(header, rows), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
