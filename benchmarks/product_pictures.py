"""Pictures as a shop has them: ten kinds of products, drawn, in the files that people really send.

Sizes, grounds, light and the products' colours, proportions and turns differ; some files are cut
out on transparent ground, some hold CMYK, some say by EXIF how to turn them, some are corrupt.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageEnhance, ImageFilter

CANVAS = 512  # pixels of the square that a product is drawn on
QUARTER_TURNS = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}  # undo EXIF's
Rng = np.random.Generator
Colour = tuple[int, int, int]
Drawing = Callable[[ImageDraw.ImageDraw, Rng, Colour, Colour], None]


def bottle(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A long neck on a body, with a label."""
    half, shoulder = rng.integers(55, 95), rng.integers(190, 250)
    pen.rounded_rectangle((256 - half, shoulder, 256 + half, 480), 30, body)
    pen.polygon([(256 - half, shoulder + 25), (236, 130), (276, 130), (256 + half, 225)], body)
    pen.rectangle((234, 40, 278, 160), body)
    pen.rectangle((230, 30, 282, 62), detail)
    pen.rectangle((256 - half, 320, 256 + half, 320 + rng.integers(40, 100)), detail)


def vase(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A belly with a short neck and a wide mouth."""
    half = rng.integers(90, 150)
    pen.ellipse((256 - half, 180, 256 + half, 480), body)
    pen.polygon([(215, 230), (190, 70), (322, 70), (297, 230)], body)
    pen.ellipse((190, 50, 322, 92), detail)
    pen.line((256 - half + 8, 330, 256 + half - 8, 330), detail, int(rng.integers(4, 22)))


def mug(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A cylinder with a handle."""
    half, top = rng.integers(90, 130), rng.integers(130, 220)
    pen.ellipse((256 + half - 50, top + 50, 256 + half + 90, 400), None, body, 28)
    pen.rounded_rectangle((256 - half, top, 256 + half, 440), 25, body)
    pen.ellipse((256 - half, top - 25, 256 + half, top + 25), detail)


def bucket(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A cone with a bow over it."""
    half, foot = rng.integers(120, 170), rng.integers(70, 110)
    pen.arc((256 - half, 40, 256 + half, 400), 180, 360, detail, 12)
    pen.polygon([(256 - half, 210), (256 + half, 210), (256 + foot, 460), (256 - foot, 460)], body)
    pen.ellipse((256 - half, 180, 256 + half, 240), detail)


def box(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A parcel in perspective, with tape."""
    half, rise = rng.integers(110, 160), rng.integers(40, 90)
    pen.polygon(
        [(256 - half, 200), (256, 200 - rise), (256 + half, 200), (256, 200 + rise)], detail
    )
    pen.polygon([(256 - half, 200), (256, 200 + rise), (256, 450), (256 - half, 440 - rise)], body)
    darker = tuple(int(0.7 * part) for part in body)
    pen.polygon(
        [(256 + half, 200), (256, 200 + rise), (256, 450), (256 + half, 440 - rise)], darker
    )


def book(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A cover with a back and a title."""
    half, height = rng.integers(110, 150), rng.integers(160, 200)
    pen.rectangle((256 - half + 14, 256 - height + 14, 270 + half, 270 + height), (235, 232, 220))
    pen.rectangle((256 - half, 256 - height, 256 + half, 256 + height), body)
    pen.rectangle((256 - half, 256 - height, 276 - half, 256 + height), detail)
    for line in range(rng.integers(1, 4)):
        pen.rectangle((310 - half, 150 + 40 * line, 220 + half, 168 + 40 * line), detail)


def clock(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A dial with two hands."""
    radius = rng.integers(150, 200)
    pen.ellipse((256 - radius, 256 - radius, 256 + radius, 256 + radius), body)
    inner = radius - 24
    pen.ellipse((256 - inner, 256 - inner, 256 + inner, 256 + inner), (240, 240, 236))
    for length, width in ((0.8, 8), (0.5, 14)):
        angle = rng.uniform(0, 2 * np.pi)
        end = (256 + length * inner * np.cos(angle), 256 + length * inner * np.sin(angle))
        pen.line((256, 256, *end), detail, width)


def ball(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A ball with seams."""
    radius = rng.integers(150, 200)
    circle = (256 - radius, 256 - radius, 256 + radius, 256 + radius)
    pen.ellipse(circle, body)
    bend = rng.integers(40, 120)
    pen.arc((256 - bend, 256 - radius, 256 + bend, 256 + radius), 0, 360, detail, 9)
    pen.line((256 - radius, 256, 256 + radius, 256), detail, 9)


def lamp(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A shade on a stand."""
    top, bottom = rng.integers(50, 90), rng.integers(110, 170)
    pen.rectangle((246, 220, 266, 460), detail)
    pen.ellipse((176, 435, 336, 480), detail)
    pen.polygon([(256 - top, 60), (256 + top, 60), (256 + bottom, 250), (256 - bottom, 250)], body)


def chair(pen: ImageDraw.ImageDraw, rng: Rng, body: Colour, detail: Colour) -> None:
    """A back, a seat and legs."""
    half, seat = rng.integers(85, 125), rng.integers(260, 310)
    pen.rounded_rectangle((256 - half, 50, 256 + half, seat - 60), 18, body)
    pen.rectangle((256 - half, seat, 256 + half, seat + 36), body)
    for side in (-1, 1):
        x = 256 + side * (half - 14)
        pen.line((x, seat - 60, x, seat), detail, 16)
        pen.line((x, seat + 36, x + 22 * side, 480), detail, 16)


PRODUCTS: dict[str, Drawing] = {
    each.__name__: each for each in (bottle, vase, mug, bucket, box, book, clock, ball, lamp, chair)
}


def colour(draw: Drawing, rng: Rng) -> Colour:
    """A colour: most products of a kind have one that is usual for it."""
    usual = list(PRODUCTS.values()).index(draw) / len(PRODUCTS) + rng.normal(0, 0.05)
    hue = usual if rng.random() < 0.75 else rng.random()
    strong, bright = rng.uniform(30, 100), rng.uniform(30, 100)
    red, green, blue = ImageColor.getrgb(f"hsv({360 * (hue % 1):.0f},{strong:.0f}%,{bright:.0f}%)")
    return red, green, blue


def product(draw: Drawing, rng: Rng) -> Image.Image:
    """A product on transparent ground, turned and stretched a little."""
    body, detail = colour(draw, rng), colour(draw, rng)
    layer = Image.new("RGBA", (CANVAS, CANVAS), (*body, 0))
    draw(ImageDraw.Draw(layer), rng, body, detail)
    turned = layer.rotate(rng.normal(0, 8), Image.Resampling.BICUBIC, expand=True)
    width, height = turned.size
    return turned.resize((int(width * rng.uniform(0.8, 1.2)), height))


def ground(size: tuple[int, int], rng: Rng) -> Image.Image:
    """What a product stands on: mostly a light one of a studio, of three one of any colour."""
    light = rng.integers(190, 250) if rng.random() < 2 / 3 else rng.integers(70, 220, 3)
    coarse = np.clip(light + rng.normal(0, 14, (2, 2, 3)), 0, 255)
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)


def photograph(draw: Drawing, rng: Rng) -> Image.Image:
    """A picture RGB of one product: anywhere, in any light, as sharp as a hand is steady."""
    size = (int(rng.integers(200, 560)), int(rng.integers(200, 560)))
    thing = product(draw, rng)
    thing.thumbnail([int(side * rng.uniform(0.75, 0.98)) for side in size])
    across, down = rng.uniform(0.1, 0.9, 2)
    place = (int((size[0] - thing.width) * across), int((size[1] - thing.height) * down))
    picture = ground(size, rng)
    shadow = Image.new("RGB", thing.size, (20, 20, 20))
    soft = thing.getchannel("A").point(lambda value: value // 3)
    picture.paste(shadow, (place[0] + 8, place[1] + 10), soft)
    picture.paste(thing, place, thing)
    picture = ImageEnhance.Brightness(picture).enhance(rng.uniform(0.7, 1.3))
    picture = ImageEnhance.Contrast(picture).enhance(rng.uniform(0.7, 1.2))
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5)))
    grain = rng.standard_normal((*picture.size[::-1], 1), np.float32) * rng.uniform(2, 14)
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


def file(draw: Drawing, rng: Rng) -> tuple[str, bytes]:
    """Ending and content of a file: of ten, one is cut out, one CMYK, one turned, one grey."""
    kind, content = rng.integers(10), io.BytesIO()
    if kind == 0:
        product(draw, rng).save(content, "PNG")
        return "png", content.getvalue()
    picture = photograph(draw, rng)
    if kind == 1:
        picture.convert("CMYK").save(content, "JPEG")
    elif kind == 2:
        turn = int(rng.choice(list(QUARTER_TURNS)))
        exif = Image.Exif()
        exif[0x0112] = turn
        picture.transpose(QUARTER_TURNS[turn]).save(content, "JPEG", exif=exif)
    else:
        (picture.convert("L") if kind == 3 else picture).save(content, "JPEG", quality=85)
    return "jpg", content.getvalue()


def fill(folder: Path, count: int, seed: int, corrupt: int = 0) -> None:
    """Write that many pictures into sub-folders, as evenly as can be; so many of them cut short."""
    rng = np.random.default_rng(seed)
    kinds = list(PRODUCTS)
    broken = set(rng.choice(count, corrupt, replace=False).tolist())
    for number in range(count):
        kind = kinds[number % len(kinds)]
        ending, content = file(PRODUCTS[kind], rng)
        path = folder / kind / f"{seed}-{number:04}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[: len(content) // 3] if number in broken else content)
