"""Pictures as every program reads them, so that training, review and requests see the same pixels.

One function decides the turn, one the size, one the pixels. Where pictures lie is said here, too.
"""

import os
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from workspace.errors import UserError

DOWNLOADS = Path("data/downloads")  # of data sets that are fetched
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
MAX_PIXELS = 50_000_000  # about 600 MB while it is decoded
PILLOWS_LIMIT = 178_000_000  # beyond it Pillow opens nothing
WHITE = 65535  # of pictures with 16 bits
TURNS = {  # by EXIF's number
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # those that swap height and width
TURN, BROKEN = "turn", "broken EXIF"  # in `info`: asked once, as the file may be closed later

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is lower


def refuse_links(folder: Path, root: Path | None = None) -> None:
    """Refuse folders that are links, in a folder or on the way to it from the project's `root`.

    A link to a file is followed, as DVC keeps the file that it leads to; of a folder behind a link
    it keeps nothing.

    Raises UserError, which names the link; OSError for a folder that can't be looked into.
    """
    above = [folder, *folder.parents] if root is not None else []
    places = [place for place in above if root in place.parents]
    for parent, names, _ in os.walk(folder, onerror=_fail):
        places += [Path(parent, name) for name in names]
    for place in places:
        if place.is_symlink():
            raise UserError(
                f"{place} is a link to a folder, of which DVC would keep nothing: put a copy of "
                "the folder in its place"
            )


def _fail(error: OSError) -> None:
    raise error


# -- open ------------------------------------------------------------------------------------------


def open_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a picture of one of the FORMATS, whatever its name; its pixels are not decoded yet.

    Raises ValueError, with the reason; OSError.
    """
    if path.stat().st_size == 0:
        raise ValueError("zero bytes")
    try:
        picture = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise ValueError(_what_it_is(path)) from None
    except Image.DecompressionBombError:
        raise ValueError(f"more pixels than prepare.max_pixels allows ({max_pixels:,})") from None
    if picture.mode[0] not in "IF" and _bits(picture, path) > 8:
        picture.close()
        raise ValueError(
            "colour of 16 bits a channel, of which only the upper 8 would be read: save it with 8 "
            "bits a channel, from 0 (black) to 255 (white)"
        )
    picture.filename = ""  # Pillow would map some files, and overlook that a TIFF is to be turned
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        picture.close()
        raise ValueError(
            f"{pixels:,} pixels are more than prepare.max_pixels allows ({max_pixels:,})"
        )
    return picture


def _bits(picture: Image.Image, path: Path) -> int:
    """How many bits a channel has, as the header of a PNG or TIFF says; of other formats 8.

    Those of which others have more are brought to 8 by what their own header says is white.
    """
    if picture.format == "PNG":
        return _head(path)[24]
    return max(getattr(picture, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (8,)))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(32)


def _what_it_is(path: Path) -> str:
    head = _head(path)
    if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi", b"ms"):
        return "a HEIC picture, which is not read: save it as JPEG or PNG"
    return f"not a picture in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


# -- turn and size ---------------------------------------------------------------------------------


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return (height, width) of the picture when it is turned; seldom more than a header is read.

    Raises what decoding raises, where that is needed to know.
    """
    sideways = _turn(picture) in SIDEWAYS
    return (picture.width, picture.height) if sideways else (picture.height, picture.width)


def _turn(picture: Image.Image) -> int:
    """EXIF's number of the turn that is left to make, as EXIF or else XMP data say; 1 is none."""
    if TURN not in picture.info:
        if _is_known_late(picture):
            picture.load()
        picture.info[TURN] = _orientation(picture)
    return picture.info[TURN]


def _orientation(picture: Image.Image) -> int:
    if picture.format == "TIFF":
        return 1  # Pillow turns it as it decodes it, and has the size turned before
    try:
        Image.Exif().load(picture.info.get("exif", b""))  # JPEG's reader has been silent about it
        # of the class above PNG's, which would decode the picture
        found = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    except Exception:  # of broken data, anything
        picture.info[BROKEN] = True
        return 1
    return found if found in TURNS else 1


def _is_known_late(picture: Image.Image) -> bool:
    """Whether the turn is known only when the pixels are decoded."""
    if picture.format == "TIFF":
        tags = getattr(picture, "tag_v2", {})
        return "xmp" in picture.info and ExifTags.Base.Orientation not in tags
    return picture.format == "PNG" and _has_late_chunks(picture)


def _has_late_chunks(picture: Image.Image) -> bool:
    """Whether a PNG has EXIF data or texts, such as XMP, behind its pixels."""
    file = getattr(picture, "fp", None)
    if file is None:  # decoded already
        return False
    place, pixels = file.tell(), False
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        pixels = pixels or kind == b"IDAT"
        if pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            break
        file.seek(size + 4, os.SEEK_CUR)
    file.seek(place)
    return len(head) == 8


# -- pixels ----------------------------------------------------------------------------------------


def conversions(picture: Image.Image) -> list[str]:
    """Say what `to_pixels` must do to this picture before it is plain 8-bit grey or colour."""
    steps = {
        "palette to colour": picture.mode in ("P", "PA"),
        "transparency onto white": picture.has_transparency_data,
        "16 bits to 8": has_16_bits(picture),
        "1 bit to 8": picture.mode == "1",
        "CMYK to RGB": picture.mode == "CMYK",
        "turned as EXIF says": _turn(picture) != 1,
        "EXIF data that can't be read are left out": BROKEN in picture.info,
        "first of several frames": getattr(picture, "is_animated", False),
    }
    return [step for step, needed in steps.items() if needed]


def has_16_bits(picture: Image.Image) -> bool:
    """Whether its pixels are numbers of more than 8 bits."""
    return picture.mode.startswith("I")


def to_pixels(
    picture: Image.Image, size: tuple[int, int], channels: int, white: int = WHITE
) -> np.ndarray:
    """Return the picture as uint8 (H,W,C), upright, stretched to `size` (H, W) where it differs.

    `white` is the value of 16-bit pictures that becomes 255.

    Raises:
        ValueError: its pixels have no defined range (floating point, 32 bits, above `white`).
        OSError: the file is truncated or damaged.
    """
    plain = _flatten(_upright(picture), white).convert("L" if channels == 1 else "RGB")
    height, width = size
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(plain).reshape(height, width, channels)


def _upright(picture: Image.Image) -> Image.Image:
    turn = TURNS.get(_turn(picture))
    return picture if turn is None else picture.transpose(turn)


def _flatten(picture: Image.Image, white: int) -> Image.Image:
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    if has_16_bits(picture):
        return Image.fromarray(_to_8_bits(np.asarray(picture), white))
    if picture.has_transparency_data:
        onto = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(onto, picture.convert("RGBA"))
    return picture


def _to_8_bits(values: np.ndarray, white: int) -> np.ndarray:
    if values.min() < 0 or values.max() > WHITE:
        raise ValueError("pixel values beyond 16 bits")
    if values.max() > white:
        raise ValueError(f"pixel values up to {values.max()}, beyond prepare.white ({white})")
    result = np.empty(values.shape, np.uint8)
    for row, target in zip(values, result, strict=True):  # row by row, to save memory
        target[:] = (row.astype(np.int64) * 510 + white) // (2 * white)  # rounded
    return result
