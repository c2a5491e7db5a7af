"""Which labels of new pictures look wrong, by a model that should not have seen these pictures.

The quick model has not. Of the trained model the prepared data, on which the pipeline trains, tell.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from classifier import data
from classifier.cleaning import progress
from curation.batch_comparison import Comparison
from workspace.errors import UserError

if TYPE_CHECKING:
    from classifier.model import Classifier

CHECKPOINT = Path("artifacts/model.ckpt")  # of classifier.model, which takes long to import
FOLDS = 5
SIDE = 16  # pixels to which the quick model's pictures are reduced
LANDMARKS = 300


@dataclass(frozen=True)
class Judgement:
    """What a model thinks of the n candidates: probabilities (n, K), and which model it is."""

    judge: str
    probabilities: np.ndarray

    @cached_property
    def answers(self) -> np.ndarray:
        """The most probable class of each, int64 (n,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidences(self) -> np.ndarray:
        """Its probability, (n,)."""
        return self.probabilities.max(axis=1)


def judge(comparison: Comparison, root: Path, seed: int, examples: int) -> Judgement:
    """Judge the new pictures by the trained model, or a quick one where there is none for them."""
    model = trained_model(comparison, root)
    if not isinstance(model, str):
        return Judgement(
            f"the trained {model.params.network} of {CHECKPOINT}",
            trained_answers(model, comparison),
        )
    return Judgement(
        f"a quick model in {FOLDS} folds (kernel logistic regression on pictures of at most "
        f"{SIDE}x{SIDE} pixels), as {model}",
        out_of_fold_answers(comparison, seed, examples),
    )


# -- the trained model -----------------------------------------------------------------------------


def trained_model(comparison: Comparison, root: Path) -> "Classifier | str":
    """Return the pipeline's model, or why it can't judge these pictures."""
    if not (root / CHECKPOINT).is_file() or not (root / data.PREPARED).is_dir():
        return "no model is trained"
    # a model of another source may have been trained on these very pictures
    if data.report(root)["source"] != "folder" or data.class_names(root) != comparison.classes:
        return "the trained one is of another source or other classes"
    from classifier.model import load_model

    try:
        model = load_model(root / CHECKPOINT).eval()
    except UserError:  # damaged, or of earlier code
        return f"{CHECKPOINT} can't be read"
    shape = model.shape
    if (shape.height, shape.width, shape.channels) != comparison.shape:
        return "the trained one is of another size or colour"
    if has_seen(comparison, root):
        return "the trained one may have seen pictures of the batch"
    return model


def has_seen(comparison: Comparison, root: Path) -> bool:
    """Whether the prepared data have new pictures, as of a later version of the data set."""
    known = comparison.digests[: comparison.old]
    fresh = np.setdiff1d(comparison.digests[comparison.candidates], known)
    return bool(np.isin(fresh, data.digests(root)).any())


def trained_answers(model: "Classifier", comparison: Comparison) -> np.ndarray:
    """Return the model's probabilities for the candidates, (n, K)."""
    import torch

    answers = [np.zeros((0, len(comparison.classes)), np.float32)]
    with torch.inference_mode():
        for images in comparison.pixels(comparison.candidates):
            answers.append(model.probabilities(model(torch.from_numpy(images))).numpy())
    return np.concatenate(answers)


# -- the quick model -------------------------------------------------------------------------------


def out_of_fold_answers(comparison: Comparison, seed: int, examples: int) -> np.ndarray:
    """Return probabilities for the candidates, (n, K), each from a model that has not seen it.

    The pictures are dealt class by class to folds. For each fold a model learns from at most
    `examples` of the pictures outside it, old and new. A class that is too rare to be outside has
    probability zero there; where there are not two classes, all are equally probable.
    """
    rng = np.random.default_rng(seed)
    usable, positions = np.flatnonzero(comparison.repeats < 0), comparison.candidates
    folds = deal(comparison.labels, usable, rng)
    probabilities = np.zeros((len(positions), len(comparison.classes)), np.float32)
    for fold in progress(range(FOLDS), "judging", "fold"):
        here = np.flatnonzero(folds[positions] == fold)
        outside = np.sort(rng.permutation(usable[folds[usable] != fold])[:examples])
        labels = comparison.labels[outside]
        if not len(here) or len(np.unique(labels)) < 2:
            continue
        rows = features(comparison, outside)
        with threadpool_limits(1):  # on small matrices threads mostly wait for each other
            model = quick_model(len(outside), seed).fit(rows, labels)
        for start in range(0, len(here), examples):
            part = here[start : start + examples]
            answers = model.predict_proba(features(comparison, positions[part]))
            probabilities[part[:, None], model.classes_] = answers
    probabilities[probabilities.sum(axis=1) == 0] = 1 / len(comparison.classes)
    return probabilities


def deal(labels: np.ndarray, usable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each of M pictures, int64 (M,); -1 for those that are not usable."""
    shuffled = rng.permutation(usable)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    folds = np.full(len(labels), -1)
    folds[by_class] = np.arange(len(by_class)) % FOLDS
    return folds


def quick_model(examples: int, seed: int) -> Pipeline:
    """Logistic regression on Nyström's features of an RBF kernel."""
    return make_pipeline(
        StandardScaler(),
        Nystroem(n_components=min(LANDMARKS, examples), random_state=seed),
        LogisticRegression(C=10, max_iter=300),
    )


def features(comparison: Comparison, positions: np.ndarray) -> np.ndarray:
    """Return pictures at most 16x16 as rows, float32 (n, h·w·C) in 0..1."""
    height, width, channels = comparison.shape
    size = (min(width, SIDE), min(height, SIDE))
    rows = np.empty((len(positions), size[0] * size[1] * channels), np.float32)
    images = (image for chunk in comparison.pixels(positions) for image in chunk)
    for row, image in zip(rows, images, strict=True):
        small = Image.fromarray(image if channels == 3 else image[:, :, 0])
        row[:] = np.asarray(small.resize(size, Image.Resampling.BOX)).ravel()
    return rows / 255
