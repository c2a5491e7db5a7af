"""Data preparation: one source of images in, three checked splits, a report and a picture out."""

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from classifier.cleaning import (
    EXAMPLES,
    SPLITS,
    Cleaned,
    Staged,
    check_classes,
    check_readable,
    clean,
    common_shape,
    digest,
    fingerprint,
    near_pairs,
    split,
    stage,
)
from classifier.errors import ClassifierError
from classifier.sources import SOURCES, Source, load_source

PREPARED = Path("data/prepared")
WORKPLACE = Path("data/.preparing")  # beside the result, so that renaming is atomic
PLOT = Path("plots/data.png")
SAMPLES = 12
CHUNK = 16  # images in memory at once


class PrepareParamsError(ClassifierError):
    """A value in the section `prepare` of `params.yaml` can't be used."""


class NotPreparedError(ClassifierError):
    """The splits have not been written yet."""


@dataclass(frozen=True)
class PrepareParams:
    """The section `prepare` of `params.yaml`; the file states units and reasons."""

    source: str
    folder: str | None
    image_size: tuple[int, int] | None
    channels: int | None
    validation_share: float
    test_share: float
    near_duplicate_rms: float
    max_unreadable_share: float
    max_class_ratio: float

    def __post_init__(self) -> None:
        """Refuse values that can't work.

        Raises:
            PrepareParamsError: names the key, its value and what is possible.
        """
        for key, fine, wanted in self._rules():
            if not fine:
                raise PrepareParamsError(
                    f"prepare.{key} in params.yaml is {getattr(self, key)!r}: it must be {wanted}"
                )

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        size, parts = self.image_size, (self.validation_share, self.test_share)
        yield "source", self.source in SOURCES, "one of " + ", ".join(SOURCES)
        yield "folder", bool(self.folder) or self.source != "folder", "a path, as source is folder"
        yield "image_size", size is None or _is_size(size), "null or [height, width] in pixels"
        yield "channels", self.channels in (None, 1, 3), "null, 1 (grey) or 3 (colour)"
        for key, share in zip(("validation_share", "test_share"), parts, strict=True):
            yield key, _is_in(share, 1e-6, 1), "above 0 and below 1"
        yield "test_share", sum(parts) < 1, f"below {1 - parts[0]:g}, to leave training data"
        yield "near_duplicate_rms", _is_in(self.near_duplicate_rms, 0, 256), "0 to 255 grey levels"
        yield "max_unreadable_share", _is_in(self.max_unreadable_share, 0, 1), "0 or more, below 1"
        yield "max_class_ratio", _is_in(self.max_class_ratio, 1, np.inf), "at least 1"


def _is_in(value: Any, low: float, below: float) -> bool:
    return isinstance(value, int | float) and low <= value < below


def _is_size(value: Any) -> bool:
    sides = list(value) if isinstance(value, list | tuple) else []
    return len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides)


