"""Keeps a few of the pictures that a model is not sure of, or that look odd, for people to label.

They are PNG files in a folder for each class that was answered. How many come in an hour, how many
there are, how large they are together and how long they stay has a limit.
"""

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np

HOURLY = 60  # pictures, of which so many may come at once
MOST = 1000  # pictures
BYTES = 200e6  # of all of them; the volume has room for more, as a pod that fills one is ended
DAYS = 7
REFUSED = "no-capture"  # a request with a parameter of this name is one of which nothing is kept
LOOKS = ("brightness", "contrast", "saturation")


def refused(parameters):
    """Whether a request's parameters, a text of JSON, name the refusal, whatever its value is."""
    return REFUSED in parameters


def wanted(figures, features):
    """Which pictures (N,) to keep: unsure ones, and those that look unlike most in every way."""
    (threshold,) = features["sure"]["edges"]
    unsure = figures["confidence"] <= threshold
    edges = [(figures[name], features[name]["edges"]) for name in LOOKS]
    odd = [(values <= few[0]) | (values > few[-1]) for values, few in edges if few]
    return unsure | np.all(odd, axis=0)


class Capture:
    """A folder of pictures."""

    def __init__(self, folder, classes):
        """Take a folder that exists, and the names of the classes."""
        self.folder, self.classes = Path(folder), classes
        self.tokens, self.since = float(HOURLY), time.monotonic()

    def keep(self, images, labels):
        """Keep as many pictures (N, H, W, C) as there is room for, by the answers' places (N,)."""
        now = time.monotonic()
        self.tokens = min(HOURLY, self.tokens + HOURLY * (now - self.since) / 3600)
        self.since = now
        count, size = self.there()
        for image, label in zip(images, labels, strict=True):
            content = png(image)
            size, count = size + len(content), count + 1
            if self.tokens < 1 or count > MOST or size > BYTES:
                return
            self.tokens -= 1
            self.write(content, self.classes[int(label)])

    def there(self):
        """How many files there are, and their bytes; those that are too old go."""
        found = [(path, path.stat()) for path in self.folder.glob("*/*.png")]
        late = time.time() - DAYS * 24 * 3600
        for path, about in found:
            if about.st_mtime < late:
                path.unlink()
        sizes = [about.st_size for _, about in found if about.st_mtime >= late]
        return len(sizes), sum(sizes)

    def write(self, content, name):
        """Write a file that is whole as soon as it has its name."""
        place = self.folder / name
        if place.parent != self.folder or name.startswith("."):
            return  # the name of a class is that of no folder
        place.mkdir(exist_ok=True)
        partial = self.folder / ".partial"
        partial.write_bytes(content)
        partial.rename(place / f"{time.time_ns()}-{os.urandom(4).hex()}.png")


def png(image):
    """A picture uint8 (H, W, 1 or 3) as a PNG file. Raises KeyError where it has other channels."""
    height, width, channels = image.shape
    colours = {1: 0, 3: 2}[channels]
    rows = np.pad(image.reshape(height, -1), ((0, 0), (1, 0)))
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0),
        b"IDAT": zlib.compress(rows.tobytes(), 1),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )
