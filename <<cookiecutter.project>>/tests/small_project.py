"""A project folder with a small data set, as `prepare` leaves it, and parameters of its own."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from classifier.networks import NETWORKS
from classifier.params import Params

PROJECT = Path(__file__).parent.parent
PARAMS = Path(__file__).with_name("params.yaml")
CLASSES = ["circle", "cross", "square"]
HEIGHT, WIDTH, CHANNELS = 12, 10, 3
# The largest come as they are with the template, whose tests try them.
OWN_NETWORKS = sorted(NETWORKS.keys() - {"efficientnet_b0", "convnext_tiny", "mobilenet_v3"})
COPIED = ("dvc.yaml", "serving/classifier/config.pbtxt")


def fixed() -> dict[str, Any]:
    """The tests' parameters as they are in the file."""
    return yaml.safe_load(PARAMS.read_text())


def change(settings: Params, **values: Any) -> Params:
    """The parameters with other values in the section `train`."""
    train = settings.train.model_copy(update=values)
    return settings.model_copy(update={"train": train})


def images_of(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise with a bright band whose place tells the class: uint8 (N, H, W, C)."""
    images = rng.integers(0, 90, (len(labels), HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_split(folder: Path, count: int, rng: np.random.Generator) -> dict[str, Any]:
    labels = np.arange(count) % len(CLASSES)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images_of(labels, rng))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    files = [f"{hash_of(f'{folder.name}/{i}')},{folder.name}/{i}.png\n" for i in range(count)]
    (folder / "pictures.csv").write_text("sha256,file\n" + "".join(files))
    return {"images": count, "sha256": f"sha256 of {folder.name}"}


def prepared_project(folder: Path) -> Path:
    """A folder with parameters, the project's code and serving configuration, prepared splits."""
    rng = np.random.default_rng(0)
    prepared = folder / "data/prepared"
    sizes = {"train": 60, "validation": 21, "test": 33}
    splits = {name: write_split(prepared / name, n, rng) for name, n in sizes.items()}
    image = {"height": HEIGHT, "width": WIDTH, "channels": CHANNELS}
    known = {"classes": CLASSES, "image": image}
    report = {"sha256": "sha256 of all", "splits": splits, "passed": True} | known
    (prepared / "report.json").write_text(json.dumps(report))
    (prepared / "classes.json").write_text(json.dumps(CLASSES))
    add_code(folder)
    shutil.copy(PARAMS, folder)  # not the owner's, whose values no test of a model may meet
    return folder


def add_code(folder: Path) -> None:
    """Put there what says which code makes the model, and that code."""
    for file in COPIED:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / file, folder / file)
    (folder / "src").symlink_to(PROJECT / "src")
