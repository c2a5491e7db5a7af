"""Where pictures come from. Every source is a list of named, labelled ones, opened one by one."""

import hashlib
import os
import re
import tarfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workspace.errors import UserError
from workspace.files import sha256
from workspace.pictures import DOWNLOADS, FORMATS, MAX_PIXELS, open_picture, refuse_links

UNFINISHED = Path(".ingesting/plan.json")  # beside a folder to which a batch is being added
LARGEST = 2**28  # bytes of a file that is unpacked
FORMULAS = ("=", "+", "-", "@")  # what one begins with, in a spreadsheet
NAME_BYTES = 240  # of a class: files of this name and an ending are made
LITTER = {  # of operating systems and network drives, beside all that is hidden
    *("__macosx", "desktop.ini", "thumbs.db", "ehthumbs.db", "icon\r", "lost+found"),
    *("$recycle.bin", "system volume information", "@eadir", "#recycle", "#snapshot", "@recycle"),
}
TRAINED = r"train(?:ing)?(?:val)?|trn|unlabell?ed"
TESTED = r"val(?:id(?:ation)?)?|dev|te?st(?:ing)?|eval(?:uation)?|pred(?:iction)?|hold-?out"
SPLIT_NAME = re.compile(  # a word in it
    rf"(?<![a-z])({TRAINED}|{TESTED})(?:set|split|data|images|pictures)?(?![a-z])", re.IGNORECASE
)


@dataclass(frozen=True)
class Source:
    """N labelled pictures that need not be in memory.

    `names` says where each picture is from, `labels` is int64 (N,) with indices into `classes`,
    `official_test` is bool (N,) and marks the pictures of a published test split, `open_image(i)`
    opens the i-th, `sha256(i)` is that of its content, whatever becomes of it later: of its file's
    bytes, or of the array's. `ignored` names files that belong to no class, `litter` what programs
    left there that is no picture. `paths` of pictures that are files are relative to their folder,
    with bytes that are no UTF-8 as `os.fsdecode` gives them.
    """

    classes: list[str]
    names: Sequence[str]
    labels: np.ndarray
    official_test: np.ndarray
    open_image: Callable[[int], Image.Image]
    sha256: Callable[[int], str]
    ignored: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    paths: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse labels that are not a class.

        Raises:
            UserError: a label is outside 0..K-1; the message names the picture.
        """
        outside = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
        if len(outside):
            first = outside[0]
            raise UserError(
                f"{self.names[first]} has the label {self.labels[first]}, but labels go from 0 to "
                f"{len(self.classes) - 1}: correct the source ({len(outside)} such pictures)"
            )


def load_source(
    kind: str,
    folder: str | None,
    root: Path,
    max_pixels: int = MAX_PIXELS,
    official_test: str | None = None,
) -> Source:
    """Open a source by its name in `params.yaml`; `folder` and downloads are relative to `root`.

    Raises:
        UserError: it is missing, damaged or not laid out as expected.
    """
    if kind == "digits":
        return digits()
    if kind == "cifar10":
        return cifar10(root)
    return image_folder(root / str(folder), max_pixels, root, official_test)


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
        sha256=partial(_array_sha256, images),
    )


def cifar10(root: Path) -> Source:
    """Return CIFAR-10 with its official test split, downloaded once and checked by torchvision.

    Raises:
        UserError: there is no network or the archive is damaged; says how to place it by hand.
    """
    from torchvision.datasets import CIFAR10  # takes seconds to import, only this source needs it

    try:
        parts = _cifar10_parts(root / DOWNLOADS)
    except (OSError, RuntimeError, EOFError, tarfile.TarError) as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded ({error}): fetch {CIFAR10.url} elsewhere, place it "
            f"at {DOWNLOADS / CIFAR10.filename} (md5 {CIFAR10.tgz_md5}) and run again"
        ) from error
    train, test = parts
    images = np.concatenate([train.data, test.data])
    return Source(
        classes=list(train.classes),
        names=[
            f"{part}[{i}]"
            for part, data in zip(("train", "test"), parts, strict=True)
            for i in range(len(data))
        ],
        labels=np.array(train.targets + test.targets, dtype=np.int64),
        official_test=np.repeat([False, True], [len(train), len(test)]),
        open_image=partial(_open_array, images),
        sha256=partial(_array_sha256, images),
    )


def _cifar10_parts(folder: Path) -> tuple[Any, Any]:
    """Training and test split, which torchvision reads only if their files have the known MD5."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, download_url

    known = [
        *CIFAR10.train_list,
        *CIFAR10.test_list,
        (CIFAR10.meta["filename"], CIFAR10.meta["md5"]),
    ]
    files = {f"{CIFAR10.base_folder}/{name}": md5 for name, md5 in known}
    if not all(check_integrity(folder / name, md5) for name, md5 in files.items()):
        download_url(CIFAR10.url, folder, CIFAR10.filename, CIFAR10.tgz_md5)
        _unpack(folder / CIFAR10.filename, files, folder)
    return CIFAR10(folder, train=True), CIFAR10(folder, train=False)


