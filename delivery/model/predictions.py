"""What models answer to test pictures: the pipeline's account of it, and a served model asked."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.model.interface import Interface
from reporting.answers import FIELDS, write_answers
from workspace.errors import sentence, shown
from workspace.settings import SettingsError, check, read_json, read_text

SERVED = Path("artifacts/served")  # the served model's answers to the present test set
TEST = Path("data/prepared/test")
CLASSES = Path("data/prepared/classes.json")
LARGEST = 2**30  # bytes of answers: a thousand classes and as many pictures are 10 MB
TOGETHER = 256  # pictures in one run


@dataclass(frozen=True)
class Predictions:
    """Answers to N test pictures, each a list of N texts; a picture is known by its SHA-256."""

    sha256: list[str]
    label: list[str]
    predicted: list[str]


@dataclass(frozen=True)
class Pictures:
    """The present test set: images uint8 (N, H, W, C), read as they are used, and N texts each."""

    images: NDArray[np.uint8]
    label: list[str]
    sha256: list[str]
    file: list[str]


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.csv. Raises DeliveryError."""
    rows = read_rows(path, FIELDS[:4])
    return Predictions(*([row[name] for row in rows] for name in ("sha256", "label", "predicted")))


def read_pictures(root: Path) -> Pictures:
    """Open the test set that `prepare` left in a project. Raises DeliveryError."""
    try:
        classes = np.array(check(list[str], read_json(root / CLASSES), str(CLASSES)))
        images = np.load(root / TEST / "images.npy", mmap_mode="r")
        labels = classes[np.load(root / TEST / "labels.npy")].tolist()
    except (OSError, ValueError, IndexError, SettingsError) as error:
        why = sentence(error).replace(f"{root}/", "")
        raise DeliveryError(f"the test pictures cannot be read ({why})") from None
    rows = read_rows(root / TEST / "pictures.csv", ["sha256", "file"])
    if not len(images) == len(labels) == len(rows):
        raise DeliveryError(
            f"{TEST} has {len(images)} pictures, {len(labels)} labels and {len(rows)} names"
        )
    return Pictures(images, labels, [row["sha256"] for row in rows], [row["file"] for row in rows])


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a table with at least some columns. Raises DeliveryError."""
    try:
        reader = csv.DictReader(io.StringIO(read_text(path, LARGEST), newline=""), strict=True)
        rows = list(reader)
    except (csv.Error, SettingsError) as error:  # pull requests tell no folders of a machine
        why = sentence(error).replace(f"{path.parent}/", "")
        raise DeliveryError(f"{path.name} is no table that can be read ({why})") from None
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    broken = any(None in row or None in row.values() for row in rows)
    if missing or broken:
        what = f"no column {missing[0]}" if missing else "a line that is too short or too long"
        raise DeliveryError(f"{path.name} has {what}")
    return rows


def ask(model: Path, interface: Interface, test: Pictures, keep: Path | None = None) -> list[str]:
    """Return which classes a served model answers to the N test pictures.

    `model` is the model repository of its image; the file `keep` gets the answers in the form of
    the pipeline's. Raises DeliveryError for pictures of another shape than the model takes, and
    when it does not run.
    """
    probabilities = run(model, interface, test.images)
    predicted = [interface.labels[place] for place in probabilities.argmax(axis=1)]
    if keep:
        pictures = zip(test.sha256, test.file, test.label, strict=True)
        write_answers(keep, pictures, interface.labels, probabilities)
    return predicted


def run(model: Path, interface: Interface, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a model's probabilities (N, K) of pictures; progress is shown. As `ask`."""
    import onnxruntime  # only here, as most commands run no model

    shape = "x".join(map(str, images.shape[1:]))
    if shape != interface.shape:
        raise DeliveryError(f"it takes {shown(interface.shape)}, the test pictures are {shape}")
    try:
        (graph,) = model.glob("classifier/*/model.onnx")
        session: Any = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        starts = range(0, len(images), TOGETHER)
        answers = np.concatenate(
            [
                session.run([interface.output], {interface.input: images[at : at + TOGETHER]})
                for at in tqdm(starts, desc="judge the served model", delay=1, disable=None)
            ],
            axis=1,
        )[0]
    except Exception as error:  # onnxruntime raises what it likes
        why = sentence(error).replace(f"{model}/", "")
        raise DeliveryError(f"ONNX Runtime does not run it ({why})") from None
    if answers.shape != (len(images), len(interface.labels)):
        raise DeliveryError(f"it answers {answers.shape} and has {len(interface.labels)} labels")
    return answers
