"""Images per second of our training beside a plain PyTorch loop, with each switch on and off.

Both train from the same weights on the same batches with the same augmentation, optimizer,
schedule, precision and threads; both validate, note the figures and write the last and the best
checkpoint in every epoch. They take turns epoch by epoch in one process, so that whatever else the
machine does falls on both, and they must end with equal weights, which shows that they did the
same. Where there is a GPU, both use it.
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
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import params, training
from classifier.augmentation import augment
from classifier.batches import Batches, epoch_seed
from classifier.data import Split
from classifier.params import Params
from classifier.training import Training


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


ON_GPU = torch.cuda.is_available()
LARGER = 16 if ON_GPU else 1  # a GPU would be done before the clock is read
WORKLOADS = [
    Workload("cnn, 32×32×3", LARGER * 2048, 32, 3, {"network": "cnn", "threads": 1}),
    Workload(
        "resnet18, 32×32×3",
        *(LARGER * 256, 32, 3),
        {"network": "resnet18", "batch_size": 32, "threads": 1},
    ),
]
TINY = Workload("cnn, 8×8×1 as the digits", 1257, 8, 1, {"network": "cnn"})
SHIPPED = "as shipped"
LOADER = "plain loop with 2 loader workers"
SWITCHES: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "channels_last off": {"channels_last": False},
    "precision 32-true": {"precision": "32-true"},
    "precision bf16-mixed": {"precision": "bf16-mixed"},
    "compile on": {"compile": True},
}
if ON_GPU:
    SWITCHES["data_on_device off"] = {"data_on_device": False}
    del SWITCHES["precision bf16-mixed"]  # what `auto` is there
else:
    SWITCHES["threads 2"] = {"threads": 2}
    del SWITCHES["precision 32-true"]
SWITCHES[LOADER] = {}
VALIDATION = 0.125  # images for validation, for each that is trained on
CLASSES = 10
BEHIND = 5.0  # per cent that ours may be behind the plain loop


class Indexed(Dataset):
    """Batches by their indices, for torch's loader."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.batches.images[indices], self.batches.labels[indices]


class Order(Sampler):
    """The indices of the batches, in the order of the epoch that they are set to."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches.indices()

    def __len__(self) -> int:
        return len(self.batches)


class Plain:
    """The loop that one would write by hand; `loaders` processes fetch the training batches."""

    def __init__(
        self,
        settings: Params,
        learner: Training,
        train: Split,
        validation: Split,
        run: Path,
        loaders: int,
    ) -> None:
        self.how, self.seed = settings.train, settings.seed
        model = learner.model
        self.network = copy.deepcopy(model.network)
        training.prepare_network(self.network, self.how)
        self.mean, self.std, self.device = model.mean.clone(), model.std.clone(), learner.device
        kept = self.device if self.how.data_on_device and not loaders else "cpu"
        self.train = Batches(train, self.how.batch_size, device=kept)
        self.validation = Batches(validation, 4 * self.how.batch_size, device=kept)
        self.loaded: Any = self.train
        if loaders:
            self.loaded = DataLoader(
                Indexed(self.train),
                sampler=Order(self.train),
                batch_size=None,
                num_workers=loaders,
                persistent_workers=True,
                generator=torch.Generator(),  # or it would draw from what augmentation draws from
            )
        self.run = run
        precision = training.precision(self.how)
        self.mixed = torch.autocast(
            self.device.type, torch.bfloat16, enabled=precision == "bf16-mixed"
        )
        batches = len(self.train)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), self.how.learning_rate, weight_decay=self.how.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            self.how.learning_rate,
            total_steps=self.how.epochs * batches,
            pct_start=training.warm_up(self.how.epochs * batches),
        )
        self.lowest = float("inf")

    def epoch(self, number: int) -> None:
        """Train, validate, note and keep one epoch."""
        torch.manual_seed(epoch_seed(self.seed, number))
        self.train.seed = epoch_seed(self.seed, number)
        train_loss = self.learn()
        loss, accuracy = self.validate(self.validation)
        with (self.run / "history.csv").open("a", newline="") as file:
            csv.writer(file).writerow([number, train_loss, loss, accuracy])
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        self.keep(state, "last.pt")
        if loss < self.lowest:
            self.lowest = loss
            self.keep(self.network.state_dict(), "best.pt")

    def keep(self, state: dict[str, Any], name: str) -> None:
        """Write a checkpoint so that a kill leaves the one before."""
        partial = self.run / f"{name}.partial"
        torch.save(state, partial)
        partial.replace(self.run / name)

    def learn(self) -> float:
        """One pass over the training images; the mean loss."""
        self.network.train()
        total = torch.zeros((), device=self.device)
        for images, labels in self.moved(self.loaded):
            with self.mixed:
                scores = self.network(augment(self.normalise(images), self.how.augmentation))
                loss = F.cross_entropy(scores, labels)
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
        sums = torch.zeros(2, device=self.device)
        for images, labels in self.moved(batches):
            with self.mixed:
                scores = self.network(self.normalise(images))
                loss = F.cross_entropy(scores, labels, reduction="sum")
            sums += torch.stack([loss, (scores.argmax(1) == labels).sum()])
        loss, right = sums.tolist()
        return loss / len(batches.labels), right / len(batches.labels)

    def moved(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches on the device."""
        for images, labels in batches:
            yield images.to(self.device), labels.to(self.device)

    def normalise(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) of uint8 pixels (N, H, W, C)."""
        return (images.permute(0, 3, 1, 2).float() - self.mean) / self.std


class Turns(Callback):
    """Runs an epoch of the plain loop before each of Lightning's and takes the time of both.

    Lightning's epoch lasts from its start to the start of the next, so everything is in it that
    happens in between: batches, hooks, validation, logs and checkpoints.
    """

    def __init__(self, start: Callable[[Training], Plain], bar: tqdm) -> None:
        self.start, self.bar = start, bar
        self.turns: list[dict[str, Clock]] = []  # when each began, of every epoch
        self.equal = False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Give the plain loop the same first weights."""
        assert isinstance(module, Training)
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


