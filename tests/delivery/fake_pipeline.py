"""Pipeline outputs small enough for a test: the delivery looks at nothing else of a model."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

CONFIG = """
name: "classifier"
backend: "onnxruntime"
input [ { name: "image" data_type: TYPE_UINT8 dims: [ 1, 1, 1 ] } ]
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]
"""
CLASSES = ["zero", "one"]
PICTURES = 200  # of the test set: of one pixel, which is the picture's number
LABELS = np.arange(PICTURES) % len(CLASSES)


@functools.cache
def model(accuracy: float) -> bytes:
    """Return a graph that looks the answer up by the pixel; the first pictures it gets wrong."""
    wrong = np.arange(256) < PICTURES - round(PICTURES * accuracy)
    answers = (np.arange(256) + wrong) % len(CLASSES)
    table = np.where(answers[:, np.newaxis] == np.arange(len(CLASSES)), accuracy, 1 - accuracy)
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["numbers", "flat"], ["places"]),
        helper.make_node("Gather", ["table", "places"], ["probabilities"]),
    ]
    constants = {"table": table.astype(np.float32), "flat": np.array([-1])}
    made = helper.make_graph(
        nodes,
        "fake",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 1, 1, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(CLASSES)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=9).SerializeToString()


def write(root: Path, path: str, content: str | bytes | dict[str, Any]) -> None:
    """Write a file below `root`; a dictionary becomes JSON."""
    if isinstance(content, dict):
        content = json.dumps(content, indent=2) + "\n"
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_model(root: Path, model: bytes) -> None:
    """Write what `export` leaves."""
    write(root, "artifacts/model/classifier/config.pbtxt", CONFIG)
    write(root, "artifacts/model/classifier/labels.txt", "\n".join([*CLASSES, ""]))
    write(root, "artifacts/model/classifier/golden.npz", b"golden requests")
    write(root, "artifacts/model/classifier/1/model.onnx", model)
    write(
        root,
        "artifacts/export.json",
        {
            "images": 36,
            "max_abs_difference": 3e-7,
            "argmax_equal": 36,
            "tolerance": 1e-4,
            "passed": True,
            "onnx_sha256": hashlib.sha256(model).hexdigest(),
        },
    )


def write_outputs(
    root: Path, accuracy: float = 0.97, macro_f1: float = 0.96, code: str = "c" * 64
) -> None:
    """Write everything that the pipeline leaves; a better model has other weights."""
    write_model(root, model(accuracy))
    write_test_pictures(root)
    write_predictions(root, accuracy)
    write(root, "metrics.json", metrics(accuracy, macro_f1))
    write(root, "lineage.json", lineage(code))
    write(root, "data/prepared/report.json", report())
    write(root, "MODEL_CARD.md", "# A card\n")
    write(root, "plots/confusion.png", b"\x89PNG")


def write_test_pictures(root: Path, numbers: Sequence[int] = range(PICTURES)) -> None:
    """Write what `prepare` leaves of the test set, or of some of its pictures."""
    folder = root / "data/prepared/test"
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.array(numbers, np.uint8).reshape(-1, 1, 1, 1)
    np.save(folder / "images.npy", pixels)
    np.save(folder / "labels.npy", LABELS[list(numbers)])
    rows = [f"{number:064x},{number}.png\n" for number in numbers]
    write(root, "data/prepared/test/pictures.csv", "sha256,file\n" + "".join(rows))
    write(root, "data/prepared/classes.json", json.dumps(CLASSES))


def write_predictions(
    root: Path, accuracy: float, numbers: Sequence[int] = range(PICTURES)
) -> None:
    """Write what `evaluate` says of the answers to the test set, or to some of its pictures."""
    lines = ["sha256,file,label,predicted,confidence,p_zero,p_one"]
    wrong = PICTURES - round(PICTURES * accuracy)
    for number in numbers:
        label = LABELS[number]
        answer = 1 - label if number < wrong else label
        shares = [f"{accuracy if place == answer else 1 - accuracy:.6f}" for place in (0, 1)]
        names = f"{CLASSES[label]},{CLASSES[answer]}"
        lines.append(f"{number:064x},{number}.png,{names},{accuracy:.6f},{','.join(shares)}")
    write(root, "artifacts/predictions.csv", "\n".join([*lines, ""]))


def metrics(accuracy: float = 0.97, macro_f1: float = 0.96) -> dict[str, Any]:
    """Return metrics of a test set with two classes."""
    one = {"precision": macro_f1, "recall": macro_f1, "f1": macro_f1, "support": PICTURES // 2}
    return {
        "accuracy": accuracy,
        "macro_precision": macro_f1,
        "macro_recall": macro_f1,
        "macro_f1": macro_f1,
        "loss": 0.11,
        "calibration_error": 0.02,
        "support": PICTURES,
        "intervals": {"accuracy": [accuracy - 0.05, 1.0], "macro_f1": [macro_f1 - 0.05, 1.0]},
        "per_class": {"zero": one, "one": one},
    }


def lineage(code: str = "c" * 64, test: str = "b" * 64) -> dict[str, Any]:
    """Return the lineage of a model that was trained on one fixed data set."""
    return {
        "data": {"source": "digits", "sha256": "a" * 64, "test_sha256": test},
        "code": {"sha256": code},
        "params": {"seed": 42, "train": {"epochs": 3}},
        "seed": 42,
        "libraries": {"torch": "2.8.0"},
        "python": "3.11.7",
        "trained": {"devices": 1, "nodes": 1, "hardware": "CPU"},
    }


def report(test: str = "b" * 64) -> dict[str, Any]:
    """Return the data report that goes with `lineage`."""
    splits = {"test": {"images": 36, "sha256": test}}
    checks = [{"name": "no leaks", "passed": True, "detail": "0 test images in training"}]
    return {"sha256": "a" * 64, "splits": splits, "checks": checks, "passed": True}


def read(root: Path, path: str) -> dict[str, Any]:
    """Read a JSON file below `root`."""
    return json.loads((root / path).read_text())
