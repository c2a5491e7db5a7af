"""Seconds per epoch of our training, beside a plain PyTorch loop that does the same work.

Both train from the same weights on the same batches with the same augmentation, optimizer,
schedule, precision and threads; both validate, note the figures and write the last and the best
checkpoint in every epoch. They take turns epoch by epoch in one process, so that whatever else the
machine does falls on both, and they must end with equal weights, which shows that they did the
same.
"""

import argparse
import contextlib
import copy
import csv
import dataclasses
import io
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from results import PROJECT, table, write
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(PROJECT / "src"))

from classifier import params, training
from classifier.augmentation import augment
from classifier.data import Split
from classifier.params import Params
from classifier.training import Batches, Classifier, epoch_seed


@dataclasses.dataclass(frozen=True)
class Workload:
    """A network with its changes to the section `train`, and random images (N, side, side, C).

    They are few, so that an epoch takes seconds: what Lightning does once per epoch weighs more
    than in practice.
    """

    name: str
    images: int
    side: int
    channels: int
    train: dict[str, Any]
    rounds: int = 1  # how often the number of pairs, as short epochs tell less


WORKLOADS = [
    Workload("cnn, 32×32×3", 1024, 32, 3, {"network": "cnn", "options": {"width": 32}}),
    Workload("resnet18, 32×32×3", 192, 32, 3, {"network": "resnet18", "batch_size": 32}),
    Workload(
        "cnn, 8×8×1 as the digits", 1257, 8, 1, {"network": "cnn", "options": {"width": 32}}, 4
    ),
]
VALIDATION = 0.125  # images for validation, for each that is trained on
CLASSES = 10