def _unpack(archive: Path, wanted: Collection[str], folder: Path) -> None:
    """Unpack files of an archive into a folder, each of which it must have once, and no link.

    Raises OSError, tarfile.TarError.
    """
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name in wanted]
        if sorted(member.name for member in members) != sorted(wanted):
            raise OSError(f"{archive.name} lacks a file of {', '.join(wanted)} or has one twice")
        if strange := [m.name for m in members if not m.isfile() or m.size > LARGEST]:
            raise OSError(f"{archive.name} has as {strange[0]} no file of at most {LARGEST} bytes")
        tar.extractall(folder, members, filter="data")


def image_folder(
    folder: Path,
    max_pixels: int = MAX_PIXELS,
    root: Path | None = None,
    official_test: str | None = None,
) -> Source:
    """Return the pictures below `folder`, one sub-folder per class, in the order of their names.

    Sub-folders of a class folder belong to the class; what is in those called `official_test` is
    the test set. Litter is passed over. With the project's `root`, the way from there must have no
    links either.

    Raises:
        UserError: the folder is missing, holds no class folder or links to folders, a class name
            can't be used, or there is no such test set.
    """
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist: correct prepare.folder")
    if (folder.parent / UNFINISHED).exists():
        raise UserError(
            f"a batch has been added to {folder} only in part: run the `make ingest` that was "
            "interrupted again"
        )
    refuse_links(folder, root)
    class_folders = folders_in(folder)
    if not class_folders:
        raise UserError(
            f"{folder} has no class folders: put the pictures of each class into {folder}/<class>/"
        )
    classes = [_class_name(path) for path in class_folders]
    _check_together(classes, folder)
    found = [_files_and_litter(path) for path in class_folders]
    files, litter = [part[0] for part in found], [path for part in found for path in part[1]]
    others = [path for path in sorted(folder.iterdir()) if path not in class_folders]
    Image.init()  # load every decoder now, not in several threads at once
    paths = [str(path.relative_to(folder)) for group in files for path in group]
    official = np.array([is_official(path, official_test) for path in paths], bool)
    if official_test and not official.any():
        raise UserError(
            f"there is no picture in {folder}/<class>/{official_test}/, which "
            "prepare.official_test names: put the test set there, or set it to null"
        )
    return Source(
        classes=classes,
        names=[printable(path) for path in paths],
        labels=np.repeat(np.arange(len(classes)), [len(group) for group in files]),
        official_test=official,
        open_image=lambda i: open_picture(folder / paths[i], max_pixels),
        sha256=lambda i: sha256(folder / paths[i]),
        ignored=[printable(path.name) for path in others if not is_litter(path.name)],
        litter=[
            printable(str(path.relative_to(folder)))
            for path in sorted([*litter, *(path for path in others if is_litter(path.name))])
        ],
        paths=paths,
    )


