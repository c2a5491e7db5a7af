"""Evaluation: the answers on the test set, their figures, how sure these are, plots of them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from classifier import data
from classifier.model import CHECKPOINT, HISTORY, METRICS, load_model, scores_of
from classifier.params import EvaluateParams, Params
from reporting import plots
from reporting.answers import bins_of, write_answers
from workspace import behaviour, files

PREDICTIONS = Path("artifacts/predictions.csv")
BEHAVIOUR = Path("artifacts/behaviour.json")
FEW = 256  # pictures in memory at once
MATRICES = 2**22  # numbers of all confusion matrices that are drawn at once


def evaluate(params: Params, root: Path) -> None:
    """Write what the trained model does on the test split: metrics.json, answers, plots.

    And how it answers on pictures that it has not learnt from, which live traffic is compared with.
    """
    model = load_model(root / CHECKPOINT)
    split, classes = data.load_split(root, "test"), data.class_names(root)
    scores, labels = scores_of(model, split)
    probabilities = model.probabilities(scores)
    named = zip(split.pictures(), split.labels.tolist(), strict=True)
    pictures = [(picture.sha256, picture.file, classes[label]) for picture, label in named]
    write_answers(root / PREDICTIONS, pictures, classes, probabilities.numpy())
    confusion = confusion_matrix(labels, probabilities.argmax(1), labels=range(len(classes)))
    metrics = figures(probabilities, labels, classes, params.evaluate)
    metrics["intervals"] = intervals(confusion, params.evaluate, params.seed)
    files.write(root / METRICS, json.dumps(metrics, indent=2) + "\n")
    validation = data.load_split(root, "validation")
    own, truth = scores_of(model, validation)
    found = looks(validation, model.probabilities(own)), looks(split, probabilities)
    reference = behave(*found, truth.numpy(), classes)
    files.write(root / BEHAVIOUR, json.dumps(reference, indent=2) + "\n")
    with (root / HISTORY).open() as file:
        plots.learning_curves(list(csv.DictReader(file)), root)
    plots.confusion(confusion, classes, root)
    plots.per_class(metrics["per_class"], root)
    confidence, predicted = (each.numpy() for each in probabilities.max(1))
    bins, right = params.evaluate.calibration_bins, predicted == labels.numpy()
    plots.reliability(confidence, right, bins_of(confidence, bins), bins, root)
    plots.predictions(split.images, split.labels, probabilities.numpy(), classes, root)


def figures(
    probabilities: Tensor, labels: Tensor, classes: list[str], params: EvaluateParams
) -> dict[str, Any]:
    """Standard figures of probabilities (N, K) against labels (N,).

    `loss` is the mean cross-entropy in nats; `calibration_error` see there.
    """
    predicted = probabilities.argmax(1)
    columns = precision_recall_fscore_support(
        labels, predicted, labels=range(len(classes)), zero_division=0
    )
    rows = zip(classes, *columns, strict=True)
    calibration = calibration_error(probabilities, labels, params.calibration_bins)
    loss = torch.nn.functional.nll_loss(probabilities.double().clamp_min(1e-12).log(), labels)
    return {
        "accuracy": float((predicted == labels).double().mean()),
        **dict(
            zip(("macro_precision", "macro_recall", "macro_f1"), means(columns[:3]), strict=True)
        ),
        "loss": float(loss),
        "calibration_error": calibration,
        "support": len(labels),
        "per_class": {
            name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for name, p, r, f, n in rows
        },
    }


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int) -> float:
    """Expected calibration error of probabilities (N, K) against labels (N,).

    The mean distance of confidence from the share of right answers, over equally wide bins of
    confidence (Guo et al., ICML 2017, eq. 3): those that the picture of it shows.
    """
    confidence, predicted = probabilities.max(1)
    which = torch.from_numpy(bins_of(confidence.numpy(), bins))
    too_sure = torch.bincount(which, confidence.double() - (predicted == labels).double(), bins)
    return float(too_sure.abs().sum() / len(labels))


def looks(split: data.Split, probabilities: Tensor) -> behaviour.Figures:
    """Figures (N,) of a split's pictures and of the answers (N, K) to them, a few at a time."""
    answers = probabilities.numpy()
    parts = [
        behaviour.figures(split.images[first : first + FEW], answers[first : first + FEW])
        for first in range(0, len(answers), FEW)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def behave(
    validation: behaviour.Figures,
    test: behaviour.Figures,
    labels: NDArray[np.int64],
    classes: list[str],
) -> dict[str, Any]:
    """Count what both splits look like, which the model has not learnt from.

    Only the labels (M,) of the validation split decide above which confidence an answer is sure.
    """
    found = {name: np.concatenate([validation[name], test[name]]) for name in test}
    right = validation["class"] == labels
    threshold = behaviour.threshold_of(validation["confidence"], right)
    edges = {name: behaviour.edges_of(values) for name, values in found.items() if name != "class"}
    features = behaviour.features(classes, edges, threshold)
    for name, counted in behaviour.counts(found, features).items():
        features[name]["counts"] = counted.tolist()
    return {
        "pictures": len(found["class"]),
        "labelled": len(labels),
        "accuracy": float(right.mean()),
        "threshold": threshold,
        "features": features,
    }


def means(columns: tuple[NDArray[np.float64], ...]) -> list[float]:
    """Mean over the classes of each column."""
    return [float(column.mean()) for column in columns]


def intervals(
    confusion: NDArray[np.int64], params: EvaluateParams, seed: int
) -> dict[str, list[float]]:
    """Percentile bootstrap intervals of accuracy and macro F1 from a confusion matrix (K, K).

    Both depend on the pictures only through the pair (true class, predicted class), so drawing
    pictures with replacement is drawing cells of the matrix. A class of which a draw has no picture
    and no answer is not in its mean. Source: Efron & Tibshirani, An Introduction to the Bootstrap,
    ch. 13.
    """
    total, generator = int(confusion.sum()), np.random.default_rng(seed)
    accuracies, f1s = [], []
    few = max(1, MATRICES // confusion.size)
    for first in range(0, params.bootstrap_samples, few):
        size = min(few, params.bootstrap_samples - first)
        drawn = generator.multinomial(total, confusion.ravel() / total, size=size)
        matrices = drawn.reshape(-1, *confusion.shape)
        right = np.diagonal(matrices, axis1=1, axis2=2)
        marked = matrices.sum(1) + matrices.sum(2)
        f1 = 2 * right / np.maximum(marked, 1)
        accuracies.append(right.sum(1) / total)
        f1s.append(f1.sum(1) / (marked > 0).sum(1))
    tails = [(1 - params.confidence) / 2, (1 + params.confidence) / 2]
    samples = {"accuracy": accuracies, "macro_f1": f1s}
    return {
        name: np.quantile(np.concatenate(parts), tails).tolist() for name, parts in samples.items()
    }
