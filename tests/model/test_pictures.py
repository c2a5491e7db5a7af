"""Pictures as every program reads them: what is opened, how it is turned, what its pixels are."""

import ast
import runpy
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import fill, prepare, prepared_images, read_report, refusal, save, settings_with
from PIL import ExifTags, Image
from small_project import PROJECT

import deep_colour
from classifier import data, export
from curation.batch_comparison import compare
from deep_colour import chunk
from delivery.commands import predict
from delivery.errors import DeliveryError
from delivery.parameters import Pictures, read_pictures
from workspace.pictures import FORMATS, MAX_PIXELS, WHITE, open_picture, to_pixels, upright_size

HEIGHT, WIDTH = 12, 20
ORIENTATIONS = range(1, 9)


def noise(seed: int, mode: str) -> Image.Image:
    """A picture of that mode, 20 wide and 12 high, unlike that of another seed."""
    random = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 2**16, (HEIGHT, WIDTH), dtype=np.uint16))
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(3, 0).repeat(4, 1)
    picture = Image.fromarray(coarse)
    if mode in ("LA", "RGBA"):
        picture = picture.convert(mode[:-1])
        picture.putalpha(Image.fromarray(random.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)))
    return picture.convert(mode, palette=Image.Palette.ADAPTIVE)


def xmp(orientation: int) -> bytes:
    """XMP data that say how a picture is turned."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmlns:tiff="http://ns.adobe.com/'
        f'tiff/1.0/" tiff:Orientation="{orientation}"/></x:xmpmeta>'
    ).encode()


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    return data


def put_behind(path: Path, kind: bytes, content: bytes) -> None:
    """Put a part behind the pixels of a PNG, where some programs write it."""
    png = path.read_bytes()
    end = png.rindex(b"IEND") - 4
    path.write_bytes(png[:end] + chunk(kind, content) + png[end:])


def write(path: Path, mode: str, way: str, orientation: int, seed: int) -> None:
    """Write a picture that is turned by what EXIF or XMP data say, wherever they are."""
    picture = noise(seed, mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {"lossless": True} if path.suffix == ".webp" else {}
    if way == "EXIF":
        options["exif"] = exif(orientation)
    elif way == "XMP" and path.suffix == ".tif":
        options["tiffinfo"] = {700: xmp(orientation)}
    elif way == "XMP" and path.suffix != ".png":
        options["xmp"] = xmp(orientation)
    picture.save(path, **options)  # type: ignore[arg-type]
    if path.suffix == ".png":
        text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)
        if way == "EXIF behind":
            put_behind(path, b"eXIf", exif(orientation).tobytes()[6:])
        elif way == "XMP behind":
            put_behind(path, b"iTXt", text)
        elif way == "XMP":
            png = path.read_bytes()
            start = png.index(b"IDAT") - 4
            path.write_bytes(png[:start] + chunk(b"iTXt", text) + png[start:])


KINDS = [  # ending, modes, where its turn is said
    ("png", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], ["EXIF"]),
    ("png", ["RGB"], ["XMP", "EXIF behind", "XMP behind"]),
    ("jpg", ["L", "RGB", "CMYK"], ["EXIF", "XMP"]),
    ("webp", ["RGB", "RGBA"], ["EXIF", "XMP"]),
    ("tif", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"], ["EXIF", "XMP"]),
    ("avif", ["RGB"], ["EXIF"]),
]
CASES = [(ending, mode, way) for ending, modes, ways in KINDS for mode in modes for way in ways]


@pytest.mark.parametrize(("ending", "mode", "way"), CASES)
def test_the_size_is_that_of_the_turned_pixels(
    ending: str, mode: str, way: str, tmp_path: Path
) -> None:
    for orientation in ORIENTATIONS:
        path = tmp_path / f"{orientation}.{ending}"
        write(path, mode, way, orientation, seed=1)
        sideways = orientation > 4
        with open_picture(path) as picture:
            assert upright_size(picture) == ((WIDTH, HEIGHT) if sideways else (HEIGHT, WIDTH))
        write(tmp_path / f"plain.{ending}", mode, "", 1, seed=1)
        turn = Image.Transpose
        turns = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE]
        turns += [turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90]
        with open_picture(tmp_path / f"plain.{ending}") as plain, open_picture(path) as picture:
            size = upright_size(picture)
            method = turns[orientation - 1]
            expected = to_pixels(plain, (HEIGHT, WIDTH), 3)
            shown = Image.fromarray(expected)
            shown = shown if method is None else shown.transpose(method)
            assert (to_pixels(picture, size, 3) == np.asarray(shown)).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [None, [9, 14]], ids=["own size", "another"])
def test_all_programs_see_the_same_pixels(
    channels: int, size: list[int] | None, tmp_path: Path
) -> None:
    """What `prepare` writes, `ingest` compares, `predict` sends and golden requests hold."""
    root, number = tmp_path / "project", 0
    for ending, mode, way in CASES:
        for orientation in (1, 2, 3, 4) if size is None else ORIENTATIONS:
            number += 1
            write(root / f"images/{number % 2}/{number}.{ending}", mode, way, orientation, number)
    limits = {"image_size": size, "channels": channels, "near_duplicate_rms": 0}
    prepare(root, **limits)  # type: ignore[arg-type]
    prepared = {pixels for images in prepared_images(root).values() for pixels in images}
    read = {path: read_by_predict(path, root) for path in (root / "images").rglob("*.*")}
    assert len(read) == number and prepared <= {*read.values()}
    report = read_report(root)
    assert report["dropped"]["unreadable"]["images"] == 0
    assert (
        len(prepared)
        == len({*read.values()})
        == report["counts"]["after dropping: exact duplicate"]
    )

    values = settings_with(**limits).prepare  # type: ignore[arg-type]
    (tmp_path / "place").mkdir()
    comparison = compare(
        root / "images", (tmp_path / "none", "none"), [], values, tmp_path / "place"
    )
    compared = {
        pixels.tobytes()
        for chunk in comparison.pixels(np.arange(len(comparison.labels)))
        for pixels in chunk
    }
    assert compared == {*read.values()}

    test = data.load_split(root, "test")
    answers = np.zeros((len(test.labels), 2), np.float32)
    export.write_golden(tmp_path / "golden.npz", test, answers, 256)
    golden = {pixels.tobytes() for pixels in np.load(tmp_path / "golden.npz")["images"]}
    assert golden and golden <= {*read.values()}


def read_by_predict(path: Path, root: Path) -> bytes:
    shape = read_report(root)["image"]
    wanted = shape["height"], shape["width"], shape["channels"]
    return predict.read(path, wanted, Pictures()).tobytes()


CLIENT = runpy.run_path(str(PROJECT / "serving/client.py"))  # as a copy elsewhere: by itself


def odd(folder: Path) -> None:
    """A cut-out on transparent ground, 16 and 12 bits, several frames, broken EXIF data."""
    folder.mkdir()
    for breaks in (header, entry, turned_nowhere, odd_neighbour):
        for ending in ("png", "jpg", "webp"):
            breaks(folder / f"{breaks.__name__}.{ending}")
    cut_out = noise(7, "RGB").convert("P")
    cut_out.save(folder / "cut_out.png", transparency=cut_out.getpixel((3, 3)))
    noise(8, "RGB").save(folder / "frames.gif", save_all=True, append_images=[noise(9, "RGB")])
    noise(9, "RGB").save(folder / "late.png")
    put_behind(folder / "late.png", b"eXIf", exif(5).tobytes()[6:])
    # not compressed, so that Pillow would map it
    noise(4, "RGB").save(folder / "mapped.tif", tiffinfo={ExifTags.Base.Orientation.value: 6})


@pytest.mark.parametrize("channels", [1, 3])
def test_the_client_that_others_copy_prepares_pictures_as_training_does(
    channels: int, tmp_path: Path
) -> None:
    odd(tmp_path / "odd")
    for number, (ending, mode, way) in enumerate(CASES):
        for orientation in ORIENTATIONS:
            write(tmp_path / f"{number}-{orientation}.{ending}", mode, way, orientation, number)
    files = [path for path in tmp_path.rglob("*.*") if path.is_file()]
    assert len(files) == 8 * len(CASES) + 16
    for path in files:
        for size in ((9, 14), (WIDTH, HEIGHT)):
            ours = predict.read(path, (*size, channels), Pictures())
            theirs = CLIENT["pixels"](path, *size, channels)
            assert theirs.dtype == np.uint8 and np.array_equal(theirs, ours), path


def test_the_client_that_others_copy_reads_and_refuses_what_training_does(tmp_path: Path) -> None:
    assert CLIENT["FORMATS"] == FORMATS and CLIENT["MAX_PIXELS"] == MAX_PIXELS
    deep, real = tmp_path / "deep.png", tmp_path / "real.tif"
    Image.fromarray(np.array([[0, 1000, 4095]], np.uint16)).save(deep)
    ours = predict.read(deep, (1, 3, 1), Pictures(white=4095))
    assert np.array_equal(CLIENT["pixels"](deep, 1, 3, 1, white=4095), ours)
    Image.fromarray(np.ones((2, 2), np.float32)).save(real)
    for path, white in ((deep, 4000), (real, WHITE)):
        with pytest.raises(ValueError, match="other values than whole numbers from 0 to"):
            CLIENT["pixels"](path, 2, 2, 1, white)
        with pytest.raises(DeliveryError):
            predict.read(path, (2, 2, 1), Pictures(white=white))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(OSError, match="cannot identify"):
        CLIENT["pixels"](tmp_path / "text.png", 2, 2, 1)
    Image.new("1", (13_000, 13_000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match="more than 50000000 pixels"):
        CLIENT["pixels"](tmp_path / "large.png", 2, 2, 1)


def test_the_client_that_others_copy_stands_alone() -> None:
    text = (PROJECT / "serving/client.py").read_text()
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 80
    nodes = list(ast.walk(ast.parse(text)))
    named = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    others = {name.split(".")[0] for name in named} - set(sys.stdlib_module_names)
    assert others == {"numpy", "PIL"}  # and Triton's, whose name follows the address


def test_sixteen_bits_become_eight_as_by_division() -> None:
    values = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    for kind in (np.uint16, np.int32, ">u2"):
        pixels = to_pixels(Image.fromarray(values.astype(kind)), (256, 256), 1)[..., 0]
        assert (pixels == np.round(values / 257)).all()


# -- broken EXIF -----------------------------------------------------------------------------------


def header(path: Path) -> None:
    """EXIF data that are none."""
    Image.fromarray(coarse()).save(path, exif=b"Exif\0\0nonsense that is no TIFF header")


def entry(path: Path) -> None:
    """An entry of a type that does not exist, and one that points behind the end."""
    good = exif(6).tobytes()
    Image.fromarray(coarse()).save(path, exif=good[:-12] + b"\xff" * 12)


def turned_nowhere(path: Path) -> None:
    """A turn that does not exist."""
    Image.fromarray(coarse()).save(path, exif=exif(77))


def odd_neighbour(path: Path) -> None:
    """A right turn beside a value that can't be written again."""
    data = exif(1)
    data[ExifTags.Base.XResolution] = (1, 0)
    data[0x9286] = b"\xff\xfe\xfd"
    Image.fromarray(coarse()).save(path, exif=data)


