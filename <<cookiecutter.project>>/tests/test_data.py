"""Data preparation: what lands in the splits, what pixels become, which parameters are right."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import (
    all_images,
    cats_and_dogs,
    fill,
    noise,
    prepare,
    read_report,
    save,
    settings_with,
)
from PIL import ExifTags, Image
from sklearn.datasets import load_digits

from classifier.data import SPLITS, class_names, load_split
from workspace.errors import UserError
from workspace.pictures import conversions, to_pixels


def files_of(root: Path) -> list[Path]:
    return [path for path in (root / "images").rglob("*") if path.is_file()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with ten images of cats and ten of dogs."""
    return cats_and_dogs(tmp_path)


# -- digits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    prepare(root, source="digits", validation_share=0.1)
    return root


def test_digits_are_split_by_class_in_the_given_shares(digits: Path) -> None:
    splits = {name: load_split(digits, name) for name in SPLITS}
    counts = {name: np.bincount(part.labels, minlength=10) for name, part in splits.items()}
    total = np.sum(list(counts.values()), axis=0)
    assert total.sum() == 1797
    assert np.abs(counts["validation"] - 0.1 * total).max() <= 0.5
    assert np.abs(counts["test"] - 0.2 * total).max() <= 0.5


def test_each_image_is_known_by_the_picture_that_it_was_made_of(root: Path) -> None:
    prepare(root, image_size=[8, 8])
    files = {path.relative_to(root / "images").as_posix(): path for path in files_of(root)}
    named = {}
    for name in SPLITS:
        split = load_split(root, name)
        pictures = split.pictures()
        assert len(pictures) == len(split.images)
        for picture, label in zip(pictures, split.labels, strict=True):
            path = files[picture.file]
            assert picture.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert path.parent.name == class_names(root)[label]
            named[picture.file] = path
    assert named == files


def test_pictures_that_are_no_files_have_a_number(digits: Path) -> None:
    split = load_split(digits, "test")
    images = np.round(load_digits().images * 255 / 16).astype(np.uint8)
    for picture, image in zip(split.pictures(), split.images, strict=True):
        source, _, number = picture.file.partition("/")
        assert source == "digits"
        assert np.array_equal(images[int(number)], image[:, :, 0])
        assert picture.sha256 == hashlib.sha256(image.tobytes()).hexdigest()


def test_digits_are_bytes_over_the_full_range(digits: Path) -> None:
    train = load_split(digits, "train")
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert class_names(digits) == [str(digit) for digit in range(10)]


def test_the_first_images_of_a_split_are_of_all_classes(digits: Path) -> None:
    assert len(set(load_split(digits, "test").labels[:100])) == 10


def test_report_describes_what_was_written(digits: Path) -> None:
    report = read_report(digits)
    train = load_split(digits, "train")
    described = report["splits"]["train"]
    assert report["source"] == "digits"
    assert report["passed"] is True
    assert report["counts"]["found"] == 1797
    assert described["images"] == len(train.images)
    assert described["classes"]["3"] == np.count_nonzero(train.labels == 3)
    assert described["pixel_mean"] == [pytest.approx(train.images.mean(), abs=1e-3)]
    assert described["pixel_std"] == [pytest.approx(train.images.std(), abs=1e-3)]


def test_a_dozen_test_images_are_left_as_files(digits: Path) -> None:
    samples = sorted((digits / "data/prepared/samples").iterdir())
    assert len(samples) == 12
    assert {path.name.split("-")[0] for path in samples} == set(class_names(digits))
    test = {image.tobytes() for image in load_split(digits, "test").images}
    assert all(np.asarray(Image.open(path)).tobytes() in test for path in samples)


def test_picture_of_the_data_is_drawn(digits: Path) -> None:
    with Image.open(digits / "plots/data.png") as picture:
        assert picture.width > 800
        assert len(picture.convert("L").getcolors() or ()) > 50


def test_same_seed_gives_the_same_bytes(digits: Path, tmp_path: Path) -> None:
    prepare(tmp_path, source="digits", validation_share=0.1)
    written = [path.relative_to(digits) for path in digits.rglob("*") if path.is_file()]
    assert len(written) > 20
    for path in written:
        assert (tmp_path / path).read_bytes() == (digits / path).read_bytes(), path


