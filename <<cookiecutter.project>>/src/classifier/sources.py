"""Where images come from. Every source is a list of named, labelled images, opened one by one."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from workspace.errors import UserError

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
DOWNLOADS = Path("data/downloads")
UNFINISHED = Path(".ingesting/plan.json")  # beside a folder to which a batch is being added


@dataclass(frozen=True)
class Source:
    """N labelled images that need not be in memory.

    `names` says where each image is from, `labels` is int64 (N,) with indices into `classes`,
    `official_test` is bool (N,) and marks the images of a published test split, `open_image(i)`
    opens the i-th, `ignored` names files that belong to no class. `paths` of images that are files
    are relative to their folder, with bytes that are no UTF-8 as `os.fsdecode` gives them.
    """

    classes: list[str]
    names: Sequence[str]
    labels: np.ndarray
    official_test: np.ndarray
    open_image: Callable[[int], Image.Image]
    ignored: list[str] = field(default_factory=list)
    paths: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse labels that are not a class.

        Raises:
            UserError: a label is outside 0..K-1; the message names the image.
        """
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(outside):
            first = outside[0]
            raise UserError(
                f"{self.names[first]} has the label {self.labels[first]}, but labels go from 0 to "
                f"{len(self.classes) - 1}: correct the source ({len(outside)} such images)"
            )


def load_source(kind: str, folder: str | None, root: Path) -> Source:
    """Open a source by its name in `params.yaml`; `folder` and downloads are relative to `root`.

    Raises:
        UserError: it is missing, damaged or not laid out as expected.
    """
    if kind == "digits":
        return digits()
    if kind == "cifar10":
        return cifar10(root)
    return image_folder(root / str(folder))


SOURCES = ("digits", "cifar10", "folder")


def digits() -> Source:
    """Return the 1,797 handwritten digits that come with scikit-learn: 8x8, grey, 0..16."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * 255 / 16).astype(np.uint8)
    return Source(
        classes=[str(name) for name in bunch.target_names],
        names=[f"digits[{i}]" for i in range(len(images))],
        labels=bunch.target.astype(np.int64),
        official_test=np.zeros(len(images), dtype=bool),
        open_image=partial(_open_array, images),
    )


def cifar10(root: Path) -> Source:
    """Return CIFAR-10 with its official test split, downloaded once and checked by torchvision.

    Raises:
        UserError: there is no network or the archive is damaged; says how to place it by hand.
    """
    from torchvision.datasets import CIFAR10  # takes seconds to import, only this source needs it

    try:
        parts = [CIFAR10(root / DOWNLOADS, train=train, download=train) for train in (True, False)]
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}): fetch {CIFAR10.url} elsewhere, place it "
            f"at {DOWNLOADS / CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) and run again"
        ) from error
    train, test = parts
    return Source(
        classes=list(train.classes),
        names=[
            f"{part}[{i}]"
            for part, data in zip(("train", "test"), parts, strict=True)
            for i in range(len(data))
        ],
        labels=np.array(train.targets + test.targets, dtype=np.int64),
        official_test=np.repeat([False, True], [len(train), len(test)]),
        open_image=partial(_open_array, np.concatenate([train.data, test.data])),
    )


def image_folder(folder: Path) -> Source:
    """Return the images below `folder`, one sub-folder per class, in the order of their names.

    Sub-folders of a class folder belong to the class; hidden files are passed over.

    Raises:
        UserError: the folder is missing, holds no class folder, or a class name can't be used.
    """
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist: correct prepare.folder")
    if (folder.parent / UNFINISHED).exists():
        raise UserError(
            f"a batch has been added to {folder} only in part: run the `make ingest` that was "
            "interrupted again"
        )
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    class_folders = [path for path in entries if path.is_dir()]
    if not class_folders:
        raise UserError(
            f"{folder} has no class folders: put the images of each class into {folder}/<class>/"
        )
    classes = [_class_name(path) for path in class_folders]
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if classes.count(name) > 1)
        raise UserError(f"{folder} has two folders whose name reads {twice!r}: merge them")
    files = [_files_below(path) for path in class_folders]
    Image.init()  # load every decoder now, not in several threads at once
    paths = [str(path.relative_to(folder)) for group in files for path in group]
    return Source(
        classes=classes,
        names=[printable(path) for path in paths],
        labels=np.repeat(np.arange(len(classes)), [len(group) for group in files]),
        official_test=np.zeros(len(paths), dtype=bool),
        open_image=lambda i: _open_file(folder / paths[i]),
        ignored=[printable(path.name) for path in entries if not path.is_dir()],
        paths=paths,
    )


def printable(name: str) -> str:
    r"""Return the name with what can't be shown as escapes; different names stay different.

    Line breaks, marks that turn the direction of writing and bytes that are no UTF-8 can't be.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(
        sign if sign.isprintable() and sign != "\\" else sign.encode("unicode_escape").decode()
        for sign in name
    )


def _class_name(path: Path) -> str:
    # The same name has two spellings in Unicode; file systems differ in which they return.
    name = unicodedata.normalize("NFC", path.name)
    if not name.isprintable() or name != name.strip():
        raise UserError(
            f"the class folder {path.name!r} has characters that can't be shown or stray blanks: "
            "rename it"
        )
    return name


def _files_below(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in sorted(files) if not name.startswith(".")]
    return found


def _open_array(images: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(images[i])


def _open_file(path: Path) -> Image.Image:
    if path.stat().st_size == 0:
        raise ValueError("zero bytes")
    try:
        return Image.open(path)
    except Image.UnidentifiedImageError:
        raise ValueError("not an image") from None


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (height, width) after the EXIF orientation is applied; reads the header only."""
    turned = _orientation(image) in SIDEWAYS
    return (image.width, image.height) if turned else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    # asking a PNG without EXIF data for it would decode the whole image
    known = "exif" in image.info or image.format == "TIFF"
    return image.getexif().get(ExifTags.Base.Orientation, 1) if known else 1


def conversions(image: Image.Image) -> list[str]:
    """Say what `to_pixels` must do to this image before it is plain 8-bit grey or colour."""
    steps = {
        "palette to colour": image.mode in ("P", "PA"),
        "transparency onto white": image.has_transparency_data,
        "16 bits to 8": image.mode.startswith("I"),
        "1 bit to 8": image.mode == "1",
        "CMYK to RGB": image.mode == "CMYK",
        "turned as EXIF says": _orientation(image) != 1,
        "first of several frames": getattr(image, "is_animated", False),
    }
    return [step for step, needed in steps.items() if needed]


def to_pixels(image: Image.Image, size: tuple[int, int], channels: int) -> np.ndarray:
    """Return the image as uint8 (H,W,C), upright, stretched to `size` (H, W) where it differs.

    Raises:
        ValueError: its pixels have no defined range (floating point, 32 bits).
        OSError: the file is truncated or damaged.
    """
    image = _flatten(ImageOps.exif_transpose(image)).convert("L" if channels == 1 else "RGB")
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels)


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if image.mode.startswith("I"):
        return Image.fromarray(_to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA"))
    return image


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("pixel values beyond 16 bits")
    return np.round(values / 257).astype(np.uint8)  # 65535 / 255 = 257