def coarse() -> np.ndarray:
    return (
        np.random.default_rng(5)
        .integers(0, 256, (2, 2, 3), dtype=np.uint8)
        .repeat(8, 0)
        .repeat(8, 1)
    )


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize("breaks", [header, entry, turned_nowhere, odd_neighbour])
def test_broken_exif_data_do_not_cost_the_pixels(
    breaks: Callable[[Path], None], ending: str, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed)
    path = tmp_path / f"images/a/broken.{ending}"
    breaks(path)
    prepare(tmp_path, near_duplicate_rms=0)
    report = read_report(tmp_path)
    assert report["dropped"]["unreadable"]["images"] == 0 and report["counts"]["found"] == 21
    said = "EXIF data that can't be read are left out"
    assert report["converted"].get(said, 0) == (1 if breaks is header else 0)


# -- what is opened --------------------------------------------------------------------------------


def test_a_picture_of_too_many_pixels_is_named_with_the_setting(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed)
    Image.new("1", (13_000, 13_000)).save(tmp_path / "images/a/large.png")
    message = refusal(tmp_path, max_unreadable_share=0.0)
    assert (
        "a/large.png (169,000,000 pixels are more than prepare.max_pixels allows (50,000,000))"
    ) in message
    (tmp_path / "images/a/large.png").unlink()
    prepare(tmp_path, max_pixels=16 * 16)
    message = refusal(tmp_path / "new", max_pixels=255, folder=str(tmp_path / "images"))
    assert message == (
        "none of 20 files can be read as a picture, such as a/00.png (256 pixels are more than "
        "prepare.max_pixels allows (255))"
    )


