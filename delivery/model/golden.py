"""Golden requests: test pictures with recorded answers, to compare a server with."""

import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, Client, connect
from delivery.triton.server import Ports

TOLERANCE = 1e-4  # largest difference of a probability that rounding explains
LOOSEST = 0.05  # of graphs in fewer bits, which say in golden.npz what theirs is
LARGEST = 2**30  # bytes of all recorded requests, which are read into memory


@dataclass(frozen=True)
class Golden:
    """Recorded requests."""

    images: np.ndarray  # uint8 (n, H, W, C)
    probabilities: np.ndarray  # float32 (n, K), torch's answers; those of the graph in fewer bits
    labels: np.ndarray  # int64 (n,), the true classes
    tolerance: float = TOLERANCE

    def some(self, count: int) -> "Golden":
        """Return a copy of the first `count` requests, or of all if there are fewer."""
        arrays = (self.images, self.probabilities, self.labels)
        images, probabilities, labels = (each[:count].copy() for each in arrays)
        return Golden(images, probabilities, labels, self.tolerance)


@dataclass(frozen=True)
class Comparison:
    """A server's answers against the recorded ones."""

    images: int  # pictures that were sent
    equal: int  # pictures with the same most probable class
    difference: float  # the largest of a probability; NaN if an answer holds one
    accuracy: float  # share of pictures whose most probable class is the true one
    versions: frozenset[int]  # of the model, that answered
    latencies: tuple[float, ...]  # seconds of each request
    tolerance: float = TOLERANCE

    def __str__(self) -> str:
        """Say how far the answers are the recorded ones."""
        return (
            f"{self.equal} of {self.images} golden answers have the recorded class, probabilities "
            f"differ by at most {self.difference:.1e}"
        )

    @property
    def passed(self) -> bool:
        """Every class is the same and every probability within the tolerance."""
        return self.equal == self.images and self.difference <= self.tolerance


def load(file: Path) -> Golden:
    """Read golden.npz. Raises DeliveryError when it is missing, broken, too large or incomplete."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(part.file_size for part in archive.infolist())
        if size > LARGEST:
            raise DeliveryError(
                f"{file} holds {size} bytes of golden requests and at most {LARGEST} are read: "
                "set export.golden_images lower and run `make pipeline` again"
            )
        with np.load(file) as arrays:
            told = float(arrays["tolerance"]) if "tolerance" in arrays else TOLERANCE
            requests, answers = arrays["images"], arrays["probabilities"]
            return Golden(requests, answers, arrays["labels"], min(told, LOOSEST))
    except FileNotFoundError:
        raise DeliveryError(
            f"there are no golden requests in {file}: run `make pipeline`"
        ) from None
    except DeliveryError:
        raise
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
        raise DeliveryError(f"{file} cannot be read ({error}): run `make pipeline` again") from None


def compare(client: Client, golden: Golden, batch: int) -> Comparison:
    """Send all golden pictures in batches of `batch`; compare the answers.

    Raises DeliveryError, also when the number of classes differs.
    """
    answers, latencies = [], []
    for first in range(0, len(golden.images), batch):
        begun = time.perf_counter()
        answers.append(client.infer(golden.images[first : first + batch]))
        latencies.append(time.perf_counter() - begun)
    probabilities = np.concatenate([answer.probabilities for answer in answers])
    if probabilities.shape != golden.probabilities.shape:
        raise DeliveryError(
            f"the server answers with {probabilities.shape[1]} classes, "
            f"the golden requests with {golden.probabilities.shape[1]}: they belong to other models"
        )
    classes = probabilities.argmax(axis=1)
    return Comparison(
        images=len(classes),
        equal=int((classes == golden.probabilities.argmax(axis=1)).sum()),
        difference=float(np.abs(probabilities - golden.probabilities).max()),
        accuracy=float((classes == golden.labels).mean()),
        versions=frozenset(answer.version for answer in answers),
        latencies=tuple(latencies),
        tolerance=golden.tolerance,
    )


def compare_together(ports: Ports, golden: Golden, batch: int, clients: int) -> list[Comparison]:
    """Let several clients, over HTTP and gRPC in turn, send the golden pictures at once."""

    def work(index: int) -> Comparison:
        with connect(PROTOCOLS[index % len(PROTOCOLS)], ports, again=True) as client:
            return compare(client, golden, batch)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(work, range(clients)))
