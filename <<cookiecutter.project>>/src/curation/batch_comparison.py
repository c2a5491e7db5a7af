"""A batch of new pictures beside the data set: what it repeats, contradicts and brings.

Pixels stay in two files on disk; memory grows by about a kilobyte a picture for all else.
"""

import difflib
import shlex
import unicodedata
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.cleaning import (
    Staged,
    check_classes,
    check_range,
    common_shape,
    near_groups,
    progress,
    shorten,
    stage,
)
from classifier.params import PrepareParams
from classifier.sources import Source, folders_in, image_folder, same_names
from workspace.errors import UserError

CHUNK = 16  # pictures in memory at once
KEEP, DROP = "keep", "drop"  # what a person may write for a picture besides a class


@dataclass(frozen=True)
class Comparison:
    """The M pictures that could be read: those of the data set first, the new ones behind.

    `labels` is int64 (M,) with indices into the K `classes` of both. Of `repeats`, `contradicts`
    and `resembles`, int64 (M,), an entry is the picture that this one equals, label included,
    equals with another label, or nearly equals with another label; -1 if there is none, or if the
    picture is not new. `groups` is int64 (M,): near duplicates share a number.
    """

    classes: list[str]
    folder: Path
    title: str  # of the folder, as people know it
    parts: tuple[Source, Source]
    staged: tuple[Staged, Staged]
    names: list[str]  # where each picture is: of a new one, below the batch
    paths: list[str]  # of its file, relative to its part's folder
    labels: np.ndarray
    repeats: np.ndarray
    contradicts: np.ndarray
    resembles: np.ndarray
    groups: np.ndarray

    @property
    def old(self) -> int:
        """Number of pictures of the data set."""
        return len(self.staged[0].origins)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every picture."""
        return self.staged[0].shape

    @cached_property
    def digests(self) -> np.ndarray:
        """Digests of the pixels, S16 (M,)."""
        return np.concatenate([part.digests for part in self.staged])

    @cached_property
    def candidates(self) -> np.ndarray:
        """The new pictures that repeat none, int64."""
        return self.old + np.flatnonzero(self.repeats[self.old :] < 0)

    def is_official(self, position: int) -> bool:
        """Whether a picture is of the data set's official test set."""
        source, staged = self.parts[0], self.staged[0]
        return position < self.old and bool(source.official_test[staged.origins[position]])

    def label(self, position: int) -> str:
        """Name of the class that a picture is labelled as."""
        return self.classes[self.labels[position]]

    def pixels(self, positions: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the pictures at those positions in chunks, uint8 (n, H, W, C)."""
        size = int(np.prod(self.shape))
        # plain reads: the pages of a memory map would count as this process's memory
        with self.staged[0].path.open("rb") as old, self.staged[1].path.open("rb") as new:
            for start in range(0, len(positions), CHUNK):
                chunk = positions[start : start + CHUNK]
                images = np.empty((len(chunk), *self.shape), np.uint8)
                for image, position in zip(images, chunk.tolist(), strict=True):
                    is_old = position < self.old
                    file = old if is_old else new
                    file.seek(size * (position if is_old else position - self.old))
                    file.readinto(image.data)
                yield images


# -- compare ---------------------------------------------------------------------------------------


def compare(
    batch: Path,
    data_set: tuple[Path, str],
    new_classes: Sequence[str],
    params: PrepareParams,
    place: Path,
) -> Comparison:
    """Read the batch and the data set, a folder with a title, into files in `place`; compare them.

    Raises UserError: the batch can't be used, be it what `prepare` would say of it, or brings
    classes that it may not, or other sizes or channels.
    """
    existing = existing_source(data_set[0], params.max_pixels, params.official_test)
    new = batch_source(batch, params.max_pixels)
    check_class_names([*existing.classes, *used_classes(new)])
    check_new_classes(existing, new, new_classes)
    if not existing.names:
        check_classes(new)
    shape = agreed_shape(existing, new, params)
    staged = (
        stage(existing, shape, place / "existing", params.white),
        stage(new, shape, place / "batch", params.white),
    )
    check_any_readable(batch, staged[1])
    highest = np.concatenate([part.highest for part in staged])
    check_range(highest, params.white, params.max_unreadable_share)
    classes = sorted({*existing.classes, *used_classes(new)})
    parts = existing, new
    labels = np.concatenate(
        [labels_among(classes, *part) for part in zip(parts, staged, strict=True)]
    )
    return relate(classes, data_set, parts, staged, labels, params.near_duplicate_rms)


def labels_among(classes: list[str], source: Source, staged: Staged) -> np.ndarray:
    """Return the labels of a source's readable pictures as indices into other classes, int64."""
    places = {name: label for label, name in enumerate(classes)}
    # a class that has no pictures may not be among them
    there = np.array([places.get(name, -1) for name in source.classes], np.int64)
    return there[source.labels[staged.origins]]


def relate(
    classes: list[str],
    data_set: tuple[Path, str],
    parts: tuple[Source, Source],
    staged: tuple[Staged, Staged],
    labels: np.ndarray,
    near_rms: float,
) -> Comparison:
    """Find what the new pictures repeat, contradict and resemble."""
    old = len(staged[0].origins)
    digests = np.concatenate([part.digests for part in staged]).tolist()
    repeats = repetitions(digests, labels.tolist(), old)
    distinct = np.flatnonzero(repeats < 0)
    groups = np.full(len(labels), -1)
    fingerprints = np.concatenate([part.fingerprints for part in staged])
    groups[distinct] = near_groups(fingerprints[distinct], near_rms)
    contradicts = rivals(digests, labels, distinct, old)
    resembles = np.where(contradicts < 0, rivals(groups.tolist(), labels, distinct, old), -1)
    folder, title = data_set
    known = [f"{title}/{parts[0].names[i]}" for i in staged[0].origins]
    names = known + [parts[1].names[i] for i in staged[1].origins]
    paths = [
        source.paths[i] for source, part in zip(parts, staged, strict=True) for i in part.origins
    ]
    return Comparison(
        *(classes, folder, title, parts, staged, names, paths),
        *(labels, repeats, contradicts, resembles, groups),
    )


def repetitions(digests: list[bytes], labels: list[int], old: int) -> np.ndarray:
    """For each of M pictures, the first with its digest and label; -1 if it is that or not new."""
    repeats = np.full(len(labels), -1)
    first: dict[tuple[bytes, int], int] = {}
    for position, key in enumerate(zip(digests, labels, strict=True)):
        earlier = first.setdefault(key, position)
        if position >= old and position != earlier:
            repeats[position] = earlier
    return repeats


def rivals(keys: Sequence[Hashable], labels: np.ndarray, among: np.ndarray, old: int) -> np.ndarray:
    """For each of M pictures, the first among some with the same key and another label.

    -1 if there is none, or if the picture is not new or not among them.
    """
    members: dict[Hashable, list[int]] = {}
    for position in among.tolist():
        members.setdefault(keys[position], []).append(position)
    found = np.full(len(labels), -1)
    for positions in members.values():
        first = positions[0]
        others = [position for position in positions if labels[position] != labels[first]]
        if others:
            found[positions] = others[0]
            found[others] = first
    found[:old] = -1
    return found


# -- the two folders -------------------------------------------------------------------------------


def existing_source(folder: Path, max_pixels: int, official_test: str | None = None) -> Source:
    """Return the pictures of the data set; an empty or missing folder is one without pictures."""
    if not folder.is_dir() or not folders_in(folder):
        nothing = np.zeros(0, dtype=np.int64)
        empty = Image.new("L", (1, 1))
        return Source([], [], nothing, nothing.astype(bool), lambda i: empty, lambda i: "")
    return image_folder(folder, max_pixels, official_test=official_test)


def batch_source(batch: Path, max_pixels: int) -> Source:
    """Return the pictures of the batch.

    Raises UserError: it is not a folder, or there is no picture in it.
    """
    if not batch.is_dir():
        raise UserError(
            f"{batch} is not a folder: give one with a sub-folder of pictures for each class"
        )
    source = image_folder(batch, max_pixels)
    if not source.names:
        raise UserError(f"there is no file in the class folders of {batch}: nothing to add")
    return source


def check_any_readable(batch: Path, staged: Staged) -> None:
    """Refuse a batch of which nothing can be read; of others, the report says what is left out.

    Raises UserError with the first of the reasons.
    """
    if not len(staged.origins):
        reason = next(iter(staged.unreadable.values()))
        raise UserError(
            f"none of the {len(staged.unreadable)} files in {batch} can be read ({reason}): copy "
            "the batch again"
        )


def used_classes(source: Source) -> list[str]:
    """Classes of the source that have pictures."""
    return [source.classes[label] for label in np.unique(source.labels)]


def check_class_names(classes: Sequence[str]) -> None:
    """Raise UserError for a class whose name is a decision's, or another's to some file system."""
    if twins := same_names(dict.fromkeys(classes)):
        raise UserError(
            f"the batch's class {twins[1]} is to some file systems the data set's {twins[0]}: "
            "rename one of the folders"
        )
    for name in classes:
        if name.casefold() in (KEEP, DROP):
            raise UserError(
                f"the class {name} has the name of a decision, {KEEP} or {DROP}: rename its folder"
            )


def check_new_classes(existing: Source, batch: Source, allowed: Sequence[str]) -> None:
    """Refuse classes that the data set does not have, unless a person allowed them.

    Raises UserError, which names the classes and those they may be meant to be.
    """
    permitted = {unicodedata.normalize("NFC", name) for name in allowed}
    known = existing.classes
    unknown = [name for name in used_classes(batch) if name not in known and name not in permitted]
    if not known or not unknown:
        return
    hints = []
    for name in unknown:
        close = closest(name, known)
        hints.append(f"{name} (did you mean {close}?)" if close else name)
    raise UserError(
        f"the data set has no class {shorten(hints)}: rename the batch's folder, or allow new "
        f"classes with NEW_CLASSES={for_make(unknown)}; it has {shorten(known)}"
    )


def for_make(names: Sequence[str]) -> str:
    """Quote names for the command line, and all of them for the shell."""
    return shlex.quote(shlex.join(names))


def closest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that this one is probably meant to be."""
    by_folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def agreed_shape(existing: Source, batch: Source, params: PrepareParams) -> tuple[int, int, int]:
    """Return (H, W, C) of the data set, which the batch must fit.

    Raises UserError: the batch's pictures have another size, or colour and the data set is grey; or
    they differ in size, and no size is set.
    """
    size = (params.image_size[0], params.image_size[1]) if params.image_size else None
    new = common_shape(batch, size, params.channels)
    if not existing.names:
        return new
    old = common_shape(existing, size, params.channels)
    if old[:2] != new[:2]:
        raise UserError(
            f"the batch's pictures are {new[0]}x{new[1]}, those of the data set {old[0]}x{old[1]} "
            "(heightxwidth): bring the batch to that size or set prepare.image_size"
        )
    if old[2] < new[2]:
        raise UserError(
            "the batch has pictures in colour, the data set is grey: set prepare.channels to 1 to "
            "make the batch grey, or to 3 to have the data set in colour"
        )
    return old


# -- statistics ------------------------------------------------------------------------------------


def statistics(comparison: Comparison) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each channel of each picture, float32 (M, C) each.

    In grey levels of 255.
    """
    total = len(comparison.labels)
    means, deviations = [], []
    with progress(range(total), "measuring") as bar:
        for images in comparison.pixels(np.arange(total)):
            means.append(images.mean(axis=(1, 2), dtype=np.float64).astype(np.float32))
            deviations.append(images.std(axis=(1, 2), dtype=np.float64).astype(np.float32))
            bar.update(len(images))
    return np.concatenate(means), np.concatenate(deviations)
