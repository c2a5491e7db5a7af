"""Files of 16 bits a channel in colour or with transparency, which Pillow doesn't write."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags

COLOURS = {2: 4, 3: 2, 4: 6}  # PNG's number of the kind, by channels
LONG, SHORT = 4, 3  # TIFF's numbers of types


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    total = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + total


def values(seed: int, highest: int, channels: int = 3) -> np.ndarray:
    """Coarse noise, uint16 (16, 16, C), from 0 to `highest`, which is in it."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, highest + 1, (4, 4, channels), dtype=np.uint16)
    coarse[0, 0] = highest
    return coarse.repeat(4, 0).repeat(4, 1)


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write values, uint16 (H, W, C), as a PNG or, if its name ends so, as a TIFF of 3 channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_tiff(pixels) if path.suffix == ".tif" else _png(pixels))
    return path


def _png(pixels: np.ndarray) -> bytes:
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, COLOURS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _tiff(pixels: np.ndarray) -> bytes:
    height, width, channels = pixels.shape
    bits, content = struct.pack("<3H", 16, 16, 16), pixels.astype("<u2").tobytes()
    tag = ExifTags.Base
    entries = [
        (tag.ImageWidth, SHORT, 1, width),
        (tag.ImageLength, SHORT, 1, height),
        (tag.BitsPerSample, SHORT, 3, 8),
        (tag.Compression, SHORT, 1, 1),
        (tag.PhotometricInterpretation, SHORT, 1, 2),
        (tag.StripOffsets, LONG, 1, 8 + len(bits)),
        (tag.SamplesPerPixel, SHORT, 1, channels),
        (tag.RowsPerStrip, SHORT, 1, height),
        (tag.StripByteCounts, LONG, 1, len(content)),
    ]
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = struct.pack("<4sI", b"II*\0", 8 + len(bits) + len(content))
    return start + bits + content + directory + bytes(4)
