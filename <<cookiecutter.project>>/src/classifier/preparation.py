"""Data preparation: one source of pictures in, three checked splits, a report and a picture out."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from classifier import data_report, splits
from classifier.cleaning import (
    NEW,
    Cleaned,
    Staged,
    check_classes,
    check_range,
    check_readable,
    clean,
    common_shape,
    stage,
)
from classifier.data import PICTURES, PREPARED, SPLITS, open_split
from classifier.params import Params, PrepareParams
from classifier.sources import Source, load_source
from classifier.splits import Ledger, split
from reporting import data_picture
from workspace import files

WORKPLACE = Path("data/.preparing")  # beside the result, so that renaming is atomic
PLOT = Path("plots/data.png")
SAMPLES = 12


def prepare(values: Params, root: Path) -> None:
    """Write the splits, `classes.json`, `report.json`, samples and `plots/data.png` below `root`.

    Pictures that the ledger knows keep their split, and it learns those of the others. The same
    source, parameters, seed and ledger give the same bytes, and so does the ledger that comes of
    it. Nothing is written before all is well.

    Raises UserError when the source, its pictures or its classes, or the ledger can't be used.
    """
    params = values.prepare
    ledger = splits.read(root)
    source = load_source(
        params.source, params.folder, root, params.max_pixels, params.official_test
    )
    check_classes(source)
    shape = common_shape(source, params.image_size, params.channels)
    with _workplace(root) as folder:
        staged = stage(source, shape, folder / "staged", params.white)
        check_readable(source, staged, params.max_unreadable_share)
        check_range(staged.highest, params.white, params.max_unreadable_share)
        official = source.official_test[staged.origins]
        known = splits.look_up(ledger, staged.contents, staged.digests, official)
        cleaned = clean(source, staged, params.near_duplicate_rms, known)
        places = _deal(source, staged, cleaned, known, values)
        _write_splits(source, staged, cleaned.kept, places, params, folder)
        staged.path.unlink()
        report = data_report.report(source, staged, cleaned, params, values.seed, folder)
        _write_json(folder / "report.json", report)
        _write_samples(folder, source.classes)
        opened = {name: open_split(folder / name) for name in SPLITS}
        data_picture.plot(opened, source.classes, folder / PLOT.name)
        splits.write(_learnt(ledger, staged, cleaned, places), root)
        _publish(folder, root)
    _announce(report, places[known[cleaned.kept] == NEW])


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    folder = root / WORKPLACE
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _deal(
    source: Source, staged: Staged, cleaned: Cleaned, known: np.ndarray, values: Params
) -> np.ndarray:
    """Return the split of each picture that stays, int64 (M',)."""
    kept, params = cleaned.kept, values.prepare
    return split(
        source.labels[staged.origins[kept]],
        cleaned.groups,
        known[kept],
        staged.contents[kept],
        (params.validation_share, params.test_share),
        source.classes,
        bool(source.official_test.any()),
        values.seed,
    )


def _learnt(ledger: Ledger, staged: Staged, cleaned: Cleaned, places: np.ndarray) -> Ledger:
    """Return the ledger with the pictures that stay, and those that repeat one of them."""
    there = np.full(len(staged.contents), NEW)
    there[cleaned.kept] = places
    repeating = np.flatnonzero(cleaned.repeats >= 0)
    there[repeating] = there[cleaned.repeats[repeating]]
    learnt = there != NEW
    return splits.enter(ledger, staged.contents[learnt], there[learnt])


def _write_splits(
    source: Source,
    staged: Staged,
    kept: np.ndarray,
    places: np.ndarray,
    params: PrepareParams,
    folder: Path,
) -> None:
    """Write each split in the order of its contents' digests.

    So its first pictures are a fair sample of it, and its order says nothing of other splits.
    """
    for place, name in enumerate(SPLITS):
        chosen = kept[places == place]
        chosen = chosen[np.argsort(staged.contents[chosen], kind="stable")]
        _write_split(staged, chosen, source.labels[staged.origins[chosen]], folder / name)
        _write_pictures(source, staged, chosen, params, folder / name / PICTURES)
    _write_json(folder / "classes.json", source.classes)


def _write_split(staged: Staged, positions: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "labels.npy", labels.astype(np.int64))
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (len(positions), *staged.shape),
    }
    size = int(np.prod(staged.shape))
    # plain reads and writes: the pages of a memory map would count as this process's memory
    with staged.path.open("rb") as pixels, (folder / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for position in positions:
            pixels.seek(int(position) * size)
            file.write(pixels.read(size))


def _write_pictures(
    source: Source, staged: Staged, positions: np.ndarray, params: PrepareParams, path: Path
) -> None:
    """Write which picture each image of a split is made of."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("sha256", "file"))
        for position in positions:
            origin = staged.origins[position]
            name = source.names[origin] if source.paths else f"{params.source}/{origin}"
            rows.writerow((staged.contents[position].decode(), name))


def _write_samples(folder: Path, classes: list[str]) -> None:
    test = open_split(folder / "test")
    (folder / "samples").mkdir()
    by_class = [np.flatnonzero(test.labels == label) for label in range(len(classes))]
    turns = [(i, label) for i in range(SAMPLES) for label in range(len(classes))]
    there = [(i, label) for i, label in turns if i < len(by_class[label])]
    for i, label in there[:SAMPLES]:
        pixels = test.images[by_class[label][i]]
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        image.save(folder / "samples" / f"{classes[label]}-{i}.png")


def _write_json(path: Path, content: Any) -> None:
    files.write(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _publish(folder: Path, root: Path) -> None:
    (root / PLOT).parent.mkdir(exist_ok=True)
    files.sync(folder / PLOT.name)
    (folder / PLOT.name).replace(root / PLOT)
    target = root / PREPARED
    if target.exists():
        shutil.rmtree(target)
    files.publish(folder, target)


def _announce(report: dict[str, Any], new: np.ndarray) -> None:
    sizes = ", ".join(f"{name} {part['images']}" for name, part in report["splits"].items())
    print(f"prepared {report['source']}: {sizes} pictures of {len(report['classes'])} classes")
    if 0 < len(new) < sum(part["images"] for part in report["splits"].values()):
        counts = np.bincount(new, minlength=len(SPLITS))
        dealt = ", ".join(f"{name} {n}" for name, n in zip(SPLITS, counts, strict=True))
        print(f"of these {len(new)} are new: {dealt}; all others are where they were")
    for check in report["checks"]:
        if not check["passed"]:
            print(f"data check failed: {check['name']}: {check['detail']}")
