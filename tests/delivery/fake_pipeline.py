"""Pipeline outputs small enough for a test: the delivery looks at nothing else of a model."""

import hashlib
import json
from pathlib import Path
from typing import Any

CONFIG = 'name: "classifier"\nbackend: "onnxruntime"\n'
MODEL = b"not really an ONNX graph, but the delivery does not mind"


def write(root: Path, path: str, content: str | bytes | dict[str, Any]) -> None:
    """Write a file below `root`; a dictionary becomes JSON."""
    if isinstance(content, dict):
        content = json.dumps(content, indent=2) + "\n"
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_model(root: Path, model: bytes = MODEL) -> None:
    """Write what `export` leaves."""
    write(root, "artifacts/model/classifier/config.pbtxt", CONFIG)
    write(root, "artifacts/model/classifier/labels.txt", "zero\none\n")
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
    write_model(root, MODEL + str(accuracy).encode())
    write(root, "metrics.json", metrics(accuracy, macro_f1))
    write(root, "lineage.json", lineage(code))
    write(root, "data/prepared/report.json", report())
    write(root, "MODEL_CARD.md", "# A card\n")
    write(root, "plots/confusion.png", b"\x89PNG")


def metrics(accuracy: float = 0.97, macro_f1: float = 0.96) -> dict[str, Any]:
    """Return metrics of a test set with two classes."""
    one = {"precision": macro_f1, "recall": macro_f1, "f1": macro_f1, "support": 18}
    return {
        "accuracy": accuracy,
        "macro_precision": macro_f1,
        "macro_recall": macro_f1,
        "macro_f1": macro_f1,
        "loss": 0.11,
        "calibration_error": 0.02,
        "support": 36,
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
