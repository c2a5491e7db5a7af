"""A project folder with a small data set, as `prepare` leaves it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from classifier import params
from classifier.params import Params

PROJECT = Path(__file__).parent.parent
CLASSES = ["circle", "cross", "square"]
HEIGHT, WIDTH, CHANNELS = 12, 10, 3


def small(content: dict[str, Any]) -> dict[str, Any]:
    """The shipped parameters, shrunk until a test can train with them."""
    changes = {"epochs": 3, "batch_size": 16, "options": {"width": 4}}
    return content | {"train": content["train"] | changes}


def images_of(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise with a bright band whose place tells the class: uint8 (N, H, W, C)."""
    images = rng.integers(0, 90, (len(labels), HEIGHT, WIDTH, CHANNELS), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 120
    return images


def write_split(folder: Path, count: int, rng: np.random.Generator) -> dict[str, Any]:
    labels = np.arange(count) % len(CLASSES)
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images_of(labels, rng))
    np.save(folder / "labels.npy", labels.astype(np.int64))
    return {"images": count, "sha256": f"sha256 of {folder.name}"}


def prepared_project(folder: Path) -> Path:
    """A folder with params.yaml, the serving configuration and prepared splits."""
    rng = np.random.default_rng(0)
    prepared = folder / "data/prepared"
    sizes = {"train": 60, "validation": 21, "test": 33}
    splits = {name: write_split(prepared / name, n, rng) for name, n in sizes.items()}
    report = {"sha256": "sha256 of all", "splits": splits, "passed": True}
    (prepared / "report.json").write_text(json.dumps(report))
    (prepared / "classes.json").write_text(json.dumps(CLASSES))
    for file in ("params.yaml", "serving/classifier/config.pbtxt", "src/classifier/networks.py"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text((PROJECT / file).read_text())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A prepared project of the test's own."""
    return prepared_project(tmp_path)


@pytest.fixture(scope="session")
def settings() -> Params:
    """The shipped parameters, shrunk."""
    content = yaml.safe_load((PROJECT / "params.yaml").read_text())
    return params.parse({name: small(content)[name] for name in params.SECTIONS})


def change(settings: Params, **values: Any) -> Params:
    """The parameters with other values in the section `train`."""
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, **values))
