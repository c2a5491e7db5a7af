"""What fewer bits of the exported graph are worth: processor time, size, and other answers.

    python benchmarks/precision.py [--kept FOLDER]

Trains the digits' default network and a ResNet-18 on digits stretched to 32×32 in colour, lowers
their graphs as `export.precision` does, and times all with one thread, in turns. What is trained
is kept in FOLDER, for a second run, if one is named.
"""

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import data, export, params, precision, preparation, training
from classifier.model import Classifier, load_model
from classifier.params import Params

SETTINGS = params.load(PROJECT)
WORKLOADS: dict[str, dict[str, dict[str, Any]]] = {
    "digits, cnn": {"prepare": {}, "train": {}},
    "digits at 32×32×3, resnet18": {
        "prepare": {"image_size": (32, 32), "channels": 3},
        "train": {
            **{"network": "resnet18", "options": {}, "epochs": 6, "learning_rate": 0.003},
            "augmentation": SETTINGS.train.augmentation.model_copy(update={"shift": 0.04}),
        },
    },
}
BITS = ("fp32", "fp16", "int8")
BATCHES = (1, 32)
TURNS = 9
TURN = 0.3  # seconds of processor time


def settings(changes: dict[str, dict[str, Any]]) -> Params:
    """The shipped parameters with some others."""
    sections = {
        name: getattr(SETTINGS, name).model_copy(update=values) for name, values in changes.items()
    }
    return SETTINGS.model_copy(update=sections)


def trained(values: Params, root: Path) -> Classifier:
    """The model in a folder, trained if it is not there."""
    if not (root / training.CHECKPOINT).exists():
        root.mkdir(parents=True, exist_ok=True)
        for name in ("src", "dvc.yaml", "serving", "params.yaml"):
            if not (root / name).exists():
                (root / name).symlink_to(PROJECT / name)
        preparation.prepare(values, root)
        training.train(values, root)
    return load_model(root / training.CHECKPOINT).eval()


def graphs(model: Classifier, values: Params, root: Path) -> dict[str, bytes]:
    """The exported graph in all precisions."""
    content = export.to_onnx(export.Served(model), model.shape)
    train, pictures = data.load_split(root, "train"), values.export.calibration_pictures
    made = {"fp32": content}
    for bits in BITS[1:]:
        full = copy.deepcopy(onnx.load_from_string(content))
        lowered = precision.lower(full, bits, train, pictures)
        made[bits] = lowered.SerializeToString(deterministic=True)
    return made


def session(graph: bytes) -> onnxruntime.InferenceSession:
    """ONNX Runtime with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def answers(graph: bytes, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, K)."""
    running, parts = session(graph), np.array_split(images, -(-len(images) // 32))
    return np.concatenate([running.run(None, {"image": part})[0] for part in parts])


def times(made: dict[str, bytes], images: NDArray[np.uint8]) -> dict[str, float]:
    """Milliseconds of processor time for one batch, in turns; medians."""
    running = {bits: session(graph) for bits, graph in made.items()}
    runs = {bits: max(3, round(TURN / once(each, images))) for bits, each in running.items()}
    found: dict[str, list[float]] = {bits: [] for bits in made}
    for _ in range(TURNS):
        for bits, each in running.items():
            begun = time.process_time()
            for _ in range(runs[bits]):
                each.run(None, {"image": images})
            found[bits].append((time.process_time() - begun) / runs[bits] * 1000)
    return {bits: median(values) for bits, values in found.items()}


def once(running: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> float:
    """Seconds of processor time for one batch, after a first one."""
    running.run(None, {"image": images})
    begun = time.process_time()
    running.run(None, {"image": images})
    return max(time.process_time() - begun, 1e-5)


def measure(name: str, root: Path) -> list[dict[str, Any]]:
    """Figures of all precisions of one network."""
    values = settings(WORKLOADS[name])
    made = graphs(trained(values, root), values, root)
    test = data.load_split(root, "test")
    taken = {
        size: times(made, np.resize(test.images, (size, *test.images.shape[1:])))
        for size in BATCHES
    }
    full = answers(made["fp32"], test.images)
    figures = []
    for bits, graph in made.items():
        compared = precision.compare(full, answers(graph, test.images), test.labels, 0.95, 0.02)
        milliseconds = {size: taken[size][bits] for size in BATCHES}
        faster = {size: taken[size]["fp32"] / taken[size][bits] for size in BATCHES}
        figures.append(
            {"network": name, "precision": bits, "bytes": len(graph), "ms": milliseconds}
            | {"faster": faster, "images": len(test.labels)}
            | compared
        )
    return figures


def row(figures: dict[str, Any]) -> list[str]:
    """A line of the table."""
    low, high = figures["interval"]
    times = [f"{figures['ms'][n]:.3g} ({figures['faster'][n]:.2f}×)" for n in BATCHES]
    return [
        f"{figures['network']}, {figures['precision']}",
        f"{figures['bytes'] / 1e6:.2f}",
        *times,
        f"{figures['accuracy']:.4f}",
        f"{figures['flips']} of {figures['images']}",
        f"{low * 100:+.1f} to {high * 100:+.1f}" if figures["precision"] != "fp32" else "–",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, help="a folder for what is trained")
    with tempfile.TemporaryDirectory() as temporary:
        folder = parser.parse_args().kept or Path(temporary)
        places = [folder / name.replace(" ", "-") for name in WORKLOADS]
        pairs = tqdm(zip(WORKLOADS, places, strict=True), total=len(places), disable=None)
        figures = [each for name, place in pairs for each in measure(name, place)]
    head = ["network, precision", "MB", *(f"batch of {n}, ms of processor time" for n in BATCHES)]
    head += ["test accuracy", "other class than fp32", "accuracy against fp32, points"]
    write("precision", "Fewer bits", table(head, map(row, figures)), figures)


if __name__ == "__main__":
    main()
