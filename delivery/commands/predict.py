"""`make predict`: pictures classified by a running server."""

import sys
from pathlib import Path

import numpy as np

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.parameters import Pictures, read_pictures
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import PORTS, Ports
from workspace.errors import printable
from workspace.pictures import open_picture, to_pixels, upright_size

ARGUMENTS = {
    "images": {"nargs": "+", "type": Path, "metavar": "picture"},
    "--protocol": {"choices": PROTOCOLS, "default": "grpc"},
    "--top": {"type": int, "default": 3, "help": "classes to print for each picture"},
    **PORTS,
}


def run(repository: Repository, images: list[Path], protocol: str, top: int, **ports: int) -> None:
    """Print the most probable classes of each file."""
    settings = read_pictures(repository.folder)
    with connect(protocol, Ports(**ports)) as client:
        shape = client.input_shape()
        pictures = [read(file, shape, settings) for file in images]
        for file, picture in zip(images, pictures, strict=True):
            answer = client.infer(picture[np.newaxis], top=top)
            classes = ", ".join(describe(line) for line in answer.probabilities[0])
            print(f"{file}: {classes} (version {answer.version})")


def describe(line: bytes) -> str:
    """Turn Triton's "probability:index:label" into words for a person."""
    probability, index, *label = line.decode(errors="replace").split(":", 2)
    return f"{printable(label[0] if label else index)} {float(probability):.1%}"


def read(file: Path, shape: tuple[int, int, int], settings: Pictures) -> np.ndarray:
    """Read a picture as training does, to the height, width and channels of the model's input.

    Returns uint8 (H, W, C). Raises DeliveryError for a file that is no picture, and for channels
    that no picture has.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise DeliveryError(f"the model takes pictures of {channels} channels, which no file has")
    try:
        with open_picture(file, settings.max_pixels) as picture:
            was = upright_size(picture)
            pixels = to_pixels(picture, (height, width), channels, settings.white)
    except FileNotFoundError:
        raise DeliveryError(f"there is no file {file}") from None
    except Exception as error:  # a broken file can raise anything in a decoder
        reason = str(error) or type(error).__name__
        raise DeliveryError(f"{file} is no picture that can be read: {reason}") from None
    if was != (height, width):
        print(f"{file}: resized from {was[1]}x{was[0]} to {width}x{height}", file=sys.stderr)
    return pixels