@dataclass(frozen=True)
class Split:
    """One split: images uint8 (N,H,W,C), read from disk as they are used; labels int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray


def load_split(root: Path, name: str) -> Split:
    """Open a prepared split, one of train, validation and test, below the project's `root`.

    Raises:
        NotPreparedError: it has not been prepared.
    """
    try:
        return _open_split(root / PREPARED / name)
    except FileNotFoundError as error:
        raise NotPreparedError(f"{error.filename} is missing: run `make pipeline`") from error


def _open_split(folder: Path) -> Split:
    # copy on write: torch only takes arrays that it may write to
    images = np.load(folder / "images.npy", mmap_mode="c")
    return Split(images, np.load(folder / "labels.npy"))


def digests(root: Path) -> np.ndarray:
    """Return the digests of all prepared images, S16 (N,).

    Raises:
        NotPreparedError: the data has not been prepared.
    """
    files = [root / PREPARED / name / "images.npy" for name in SPLITS]
    try:
        return np.array(
            [digest(i) for file in files for part in _chunks(file) for i in part], "S16"
        )
    except FileNotFoundError as error:
        raise NotPreparedError(f"{error.filename} is missing: run `make pipeline`") from error


def class_names(root: Path) -> list[str]:
    """Return the K class names in the order of the labels.

    Raises:
        NotPreparedError: the data has not been prepared.
    """
    return _read_json(root / PREPARED / "classes.json")


def report(root: Path) -> dict[str, Any]:
    """Return the data report.

    Raises:
        NotPreparedError: the data has not been prepared.
    """
    return _read_json(root / PREPARED / "report.json")


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise NotPreparedError(f"{path} is missing: run `make pipeline`")
    return json.loads(path.read_text(encoding="utf-8"))


def prepare(params: PrepareParams, seed: int, root: Path) -> None:
    """Write the splits, `classes.json`, `report.json`, samples and `plots/data.png` below `root`.

    The same source, parameters and seed give the same bytes. Nothing is written before all is well.

    Raises:
        ClassifierError: the source, its images or its classes can't be used.
    """
    source = load_source(params.source, params.folder, root)
    check_classes(source)
    size = (params.image_size[0], params.image_size[1]) if params.image_size else None
    shape = common_shape(source, size, params.channels)
    with _workplace(root) as folder:
        staged = stage(source, shape, folder / "staged")
        check_readable(source, staged, params.max_unreadable_share)
        cleaned = clean(source, staged, params.near_duplicate_rms)
        _write_splits(source, staged, cleaned, params, np.random.default_rng(seed), folder)
        staged.path.unlink()
        report = _report(source, staged, cleaned, params, seed, folder)
        _write_json(folder / "report.json", report)
        _write_samples(folder, source.classes)
        _plot(folder, source.classes)
        _publish(folder, root)
    _announce(report)


# -- write -----------------------------------------------------------------------------------------


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    folder = root / WORKPLACE
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_splits(
    source: Source,
    staged: Staged,
    cleaned: Cleaned,
    params: PrepareParams,
    rng: np.random.Generator,
    folder: Path,
) -> None:
    origins = staged.origins[cleaned.kept]
    labels = source.labels[origins]
    places = split(
        labels,
        cleaned.groups,
        source.official_test[origins],
        (params.validation_share, params.test_share),
        source.classes,
        rng,
    )
    for place, name in enumerate(SPLITS):
        # shuffled, so that the first images of a split are a fair sample of it
        chosen = rng.permutation(np.flatnonzero(places == place))
        _write_split(staged, cleaned.kept[chosen], labels[chosen], folder / name)
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


def _write_samples(folder: Path, classes: list[str]) -> None:
    test = _open_split(folder / "test")
    (folder / "samples").mkdir()
    by_class = [np.flatnonzero(test.labels == label) for label in range(len(classes))]
    turns = [(i, label) for i in range(SAMPLES) for label in range(len(classes))]
    there = [(i, label) for i, label in turns if i < len(by_class[label])]
    for i, label in there[:SAMPLES]:
        pixels = test.images[by_class[label][i]]
        image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
        image.save(folder / "samples" / f"{classes[label]}-{i}.png")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _publish(folder: Path, root: Path) -> None:
    (root / PLOT).parent.mkdir(exist_ok=True)
    (folder / PLOT.name).replace(root / PLOT)
    target = root / PREPARED
    if target.exists():
        shutil.rmtree(target)
    folder.rename(target)


def _announce(report: dict[str, Any]) -> None:
    sizes = ", ".join(f"{name} {part['images']}" for name, part in report["splits"].items())
    print(f"prepared {report['source']}: {sizes} images of {len(report['classes'])} classes")
    for check in report["checks"]:
        if not check["passed"]:
            print(f"data check failed: {check['name']}: {check['detail']}")


# -- report ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What the finished files of a split hold: for the report, and to look for leaks."""

    summary: dict[str, Any]
    digests: set[bytes]
    fingerprints: np.ndarray


def _chunks(path: Path) -> Iterator[np.ndarray]:
    total = len(np.load(path, mmap_mode="r"))
    for start in range(0, total, CHUNK):
        # mapped anew for each chunk: what was read does not stay in memory
        yield np.asarray(np.load(path, mmap_mode="r")[start : start + CHUNK])


