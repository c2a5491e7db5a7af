"""Training: one LightningModule and one Trainer for every network, on one device or many.

Each epoch is a function of the weights, the seed, the epoch's number and the number of workers, so
a run that was killed and resumed ends with the figures of one that was not.
"""

import csv
import hashlib
import json
import logging
import math
import shutil
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pytorch_lightning.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
)
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins import TorchCheckpointIO
from scipy.optimize import minimize_scalar
from torch import Tensor

from classifier import data, distributed, networks, pretrained
from classifier.augmentation import augment, mix, recolour
from classifier.batches import Batches, epoch_seed, fits
from classifier.data import Split
from classifier.distributed import TrainingError, Workers
from classifier.model import (
    CHECKPOINT,
    HISTORY,
    Classifier,
    read_checkpoint,
    scores_of,
    shape_of,
    write_checkpoint,
)
from classifier.networks import Network, Photographic, Shape
from classifier.params import Params, TrainParams
from classifier.pretrained import Weights
from classifier.progress import Bar, Progress, advice
from workspace import files
from workspace.errors import UserError
from workspace.history import KEPT_BY, kept_epoch
from workspace.machine import Machine
from workspace.model_code import code_sha256

RUNS = Path("runs")

WARM_UP = 0.1  # share of the steps in which a one-cycle schedule raises the learning rate
COMPILERS = ("g++", "clang++", "c++")
WORKER_STRIDE = 2**40  # between workers' seeds: no epoch of one has the seed of another's


