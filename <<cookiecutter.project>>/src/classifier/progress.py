"""How long a training takes: said from its first batches, and after every epoch what is left."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, TQDMProgressBar

from classifier.networks import Shape
from classifier.params import TrainParams
from workspace.machine import cores

ENOUGH = 2.0  # seconds of batches from which the time is estimated, or an epoch of them
LONG = 120.0  # seconds from which a person wants to know what would be faster
LARGE = 64  # pixels of a side above which smaller pictures may do
FORWARD = 1 / 3  # time of a picture without gradients, of that with


class Progress(Callback):
    """Tells of the time that is needed; one line for each epoch where there is no terminal."""

    def __init__(
        self, advice: list[str], validation: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.advice, self.now = advice, now
        self.validation = validation  # validation pictures for each of training
        self.since, self.epochs, self.batches, self.told = math.nan, 0, -1, False

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Begin to count."""
        self.since = self.now()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Estimate the whole from the first batches, but for the very first, which warms up."""
        if self.told:
            return
        self.batches += 1
        device = trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if self.batches == 0:
            self.warm = self.now()
        passed, count = self.now() - self.warm, int(trainer.num_training_batches)
        if self.batches and (passed >= ENOUGH or self.batches == count - 1):
            epochs = trainer.max_epochs - trainer.current_epoch  # type: ignore[operator]
            self.tell(trainer, passed / self.batches * count * epochs, epochs)

    def tell(self, trainer: pl.Trainer, seconds: float, epochs: int) -> None:
        """Say how long it will take, and if that is long, what would make it faster."""
        self.told = True
        seconds *= 1 + FORWARD * self.validation
        if not trainer.is_global_zero:
            return
        say(f"{epochs} epochs take {in_words(seconds)} here")
        if seconds >= LONG and self.advice:
            say(f"faster, in params.yaml: {'; '.join(self.advice)}")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note an epoch; a log gets a line of it."""
        self.epochs += 1
        if trainer.is_global_zero and not sys.stderr.isatty():
            figures = trainer.callback_metrics
            names = ("train_loss", "validation_loss", "validation_accuracy")
            shown = ", ".join(f"{name} {float(figures[name]):.4f}" for name in names)
            place = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            passed = in_words(self.now() - self.since)
            say(f"{place}, {passed}, {in_words(self.left(trainer))} left: {shown}")

    def left(self, trainer: pl.Trainer) -> float:
        """Seconds until the last epoch is over, as the epochs went until now."""
        done = trainer.current_epoch + 1 if self.epochs else trainer.current_epoch
        passed = self.now() - self.since
        return passed / max(self.epochs, 1) * (trainer.max_epochs - done)  # type: ignore[operator]


class Bar(TQDMProgressBar):
    """A bar for the epoch on a terminal, and what is left of all."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(refresh_rate=20)
        self.progress = progress

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        figures = super().get_metrics(trainer, module)
        figures.pop("v_num", None)
        left = {"left": in_words(self.progress.left(trainer))} if self.progress.epochs else {}
        return {**figures, **left}


def advice(params: TrainParams, shape: Shape, threads: int) -> list[str]:
    """What would make the training of pictures of that shape faster, each in a few words."""
    side = math.sqrt(shape.height * shape.width)
    ways = []
    if not torch.cuda.is_available():
        if threads < cores():
            ways.append(f"train.threads {cores()} instead of {threads}")
        has_bf16 = torch.cpu.get_capabilities().get("avx512_bf16")
        if has_bf16 and params.optimizer != "lbfgs" and params.precision != "bf16-mixed":
            ways.append("train.precision bf16-mixed, which this processor computes faster")
    if side > LARGE:
        small = [round(part * LARGE / 2 / side) * 2 for part in (shape.height, shape.width)]
        share = small[0] * small[1] / (shape.height * shape.width)
        ways.append(
            f"prepare.image_size {small} instead of {[shape.height, shape.width]}, about "
            f"{share:.0%} of the time"
        )
    if params.patience is None:
        ways.append("train.patience 10, which ends it when nothing improves")
    return ways


def in_words(seconds: float) -> str:
    """A time as a person says it: 45 s, 13 min, 2 h 5 min."""
    minutes, hours = round(seconds / 60), int(seconds / 60 + 0.5) // 60
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{hours} h {minutes % 60} min"


def say(text: str) -> None:
    """Print a line for a person."""
    print(text, file=sys.stderr, flush=True)
