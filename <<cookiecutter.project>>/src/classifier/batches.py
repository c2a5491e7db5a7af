"""Batches of a prepared split for training, the same for the same seed on any number of workers."""

import math
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

from classifier.data import Split

ROOM = 4  # a set is kept on the device if this many of it would fit: the network needs most of it


class Batches:
    """Batches (uint8 images (n, H, W, C), labels (n,)) of a split.

    The split stays where it is, in memory, mapped from disk or on the device: a batch is one
    indexing of arrays that are already decoded, which no worker process would make faster. Sizes
    differ by one at most, so that no batch is too small for batch normalisation. Of `workers` that
    train together each takes its `part` of every batch, so that the batches are the same for any
    number of them.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int | None = None,
        part: int = 0,
        workers: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        with warnings.catch_warnings():
            # Ray hands out arrays that can't be written to; nothing here writes.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self.images = torch.from_numpy(split.images).to(device)
            self.labels = torch.from_numpy(split.labels).to(device)
        self.batch_size = batch_size
        self.seed = seed  # None keeps the order
        self.part, self.workers = part, workers

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in self.indices():
            yield self.images[indices], self.labels[indices]

    def indices(self) -> Iterator[Tensor]:
        """Which images are in this worker's part of each batch, (n,)."""
        order = torch.arange(len(self.labels))
        if self.seed is not None:
            shuffle = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(order), generator=shuffle)
        for batch in order.to(self.labels.device).tensor_split(len(self)):
            yield batch.tensor_split(self.workers)[self.part]

    def size(self, index: int) -> int:
        """Number of images in the batch of that index, those of all workers together."""
        smallest, larger = divmod(len(self.labels), len(self))
        return smallest + (index < larger)


def fits(split: Split, device: torch.device) -> bool:
    """Whether the device has room for a whole split beside the network."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return ROOM * split.images.nbytes < free


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed of its own for each epoch of each run."""
    return seed * 1_000_003 + epoch