class Training(pl.LightningModule):
    """How a Classifier learns: its batches, losses, optimizer and schedule."""

    class_weights: Tensor

    def __init__(self, model: Classifier, seed: int, examples: int) -> None:
        super().__init__()
        self.model, self.seed, self.examples = model, seed, examples
        self.params = model.params
        even = torch.ones(model.shape.classes)
        self.register_buffer("class_weights", even, persistent=False)
        self.save_hyperparameters(  # for TensorBoard's table of runs
            {"train": self.params.model_dump(), "seed": seed, "examples": examples}
        )

    @property
    def network(self) -> Network:
        """What learns."""
        return self.model.network

    def balance(self, labels: NDArray[np.int64]) -> None:
        """Weigh the classes by what the labels (N,) lack of each; their mean over the set is 1.

        Source: "balanced" of scikit-learn's compute_class_weight.
        """
        counts = torch.bincount(torch.from_numpy(labels), minlength=self.model.shape.classes)
        self.class_weights.copy_(len(labels) / (len(counts) * counts.clamp_min(1)))

    def on_train_epoch_start(self) -> None:
        """Make dropout and augmentation depend on nothing but seed, epoch and worker."""
        epoch = epoch_seed(self.seed, self.current_epoch)
        torch.manual_seed(epoch + WORKER_STRIDE * self.global_rank)
        if self.params.pretrained:  # the body's statistics stay, too, as long as it does
            self.network.train(not self.is_head_only)
        self.train_loss, self.seen = torch.zeros((), device=self.device), 0
        self.validation_sums = torch.zeros(3, device=self.device)  # loss, right answers, images

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch, with the penalty of the network."""
        images, labels = batch
        how = self.params.augmentation
        images = augment(self.model.normalise(recolour(images, how)), how)
        images, targets = mix(images, labels, self.model.shape.classes, how)
        loss = self.loss(self.network(images).float(), targets)  # 16 bits are too few for sums
        self.train_loss += loss.detach() * len(labels)
        self.seen += len(labels)
        penalty = self.network.penalty(self.examples)
        return self.share(len(labels), index) * loss + penalty

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of scores (N, K) and labels (N,) or, of mixed pictures, their shares (N, K)."""
        if targets.dim() == 1 and not (self.params.class_weights or self.params.label_smoothing):
            return self.network.loss(scores, targets)
        if targets.dim() == 1:  # as shares, whose mean does not depend on a batch's classes
            targets = F.one_hot(targets, self.model.shape.classes).to(scores.dtype)
        smoothing = self.params.label_smoothing
        return F.cross_entropy(scores, targets, self.class_weights, label_smoothing=smoothing)

    @property
    def is_head_only(self) -> bool:
        """Whether only the last layer learns in this epoch, the others being learnt already."""
        return self.params.pretrained and self.current_epoch < self.params.head_epochs

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave the body as it is where it is to stay, on all workers alike."""
        if self.is_head_only:
            for weight in self.body_and_head()[0]:
                weight.grad = None

    def body_and_head(self) -> tuple[list[Tensor], list[Tensor]]:
        """Weights of a network that starts from others': all but the last layer's, and those."""
        assert isinstance(self.network, Photographic)
        head: list[Tensor] = list(self.network.head.parameters())
        known = {id(weight) for weight in head}
        return [weight for weight in self.parameters() if id(weight) not in known], head

    def share(self, images: int, index: int) -> float:
        """Weight of this worker's mean loss: the mean of all workers is then the whole batch's."""
        workers = self.trainer.world_size
        if workers == 1:
            return 1.0
        batches: Any = self.trainer.train_dataloader  # ours, not torch's
        return workers * images / batches.size(index)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Loss and right answers of one batch."""
        images, labels = batch
        scores = self.model(images).float()
        loss, right = self.network.loss(scores, labels), (scores.argmax(1) == labels).sum()
        count = loss.new_tensor(len(labels))
        self.validation_sums += torch.stack([loss * count, right.to(loss.dtype), count])

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's figures, once: to log in every step slows small networks down."""
        reduce = self.trainer.strategy.reduce  # over the workers
        seen = self.train_loss.new_tensor(self.seen)
        train_loss, train_images = reduce(torch.stack([self.train_loss, seen]), reduce_op="sum")
        loss, right, images = reduce(self.validation_sums, reduce_op="sum")
        figures = {"validation_loss": loss / images, "validation_accuracy": right / images}
        self.log_dict(figures, prog_bar=True)
        self.log("train_loss", train_loss / train_images)

    def configure_optimizers(self) -> Any:
        """The optimizer of the parameters, with its schedule of learning rates."""
        optimizer = self.make_optimizer()
        if self.params.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        highest = [group["lr"] for group in optimizer.param_groups]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, highest, total_steps=steps, pct_start=warm_up(steps)
        )
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def make_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that the parameters name."""
        rate, decay = self.params.learning_rate, self.params.weight_decay
        if self.params.optimizer == "lbfgs":  # wants the whole set as one batch
            return torch.optim.LBFGS(
                self.parameters(),
                lr=rate,
                max_iter=20,
                history_size=20,
                line_search_fn="strong_wolfe",
            )
        groups: Any = self.parameters()
        if self.params.pretrained:
            body, head = self.body_and_head()
            groups = [{"params": body, "lr": rate * self.params.body_rate}, {"params": head}]
        if self.params.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)
        return torch.optim.AdamW(groups, lr=rate, weight_decay=decay)


class Images(pl.LightningDataModule):
    """The training split, shuffled anew in every epoch, and the validation split."""

    def __init__(
        self,
        train: Split,
        validation: Split,
        batch_size: int,
        seed: int,
        on_device: bool = True,
    ) -> None:
        super().__init__()
        self.splits = {"train": train, "validation": validation}
        self.batch_size, self.seed, self.on_device = batch_size, seed, on_device
        self.batches: dict[str, Batches] = {}

    def train_dataloader(self) -> Batches:
        """Batches of this epoch."""
        batches = self.of("train", self.batch_size)
        batches.seed = epoch_seed(self.seed, self.trainer.current_epoch if self.trainer else 0)
        return batches

    def val_dataloader(self) -> Batches:
        """Batches in the split's order; larger ones, as no gradients are kept."""
        return self.of("validation", 4 * self.batch_size)

    def of(self, name: str, batch_size: int) -> Batches:
        """This worker's batches of a split, which is moved to the device once, if it is at all."""
        if name not in self.batches:
            split, trainer = self.splits[name], self.trainer
            part, workers = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
            device = trainer.strategy.root_device if trainer else torch.device("cpu")
            if not (self.on_device and fits(split, device)):
                device = torch.device("cpu")
            self.batches[name] = Batches(
                split, batch_size, part=part, workers=workers, device=device
            )
        return self.batches[name]