class Plain:
    """The loop that one would write by hand."""

    def __init__(
        self, settings: Params, model: Classifier, train: Split, validation: Split, run: Path
    ) -> None:
        self.how, self.seed = settings.train, settings.seed
        self.network = copy.deepcopy(model.network)
        self.mean, self.std = model.mean.clone(), model.std.clone()
        self.train, self.validation, self.run = train, validation, run
        batches = len(Batches(train, self.how.batch_size))
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.how.learning_rate, weight_decay=self.how.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            self.how.learning_rate,
            total_steps=self.how.epochs * batches,
            pct_start=training.WARM_UP,
        )
        self.lowest = float("inf")

    def epoch(self, number: int) -> None:
        """Train, validate, note and keep one epoch."""
        torch.manual_seed(epoch_seed(self.seed, number))
        train_loss = self.learn(
            Batches(self.train, self.how.batch_size, epoch_seed(self.seed, number))
        )
        loss, accuracy = self.validate(Batches(self.validation, 4 * self.how.batch_size))
        with (self.run / "history.csv").open("a", newline="") as file:
            csv.writer(file).writerow([number, train_loss, loss, accuracy])
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        torch.save(state, self.run / "last.pt")
        if loss < self.lowest:
            self.lowest = loss
            torch.save(self.network.state_dict(), self.run / "best.pt")

    def learn(self, batches: Batches) -> float:
        """One pass over the training images; the mean loss."""
        self.network.train()
        total = torch.zeros(())
        for images, labels in batches:
            loss = F.cross_entropy(
                self.network(augment(self.normalise(images), self.how.augmentation)), labels
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(labels)
        return float(total) / len(self.train.labels)

    @torch.no_grad()
    def validate(self, batches: Batches) -> tuple[float, float]:
        """Mean loss and accuracy on the validation images."""
        self.network.eval()
        loss, right = torch.zeros(()), torch.zeros(())
        for images, labels in batches:
            scores = self.network(self.normalise(images))
            loss += F.cross_entropy(scores, labels, reduction="sum")
            right += (scores.argmax(1) == labels).sum()
        return float(loss) / len(self.validation.labels), float(right) / len(self.validation.labels)

    def normalise(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) of uint8 pixels (N, H, W, C)."""
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Turns(Callback):
    """Runs an epoch of the plain loop before each of Lightning's and takes the time of both.

    Lightning's epoch lasts from its start to the start of the next, so everything is in it that
    happens in between: batches, hooks, validation, logs and checkpoints.
    """

    def __init__(self, start: Callable[[Classifier], Plain], bar: tqdm) -> None:
        self.start, self.bar = start, bar
        self.turns: list[dict[str, Clock]] = []  # when each began, of every epoch
        self.equal = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Give the plain loop the same first weights."""
        assert isinstance(module, Classifier)
        self.plain = self.start(module)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let the plain loop have its turn."""
        began = Clock.now()
        self.plain.epoch(trainer.current_epoch)
        self.turns.append({"plain": began, "ours": Clock.now()})
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Compare the weights."""
        ours, plain = module.network.state_dict(), self.plain.network.state_dict()
        self.equal = all(torch.equal(ours[name], plain[name]) for name in plain)

    def figures(self) -> list[dict[str, float]]:
        """Seconds of every pair of epochs but the first, which warms up, and the last, unended."""
        return [
            {
                "plain": turn["ours"].wall - turn["plain"].wall,
                "ours": after["plain"].wall - turn["ours"].wall,
                "plain_processor": turn["ours"].processor - turn["plain"].processor,
                "ours_processor": after["plain"].processor - turn["ours"].processor,
            }
            for turn, after in pairwise(self.turns[1:])
        ]


class Clock(NamedTuple):
    """Seconds on the wall, and of processor time of all threads."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> "Clock":
        """Read both."""
        return cls(time.perf_counter(), time.process_time())


def measure(workload: Workload, pairs: int) -> dict[str, Any]:
    """Train with both loops in turns; times of every pair of epochs, and whether weights agree."""
    content = dataclasses.asdict(params.load(PROJECT))
    content["train"] |= {"options": {}, "epochs": pairs + 2} | workload.train
    settings = params.parse(content)
    train = noise(workload, workload.images, seed=0)
    validation = noise(workload, round(VALIDATION * workload.images), seed=1)
    shape = training.shape_of(train, [str(label) for label in range(CLASSES)])
    bar = tqdm(total=pairs + 2, desc=workload.name, file=sys.stderr)
    with (
        bar,
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stderr(io.StringIO()),  # no progress bar, a line per epoch
    ):
        for name in ("ours", "plain"):
            Path(folder, name).mkdir()
        run = Path(folder, "plain")
        turns = Turns(lambda model: Plain(settings, model, train, validation, run), bar)
        training.fit(settings, shape, train, validation, Path(folder, "ours"), [turns])
    steps = len(Batches(train, settings.train.batch_size))
    return {
        "workload": workload.name,
        "steps": steps,
        "equal": turns.equal,
        "pairs": turns.figures(),
    }


def noise(workload: Workload, count: int, seed: int) -> Split:
    """Random images with random labels."""
    rng = np.random.default_rng(seed)
    shape = (count, workload.side, workload.side, workload.channels)
    return Split(rng.integers(0, 256, shape, np.uint8), rng.integers(0, CLASSES, count))


def row(measured: dict[str, Any]) -> list[str]:
    """Cells of a workload."""
    pairs = measured["pairs"]
    wall = [100 * (pair["ours"] / pair["plain"] - 1) for pair in pairs]
    processor = [100 * (pair["ours_processor"] / pair["plain_processor"] - 1) for pair in pairs]
    return [
        measured["workload"],
        str(measured["steps"]),
        str(len(pairs)),
        *(f"{median(pair[key] for pair in pairs):.2f}" for key in ("plain", "ours")),
        *(
            "{1:+.1f} ({0:+.1f} to {2:+.1f})".format(*quantiles(ratios, n=4)).replace("-", "−")
            for ratios in (wall, processor)
        ),
        "equal" if measured["equal"] else "**differ**",
    ]


def main() -> int:
    """Measure and write the table; return 1 when the two loops did not do the same work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15, help="of epochs (default: 15)")
    pairs = parser.parse_args().pairs
    measured = [measure(workload, workload.rounds * pairs) for workload in WORKLOADS]
    header = (
        "network, images",
        "steps",
        "pairs",
        "plain, s",
        "ours, s",
        "overhead, %",
        "of processor time, %",
        "final weights",
    )
    body = (
        "Median seconds per epoch of both, as they take turns; the overhead is the median (and "
        "quartiles) of the\nratios of neighbours. Both train, augment, validate, note "
        "the figures and write the last and the best\ncheckpoint in every epoch; neither shows a "
        "progress bar.\n\n"
    )
    write(
        "lightning_overhead",
        "Lightning's overhead",
        body + table(header, map(row, measured)),
        measured,
    )
    return 0 if all(one["equal"] for one in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
