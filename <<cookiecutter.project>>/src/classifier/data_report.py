"""The report on the prepared data: what is in the splits, what was left out, what is wrong."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classifier.cleaning import EXAMPLES, Cleaned, Staged, fingerprint, near_pairs
from classifier.data import SPLITS, channel_sums, chunks, digest, moments
from classifier.params import PrepareParams
from classifier.sources import Source

NOT_COUNTED = ("outside a class folder", "litter of other programs")  # reasons of no pictures


@dataclass(frozen=True)
class Measured:
    """What the finished files of a split hold: for the report, and to look for leaks."""

    summary: dict[str, Any]
    digests: set[bytes]
    fingerprints: np.ndarray


def _measure(folder: Path, classes: list[str]) -> Measured:
    labels = np.load(folder / "labels.npy")
    content, digests, fingerprints = hashlib.sha256(), set(), []
    sums, pixels = np.zeros((2, 1), np.int64), 0
    for chunk in chunks(folder / "images.npy"):
        content.update(chunk.data)
        digests |= {digest(image) for image in chunk}
        fingerprints += [fingerprint(image) for image in chunk]
        sums = sums + channel_sums(chunk)
        pixels += chunk[..., 0].size
    content.update(labels.astype("<i8").data)
    mean, variance = moments(sums, pixels)
    counts = np.bincount(labels, minlength=len(classes))
    summary = {
        "images": len(labels),
        "sha256": content.hexdigest(),
        "classes": dict(zip(classes, counts.tolist(), strict=True)),
        "pixel_mean": mean.round(4).tolist(),
        "pixel_std": np.sqrt(variance).round(4).tolist(),
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