class History(Callback):
    """Figures of every epoch, kept in the checkpoints so that a resumed run has them all."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note the epoch's figures."""
        names = ("train_loss", "validation_loss", "validation_accuracy")
        figures = {name: float(trainer.callback_metrics[name]) for name in names}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **figures})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.epochs = list(state["epochs"])

    def write(self, path: Path) -> None:
        """Write one row per epoch as CSV."""
        with files.replacing(path, newline="") as file:
            rows = csv.DictWriter(file, list(self.epochs[0]))
            rows.writeheader()
            rows.writerows(self.epochs)


class Patience(EarlyStopping):
    """Early stopping that also ends a run that is taken up after it had stopped."""

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Train no further epoch."""
        trainer.should_stop = trainer.should_stop or self.stopped_epoch > 0


class CheckpointFile(TorchCheckpointIO):
    """Writes checkpoints straight to disk; Lightning's own way copies them in memory twice.

    Reads what is no code, whatever Lightning asks for.
    """

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint as `write_checkpoint` does."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """Read a checkpoint as `read_checkpoint` does."""
        return read_checkpoint(Path(path))


def train(params: Params, root: Path, machine: Machine = Machine()) -> None:  # noqa: B008 (frozen)
    """Train the network of the parameters on the prepared splits and write checkpoint and history.

    The machine says how many workers train. A run that was interrupted is taken up at its last
    finished epoch. Raises UserError when the workers can't be had, TrainingError when what they did
    gave no model.
    """
    workers = distributed.workers_of(machine)
    splits = load_splits(root)
    shape = shape_of(splits[0], data.class_names(root))
    threads = machine.threads or threads_of(params.train, shape, workers)
    workers = replace(workers, threads=threads)
    distributed.check_devices(workers, threads, machine)
    networks.check_together(params.train)
    check(params.train, workers, *splits)
    check_compiler(params.train, machine)
    weights = pretrained.load(params.train, root)
    run = (root / RUNS / fingerprint(params, workers, root)).resolve()
    arguments = (params, shape, workers)
    left = (CHECKPOINT.name, HISTORY.name)
    try:
        if not workers.by_ray:
            work(run, *arguments, *splits, weights)
        elif machine.ray_address:
            parts = (*splits, weights)
            distributed.train_with_ray(work, arguments, parts, run, left, threads, machine)
        else:
            here = (*arguments, root.resolve())
            distributed.train_with_ray(work_from_files, here, (), run, left, threads, machine)
    except TrainingError:
        forget_checkpoints(run)
        raise
    for target in (CHECKPOINT, HISTORY):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (run / target.name).replace(root / target)
    forget_checkpoints(run)
    name_logs(run, root / RUNS, params.train.network, kept_accuracy(root / HISTORY))


def name_logs(run: Path, folder: Path, name: str, accuracy: float) -> None:
    """Give the logs of a run that has ended a name for people in a folder: date, name, % right."""
    place = folder / f"{datetime.now():%Y-%m-%d-%H%M%S}-{name}-{100 * accuracy:.1f}"
    if (run / "logs").is_dir() and not place.exists():
        (run / "logs").rename(place)
        with suppress(OSError):  # what else is there stays
            run.rmdir()


def kept_accuracy(history: Path) -> float:
    """Validation accuracy of the epoch that is kept."""
    with history.open(newline="") as file:
        return float(kept_epoch(csv.DictReader(file))["validation_accuracy"])


def load_splits(root: Path) -> tuple[Split, Split]:
    """The splits that training reads: train and validation."""
    return data.load_split(root, "train"), data.load_split(root, "validation")


def check(params: TrainParams, workers: Workers, train: Split, validation: Split) -> None:
    """Raise UserError for splits that such workers can't train on, before they start."""
    if params.optimizer == "lbfgs" and workers.count > 1:
        raise UserError(
            f"train.optimizer is 'lbfgs', which takes the whole set as one batch: train on one "
            f"device instead of {workers.count}."
        )
    if params.optimizer == "lbfgs" and params.batch_size < len(train.labels):
        raise UserError(
            f"train.batch_size is {params.batch_size}, but train.optimizer is 'lbfgs', which takes "
            f"the whole set as one batch: give {len(train.labels)} or more."
        )
    if workers.count == 1:
        return
    batches = Batches(train, params.batch_size)
    smallest = batches.size(len(batches) - 1)
    if smallest < 2 * workers.count or len(validation.labels) < workers.count:
        raise UserError(
            f"a batch has {smallest} pictures and the validation split {len(validation.labels)}, "
            f"too few for {workers.count} workers, which need two of each batch: give fewer "
            "DEVICES or NODES, or a larger train.batch_size."
        )


