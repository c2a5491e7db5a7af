"""How pictures and a model's answers to them look: figures of each, and how many are in which bin.

The evaluation counts held-out pictures, the monitor beside a server those of its callers, both with
this file; the monitor's copy is in `argocd/components/monitor/program`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 64  # pixels of a picture's longer side that are looked at; more tell the same
BINS = 10  # of a figure, each with as many held-out pictures
FLAT = 2 / 255  # contrast below which a picture is next to constant
DIGITS = 6  # of a figure; more differ from machine to machine
Figures = dict[str, NDArray[np.float64]]
Features = dict[str, dict[str, Any]]  # by name: `of` which figure, `edges` between its `bins`


def figures(images: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> Figures:
    """Figures (N,) of pictures (N, H, W, C) and the answers (N, K) to them.

    All but the class are from 0 to 1; the entropy is that of the answer as a share of the largest.
    """
    step = max(1, max(images.shape[1:3]) // SIDE)
    pixels = images[:, ::step, ::step].astype(np.float32) / 255
    answers = np.nan_to_num(probabilities.astype(np.float64))
    bits = -(answers * np.log(np.clip(answers, 1e-12, 1))).sum(axis=1)
    found = {
        "class": answers.argmax(axis=1).astype(np.float64),
        "confidence": answers.max(axis=1),
        "entropy": bits / np.log(max(2, answers.shape[1])),
        "brightness": pixels.mean(axis=(1, 2, 3), dtype=np.float64),
        "contrast": pixels.mean(axis=3).std(axis=(1, 2), dtype=np.float64),
        "saturation": np.ptp(pixels, axis=3).mean(axis=(1, 2), dtype=np.float64),
    }
    return {name: values.round(DIGITS) for name, values in found.items()}


def counts(seen: Figures, features: Features) -> dict[str, NDArray[np.int64]]:
    """Count the pictures in each bin of each feature; what equals an edge is below it."""
    return {
        name: np.bincount(
            np.searchsorted(feature["edges"], seen[feature["of"]]), minlength=len(feature["bins"])
        )
        for name, feature in features.items()
    }


def features(classes: list[str], edges: dict[str, list[float]], threshold: float) -> Features:
    """What is counted: answers by class, figures by the edges of their bins, sure and flat ones.

    An answer is sure whose confidence is above the threshold, which is an edge of that figure, too.
    """
    made: Features = {
        "class": {
            "of": "class",
            "edges": [index + 0.5 for index in range(len(classes) - 1)],
            "bins": classes,
        },
        "sure": {"of": "confidence", "edges": [threshold], "bins": ["no", "yes"]},
        "constant": {"of": "contrast", "edges": [FLAT], "bins": ["yes", "no"]},
    }
    for name, between in edges.items():
        bounds = sorted({*between, threshold} if name == "confidence" else between)
        made[name] = {"of": name, "edges": bounds, "bins": [*map(str, bounds), "more"]}
    return made


def edges_of(values: NDArray[np.float64]) -> list[float]:
    """Edges of at most BINS bins with about as many values each, none of them at a value."""
    found = np.unique(values)
    if len(found) == 1:
        around = float(found[0]) - 0.01, float(found[0]) + 0.01
        return [round(each, DIGITS) for each in around if each > 0]
    middles = (found[:-1] + found[1:]) / 2
    wanted = np.quantile(values, np.arange(1, BINS) / BINS)
    places = np.unique(np.searchsorted(middles, wanted).clip(max=len(middles) - 1))
    return sorted({round(float(each), DIGITS) for each in middles[places]})


def threshold_of(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The confidence above which as large a share of answers lies as are right.

    Source: Garg et al., Leveraging unlabeled data to predict out-of-distribution performance (ICLR
    2022): elsewhere, too, the share above it estimates the accuracy.
    """
    found = np.unique(confidence)
    candidates = np.concatenate([[found[0] - 10.0**-DIGITS], (found[:-1] + found[1:]) / 2])
    places = np.searchsorted(np.sort(confidence), candidates, side="right")
    above = (len(confidence) - places) / len(confidence)
    return round(float(candidates[np.abs(above - right.mean()).argmin()]), DIGITS)


def usual(classes: list[str]) -> Features:
    """What is counted of a model that tells nothing of itself."""
    tenths = [round(each / BINS, 1) for each in range(1, BINS)]
    names = ("confidence", "entropy", "brightness", "contrast", "saturation")
    return features(classes, dict.fromkeys(names, tenths), 0.5)
