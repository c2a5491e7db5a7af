"""What a pipeline leaves of a model with given answers, without training one."""

import csv
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HOSTILE = "</script><script>fetch('http://example.com/x')</script> \"'&<b>"


def write(root: Path, classes: Sequence[str], tests: int, side: int = 12, seed: int = 0) -> None:
    """Write the files that the page of a model is made from; most answers are right."""
    rng, count = np.random.default_rng(seed), len(classes)
    splits = {}
    for name, size in (("train", 2 * tests), ("validation", tests), ("test", tests)):
        folder = root / "data/prepared" / name
        folder.mkdir(parents=True)
        labels = np.arange(size) % count
        np.save(folder / "images.npy", rng.integers(0, 256, (size, side, side, 3), np.uint8))
        np.save(folder / "labels.npy", labels)
        of_each = dict(zip(classes, np.bincount(labels, minlength=count).tolist(), strict=True))
        splits[name] = {"images": size, "sha256": name, "classes": of_each}
    scores = rng.normal(0, 1, (tests, count))
    scores[np.arange(tests), labels] += 3
    write_answers(root / "artifacts/predictions.csv", classes, labels, scores)
    write_history(root / "artifacts/history.csv")
    share = float((scores.argmax(1) == labels).mean())
    figures = {"accuracy": share, "macro_f1": share, "calibration_error": 0.03, "support": tests}
    figures["intervals"] = {name: [share - 0.01, share] for name in ("accuracy", "macro_f1")}
    image = {"height": side, "width": side, "channels": 3}
    report = {"source": "folder", "sha256": "ab" * 32, "image": image, "checks": []}
    params = {"train": {"network": "cnn"}, "evaluate": {"confidence": 0.95, "calibration_bins": 15}}
    for path, content in {
        "metrics.json": figures,
        "lineage.json": {"params": params, "code": {"sha256": "cd" * 32}},
        "data/prepared/report.json": report | {"classes": list(classes), "splits": splits},
    }.items():
        (root / path).write_text(json.dumps(content))
    write_graph(root / "artifacts/model/classifier/1/model.onnx", count, side)


def write_answers(
    path: Path, classes: Sequence[str], labels: np.ndarray, scores: np.ndarray
) -> None:
    """Write a predictions.csv with the softmax of scores (N, K)."""
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        fields = ("sha256", "file", "label", "predicted", "confidence")
        rows.writerow([*fields, *(f"p_{name}" for name in classes)])
        for i, (label, row) in enumerate(zip(labels, shares, strict=True)):
            digest = hashlib.sha256(f"picture {i}".encode()).hexdigest()
            about = [digest, f"{classes[label]}/{i}.png", classes[label], classes[row.argmax()]]
            rows.writerow([*about, f"{row.max():.6f}", *(f"{share:.6f}" for share in row)])


def write_history(path: Path, epochs: int = 12, kept: int = 7) -> None:
    """Write curves of which the lowest validation loss is at an epoch."""
    lines = ["epoch,train_loss,validation_loss,validation_accuracy"]
    for epoch in range(1, epochs + 1):
        lines.append(f"{epoch},{1 / epoch},{0.2 + abs(epoch - kept) / 20},{0.8 + epoch / 100}")
    path.write_text("\n".join(lines) + "\n")


def write_graph(path: Path, classes: int, side: int) -> None:
    """Write a linear model of the pixels."""
    size = side * side * 3
    weights = np.random.default_rng(1).normal(0, 0.01, (size, classes)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["row"], axis=1),
        helper.make_node("MatMul", ["row", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    pixels = ["batch", side, side, 3]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, pixels)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    path.parent.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