def check_compiler(params: TrainParams, machine: Machine) -> None:
    """Raise UserError when torch is to compile the network and there is nothing to do it with."""
    compilers = (machine.compiler, *COMPILERS)
    if params.compile and not any(shutil.which(name) for name in compilers if name):
        raise UserError(
            "params.yaml: train.compile is True, but this machine has no C++ compiler, which it "
            "needs: install g++, or set it to false"
        )


def work_from_files(run: Path, params: Params, shape: Shape, workers: Workers, root: Path) -> None:
    """What a worker does that shares the files of this machine."""
    work(run, params, shape, workers, *load_splits(root), pretrained.load(params.train, root))


def work(
    run: Path,
    params: Params,
    shape: Shape,
    workers: Workers,
    train_split: Split,
    validation: Split,
    weights: Weights | None,
) -> None:
    """What each worker does: train; the first one leaves checkpoint and history in `run`."""
    model, history, trainer = fit(
        params, shape, train_split, validation, run, workers=workers, weights=weights
    )
    if not trainer.is_global_zero:
        return
    model.trained = {
        "devices": workers.devices,
        "nodes": workers.nodes,
        "threads": workers.threads,
        "hardware": distributed.hardware(),
    }
    if weights:
        model.trained["weights"] = {"source": weights.source, "sha256": weights.sha256}
    with torch.compiler.set_stance("force_eager"):  # one pass is not worth compiling for
        model.temperature.fill_(fit_temperature(*scores_of(model, validation)))
    model.save(run / CHECKPOINT.name)
    history.write(run / HISTORY.name)


def fit(
    params: Params,
    shape: Shape,
    train_split: Split,
    validation: Split,
    run: Path,
    callbacks: Sequence[Callback] = (),
    workers: Workers = Workers(),  # noqa: B008 (it is frozen)
    weights: Weights | None = None,
) -> tuple[Classifier, History, pl.Trainer]:
    """Train with checkpoints and logs in `run`; return the model of the best epoch.

    `callbacks` are the caller's own, who may want to watch; `weights` are what the network starts
    from, which a pretrained one must have unless it is taken up. With several workers each calls
    it, and only the first gets the best epoch's model: the others hold the last one's.

    Raises TrainingError when the loss stops being a number.
    """
    last = run / "last.ckpt"
    if params.train.pretrained and not weights and not last.exists():
        raise ValueError("train.pretrained is true, but no weights were given to begin with")
    quieten()
    pl.seed_everything(params.seed, verbose=False)
    threads = workers.threads or threads_of(params.train, shape, workers)
    torch.set_num_threads(threads)
    examples = len(train_split.labels)
    model = Classifier(shape, params.train)
    model.fit_to(train_split, params.seed)
    if weights:
        model.start_from(weights)
    training = Training(model, params.seed, examples)
    if params.train.class_weights:
        training.balance(train_split.labels)
    prepare_network(model.network, params.train)
    history = History()
    best = ModelCheckpoint(
        run,
        "best",
        monitor=KEPT_BY,
        # A run is taken up at the last epoch; only a whole checkpoint has the mean weights.
        save_weights_only=not params.train.ema,
        enable_version_counter=False,
    )
    progress = Progress(
        advice(params.train, shape, threads), len(validation.labels) / max(examples, 1)
    )
    trainer = make_trainer(params.train, run, [history, best, progress, *callbacks], workers)
    images = Images(
        train_split,
        validation,
        params.train.batch_size,
        params.seed,
        params.train.data_on_device,
    )
    if last.exists() and trainer.is_global_zero:
        print(f"taking up the run in {run}", file=sys.stderr)
    trainer.fit(training, images, ckpt_path=last if last.exists() else None)
    loss = history.epochs[-1]["train_loss"]
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training loss became {loss} in epoch {len(history.epochs)}: "
            f"lower train.learning_rate, which is {params.train.learning_rate}."
        )
    if trainer.is_global_zero:
        training.load_state_dict(read_checkpoint(run / "best.ckpt")["state_dict"])
    return model.eval().cpu(), history, trainer


