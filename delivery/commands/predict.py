"""`make predict`: pictures classified by a running server."""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports, add_ports
from workspace.errors import printable

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for each number of channels


def add_arguments(subparsers: argparse._SubParsersAction) -> None:
    """Describe the command."""
    parser = subparsers.add_parser("predict", help="classify pictures with a running server")
    parser.add_argument("images", nargs="+", type=Path, metavar="picture")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="grpc")
    parser.add_argument("--top", type=int, default=3, help="classes to print for each picture")
    add_ports(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the most probable classes of each file."""
    ports = Ports(arguments.http_port, arguments.grpc_port)
    with connect(arguments.protocol, ports) as client:
        shape = client.input_shape()
        pictures = [read(file, shape) for file in arguments.images]
        for file, picture in zip(arguments.images, pictures, strict=True):
            answer = client.infer(picture[np.newaxis], top=arguments.top)
            classes = ", ".join(describe(line) for line in answer.probabilities[0])
            print(f"{file}: {classes} (version {answer.version})")


def describe(line: bytes) -> str:
    """Turn Triton's "probability:index:label" into words for a person."""
    probability, index, *label = line.decode(errors="replace").split(":", 2)
    return f"{printable(label[0] if label else index)} {float(probability):.1%}"


def read(file: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """Read a picture as the model wants it.

    Args:
        file: any format that Pillow knows.
        shape: height, width and channels of the model's input.

    Returns:
        uint8 array (H, W, C).

    Raises DeliveryError for a file that is no picture, and for channels that no picture has.
    """
    height, width, channels = shape
    if channels not in MODES:
        raise DeliveryError(f"the model takes pictures of {channels} channels, which no file has")
    try:
        picture = plain(ImageOps.exif_transpose(Image.open(file))).convert(MODES[channels])
    except FileNotFoundError:
        raise DeliveryError(f"there is no file {file}") from None
    except (UnidentifiedImageError, OSError):
        raise DeliveryError(f"{file} is no picture that can be read") from None
    if picture.size != (width, height):
        was = "x".join(map(str, picture.size))
        print(f"{file}: resized from {was} to {width}x{height}", file=sys.stderr)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(shape)


def plain(picture: Image.Image) -> Image.Image:
    """Return a picture of 8 bits without transparency, by the rules that the README states."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA"))
    return picture
