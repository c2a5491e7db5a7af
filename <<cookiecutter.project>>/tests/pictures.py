"""Images of the data for tests: made from seeds, put into folders, found again in the splits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_project import fixed

from classifier import params, preparation
from classifier.data import SPLITS, load_split
from classifier.params import Params
from workspace.errors import UserError


def settings_with(seed: int = 42, **changes: Any) -> Params:
    """Parameters to prepare a folder `images` with, and others as they are said."""
    usual = {"source": "folder", "folder": "images", "max_unreadable_share": 0.5}
    shares = {"validation_share": 0.2, "test_share": 0.2}
    content = fixed() | {"seed": seed}
    content["prepare"] |= usual | shares | changes
    return params.parse(content)


def prepare(root: Path, seed: int = 42, **changes: Any) -> None:
    preparation.prepare(settings_with(seed, **changes), root)


def noise(seed: int, height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    """An image unlike that of any other seed: coarse noise, so that thumbnails differ too."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return coarse.repeat(-(-height // 4), axis=0).repeat(-(-width // 4), axis=1)[:height, :width]


def nearly(pixels: np.ndarray) -> np.ndarray:
    """The same to the eye: every value is one grey level off."""
    return pixels ^ 1


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(path)
    return path


def fill(folder: Path, seed: int, images: int = 10, **shape: int) -> None:
    for i in range(images):
        save(noise(1000 * seed + i, **shape), folder / f"{i:02}.png")


def cats_and_dogs(root: Path) -> Path:
    """A project with ten images of cats and ten of dogs."""
    fill(root / "images" / "cat", 1)
    fill(root / "images" / "dog", 2)
    return root


def read_report(root: Path) -> dict[str, Any]:
    return json.loads((root / "data/prepared/report.json").read_text())


def prepared_images(root: Path) -> dict[str, list[bytes]]:
    return {name: [image.tobytes() for image in load_split(root, name).images] for name in SPLITS}


def all_images(root: Path) -> list[bytes]:
    return [image for images in prepared_images(root).values() for image in images]


def refusal(root: Path, **changes: Any) -> str:
    """The sentence a user gets, after checking that nothing was written."""
    with pytest.raises(UserError) as caught:
        prepare(root, **changes)
    assert not (root / "data/prepared").exists()
    assert not (root / "data/.preparing").exists()
    assert not (root / "plots").exists()
    return str(caught.value)