def measure(workload: Workload, switch: str, pairs: int) -> dict[str, Any]:
    """Train with both loops in turns; times of every pair of epochs, and whether weights agree."""
    content = params.load(PROJECT).model_dump()
    changes = {"options": {}, "epochs": pairs + 2} | workload.train | SWITCHES[switch]
    content["train"] |= changes
    settings = params.parse({name: content[name] for name in params.SECTIONS})
    train = noise(workload, workload.images, seed=0)
    validation = noise(workload, round(VALIDATION * workload.images), seed=1)
    shape = training.shape_of(train, [str(label) for label in range(CLASSES)])
    bar = tqdm(total=pairs + 2, desc=f"{workload.name}, {switch}", file=sys.stderr)
    with (
        bar,
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stderr(io.StringIO()),  # no progress bar, a line per epoch
    ):
        for name in ("ours", "plain"):
            Path(folder, name).mkdir()
        run = Path(folder, "plain")
        loaders = 2 if switch == LOADER else 0
        turns = Turns(lambda model: Plain(settings, model, train, validation, run, loaders), bar)
        training.fit(settings, shape, train, validation, Path(folder, "ours"), [turns])
    return {
        "workload": workload.name,
        "switch": switch,
        "images": workload.images,
        "equal": turns.equal,
        "pairs": turns.figures(),
    }


def noise(workload: Workload, count: int, seed: int) -> Split:
    """Random images with random labels."""
    rng = np.random.default_rng(seed)
    shape = (count, workload.side, workload.side, workload.channels)
    return Split(rng.integers(0, 256, shape, np.uint8), rng.integers(0, CLASSES, count))


def behind(measured: dict[str, Any], key: str) -> list[float]:
    """Quartiles, in per cent, of how much longer ours took than the plain loop beside it."""
    ratios = [pair[f"ours{key}"] / pair[f"plain{key}"] for pair in measured["pairs"]]
    return [100 * (quartile - 1) for quartile in quantiles(ratios, n=4)]


def row(measured: dict[str, Any]) -> list[str]:
    """Cells of a workload with a switch."""
    pairs = measured["pairs"]
    seconds = {key: median(pair[key] for pair in pairs) for key in ("plain", "ours")}
    return [
        measured["workload"],
        measured["switch"],
        *(f"{measured['images'] / second:,.0f}" for second in seconds.values()),
        *(
            "{1:+.1f} ({0:+.1f} to {2:+.1f})".format(*behind(measured, key)).replace("-", "−")
            for key in ("", "_processor")
        ),
        "equal" if measured["equal"] else "**differ**",
    ]


def main() -> int:
    """Measure and write the table; return 1 when the two loops did not do the same work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=11, help="of epochs (default: 11)")
    pairs = parser.parse_args().pairs
    measured = [measure(workload, switch, pairs) for workload in WORKLOADS for switch in SWITCHES]
    measured.append(measure(TINY, SHIPPED, 4 * pairs))  # short epochs tell less
    header = (
        "network, images",
        "switch",
        "plain, images/s",
        "ours, images/s",
        "ours takes longer, %",
        "of processor time, %",
        "final weights",
    )
    alike = [one for one in measured[:-1] if one["switch"] != LOADER]
    worst = max(behind(one, "")[1] for one in alike)
    body = (
        f"Training images per second of both, as they take turns; {pairs} pairs of epochs a row, "
        "medians, and quartiles of\nthe ratios of neighbours. Both train, augment, validate, note "
        "the figures and write the last and the best\ncheckpoint in every epoch, such that a kill "
        "leaves the one before; all of that is in the time.\nA row has one switch other than "
        "`params.yaml`.\n"
        f"With the same switches at most {worst:.1f} % behind on 32×32 images; wanted: "
        f"{BEHIND:g} %: {'holds' if worst <= BEHIND else '**broken**'}.\n\n"
    )
    write(
        "training_speed",
        "Speed of training",
        body + table(header, map(row, measured)),
        measured,
    )
    return 0 if all(one["equal"] for one in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