def bomb(path: Path) -> Path:
    """A PNG of a few bytes that says it has 10¹⁰ pixels."""
    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 6, 0, 0, 0)
    parts = [(b"IHDR", size), (b"IDAT", zlib.compress(b"\0" * 99)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"more pixels than prepare.max_pixels allows"):
        open_picture(bomb(tmp_path / "bomb.png"), max_pixels=10**9)


def test_the_setting_reaches_predict(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("prepare: {max_pixels: 99, white: 4095}")
    save(np.zeros((10, 10, 3), np.uint8), tmp_path / "a.png")
    with pytest.raises(Exception, match=r"100 pixels are more than prepare.max_pixels allows \(99"):
        predict.read(tmp_path / "a.png", (10, 10, 3), read_pictures(tmp_path))
    Image.fromarray(np.full((9, 9), 4095, np.uint16)).save(tmp_path / "deep.png")
    read = predict.read(tmp_path / "deep.png", (9, 9, 1), read_pictures(tmp_path))
    assert (read == 255).all()


@pytest.mark.parametrize("format", ["EPS", "ICO", "PCX", "PDF", "SGI", "TGA", "XBM"])
def test_other_formats_are_not_opened(format: str, tmp_path: Path) -> None:
    mode = "1" if format == "XBM" else "L"
    Image.new(mode, (16, 16)).save(tmp_path / "a.png", format)
    with pytest.raises(ValueError, match=r"not a picture in AVIF, BMP, GIF, JPEG, .* or WEBP"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize("format", FORMATS)
def test_a_format_that_is_named_is_opened_whatever_the_files_name(
    format: str, tmp_path: Path
) -> None:
    Image.new("RGB", (16, 16), (200, 10, 30)).save(tmp_path / "a.xyz", format)
    with open_picture(tmp_path / "a.xyz") as picture:
        assert to_pixels(picture, (16, 16), 3).shape == (16, 16, 3)


def test_heic_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(ValueError, match="a HEIC picture, which is not read: save it as JPEG"):
        open_picture(tmp_path / "a.jpg")


# -- 12 bits in 16 ---------------------------------------------------------------------------------


def twelve_bits(root: Path, highest: int = 4095) -> None:
    random = np.random.default_rng(0)
    for i in range(20):
        pixels = random.integers(0, highest + 1, (4, 4), dtype=np.uint16).repeat(4, 0).repeat(4, 1)
        pixels[0, 0] = highest
        path = root / f"images/{i % 2}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(("highest", "white"), [(4095, 4095), (1000, 1023), (16_383, 16_383)])
def test_pictures_of_fewer_bits_are_refused_and_the_cure_works(
    highest: int, white: int, tmp_path: Path
) -> None:
    twelve_bits(tmp_path, highest)
    message = refusal(tmp_path)
    assert f"the highest value in 20 of 20 pictures of 16 bits is {highest}, so they" in message
    assert message.endswith(f"set prepare.white, which is 65535, to {white}")
    prepare(tmp_path, white=white)
    brightest = max(data.load_split(tmp_path, name).images.max() for name in data.SPLITS)
    assert brightest > 240 and read_report(tmp_path)["passed"] is True


@pytest.mark.parametrize("highest", [WHITE, 20_000])
def test_pictures_of_sixteen_bits_pass(highest: int, tmp_path: Path) -> None:
    twelve_bits(tmp_path, highest)
    prepare(tmp_path)
    assert read_report(tmp_path)["passed"] is True


@pytest.mark.parametrize(("share", "bright"), [(0.01, 1), (0.0, 1), (0.1, 2)])
def test_a_few_bright_pictures_hide_no_dark_ones(share: float, bright: int, tmp_path: Path) -> None:
    twelve_bits(tmp_path)
    for i in range(bright):
        pixels = deep_colour.values(99 + i, WHITE, channels=2)[..., 0]
        Image.fromarray(pixels).save(tmp_path / f"images/0/bright-{i}.png")
    message = refusal(tmp_path, max_unreadable_share=share)
    assert f"value in 20 of {20 + bright} pictures of 16 bits is 4095, so they would be" in message
    if not share:  # the other sentence names the picture
        message = refusal(tmp_path, max_unreadable_share=share, white=4095)
        assert "repair or remove 0/bright-0.png (pixel values up to 65535, beyond" in message
        (tmp_path / "images/0/bright-0.png").unlink()
    prepare(tmp_path, max_unreadable_share=share, white=4095)
    assert read_report(tmp_path)["dropped"]["unreadable"]["images"] == (bright if share else 0)


def test_pictures_of_which_some_are_dark_pass(tmp_path: Path) -> None:
    twelve_bits(tmp_path)
    for i in range(3):  # more than may be left out
        pixels = deep_colour.values(99 + i, WHITE, channels=2)[..., 0]
        Image.fromarray(pixels).save(tmp_path / f"images/0/bright-{i}.png")
    prepare(tmp_path, max_unreadable_share=0.01, near_duplicate_rms=0)
    assert read_report(tmp_path)["counts"]["found"] == 23


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("highest", [4095, WHITE])
def test_colour_of_sixteen_bits_is_refused_and_the_cure_works(
    channels: int, highest: int, tmp_path: Path
) -> None:
    """Pillow reads the upper 8 bits of it without a word."""
    ending = "tif" if channels == 3 else "png"
    files = [tmp_path / f"images/{i % 2}/{i}.{ending}" for i in range(20)]
    for i, path in enumerate(files):
        deep_colour.write(path, deep_colour.values(i, highest, channels))
    sentence = (
        "colour of 16 bits a channel, of which only the upper 8 would be read: save it with 8 bits "
        "a channel, from 0 (black) to 255 (white)"
    )
    message = refusal(tmp_path)
    assert (
        message == f"none of 20 files can be read as a picture, such as 0/0.{ending} ({sentence})"
    )
    with pytest.raises(DeliveryError) as caught:
        predict.read(files[0], (16, 16, 3), Pictures())
    assert str(caught.value) == f"{files[0]} is no picture that can be read: {sentence}"
    with pytest.raises(ValueError, match="is colour of 16 bits a channel: save it with 8"):
        CLIENT["pixels"](files[0], 16, 16, 3)
    for i, path in enumerate(files):
        pixels = deep_colour.values(i, highest, channels) / highest * 255
        Image.fromarray(np.round(pixels).astype(np.uint8)).save(path)
    prepare(tmp_path, near_duplicate_rms=0)
    assert read_report(tmp_path)["passed"] is True
    assert max(data.load_split(tmp_path, name).images.max() for name in data.SPLITS) == 255


def test_the_readme_tells_how_to_bring_colour_to_8_bits(tmp_path: Path) -> None:
    path = deep_colour.write(tmp_path / "data/raw/a/1.png", deep_colour.values(1, 4095))
    usual = path.with_name("2.png")
    noise(2, "RGB").save(usual)
    before = usual.read_bytes()
    blocks = (PROJECT / "README.md").read_text().split("```")
    (command,) = [block.removeprefix("sh\n") for block in blocks if "read_image" in block]
    command = command.replace(".venv/bin/python", sys.executable)
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, check=True)
    with open_picture(path) as picture:
        pixels = to_pixels(picture, (16, 16), 3)
    assert (pixels == np.round(deep_colour.values(1, 4095) / 4095 * 255)).all()
    assert usual.read_bytes() == before


def test_one_such_picture_among_others_is_left_out_and_named(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed)
    deep_colour.write(tmp_path / "images/a/deep.png", deep_colour.values(1, 4095))
    prepare(tmp_path)
    dropped = read_report(tmp_path)["dropped"]["unreadable"]
    assert dropped["images"] == 1
    assert dropped["examples"][0].startswith("a/deep.png (colour of 16 bits a channel, of which")


def test_values_above_white_are_refused(tmp_path: Path) -> None:
    twelve_bits(tmp_path, highest=5000)
    message = refusal(tmp_path, white=4095)
    assert "pixel values up to 5000, beyond prepare.white (4095)" in message
