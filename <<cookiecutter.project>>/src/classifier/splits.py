"""Which split a picture belongs to: dealt once, written down in a ledger, and never changed.

The ledger knows a picture by its content, also after it was removed, so that a change of the data
set, of its folders, or of `params.yaml` moves no picture from one split to another.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from classifier.cleaning import NEW, lowest, shorten
from classifier.data import SPLITS
from workspace import files, settings
from workspace.errors import UserError, shown

LEDGER = Path("data/splits.csv")
HEADER = "sha256,split"
DIGITS = 16  # of a SHA-256: two pictures that share them would only share a split
LINE = re.compile(rf"([0-9a-f]{{{DIGITS}}}),({'|'.join(SPLITS)})")
TRAIN, TEST = SPLITS.index("train"), SPLITS.index("test")

Ledger = dict[bytes, int]  # the first digits of a picture's SHA-256 → index into SPLITS


# -- the ledger ------------------------------------------------------------------------------------


def read(root: Path) -> Ledger:
    """Read the ledger below the project's `root`; where there is none, no picture is known.

    Raises UserError as `parse`.
    """
    path = root / LEDGER
    return parse(settings.read_text(path), str(path)) if path.exists() else Ledger()


def parse(text: str, name: str) -> Ledger:
    """Read a ledger; `name` appears in messages.

    A picture that is there twice, as two branches dealt it, is in the split that is nearest to the
    training: one that a model may have been trained on tests none.

    Raises UserError, which names the line that is none.
    """
    ledger = Ledger()
    for number, line in enumerate(text.splitlines(), 1):
        if line == HEADER:
            continue
        if not (match := LINE.fullmatch(line)):
            raise UserError(
                f"{name}, line {number}, is {shown(line)} and no picture's split: restore the file "
                "from Git; after a merge, keep the lines of both sides and nothing else"
            )
        key, place = match[1].encode(), SPLITS.index(match[2])
        ledger[key] = min(place, ledger.get(key, place))
    return ledger


def write(ledger: Ledger, root: Path) -> None:
    """Write the ledger, a line for each picture in the order of their digests."""
    lines = [f"{key.decode()},{SPLITS[place]}\n" for key, place in sorted(ledger.items())]
    files.write(root / LEDGER, f"{HEADER}\n{''.join(lines)}")


def look_up(
    ledger: Ledger, contents: np.ndarray, digests: np.ndarray, official_test: np.ndarray
) -> np.ndarray:
    """Return where M pictures belong that are known, int64 (M,): an index into SPLITS, or NEW.

    They are known by their `contents`, S64 (M,), and by those of pictures with the same pixels, of
    which `digests` S16 (M,) are. Pictures of an official test set are in the test split, and where
    there is one, others are not.
    """
    known = np.array([ledger.get(key, NEW) for key in keys(contents)], np.int64)
    if official_test.any():
        known[known == TEST] = NEW
    _, same = np.unique(digests, return_inverse=True)
    known = lowest(known, same)[same]
    known[official_test] = TEST
    return known


def enter(ledger: Ledger, contents: np.ndarray, places: np.ndarray) -> Ledger:
    """Return the ledger with M pictures more, by their `contents` and `places`, both (M,)."""
    return ledger | dict(zip(keys(contents), places.tolist(), strict=True))


def keys(contents: np.ndarray) -> list[bytes]:
    """Return what the ledger knows pictures by, of their contents, S64 (M,)."""
    return contents.astype(f"S{DIGITS}").tolist()


# -- deal ------------------------------------------------------------------------------------------


def split(
    labels: np.ndarray,
    groups: np.ndarray,
    known: np.ndarray,
    contents: np.ndarray,
    shares: tuple[float, float],
    classes: list[str],
    has_official_test: bool,
    seed: int,
) -> np.ndarray:
    """Deal M pictures to splits: int64 (M,), indices into `SPLITS`.

    Who is `known`, as `look_up` says, stays; a new picture joins its near duplicates of the same
    group. The others are dealt class by class, whole groups at a time, in an order that follows
    from the seed and their `contents`, so that each class comes as near to the shares (validation,
    test) as its known pictures allow, and is in every split. With an official test split, no other
    picture is dealt to the test.

    Raises UserError: a class has too few pictures for that.
    """
    places = np.where(known == NEW, lowest(known, groups)[groups], known)
    to_fill = (1,) if has_official_test else (1, 2)
    free = np.flatnonzero(places == NEW)
    _, first, inverse, sizes = np.unique(
        groups[free], return_index=True, return_inverse=True, return_counts=True
    )
    group_labels = labels[free][first]  # of its first picture, should a group span classes
    order = _order(contents[free], inverse, seed)
    group_places = np.zeros(len(sizes), np.int64)
    for label in range(len(classes)):
        there = np.bincount(places[(labels == label) & (places != NEW)], minlength=len(SPLITS))
        members = order[group_labels[order] == label]
        images = there[[TRAIN, *to_fill]].sum() + sizes[members].sum()
        room = {place: round(shares[place - 1] * images) - there[place] for place in to_fill}
        group_places[members] = _deal(sizes[members], room, there)
    places[free] = group_places[inverse]
    _check_all_there(labels, groups, places, classes, len(to_fill) + 1)
    return places


def _order(contents: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Return the numbers of groups in an order that follows from the seed and what is in them."""
    hashes = [hashlib.sha256(b"%d %s" % (seed, content)).digest() for content in contents.tolist()]
    sequence = groups[np.argsort(np.array(hashes, "S32"), kind="stable")]
    numbers, first = np.unique(sequence, return_index=True)
    return numbers[np.argsort(first)]


def _deal(sizes: np.ndarray, room: dict[int, int], there: np.ndarray) -> np.ndarray:
    """Fill each place with groups while they fit; the others go to the training.

    `there` says how many pictures each place has. The smallest groups go where there are none, and
    the largest stays in the training if that has none, so that no place is empty.
    """
    places = np.full(len(sizes), NEW)
    by_size = np.argsort(sizes, kind="stable").tolist()
    if by_size and not there[TRAIN]:
        places[by_size.pop()] = TRAIN
    for place in [place for place in room if not there[place]]:
        if by_size:
            group = by_size.pop(0)
            places[group] = place
            room[place] -= sizes[group]
    for group in np.flatnonzero(places == NEW):
        places[group] = next((place for place in room if sizes[group] <= room[place]), TRAIN)
        if places[group] != TRAIN:
            room[places[group]] -= sizes[group]
    return places


def _check_all_there(
    labels: np.ndarray, groups: np.ndarray, places: np.ndarray, classes: list[str], wanted: int
) -> None:
    """Raise UserError for a class that is not in every split."""
    few, absent = [], []
    for label, name in enumerate(classes):
        its = labels == label
        counts = np.bincount(places[its], minlength=len(SPLITS))
        if (distinct := len(np.unique(groups[its]))) < wanted:
            few.append(f"{name} ({distinct})")
        absent += [f"{name} ({SPLITS[place]})" for place in np.flatnonzero(counts == 0)]
    if few:
        raise UserError(
            f"fewer distinct pictures than the {wanted} splits to fill are left of class "
            f"{shorten(few)}: add pictures, remove the class or lower prepare.near_duplicate_rms"
        )
    if absent:
        raise UserError(
            f"splits without a picture of a class, as no picture changes its split: "
            f"{shorten(absent)}; add pictures, remove the class, or remove {LEDGER} to have all "
            "pictures dealt anew"
        )