def test_another_seed_gives_other_splits(digits: Path, tmp_path: Path) -> None:
    prepare(tmp_path, seed=43, source="digits", validation_share=0.1)
    assert read_report(tmp_path)["sha256"] != read_report(digits)["sha256"]


# -- folder of images ------------------------------------------------------------------------------


def test_folder_images_arrive_unchanged_with_their_labels(root: Path) -> None:
    prepare(root)
    assert class_names(root) == ["cat", "dog"]
    expected = {noise(1000 * k + i).tobytes(): k - 1 for k in (1, 2) for i in range(10)}
    found: dict[bytes, int] = {}
    for name in SPLITS:
        part = load_split(root, name)
        found |= {i.tobytes(): k for i, k in zip(part.images, part.labels.tolist(), strict=True)}
    assert found == expected


def test_sub_folders_belong_to_their_class_and_hidden_files_to_none(root: Path) -> None:
    save(noise(1), root / "images/cat/indoors/at night/1.png")
    (root / "images/.DS_Store").write_text("x")
    (root / "images/cat/.thumbnail.png").write_text("x")
    prepare(root)
    report = read_report(root)
    assert report["counts"]["found"] == 21
    assert report["dropped"]["unreadable"]["images"] == 0


def test_files_beside_the_class_folders_are_listed(root: Path) -> None:
    (root / "images/README.txt").write_text("my cats")
    prepare(root)
    assert read_report(root)["dropped"]["outside a class folder"]["examples"] == ["README.txt"]


def test_names_in_any_script_and_with_any_bytes_work(root: Path) -> None:
    fill(root / "images/猫 $x$ d'été", 3)
    (root / "images/cat/00.png").rename(
        root / "images/cat" / b"caf\xe9.png".decode(errors="surrogateescape")
    )
    (root / "images/cat/01.png").write_text("broken")
    (root / "images/cat/01.png").rename(
        root / "images/cat" / b"\xff.png".decode(errors="surrogateescape")
    )
    prepare(root)
    assert class_names(root) == ["cat", "dog", "猫 $x$ d'été"]
    assert read_report(root)["dropped"]["unreadable"]["examples"] == [
        r"cat/\udcff.png (not a picture in AVIF, BMP, GIF, JPEG, JPEG2000, PNG, PPM, TIFF or WEBP)"
    ]


def test_grey_images_make_a_grey_data_set(tmp_path: Path) -> None:
    fill(tmp_path / "images/a", 1, channels=1)
    fill(tmp_path / "images/b", 2, channels=1)
    prepare(tmp_path)
    assert load_split(tmp_path, "train").images.shape[1:] == (16, 16, 1)


def test_one_colour_image_makes_a_colour_data_set(tmp_path: Path) -> None:
    fill(tmp_path / "images/a", 1, channels=1)
    fill(tmp_path / "images/b", 2, channels=1)
    save(noise(7), tmp_path / "images/b/colour.png")
    prepare(tmp_path)
    assert load_split(tmp_path, "train").images.shape[1:] == (16, 16, 3)


def test_size_and_channels_can_be_set(root: Path) -> None:
    save(noise(5, height=40, width=20), root / "images/cat/tall.png")
    prepare(root, image_size=[12, 10], channels=1)
    assert load_split(root, "train").images.shape[1:] == (12, 10, 1)
    assert read_report(root)["image"] == {"height": 12, "width": 10, "channels": 1}


def test_more_classes_than_fit_the_picture(tmp_path: Path) -> None:
    for k in range(25):
        fill(tmp_path / "images" / f"a class with a very long name, number {k:02}", k, images=4)
    prepare(tmp_path)
    with Image.open(tmp_path / "plots/data.png") as picture:
        assert picture.height < 2000


# -- conversions -----------------------------------------------------------------------------------

RED = (200, 10, 30)


def palette() -> Image.Image:
    return Image.new("RGB", (4, 4), RED).convert("P", palette=Image.Palette.ADAPTIVE)


def transparent() -> Image.Image:
    return Image.new("RGBA", (4, 4), (*RED, 0))


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((4, 4), 100 * 257, dtype=np.uint16))


