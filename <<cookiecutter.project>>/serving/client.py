"""Ask the served model about pictures. This file stands alone: copy it into any other program.

pip install numpy pillow 'tritonclient[grpc,http]'
python client.py http://127.0.0.1:8000 cat.png dog.jpg    # or grpc://127.0.0.1:8001; --white=4095
"""

import argparse
import importlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS, WHITE = 50_000_000, 65535  # prepare.max_pixels and prepare.white of the model's project
TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270")
TURN = dict(enumerate((*TURNS, "TRANSVERSE", "ROTATE_90"), 2))  # by EXIF's number
Classes = list[tuple[str, float]]  # with their probabilities


def pixels(file: str, height: int, width: int, channels: int, white: int = WHITE) -> np.ndarray:
    """Prepare a picture as training did: uint8 (height, width, channels), or ValueError."""
    content = Path(file).read_bytes()  # Pillow would map some files, and then not turn a TIFF
    picture: Image.Image = Image.open(BytesIO(content), formats=FORMATS)
    tags = getattr(picture, "tag_v2", {})
    bits = content[24] if picture.format == "PNG" else max(tags.get(258, [8]))  # of a channel
    if picture.width * picture.height > MAX_PIXELS:
        raise ValueError(f"{file} has more than {MAX_PIXELS} pixels")
    picture.load()
    if picture.format != "TIFF" and (turn := TURN.get(orientation(picture))):  # Pillow turns those
        picture = picture.transpose(Image.Transpose[turn])
    if picture.mode[0] in "IF":  # 16 bits become 8, rounded
        values = np.asarray(picture).astype(np.int64)
        if picture.mode == "F" or values.min() < 0 or values.max() > white:
            raise ValueError(f"{file} has other values than whole numbers from 0 to {white}")
        picture = Image.fromarray(((values * 510 + white) // (2 * white)).astype(np.uint8))
    elif bits > 8:  # of which Pillow reads the upper 8
        raise ValueError(f"{file} is colour of 16 bits a channel: save it with 8")
    elif picture.has_transparency_data:
        ground = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(ground, picture.convert("RGBA"))
    picture = picture.convert("L" if channels == 1 else "RGB")
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(height, width, channels)


def orientation(picture: Image.Image) -> int:
    """Return EXIF's number of the turn that is left to make; broken data ask for none."""
    try:
        Image.Exif().load(picture.info.get("exif", b""))
        return picture.getexif().get(0x0112, 1)
    except Exception:
        return 1


def classify(address: str, files: list[str], top: int = 3, white: int = WHITE) -> Iterator[Classes]:
    """Give the most probable classes of each picture, with their probabilities."""
    protocol, _, place = address.rpartition("://")
    triton: Any = importlib.import_module(f"tritonclient.{protocol}")
    with triton.InferenceServerClient(place) as server:
        limit = {"client_timeout": 60.0} if protocol == "grpc" else {}  # seconds, as HTTP has
        as_dict = {"as_json": True, **limit} if limit else {}
        model = server.get_model_metadata("classifier", **as_dict)
        height, width, channels = (int(size) for size in model["inputs"][0]["shape"][1:])
        for file in files:
            tensor = triton.InferInput("image", [1, height, width, channels], "UINT8")
            tensor.set_data_from_numpy(pixels(file, height, width, channels, white)[np.newaxis])
            wanted = triton.InferRequestedOutput("probabilities", class_count=top)
            answer = ask(server, "classifier", [tensor], outputs=[wanted], **limit)
            lines = [line.decode().split(":", 2) for line in answer.as_numpy("probabilities")[0]]
            yield [(label, float(probability)) for probability, _, label in lines]


def ask(server: Any, *question: Any, **options: Any) -> Any:
    """Infer; a second time, over a new connection, where the server closed the one it kept."""
    try:
        return server.infer(*question, **options)
    except Exception as error:  # each library has its own for a closed connection
        if type(error).__name__ == "InferenceServerException":  # Triton's answer
            raise
        return server.infer(*question, **options)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("address")
    options.add_argument("files", nargs="+")
    options.add_argument("--white", type=int, default=WHITE, help="prepare.white of its project")
    asked = options.parse_args()
    for name, classes in zip(asked.files, classify(**vars(asked)), strict=True):
        print(f"{name}: " + ", ".join(f"{label} {share:.1%}" for label, share in classes))
