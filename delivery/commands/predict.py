"""`make predict`: pictures classified by a running server."""

import shlex
import sys
from glob import glob
from pathlib import Path

import numpy as np

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.parameters import Pictures, read_pictures
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import PORTS, Ports
from workspace.errors import printable
from workspace.pictures import open_picture, to_pixels, upright_size

MOST_WORDS = 12  # of a path with blanks that nobody put into quotes

ARGUMENTS = {
    "images": {"nargs": "+", "metavar": "picture"},
    "--protocol": {"choices": PROTOCOLS, "default": "grpc"},
    "--top": {"type": int, "default": 3, "help": "classes to print for each picture"},
    **PORTS,
}


def run(repository: Repository, images: list[str], protocol: str, top: int, **ports: int) -> None:
    """Print the most probable classes of each file.

    Raises DeliveryError, in the end, for the files that could not be read.
    """
    settings = read_pictures(repository.folder)
    refused = []
    with connect(protocol, Ports(**ports)) as client:
        shape = client.input_shape()
        for file in [file for text in images for file in files(text)]:
            try:
                picture = read(file, shape, settings)
            except UnreadableError as error:
                refused.append(str(error))
                continue
            answer = client.infer(picture[np.newaxis], top=top)
            classes = ", ".join(describe(line) for line in answer.probabilities[0])
            print(f"{file}: {classes} (version {answer.version})")
    if refused:
        raise UnreadableError(*refused)


class UnreadableError(DeliveryError):
    """Files that are no pictures."""


def files(text: str) -> list[Path]:
    """Return the files that a text names: a path, or as a shell would read it, several, with `*`.

    A text that matches as it stands, or words of which only several together are a file, are one
    path with blanks.
    """
    if is_there(text):
        return [Path(text)]
    if (found := matching(text)) != [text]:
        return [Path(each) for each in found]
    try:
        words = shlex.split(text)
    except ValueError:  # a quote without its end
        words = text.split()
    words = [file for word in words for file in matching(word)]
    named = []
    while words:
        lengths = [1, *range(min(len(words), MOST_WORDS), 1, -1)]
        length = next((n for n in lengths if is_there(" ".join(words[:n]))), 1)
        named.append(Path(" ".join(words[:length])))
        words = words[length:]
    return named


def is_there(path: str) -> bool:
    """Whether a text is the path of something, however long it is."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def matching(word: str) -> list[str]:
    """Return the files that a word with `*` names, or else the word."""
    found = glob(word, recursive=True) if "*" in word else []  # noqa: PTH207 - Path refuses some
    return sorted(found) or [word]


def describe(line: bytes) -> str:
    """Turn Triton's "probability:index:label" into words for a person."""
    probability, index, *label = line.decode(errors="replace").split(":", 2)
    return f"{printable(label[0] if label else index)} {float(probability):.1%}"


def read(file: Path, shape: tuple[int, int, int], settings: Pictures) -> np.ndarray:
    """Read a picture as training does, to the height, width and channels of the model's input.

    Returns uint8 (H, W, C). Raises UnreadableError for a file that is no picture, DeliveryError for
    channels that no picture has.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise DeliveryError(f"the model takes pictures of {channels} channels, which no file has")
    try:
        with open_picture(file, settings.max_pixels) as picture:
            was = upright_size(picture)
            pixels = to_pixels(picture, (height, width), channels, settings.white)
    except FileNotFoundError:
        raise UnreadableError(f"there is no file {file}") from None
    except Exception as error:  # a broken file can raise anything in a decoder
        reason = str(error) or type(error).__name__
        raise UnreadableError(f"{file} is no picture that can be read: {reason}") from None
    if was != (height, width):
        print(f"{file}: resized from {was[1]}x{was[0]} to {width}x{height}", file=sys.stderr)
    return pixels
