"""A small data set of three classes, and a project folder with it as `prepare` leaves it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from conftest import UNBAKED

CLASSES = ["circle", "cross", "square"]
HEIGHT, WIDTH, CHANNELS = 12, 10, 3
SPLITS = {"train": 60, "validation": 21, "test": 33}  # images
COPIED = ("dvc.yaml", "serving/classifier/config.pbtxt")

# What tests rely on in the parameters, whatever the template ships.
PREPARE = {"source": "folder", "folder": "data/raw", "image_size": None, "channels": None}
TRAIN = {"network": "cnn", "options": {"width": 4}, "epochs": 3, "batch_size": 16}


def images_of(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise with a bright band whose place tells the class: uint8 (N, H, W, C)."""
    images = rng.integers(0, 90, (len(labels), HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images


def edit(root: Path, **sections: dict[str, Any]) -> None:
    """Change keys of sections of params.yaml."""
    content = yaml.safe_load((root / "params.yaml").read_text())
    for name, values in sections.items():
        content[name] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def prepared_project(folder: Path) -> Path:
    """A folder with the template's params.yaml, its code and serving configuration, and splits."""
    rng = np.random.default_rng(0)
    for name, count in SPLITS.items():
        labels = np.arange(count) % len(CLASSES)
        split = folder / "data/prepared" / name
        split.mkdir(parents=True)
        np.save(split / "images.npy", images_of(labels, rng))
        np.save(split / "labels.npy", labels.astype(np.int64))
    splits = {name: {"images": n, "sha256": f"sha256 of {name}"} for name, n in SPLITS.items()}
    report = {"sha256": "sha256 of all", "splits": splits, "passed": True}
    (folder / "data/prepared/report.json").write_text(json.dumps(report))
    (folder / "data/prepared/classes.json").write_text(json.dumps(CLASSES))
    for file in COPIED:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(UNBAKED / file, folder / file)
    (folder / "src").symlink_to(UNBAKED / "src")
    shutil.copy(UNBAKED / "params.yaml", folder)
    return folder