def is_official(path: str, official_test: str | None) -> bool:
    """Whether a picture, by its path in the data set, is of the official test set of that name."""
    return bool(official_test) and Path(path).parts[1:-1][:1] == (official_test,)


def folders_in(folder: Path) -> list[Path]:
    """The class folders in a data set's folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name))


def is_litter(name: str) -> bool:
    """Whether a file or folder of that name is no part of the data: hidden, or a system's own."""
    return name.startswith((".", "~$")) or name.casefold() in LITTER


def folded(name: str) -> str:
    """What names share that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


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
    shown = printable(name)
    if not name.isprintable() or name != name.strip():
        raise UserError(
            f"the class folder {path.name!r} has characters that can't be shown or stray blanks: "
            "rename it"
        )
    # Tables name classes and, by their folders, files; to Excel wide signs are like usual ones.
    if unicodedata.normalize("NFKC", name).startswith(FORMULAS):
        raise UserError(
            f"the class folder {shown} begins like a formula, which a spreadsheet would compute in "
            "tables of answers: rename it"
        )
    if name.endswith("."):
        raise UserError(f"the class folder {shown} ends with a dot, which Windows drops: rename it")
    if len(name.encode()) > NAME_BYTES:
        raise UserError(
            f"the class folder {shown[:20]}… has a name of {len(name.encode())} bytes: rename it, "
            f"{NAME_BYTES} are the most"
        )
    return name


def _check_together(classes: list[str], folder: Path) -> None:
    """Refuse names that are the same to some file system, and those of splits."""
    if twins := same_names(classes):
        raise UserError(
            f"{folder} has two folders whose name reads {twins[0]!r}, as some file systems see it "
            f"({' and '.join(map(ascii, twins))}): merge them or rename one"
        )
    if are_splits(classes):
        raise UserError(
            f"the folders of {folder}, {', '.join(classes)}, are splits and no classes: put what "
            f"is of one class together, <class>/{classes[0]}/ in place of {classes[0]}/<class>/; "
            "`make pipeline` deals splits of its own, except for a test set that "
            "prepare.official_test names"
        )


def are_splits(names: Collection[str]) -> bool:
    """Whether folders are the splits of a data set by their names, which aren't all of one kind."""
    found = [SPLIT_NAME.search(name) for name in names]
    kinds = {word[1][:2].casefold() for word in found if word}
    return all(found) and len(kinds) > 1


def inner_folders(source: Source) -> dict[str, frozenset[str]]:
    """The sub-folders of each class folder that has no pictures, by their endings, beside them."""
    endings = Image.registered_extensions()
    inner: dict[int, set[str]] = {}
    flat = set()
    for path, label in zip(source.paths, source.labels.tolist(), strict=False):
        _, name, *below = path.split(os.sep, 2)
        if below:
            inner.setdefault(label, set()).add(printable(name))
        elif endings.get(Path(name).suffix.lower()) in FORMATS:
            flat.add(label)
    return {source.classes[k]: frozenset(names) for k, names in inner.items() if k not in flat}


def same_names(names: Iterable[str]) -> list[str]:
    """Return two names that some file systems take for the same, or nothing."""
    seen: dict[str, str] = {}
    for name in names:
        if (other := seen.setdefault(folded(name), name)) is not name:
            return [other, name]
    return []


def _files_and_litter(folder: Path) -> tuple[list[Path], list[Path]]:
    """What is below a class folder; of litter, a folder counts as one."""
    found: list[Path] = []
    litter: list[Path] = []
    for parent, folders, files in os.walk(folder):
        litter += [Path(parent, name) for name in (*folders, *files) if is_litter(name)]
        folders[:] = sorted(name for name in folders if not is_litter(name))
        found += [Path(parent, name) for name in sorted(files) if not is_litter(name)]
    return found, litter


def _open_array(images: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(images[i])


def _array_sha256(images: np.ndarray, i: int) -> str:
    return hashlib.sha256(np.ascontiguousarray(images[i]).data).hexdigest()
