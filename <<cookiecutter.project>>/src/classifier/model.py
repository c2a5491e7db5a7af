"""The model: a network with what comes before and behind it, and the file that it is kept in."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from classifier import networks
from classifier.batches import Batches
from classifier.data import CHUNK, Split, channel_sums, moments
from classifier.networks import Photographic, Shape
from classifier.params import TrainParams
from classifier.pretrained import Weights
from workspace import files, settings
from workspace.errors import UserError

# What training leaves, and evaluation.
CHECKPOINT = Path("artifacts/model.ckpt")
HISTORY = Path("artifacts/history.csv")
METRICS = Path("metrics.json")

SAMPLE = 10_000  # training pictures from which the normalisation is taken


class Classifier(nn.Module):
    """A network, the normalisation before it and the temperature behind it."""

    mean: Tensor
    std: Tensor
    temperature: Tensor

    def __init__(self, shape: Shape, params: TrainParams) -> None:
        super().__init__()
        self.shape, self.params = shape, params
        self.network = networks.build(
            params.network, shape, params.options, pretrained=params.pretrained
        )
        self.register_buffer("mean", torch.zeros(shape.channels, 1, 1))
        self.register_buffer("std", torch.ones(shape.channels, 1, 1))
        self.register_buffer("temperature", torch.ones(()))
        self.trained: dict[str, Any] = {}  # on what; see `lineage`

    def fit_to(self, split: Split, seed: int) -> None:
        """Take mean, deviation and what the network wants to know from the training pictures."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(split.images), generator=generator)[:SAMPLE]
        places = drawn.sort().values.numpy()
        # A few at a time: as floats, all of them would be eight times as many bytes.
        parts = (places[first : first + CHUNK] for first in range(0, len(places), CHUNK))
        sums = np.sum([channel_sums(split.images[part]) for part in parts], axis=0)
        pixels = len(places) * self.shape.height * self.shape.width
        mean, variance = moments(sums, pixels)
        std = np.sqrt(variance * pixels / max(pixels - 1, 1))
        self.mean.copy_(torch.from_numpy(mean)[:, None, None])
        self.std.copy_(torch.from_numpy(std)[:, None, None].clamp_min(1.0))
        if self.network.looks_at_pictures():
            sample = torch.from_numpy(split.images[places])
            self.network.fit_to(self.normalise(sample), generator)

    def start_from(self, weights: Weights) -> None:
        """Take weights learnt elsewhere, and normalise pictures as those were."""
        assert isinstance(self.network, Photographic)
        self.network.start_from(weights.state)
        for buffer, figures in ((self.mean, self.network.MEAN), (self.std, self.network.STD)):
            scaled = 255 * torch.tensor(figures)[:, None, None]
            buffer.copy_(scaled if self.shape.channels == 3 else scaled.mean())

    def normalise(self, images: Tensor) -> Tensor:
        """Float pictures (N, C, H, W) of uint8 pixels (N, H, W, C)."""
        return (images.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Scores (N, K) of uint8 pixels (N, H, W, C)."""
        return self.network(self.normalise(images))

    def probabilities(self, scores: Tensor) -> Tensor:
        """Softmax of the scores divided by the temperature."""
        return torch.softmax(scores / self.temperature, dim=1)

    def save(self, path: Path) -> None:
        """Write what `load_model` reads: weights, their parameters, what trained them."""
        content = {
            "state_dict": self.state_dict(),
            "hyper_parameters": {"shape": vars(self.shape), "train": self.params.model_dump()},
            "trained": self.trained,
        }
        write_checkpoint(content, path)


def load_model(path: Path) -> Classifier:
    """Load the model that `save` wrote, on the processor. Raises CheckpointError."""
    content = read_checkpoint(path)
    try:
        made = content["hyper_parameters"]
        params = settings.check(TrainParams, made["train"], str(path), "train")
        model = Classifier(Shape(**made["shape"]), params)
        model.load_state_dict(content["state_dict"])
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        refuse_checkpoint(path, error)
    model.trained = content.get("trained", {})
    return model


class CheckpointError(UserError):
    """A checkpoint that is not used, as it holds more than weights and numbers, or is damaged."""


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write the file whole or not at all, so that a kill leaves the one before."""
    with files.replacing(path, "wb") as file:
        torch.save(content, file)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, of which nothing is run: tensors, texts, numbers, lists and dictionaries.

    Raises CheckpointError for a file that holds anything else, or is damaged or missing.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}): run `make pipeline`"
        ) from None
    except Exception as error:  # of a damaged file, anything
        refuse_checkpoint(path, error)
    if not isinstance(content, dict):
        refuse_checkpoint(path, TypeError(f"a {type(content).__name__}"))
    return content


def refuse_checkpoint(path: Path, error: Exception) -> NoReturn:
    """Raise CheckpointError: it is of another program, or somebody put code into it."""
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    raise CheckpointError(
        f"{path} is no checkpoint of weights and numbers only, so nothing of it is used: remove it "
        f"and run the same command again, or `make pipeline` ({settings.shown(reason)})"
    ) from None


@torch.inference_mode()
def scores_of(model: Classifier, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Scores (N, K) and labels (N,) of a split, in its order."""
    model.eval()
    batches = [(model(images), labels) for images, labels in Batches(split, batch_size)]
    scores, labels = zip(*batches, strict=True)
    return torch.cat(scores), torch.cat(labels)


def shape_of(split: Split, classes: list[str]) -> Shape:
    """Shape of the data set that a split belongs to."""
    _, height, width, channels = split.images.shape
    return Shape(height, width, channels, len(classes))