def prepare_network(network: Network, params: TrainParams) -> None:
    """Set what makes a network faster and leaves its weights what they are."""
    if params.channels_last:
        network.to(memory_format=torch.channels_last)
    if params.compile:
        network.compile()


def make_trainer(
    params: TrainParams, run: Path, callbacks: list[Callback], workers: Workers
) -> pl.Trainer:
    """The Trainer that every network shares."""
    options = distributed.trainer_options(workers, run)
    callbacks = [
        *callbacks,
        *options.pop("callbacks"),
        ModelCheckpoint(run, "last", save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    if params.patience:
        callbacks.append(Patience(KEPT_BY, patience=params.patience))
    if params.ema:
        callbacks.append(EMAWeightAveraging(decay=params.ema))
    bar = sys.stderr.isatty()
    if bar:
        callbacks.append(Bar(next(each for each in callbacks if isinstance(each, Progress))))
    return pl.Trainer(
        max_epochs=params.epochs,
        precision=precision(params),  # type: ignore[arg-type]
        deterministic=params.deterministic,
        callbacks=callbacks,
        plugins=[CheckpointFile(), *options.pop("plugins")],
        logger=TensorBoardLogger(run, name=None, version="logs"),
        reload_dataloaders_every_n_epochs=1,  # each epoch has an order of its own
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        enable_progress_bar=bar,
        enable_model_summary=False,
        **options,
    )


def warm_up(steps: int) -> float:
    """Share of the steps in which the rate rises; torch divides by zero where it is one step."""
    return min(max(WARM_UP, 1.5 / steps), 0.9)


def precision(params: TrainParams) -> str:
    """Mixed precision where the device has it, unless the parameters say otherwise.

    Not for the linear networks: kernels and line searches need all digits.
    """
    if params.precision != "auto":
        return params.precision
    linear = issubclass(networks.NETWORKS[params.network], networks.LinearNetwork)
    if linear or params.optimizer == "lbfgs" or not torch.cuda.is_available():
        return "32-true"
    # a device that only emulates bfloat16 is slow at it
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if bf16 else "16-mixed"


def threads_of(params: TrainParams, shape: Shape, workers: Workers) -> int:
    """Threads of each worker on this machine."""
    pixels = shape.height * shape.width
    return params.threads or distributed.threads_for(pixels, workers.devices)


def fingerprint(params: Params, workers: Workers, root: Path) -> str:
    """Name of a run: the same for the same parameters, workers, data and code."""
    what = [
        params.train.model_dump(),
        asdict(workers),
        params.seed,
        data.report(root)["sha256"],
        code_sha256(root, "train"),
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T that minimises the cross-entropy of softmax(scores / T).

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, §4.2. It makes
    probabilities of the scores of any network, a support vector machine's too. After N right
    answers the next is still wrong with probability 1 / (N + 2) (Platt, Probabilistic Outputs for
    Support Vector Machines, 1999, §2.2), or the certainty would have no bound.
    """
    examples, classes = scores.shape
    smoothing = classes / ((classes - 1) * (examples + 2))

    def loss(log_temperature: float) -> float:
        scaled = scores.double() / math.exp(log_temperature)
        return float(F.cross_entropy(scaled, labels, label_smoothing=smoothing))

    return math.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x)


def forget_checkpoints(run: Path) -> None:
    """Leave nothing to take up of a run that has ended; its logs stay."""
    for checkpoint in run.glob("*.ckpt*"):  # and what a kill left of one
        checkpoint.unlink()


def quieten() -> None:
    """Keep Lightning's advice on hardware and workers out of the output."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
