"""The prepared data, as stages and commands read it: three splits, their classes, a report."""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from workspace import settings
from workspace.errors import UserError

PREPARED = Path("data/prepared")
SPLITS = ("train", "validation", "test")
PICTURES = "pictures.csv"  # in the folder of a split: which picture each image is made of
CHUNK = 16  # images in memory at once

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Picture:
    """What an image was made of: `sha256` of its content in hexadecimal digits, and its `file`.

    The file is relative to the source's folder, with what can't be shown as escapes; a picture that
    is no file is `<source>/<number>`.
    """

    sha256: str
    file: str


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (N,H,W,C), read from disk as they are used; labels int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    folder: Path = Path()  # where it was opened

    def pictures(self) -> list[Picture]:
        """Read which picture each image was made of. Raises UserError where that is missing."""
        path = self.folder / PICTURES
        _check_prepared(path)
        with path.open(newline="", encoding="utf-8") as file:
            return [Picture(**row) for row in csv.DictReader(file)]


def load_split(root: Path, name: str) -> Split:
    """Open a prepared split, one of SPLITS, below the project's `root`.

    Raises UserError when it has not been prepared.
    """
    _check_prepared(root / PREPARED / name / "images.npy")
    return open_split(root / PREPARED / name)


def open_split(folder: Path) -> Split:
    """Open the split in a folder; its images can't be written to, and may be larger than memory."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    return Split(images, np.load(folder / "labels.npy"), folder)


def class_names(root: Path) -> list[str]:
    """Return the K class names in the order of the labels. Raises UserError as `load_split`."""
    return _read_json(root / PREPARED / "classes.json", list[str])


def report(root: Path) -> dict[str, Any]:
    """Return the data report. Raises UserError as `load_split`."""
    return _read_json(root / PREPARED / "report.json", dict[str, Any])


def digests(root: Path) -> np.ndarray:
    """Return the digests of all prepared images, S16 (N,). Raises UserError as `load_split`."""
    paths = [root / PREPARED / name / "images.npy" for name in SPLITS]
    for path in paths:
        _check_prepared(path)
    return np.array(
        [digest(image) for path in paths for chunk in chunks(path) for image in chunk], "S16"
    )


def digest(pixels: np.ndarray) -> bytes:
    """Return 16 bytes that only equal images of one shape share."""
    return hashlib.blake2b(pixels.data, digest_size=16).digest()


def chunks(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of a file, uint8 (n,H,W,C), a few at a time."""
    total = len(np.load(path, mmap_mode="r"))
    for start in range(0, total, CHUNK):
        # mapped anew for each chunk: what was read does not stay in memory
        yield np.asarray(np.load(path, mmap_mode="r")[start : start + CHUNK])


def channel_sums(images: np.ndarray) -> np.ndarray:
    """Of each channel the sum over all pixels, and that of their squares, int64 (2,C).

    `images` are uint8 (n,H,W,C). Whole numbers add up exactly, in whatever parts they are read.
    """
    squares = np.square(images, dtype=np.uint16)
    return np.stack([each.sum(axis=(0, 1, 2), dtype=np.int64) for each in (images, squares)])


def moments(sums: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel, float64 (C,), from `channel_sums` of so many pixels."""
    mean, squares = sums / pixels
    return mean, np.maximum(squares - mean**2, 0.0)


def _read_json(path: Path, kind: type[Kind]) -> Kind:
    _check_prepared(path)
    return settings.check(kind, settings.read_json(path), str(path))


def _check_prepared(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: run `make pipeline`")
