"""Training: one LightningModule and one Trainer for every network.

Each epoch is a function of the weights, the seed and the epoch's number, so a run that was killed
and resumed ends with the figures of one that was not.
"""

import csv
import hashlib
import json
import logging
import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins import TorchCheckpointIO
from scipy.optimize import minimize_scalar
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy

from classifier import data, lineage, networks
from classifier.augmentation import augment
from classifier.data import Split
from classifier.errors import ClassifierError
from classifier.networks import Shape
from classifier.params import Params, TrainParams, train_params

CHECKPOINT = Path("artifacts/model.ckpt")
HISTORY = Path("artifacts/history.csv")
RUNS = Path("runs")

WARM_UP = 0.1  # share of the steps in which a one-cycle schedule raises the learning rate
SAMPLE = 10_000  # training images from which the normalisation is taken


class TrainingError(ClassifierError):
    """Training did not give a usable model."""


class Batches:
    """Batches (uint8 images (n, H, W, C), labels (n,)) of a split, the same for the same seed.

    The split stays where it is, in memory or mapped from disk: a batch is one indexing of arrays
    that are already decoded, which no worker process would make faster. Sizes differ by one at
    most, so that no batch is too small for batch normalisation.
    """

    def __init__(self, split: Split, batch_size: int, seed: int | None = None) -> None:
        self.images, self.labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        self.batch_size = batch_size
        self.seed = seed  # None keeps the order

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.labels))
        if self.seed is not None:
            shuffle = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(order), generator=shuffle)
        for indices in order.tensor_split(len(self)):
            yield self.images[indices], self.labels[indices]


class Images(pl.LightningDataModule):
    """The training split, shuffled anew in every epoch, and the validation split."""

    def __init__(self, train: Split, validation: Split, batch_size: int, seed: int) -> None:
        super().__init__()
        self.train, self.validation = train, validation
        self.batch_size, self.seed = batch_size, seed

    def train_dataloader(self) -> Batches:
        """Batches of this epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return Batches(self.train, self.batch_size, seed=epoch_seed(self.seed, epoch))

    def val_dataloader(self) -> Batches:
        """Batches in the split's order; larger ones, as no gradients are kept."""
        return Batches(self.validation, 4 * self.batch_size)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of each run."""
    return seed * 1_000_003 + epoch


class Classifier(pl.LightningModule):
    """A network, the normalisation before it and the temperature behind it."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(
        self, shape: dict[str, int], train: dict[str, Any], seed: int, examples: int
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.params = train_params(train)
        self.shape = Shape(**shape)
        self.network = networks.build(self.params.network, self.shape, self.params.options)
        self.register_buffer("mean", torch.zeros(self.shape.channels, 1, 1))
        self.register_buffer("std", torch.ones(self.shape.channels, 1, 1))
        self.register_buffer("temperature", torch.ones(()))

    def fit_to(self, split: Split) -> None:
        """Take mean, deviation and what the network wants to know from the training images."""
        generator = torch.Generator().manual_seed(self.hparams["seed"])
        drawn = torch.randperm(len(split.images), generator=generator)[:SAMPLE]
        sample = torch.from_numpy(split.images[drawn.sort().values.numpy()])
        pixels = sample.double()
        self.mean.copy_(pixels.mean((0, 1, 2))[:, None, None])
        self.std.copy_(pixels.std((0, 1, 2))[:, None, None].clamp_min(1.0))
        self.network.fit_to(self.normalise(sample), generator)

    def normalise(self, images: Tensor) -> Tensor:
        """Float images (N, C, H, W) of uint8 pixels (N, H, W, C)."""
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K) of uint8 pixels (N, H, W, C)."""
        return self.network(self.normalise(images))

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax of the scores divided by the temperature."""
        return torch.softmax(scores / self.temperature, dim=1)

    def on_train_epoch_start(self) -> None:
        """Make dropout and augmentation depend on nothing but the seed and the epoch."""
        torch.manual_seed(epoch_seed(self.hparams["seed"], self.current_epoch))
        self.loss_sum, self.seen = torch.zeros((), device=self.device), 0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of one batch, with the penalty of the network."""
        images, labels = batch
        scores = self.network(augment(self.normalise(images), self.params.augmentation))
        loss = self.network.loss(scores, labels)
        self.loss_sum += loss.detach() * len(labels)
        self.seen += len(labels)
        return loss + self.network.penalty(self.hparams["examples"])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Loss and accuracy of one batch."""
        images, labels = batch
        scores = self(images)
        figures = {
            "validation_loss": self.network.loss(scores, labels),
            "validation_accuracy": multiclass_accuracy(
                scores, labels, self.shape.classes, average="micro"
            ),
        }
        self.log_dict(figures, batch_size=len(labels), prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        """Log the training loss, once: to log it in every step slows small networks down."""
        self.log("train_loss", self.loss_sum / self.seen)

    def configure_optimizers(self) -> Any:
        """The optimizer of the parameters, with its schedule of learning rates."""
        optimizer = self.make_optimizer()
        if self.params.schedule == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            self.params.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=WARM_UP,
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
        if self.params.optimizer == "sgd":
            return torch.optim.SGD(
                self.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=decay
            )
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)