def cmyk() -> Image.Image:
    return Image.new("CMYK", (4, 4), (0, 255, 255, 0))


@pytest.mark.parametrize(
    ("make", "suffix", "channels", "expected", "counted"),
    [
        (palette, "png", 3, RED, ["palette to colour"]),
        (transparent, "png", 3, (255,) * 3, ["transparency onto white"]),
        (
            transparent_palette,
            "png",
            3,
            (255,) * 3,
            ["palette to colour", "transparency onto white"],
        ),
        (sixteen_bits, "png", 1, (100,), ["16 bits to 8"]),
        (sixteen_bits, "tiff", 3, (100,) * 3, ["16 bits to 8"]),
        (cmyk, "tiff", 3, (255, 0, 0), ["CMYK to RGB"]),
        (lambda: Image.new("1", (4, 4), 1), "png", 1, (255,), ["1 bit to 8"]),
        (lambda: Image.new("LA", (4, 4), (90, 255)), "png", 1, (90,), ["transparency onto white"]),
        (lambda: Image.new("L", (4, 4), 90), "png", 3, (90,) * 3, []),
    ],
)
def test_pixels_keep_their_meaning(
    make: Callable[[], Image.Image],
    suffix: str,
    channels: int,
    expected: tuple[int, ...],
    counted: list[str],
    tmp_path: Path,
) -> None:
    path = tmp_path / f"image.{suffix}"
    make().save(path)
    with Image.open(path) as image:
        pixels = to_pixels(image, (4, 4), channels)
        assert conversions(image) == counted
    assert pixels.shape == (4, 4, channels)
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed, height=8, width=12)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held upright: turn by 90° to the right
    sideways = np.rot90(noise(9, height=8, width=12))
    Image.fromarray(sideways).save(tmp_path / "images/a/turned.png", exif=exif)
    prepare(tmp_path)
    images = all_images(tmp_path)
    assert noise(9, height=8, width=12).tobytes() in images
    assert read_report(tmp_path)["converted"] == {"turned as EXIF says": 1}


# -- parameters and files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "mnist"}, "source is 'mnist': input should be 'digits', 'cifar10' or 'folder'"),
        ({"folder": None}, "folder is None: give the folder of your pictures, as source is folder"),
        (
            {"image_size": 96},
            r"image_size is 96: give null or \[height, width\] in pixels, each from 1 to 4096, for",
        ),
        ({"image_size": [32, 0]}, r"image_size.1 is 0: give null or \[height, width\]"),
        (
            {"image_size": [100_000, 100_000]},
            r"image_size.0 is 100000: give null or .*, each from 1 to 4096, for example \[96, 96\]",
        ),
        ({"channels": 4}, r"channels is 4: give null, 1 \(grey\) or 3 \(colour\)"),
        ({"validation_share": 0}, "validation_share is 0: give a share above 0 and below 1"),
        (
            {"validation_share": 0.6, "test_share": 0.4},
            "test_share is 0.4: give a share above 0 that leaves training data",
        ),
        ({"near_duplicate_rms": -1}, "near_duplicate_rms is -1: give 0 to 255 grey levels"),
        ({"max_unreadable_share": 1}, "max_unreadable_share is 1: give a share from 0 to below 1"),
        ({"max_class_ratio": 0.5}, "max_class_ratio is 0.5: give a number from 1"),
        ({"test_share": "a lot"}, "test_share is 'a lot': give a share above 0"),
    ],
)
def test_parameter_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match="^params.yaml: prepare." + message):
        settings_with(**changes)


def test_failed_run_leaves_the_last_good_data(root: Path) -> None:
    prepare(root)
    before = read_report(root)
    (root / "images/bird").mkdir()
    with pytest.raises(UserError):
        prepare(root)
    assert read_report(root) == before
    assert sorted(path.name for path in (root / "data").iterdir()) == ["prepared", "splits.csv"]


def test_splits_that_are_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images.npy is missing: run `make pipeline`"):
        load_split(tmp_path, "test")
    with pytest.raises(UserError, match=r"classes.json is missing: run `make pipeline`"):
        class_names(tmp_path)
