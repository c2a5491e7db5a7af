"""The report on the prepared data: what is in the splits, what was left out, what is wrong.

Beside it a picture: how many pictures each class has, and examples of them.
"""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from classifier.cleaning import EXAMPLES, Cleaned, Staged, fingerprint, near_pairs
from classifier.data import SPLITS, Split, chunks, digest, open_split
from classifier.params import PrepareParams
from classifier.sources import Source

ROWS = 20  # classes shown
COLUMNS = 10  # example pictures of each
CELL = 0.5  # inches
NOT_COUNTED = ("outside a class folder", "litter of other programs")  # reasons of no pictures
COLOURS = ("#4c72b0", "#dd8452", "#55a868")  # train, validation, test


@dataclass(frozen=True)
class Measured:
    """What the finished files of a split hold: for the report, and to look for leaks."""

    summary: dict[str, Any]
    digests: set[bytes]
    fingerprints: np.ndarray


def _measure(folder: Path, classes: list[str]) -> Measured:
    labels = np.load(folder / "labels.npy")
    content, digests, fingerprints = hashlib.sha256(), set(), []
    sums, squares, pixels = np.zeros(1, np.int64), np.zeros(1, np.int64), 0
    for chunk in chunks(folder / "images.npy"):
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


def report(
    source: Source,
    staged: Staged,
    cleaned: Cleaned,
    params: PrepareParams,
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Say what is in the finished splits below `folder` and how they came about."""
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
        if reason not in NOT_COUNTED:
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
        _check("no picture is in two splits", repeated == 0, f"{repeated} pictures"),
        _check(
            "no near duplicate is in two splits",
            near == 0,
            f"{near} pairs within {params.near_duplicate_rms:g} grey levels",
        ),
        _check("every class is in every split", not absent, f"absent: {absent or 'none'}"),
        _check(
            "classes are balanced",
            ratio <= params.max_class_ratio,
            f"the largest has {ratio:.1f} times the training pictures of the smallest, "
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


# -- the picture -----------------------------------------------------------------------------------


def plot(folder: Path, classes: list[str], path: Path) -> None:
    """Draw the class balance and examples from the training split, a row for each class."""
    splits = {name: open_split(folder / name) for name in SPLITS}
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
        f"{counts.sum():,} pictures of {len(classes)} classes{hidden}",
        fontsize=13,
        fontweight="bold",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a class name in a script the font lacks
        figure.savefig(path, metadata={"Software": None})


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
    axes.set_xlabel("pictures")
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