class History(Callback):
    """Figures of every epoch, kept in the checkpoints so that a resumed run has them all."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note the epoch's figures."""
        names = ("train_loss", "validation_loss", "validation_accuracy")
        figures = {name: float(trainer.callback_metrics[name]) for name in names}
        self.epochs.append({"epoch": trainer.current_epoch + 1, **figures})
        if not sys.stderr.isatty():  # a log file gets a line per epoch instead of a bar
            shown = ", ".join(f"{name} {figure:.4f}" for name, figure in figures.items())
            print(
                f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {shown}", file=sys.stderr
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where a checkpoint left off."""
        self.epochs = list(state["epochs"])

    def write(self, path: Path) -> None:
        """Write one row per epoch as CSV."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            rows = csv.DictWriter(file, list(self.epochs[0]))
            rows.writeheader()
            rows.writerows(self.epochs)


class CheckpointFile(TorchCheckpointIO):
    """Writes checkpoints straight to disk; Lightning's own way copies them in memory twice."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write under a temporary name, then rename, so that a kill leaves the one before."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        torch.save(checkpoint, partial)
        partial.replace(path)


def train(params: Params, root: Path) -> None:
    """Train the network of the parameters on the prepared splits and write checkpoint and history.

    A run that was interrupted is taken up at its last finished epoch. Raises TrainingError when the
    loss stops being a number.
    """
    train_split, validation = data.load_split(root, "train"), data.load_split(root, "validation")
    shape = shape_of(train_split, data.class_names(root))
    run = root / RUNS / fingerprint(params, root)
    model, history, trainer = fit(params, shape, train_split, validation, run)
    model.temperature.fill_(fit_temperature(*scores_of(model, validation)))
    trainer.save_checkpoint(root / CHECKPOINT, weights_only=True)
    history.write(root / HISTORY)
    forget_checkpoints(run)


def fit(
    params: Params,
    shape: Shape,
    train_split: Split,
    validation: Split,
    run: Path,
    callbacks: Sequence[Callback] = (),
) -> tuple[Classifier, History, pl.Trainer]:
    """Train with checkpoints and logs in `run`; return the model of the best epoch.

    `callbacks` are the caller's own, who may want to watch.

    Raises TrainingError when the loss stops being a number.
    """
    quieten()
    pl.seed_everything(params.seed, verbose=False)
    if params.train.threads:
        torch.set_num_threads(params.train.threads)
    model = Classifier(asdict(shape), asdict(params.train), params.seed, len(train_split.labels))
    model.fit_to(train_split)
    history = History()
    best = ModelCheckpoint(
        run,
        "best",
        monitor="validation_loss",
        save_weights_only=True,  # a run is taken up at the last epoch
        enable_version_counter=False,
    )
    trainer = make_trainer(params.train, run, [history, best, *callbacks])
    images = Images(train_split, validation, params.train.batch_size, params.seed)
    last = run / "last.ckpt"
    if last.exists():
        print(f"taking up the run in {run}", file=sys.stderr)
    trainer.fit(model, images, ckpt_path=last if last.exists() else None, weights_only=False)
    loss = history.epochs[-1]["train_loss"]
    if not math.isfinite(loss):
        forget_checkpoints(run)
        raise TrainingError(
            f"the training loss became {loss} in epoch {len(history.epochs)}: "
            f"lower train.learning_rate, which is {params.train.learning_rate}."
        )
    model.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    return model.eval().cpu(), history, trainer


def make_trainer(params: TrainParams, run: Path, callbacks: list[Callback]) -> pl.Trainer:
    """The Trainer that every network shares."""
    callbacks = [
        *callbacks,
        ModelCheckpoint(run, "last", save_on_train_epoch_end=True, enable_version_counter=False),
    ]
    if params.patience:
        callbacks.append(EarlyStopping("validation_loss", patience=params.patience))
    bar = sys.stderr.isatty()
    if bar:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    return pl.Trainer(
        max_epochs=params.epochs,
        precision=precision(params.precision),  # type: ignore[arg-type]
        deterministic=params.deterministic,
        callbacks=callbacks,
        plugins=[CheckpointFile()],
        logger=TensorBoardLogger(run, name=None, version="logs"),
        reload_dataloaders_every_n_epochs=1,  # each epoch has an order of its own
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        enable_progress_bar=bar,
        enable_model_summary=False,
    )


def precision(choice: str) -> str:
    """Mixed precision where the device has it, unless the parameters say otherwise."""
    if choice != "auto":
        return choice
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def shape_of(split: Split, classes: list[str]) -> Shape:
    """Shape of the data set that a split belongs to."""
    _, height, width, channels = split.images.shape
    return Shape(height, width, channels, len(classes))


def fingerprint(params: Params, root: Path) -> str:
    """Name of a run: the same for the same parameters, data and code."""
    what = [
        asdict(params.train),
        params.seed,
        data.report(root)["sha256"],
        lineage.code_sha256(root),
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


@torch.inference_mode()
def scores_of(model: Classifier, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and labels (N,) of a split, in its order."""
    model.eval()
    batches = [(model(images), labels) for images, labels in Batches(split, batch_size)]
    scores, labels = zip(*batches, strict=True)
    return torch.cat(scores), torch.cat(labels)


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
    for checkpoint in run.glob("*.ckpt"):
        checkpoint.unlink()


def quieten() -> None:
    """Keep Lightning's advice on hardware and workers out of the output."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