def _measure(folder: Path, classes: list[str]) -> Measured:
    labels = np.load(folder / "labels.npy")
    content, digests, fingerprints = hashlib.sha256(), set(), []
    sums, squares, pixels = np.zeros(1, np.int64), np.zeros(1, np.int64), 0
    for chunk in _chunks(folder / "images.npy"):
        content.update(chunk.data)
        digests |= {digest(image) for image in chunk}
        fingerprints += [fingerprint(image) for image in chunk]
        sums = sums + chunk.sum(axis=(0, 1, 2), dtype=np.int64)
        squares = squares + np.square(chunk, dtype=np.uint16).sum(axis=(0, 1, 2), dtype=np.int64)
        pixels += chunk[..., 0].size
    content.update(labels.astype("<i8").data)
    mean = sums / pixels
    counts = np.bincount(labels, minlength=len(classes))
    summary = {
        "images": len(labels),
        "sha256": content.hexdigest(),
        "classes": dict(zip(classes, counts.tolist(), strict=True)),
        "pixel_mean": mean.round(4).tolist(),
        "pixel_std": np.sqrt(squares / pixels - mean**2).round(4).tolist(),
    }
    return Measured(summary, digests, np.array(fingerprints))


def _report(
    source: Source,
    staged: Staged,
    cleaned: Cleaned,
    params: PrepareParams,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    measured = {name: _measure(folder / name, source.classes) for name in SPLITS}
    splits = {name: part.summary for name, part in measured.items()}
    identity = [source.classes, staged.shape, [part["sha256"] for part in splits.values()]]
    checks = _checks(measured, params)
    return {
        "source": params.source,
        "seed": seed,
        "sha256": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        "passed": all(check["passed"] for check in checks),
        "checks": checks,
        "classes": source.classes,
        "image": dict(zip(("height", "width", "channels"), staged.shape, strict=True)),
        "counts": _counts(source, cleaned),
        "dropped": {
            reason: {"images": dropped.images, "examples": dropped.examples}
            for reason, dropped in cleaned.dropped.items()
        },
        "converted": dict(sorted(staged.converted.items())),
        "near_duplicates": _near_duplicates(source, staged, cleaned),
        "splits": splits,
    }


def _counts(source: Source, cleaned: Cleaned) -> dict[str, int]:
    left = len(source.names)
    counts = {"found": left}
    for reason, dropped in cleaned.dropped.items():
        if reason != "outside a class folder":
            left -= dropped.images
            counts[f"after dropping: {reason}"] = left
    return counts


def _near_duplicates(source: Source, staged: Staged, cleaned: Cleaned) -> dict[str, Any]:
    """Describe the groups that stay together in one split, and those that span classes."""
    origins = staged.origins[cleaned.kept]
    order = np.argsort(cleaned.groups, kind="stable")
    starts = np.flatnonzero(np.diff(cleaned.groups[order], prepend=-1))
    groups = [origins[group] for group in np.split(order, starts[1:]) if len(group) > 1]
    mixed = [group for group in groups if len(set(source.labels[group])) > 1]

    def titles(group: np.ndarray) -> list[str]:
        return [f"{source.names[i]} ({source.classes[source.labels[i]]})" for i in group[:EXAMPLES]]

    return {
        "groups": len(groups),
        "images": sum(len(group) for group in groups),
        "largest": max((len(group) for group in groups), default=0),
        "examples": [titles(group) for group in groups[:EXAMPLES]],
        "with_different_labels": len(mixed),
        "with_different_labels_examples": [titles(group) for group in mixed[:EXAMPLES]],
    }


def _checks(measured: dict[str, Measured], params: PrepareParams) -> list[dict[str, Any]]:
    """Look at the finished files, whatever the steps before meant to write."""
    parts = list(measured.values())
    repeated = sum(len(part.digests) for part in parts) - len(
        set().union(*(part.digests for part in parts))
    )
    near = _near_leaks([part.fingerprints for part in parts], params.near_duplicate_rms)
    counts = np.array([list(part.summary["classes"].values()) for part in parts])
    absent = [
        f"{name} in {split}"
        for split, part in measured.items()
        for name, images in part.summary["classes"].items()
        if not images
    ]
    ratio = counts[0].max() / max(1, counts[0].min())
    return [
        _check("no image is in two splits", repeated == 0, f"{repeated} images"),
        _check(
            "no near duplicate is in two splits",
            near == 0,
            f"{near} pairs within {params.near_duplicate_rms:g} grey levels",
        ),
        _check("every class is in every split", not absent, f"absent: {absent or 'none'}"),
        _check(
            "classes are balanced",
            ratio <= params.max_class_ratio,
            f"the largest has {ratio:.1f} times the training images of the smallest, "
            f"prepare.max_class_ratio allows {params.max_class_ratio:g}",
        ),
    ]


def _check(name: str, passed: bool, detail: str) -> dict[str, Any]:
    return {"name": name, "passed": bool(passed), "detail": detail}


def _near_leaks(fingerprints: list[np.ndarray], rms: float) -> int:
    if rms == 0:
        return 0
    places = np.repeat(np.arange(len(fingerprints)), [len(part) for part in fingerprints])
    return sum(len(i) for i, _ in near_pairs(np.concatenate(fingerprints), rms, keys=places))


# -- picture ---------------------------------------------------------------------------------------

ROWS = 20  # classes shown
COLUMNS = 10  # example images of each
CELL = 0.5  # inches
COLOURS = ("#4c72b0", "#dd8452", "#55a868")  # train, validation, test


def _plot(folder: Path, classes: list[str]) -> None:
    """Draw the class balance and examples from the training split, a row for each class."""
    splits = {name: _open_split(folder / name) for name in SPLITS}
    counts = np.array(
        [np.bincount(part.labels, minlength=len(classes)) for part in splits.values()]
    )
    shown = _shown_classes(counts.sum(axis=0))
    height, width = splits["train"].images.shape[1:3]
    rows, cell = len(shown) * CELL, CELL * min(3.0, max(1 / 3, width / height))
    names = [classes[k] if len(classes[k]) <= 22 else classes[k][:21] + "…" for k in shown]
    start = 0.4 + 0.09 * max(len(name) for name in names)
    wide, high = start + 4.6 + COLUMNS * cell, rows + 1.4
    figure = Figure(figsize=(wide, high), dpi=120)
    balance = figure.add_axes((start / wide, 0.6 / high, 4.2 / wide, rows / high))
    examples = figure.add_axes(
        ((start + 4.4) / wide, 0.6 / high, COLUMNS * cell / wide, rows / high)
    )
    _plot_balance(balance, counts[:, shown], names)
    _plot_examples(examples, splits["train"], shown)
    hidden = f", the {len(shown)} largest and smallest" if len(shown) < len(classes) else ""
    figure.text(
        start / wide,
        1 - 0.35 / high,
        f"{counts.sum():,} images of {len(classes)} classes{hidden}",
        fontsize=13,
        fontweight="bold",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class name in a script the font lacks
        figure.savefig(folder / PLOT.name, metadata={"Software": None})


def _shown_classes(counts: np.ndarray) -> np.ndarray:
    if len(counts) <= ROWS:
        return np.arange(len(counts))
    by_size = np.argsort(-counts, kind="stable")
    return np.concatenate([by_size[: ROWS // 2], by_size[-ROWS // 2 :]])


def _plot_balance(axes: Axes, counts: np.ndarray, names: list[str]) -> None:
    left = np.zeros(len(names), dtype=np.int64)
    for name, images, colour in zip(SPLITS, counts, COLOURS, strict=True):
        label = f"{name} ({images.sum():,})"
        axes.barh(range(len(names)), images, left=left, height=0.75, color=colour, label=label)
        left += images
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("images")
    axes.tick_params(left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)


def _plot_examples(axes: Axes, split: Split, shown: np.ndarray) -> None:
    height, width, channels = split.images.shape[1:]
    step = max(1, max(height, width) // 128)  # a thumbnail needs no more pixels
    gap = 0.05
    for row, label in enumerate(shown):
        for column, i in enumerate(np.flatnonzero(split.labels == label)[:COLUMNS]):
            pixels = split.images[i, ::step, ::step]
            axes.imshow(
                pixels if channels == 3 else pixels[:, :, 0],
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                aspect="auto",
                extent=(column + gap, column + 1 - gap, row + 0.5 - gap, row - 0.5 + gap),
            )
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_title("examples from train", loc="left", fontsize=9)
    axes.axis("off")
