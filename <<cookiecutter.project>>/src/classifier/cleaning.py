"""From a source to clean splits: read each picture, drop the broken and the repeated, deal.

Pixels pass through one file on disk, so memory grows only by about 400 bytes a picture: its name,
label, digests and fingerprint.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from classifier.data import SPLITS, digest
from classifier.sources import Source, are_splits, inner_folders
from workspace.errors import UserError
from workspace.pictures import (
    GREY_MODES,
    WHITE,
    conversions,
    has_16_bits,
    to_pixels,
    upright_size,
)

EXAMPLES = 20  # how many names a list in the report shows
BATCH = 32  # pictures decoded ahead by the threads
NEW = -1  # split of a picture that is in none yet, in place of an index into SPLITS
BLOCK = 1024  # rows and columns compared at once: 4 MiB of distances


@dataclass(frozen=True)
class Staged:
    """The M readable pictures in their final shape (H, W, C), as raw bytes in `path`.

    `origins` is int64 (M,): where each is in the source; `contents` are the SHA-256 of what it was
    made of, S64 (M,), `digests` those of the pixels, S16 (M,); `fingerprints` uint8 (M, 64);
    `unreadable` maps positions in the source to reasons; `converted` counts; `highest` is int64
    (M,): the highest value of a picture of 16 bits, -1 of any other.
    """

    path: Path
    shape: tuple[int, int, int]
    origins: np.ndarray
    contents: np.ndarray
    digests: np.ndarray
    fingerprints: np.ndarray
    unreadable: dict[int, str]
    converted: Counter[str]
    highest: np.ndarray


@dataclass(frozen=True)
class Dropped:
    """Pictures left out for one reason, the first few described."""

    images: int
    examples: list[str]


@dataclass(frozen=True)
class Cleaned:
    """Positions in the staged pictures that stay, int64 (M',), and their near-duplicate groups.

    `repeats` is int64 (M,): for a picture that was left out as it repeats another, that one, or -1.
    """

    kept: np.ndarray
    groups: np.ndarray
    repeats: np.ndarray
    dropped: dict[str, Dropped]


# -- read ------------------------------------------------------------------------------------------


def check_classes(source: Source) -> None:
    """Refuse what no cleaning can cure.

    Raises:
        UserError: fewer than two classes, classes without pictures, or folders that are none.
    """
    inner = inner_folders(source)
    if len(source.classes) < 2:
        below = shorten(sorted(*inner.values())) if inner else ""
        hint = f"; move its sub-folders {below} one up, if these are the data set" if inner else ""
        raise UserError(
            f"there is only one class, {source.classes[0]!r}: a classifier needs at least two{hint}"
        )
    if not source.official_test.any():
        _check_layout(inner)
    counts = np.bincount(source.labels, minlength=len(source.classes))
    empty = [name for name, images in zip(source.classes, counts, strict=True) if not images]
    if empty:
        raise UserError(f"no pictures in class {shorten(empty)}: add some or remove the class")


def _check_layout(inner: dict[str, frozenset[str]]) -> None:
    """Refuse folders whose sub-folders may be the classes, unless these are named as splits."""
    by_content: dict[frozenset[str], list[str]] = {}
    for name, folders in inner.items():
        by_content.setdefault(folders, []).append(name)
    for folders, names in by_content.items():
        if len(folders) > 1 and len(names) > 1 and not are_splits(folders):
            raise UserError(
                f"the folders {shorten(names)} have the same sub-folders, "
                f"{shorten(sorted(folders))}, and no pictures beside them, as if these were the "
                "classes: put all pictures of a class straight into <class>/"
            )


def common_shape(
    source: Source, size: tuple[int, int] | None, channels: int | None
) -> tuple[int, int, int]:
    """Return (H, W, C) of the data set from the pictures' headers, unless it is given.

    Raises:
        UserError: no size is given and the pictures differ; names two of them.
        UserError: not one picture can be read.
    """
    if size and channels:
        return *size, channels
    first: tuple[int, int] | None = None
    grey = True
    reason = ""
    for i in progress(range(len(source.names)), "looking"):
        try:
            with source.open_image(i) as image:
                this, grey = upright_size(image), grey and image.mode in GREY_MODES
        except Exception as error:  # reported when it is read
            reason = reason or f"{source.names[i]} ({error})"
            continue
        if first is None:
            first, first_name = this, source.names[i]
        if this != first and not size:
            raise UserError(
                f"pictures differ in size: {first_name} is {first[0]}x{first[1]}, "
                f"{source.names[i]} is {this[0]}x{this[1]} (heightxwidth): set prepare.image_size "
                "to [height, width]"
            )
    if first is None:
        raise UserError(
            f"none of {len(source.names)} files can be read as a picture, such as {reason}"
        )
    return *(size or first), channels or (1 if grey else 3)


def stage(source: Source, shape: tuple[int, int, int], path: Path, white: int = WHITE) -> Staged:
    """Decode every picture into one file; note those that can't be read.

    `white` is the value of 16-bit pictures that becomes 255.
    """
    total = len(source.names)
    contents, digests = np.empty(total, "S64"), np.empty(total, "S16")
    fingerprints = np.empty((total, 64), np.uint8)
    readable = np.zeros(total, dtype=bool)
    unreadable: dict[int, str] = {}
    converted: Counter[str] = Counter()
    highest = np.full(total, -1)
    with path.open("wb") as file:
        for i, result in enumerate(_decode_all(source, shape, white)):
            if isinstance(result, str):
                unreadable[i] = result
                continue
            pixels, contents[i], steps, highest[i] = result
            file.write(pixels.data)
            digests[i], fingerprints[i] = digest(pixels), fingerprint(pixels)
            readable[i] = True
            converted.update(steps)
    return Staged(
        path,
        shape,
        np.flatnonzero(readable),
        contents[readable],
        digests[readable],
        fingerprints[readable],
        unreadable,
        converted,
        highest[readable],
    )


def check_readable(source: Source, staged: Staged, max_share: float) -> None:
    """Refuse a source of which too much is broken; a single file is not, where any may be.

    Raises UserError: more than `max_share` of the pictures can't be read.
    """
    share = len(staged.unreadable) / len(source.names)
    if share > max_share and (len(staged.unreadable) > 1 or not max_share):
        raise UserError(
            f"{len(staged.unreadable)} of {len(source.names)} pictures can't be read "
            f"({share:.1%}, prepare.max_unreadable_share allows {max_share:.1%}): repair or remove "
            + shorten(_reasons(source, staged))
        )


def check_range(highest: np.ndarray, white: int, max_share: float) -> None:
    """Refuse pictures of 16 bits of which hardly one uses more than a quarter of the range.

    Those of 12 bits in files of 16 would become nearly black. What can't be read with the `white`
    that cures them is one picture, or a share that may be left out. Raises UserError.
    """
    deep = highest[highest >= 0]
    dark = deep[4 * deep <= white]
    brighter = len(deep) - len(dark)
    if brighter >= len(dark) or brighter > max(1, max_share * len(deep)):
        return
    top = dark.max()
    possible = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if top < 2**bits)
    if top and possible < white:
        raise UserError(
            f"the highest value in {len(dark)} of {len(deep)} pictures of 16 bits is {top}, so "
            f"they would be nearly black: set prepare.white, which is {white}, to {possible}"
        )


# pixels, content, conversions and the highest value of 16 bits or -1; or why it can't be read
Decoded = tuple[np.ndarray, str, list[str], int] | str


def _decode_all(source: Source, shape: tuple[int, int, int], white: int) -> Iterator[Decoded]:
    def decode(i: int) -> Decoded:
        try:
            with source.open_image(i) as image:
                pixels = to_pixels(image, shape[:2], shape[2], white)
                highest = int(np.asarray(image).max()) if has_16_bits(image) else -1
                return pixels, source.sha256(i), conversions(image), highest
        except Exception as error:  # a broken file can raise anything in a decoder
            return str(error) or type(error).__name__

    total = len(source.names)
    with (
        ThreadPool(min(8, os.cpu_count() or 1)) as pool,
        progress(range(total), "reading") as bar,
    ):
        for start in range(
            0, total, BATCH
        ):  # whole batches, so that decoded pictures don't pile up
            for result in pool.map(decode, range(start, min(start + BATCH, total))):
                yield result
                bar.update()


def _reasons(source: Source, staged: Staged) -> list[str]:
    return [f"{source.names[i]} ({reason})" for i, reason in staged.unreadable.items()]


# -- repeated pictures -----------------------------------------------------------------------------


def clean(source: Source, staged: Staged, near_rms: float, known: np.ndarray) -> Cleaned:
    """Drop pictures that are repeated or contradict each other, and group near duplicates.

    An official test split stays whole, so that its figures compare with published ones; what
    repeats it is dropped from the training side. `known` says which split a picture is in, an index
    into SPLITS or NEW, int64 (M,); what would link two splits is dropped, and moves no other.
    """
    dropped = {
        "unreadable": Dropped(len(staged.unreadable), _reasons(source, staged)[:EXAMPLES]),
        "outside a class folder": Dropped(len(source.ignored), source.ignored[:EXAMPLES]),
        "litter of other programs": Dropped(len(source.litter), source.litter[:EXAMPLES]),
    }
    kept, repeats = np.arange(len(staged.origins)), np.full(len(staged.origins), -1)
    for reason, find in (
        ("conflicting labels", _contradictions),
        ("exact duplicate", _repetitions),
    ):
        original = find(source, staged, kept)
        dropped[reason] = _describe(source, staged, kept, original)
        if find is _repetitions:
            repeats[kept] = original
        kept = kept[original < 0]
    groups = near_groups(staged.fingerprints[kept], near_rms)
    original = _near_test(source, staged, kept, groups)
    dropped["near duplicate of a test picture"] = _describe(source, staged, kept, original)
    kept, groups = kept[original < 0], groups[original < 0]
    original = _between_splits(staged, kept, groups, known[kept], near_rms)
    dropped["near duplicate in two splits"] = _describe(source, staged, kept, original)
    return Cleaned(kept[original < 0], groups[original < 0], repeats, dropped)


# Each of these returns int64 (M,): for a picture to drop, the picture it repeats; -1 to keep it.


def _contradictions(source: Source, staged: Staged, kept: np.ndarray) -> np.ndarray:
    labels, official = _facts(source, staged, kept)
    first = _first_of_each(staged.digests[kept], official)
    other = labels != labels[first]
    conflict = np.isin(first, first[other])
    # for the first of its kind, name a contradicting picture rather than itself
    partner = first.copy()
    partner[first[other]] = np.flatnonzero(other)
    return np.where(conflict & ~official, kept[partner], -1)


def _repetitions(source: Source, staged: Staged, kept: np.ndarray) -> np.ndarray:
    _, official = _facts(source, staged, kept)
    first = _first_of_each(staged.digests[kept], official)
    return np.where((first != np.arange(len(kept))) & ~official, kept[first], -1)


def _near_test(source: Source, staged: Staged, kept: np.ndarray, groups: np.ndarray) -> np.ndarray:
    _, official = _facts(source, staged, kept)
    first = _first_of_each(groups, official)
    return np.where(official[first] & ~official, kept[first], -1)


def _between_splits(
    staged: Staged, kept: np.ndarray, groups: np.ndarray, places: np.ndarray, rms: float
) -> np.ndarray:
    """Find what must stay out, lest near duplicates be in two splits.

    That is every new picture of a group that spans splits; and of two that are in splits already,
    as where branches were merged, the one that is not trained on: it would be tested too kindly.
    """
    original = np.full(len(kept), -1)
    least = lowest(places, groups)
    highest = np.full(len(least), NEW)
    np.maximum.at(highest, groups, places)
    spans = (least != highest)[groups]
    known = np.flatnonzero(spans & (places != NEW))
    one_of_each = np.full(len(least), -1)
    one_of_each[groups[known]] = kept[known]
    new = np.flatnonzero(spans & (places == NEW))
    original[new] = one_of_each[groups[new]]
    for i, j in near_pairs(staged.fingerprints[kept[known]], rms, keys=places[known]):
        i, j = known[i], known[j]
        i_leaves = places[i] > places[j]
        original[np.where(i_leaves, i, j)] = kept[np.where(i_leaves, j, i)]
    return original


def _facts(source: Source, staged: Staged, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    origins = staged.origins[kept]
    return source.labels[origins], source.official_test[origins]


def _first_of_each(keys: np.ndarray, official: np.ndarray) -> np.ndarray:
    """For each picture, the first with the same key; an official test picture goes first."""
    order = np.argsort(~official, kind="stable")
    _, first, inverse = np.unique(keys[order], return_index=True, return_inverse=True)
    result = np.empty(len(keys), dtype=np.int64)
    result[order] = order[first[inverse]]
    return result


def _describe(source: Source, staged: Staged, kept: np.ndarray, original: np.ndarray) -> Dropped:
    def title(position: int) -> str:
        i = staged.origins[position]
        return f"{source.names[i]} ({source.classes[source.labels[i]]})"

    drop = np.flatnonzero(original >= 0)
    examples = [f"{title(kept[k])} repeats {title(original[k])}" for k in drop[:EXAMPLES]]
    return Dropped(len(drop), examples)


# -- near duplicates -------------------------------------------------------------------------------


def fingerprint(pixels: np.ndarray) -> np.ndarray:
    """Return a picture (H,W,C) as 8x8 area averages of grey, uint8 (64,)."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("L")
    return np.asarray(image.resize((8, 8), Image.Resampling.BOX)).ravel()


def near_pairs(
    fingerprints: np.ndarray, rms: float, keys: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield index arrays (i, j) of pairs of fingerprints (N, 64) at most `rms` apart.

    Only pairs with different `keys` (N,) come; the caller may change them between two yields.

    The root mean square difference, in grey levels, is never below the difference of the two means
    (Cauchy-Schwarz), so with pictures sorted by mean only a band of pairs is compared. The
    arithmetic is exact: all terms are integers below 2²⁴.
    """
    means = fingerprints.mean(axis=1)
    order = np.argsort(means, kind="stable")
    means, rows = means[order], fingerprints[order].astype(np.float32)
    squares = np.square(rows).sum(axis=1)
    for start in progress(range(0, len(rows), BLOCK), "comparing", "block"):
        block = slice(start, start + BLOCK)
        end = np.searchsorted(means, means[block][-1] + rms, side="right")
        for left in range(start, end, BLOCK):
            other = slice(left, min(left + BLOCK, end))
            if _all_equal(keys[order[block]], keys[order[other]]):
                continue
            distances = squares[block, None] + squares[other] - 2 * rows[block] @ rows[other].T
            i, j = np.nonzero(distances <= 64 * rms**2)
            once = i + start < j + left
            i, j = order[i[once] + start], order[j[once] + left]
            wanted = keys[i] != keys[j]
            yield i[wanted], j[wanted]


def _all_equal(*parts: np.ndarray) -> bool:
    return all((part == parts[0][0]).all() for part in parts)


def near_groups(fingerprints: np.ndarray, rms: float) -> np.ndarray:
    """Return a group number for each fingerprint (N, 64): linked near duplicates share one.

    An `rms` of 0 turns the search off: every picture is its own group.
    """
    groups = np.arange(len(fingerprints))
    if rms == 0:
        return groups
    for i, j in near_pairs(fingerprints, rms, keys=groups):
        if len(i):
            links = coo_array((np.ones(len(i)), (groups[i], groups[j])), shape=(len(groups),) * 2)
            groups[:] = connected_components(links, directed=False)[1][groups]
    return groups


def lowest(places: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return, by the number of a group, the lowest place of its M members that is known, or NEW."""
    found = np.full(groups.max(initial=-1) + 1, len(SPLITS))
    known = places != NEW
    np.minimum.at(found, groups[known], places[known])
    return np.where(found == len(SPLITS), NEW, found)


def progress(items: range | list, action: str, unit: str = "picture") -> tqdm:
    """Return a progress bar that vanishes when it is done; where no terminal is, none is seen."""
    return tqdm(items, desc=action, unit=unit, leave=False, mininterval=1, disable=None)


def shorten(names: list[str]) -> str:
    """Return the first three names in words."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
