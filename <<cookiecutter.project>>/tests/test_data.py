"""Data preparation: what lands in the splits, what is left out, and what a user is told."""

import json
import pickle
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from classifier import cleaning, data
from classifier.cleaning import SPLITS, near_groups, near_pairs, split
from classifier.data import PrepareParams, class_names, load_split, prepare
from classifier.errors import ClassifierError
from classifier.sources import Source, SourceError, conversions, load_source, to_pixels


def make_params(**changes: Any) -> PrepareParams:
    values: dict[str, Any] = {
        "source": "folder",
        "folder": "images",
        "image_size": None,
        "channels": None,
        "validation_share": 0.2,
        "test_share": 0.2,
        "near_duplicate_rms": 2.0,
        "max_unreadable_share": 0.5,
        "max_class_ratio": 20,
    }
    return PrepareParams(**{**values, **changes})


def noise(seed: int, height: int = 16, width: int = 16, channels: int = 3) -> np.ndarray:
    """An image unlike that of any other seed: coarse noise, so that thumbnails differ too."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return coarse.repeat(-(-height // 4), axis=0).repeat(-(-width // 4), axis=1)[:height, :width]


def nearly(pixels: np.ndarray) -> np.ndarray:
    """The same to the eye: every value is one grey level off."""
    return pixels ^ 1


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(path)
    return path


def fill(folder: Path, seed: int, images: int = 10, **shape: int) -> None:
    for i in range(images):
        save(noise(1000 * seed + i, **shape), folder / f"{i:02}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with ten images of cats and ten of dogs."""
    fill(tmp_path / "images" / "cat", 1)
    fill(tmp_path / "images" / "dog", 2)
    return tmp_path


def read_report(root: Path) -> dict[str, Any]:
    return json.loads((root / "data/prepared/report.json").read_text())


def prepared_images(root: Path) -> dict[str, list[bytes]]:
    return {name: [image.tobytes() for image in load_split(root, name).images] for name in SPLITS}


def all_images(root: Path) -> list[bytes]:
    return [image for images in prepared_images(root).values() for image in images]


def refusal(root: Path, **changes: Any) -> str:
    """The sentence a user gets, after checking that nothing was written."""
    with pytest.raises(ClassifierError) as caught:
        prepare(make_params(**changes), 42, root)
    assert not (root / "data/prepared").exists()
    assert not (root / "data/.preparing").exists()
    assert not (root / "plots").exists()
    return str(caught.value)


# -- digits ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits")
    prepare(make_params(source="digits", validation_share=0.1), 42, root)
    return root


def test_digits_are_split_by_class_in_the_given_shares(digits: Path) -> None:
    splits = {name: load_split(digits, name) for name in SPLITS}
    counts = {name: np.bincount(part.labels, minlength=10) for name, part in splits.items()}
    total = np.sum(list(counts.values()), axis=0)
    assert total.sum() == 1797
    assert np.abs(counts["validation"] - 0.1 * total).max() <= 0.5
    assert np.abs(counts["test"] - 0.2 * total).max() <= 0.5


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
    prepare(make_params(source="digits", validation_share=0.1), 42, tmp_path)
    written = [path.relative_to(digits) for path in digits.rglob("*") if path.is_file()]
    assert len(written) > 20
    for path in written:
        assert (tmp_path / path).read_bytes() == (digits / path).read_bytes(), path


def test_another_seed_gives_other_splits(digits: Path, tmp_path: Path) -> None:
    prepare(make_params(source="digits", validation_share=0.1), 43, tmp_path)
    assert read_report(tmp_path)["sha256"] != read_report(digits)["sha256"]


# -- folder of images ------------------------------------------------------------------------------


def test_folder_images_arrive_unchanged_with_their_labels(root: Path) -> None:
    prepare(make_params(), 42, root)
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
    prepare(make_params(), 42, root)
    report = read_report(root)
    assert report["counts"]["found"] == 21
    assert report["dropped"]["unreadable"]["images"] == 0


def test_files_beside_the_class_folders_are_listed(root: Path) -> None:
    (root / "images/README.txt").write_text("my cats")
    prepare(make_params(), 42, root)
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
    prepare(make_params(), 42, root)
    assert class_names(root) == ["cat", "dog", "猫 $x$ d'été"]
    assert read_report(root)["dropped"]["unreadable"]["examples"] == [
        r"cat/\udcff.png (not an image)"
    ]


def test_grey_images_make_a_grey_data_set(tmp_path: Path) -> None:
    fill(tmp_path / "images/a", 1, channels=1)
    fill(tmp_path / "images/b", 2, channels=1)
    prepare(make_params(), 42, tmp_path)
    assert load_split(tmp_path, "train").images.shape[1:] == (16, 16, 1)


def test_one_colour_image_makes_a_colour_data_set(tmp_path: Path) -> None:
    fill(tmp_path / "images/a", 1, channels=1)
    fill(tmp_path / "images/b", 2, channels=1)
    save(noise(7), tmp_path / "images/b/colour.png")
    prepare(make_params(), 42, tmp_path)
    assert load_split(tmp_path, "train").images.shape[1:] == (16, 16, 3)


def test_size_and_channels_can_be_set(root: Path) -> None:
    save(noise(5, height=40, width=20), root / "images/cat/tall.png")
    prepare(make_params(image_size=[12, 10], channels=1), 42, root)
    assert load_split(root, "train").images.shape[1:] == (12, 10, 1)
    assert read_report(root)["image"] == {"height": 12, "width": 10, "channels": 1}


def test_more_classes_than_fit_the_picture(tmp_path: Path) -> None:
    for k in range(25):
        fill(tmp_path / "images" / f"a class with a very long name, number {k:02}", k, images=4)
    prepare(make_params(), 42, tmp_path)
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
    prepare(make_params(), 42, tmp_path)
    images = all_images(tmp_path)
    assert noise(9, height=8, width=12).tobytes() in images
    assert read_report(tmp_path)["converted"] == {"turned as EXIF says": 1}


# -- broken images ---------------------------------------------------------------------------------


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def not_an_image(path: Path) -> None:
    path.write_text("a,b\n1,2\n")


def truncated_jpeg(path: Path) -> None:
    Image.fromarray(noise(77)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-60])


def truncated_png(path: Path) -> None:
    save(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8), path)
    path.write_bytes(path.read_bytes()[:300])


def floating_point(path: Path) -> None:
    Image.new("F", (16, 16), 0.5).save(path, "TIFF")


def thirty_two_bits(path: Path) -> None:
    Image.fromarray(np.full((16, 16), 70_000, dtype=np.int32)).save(path, "TIFF")


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        (zero_bytes, "zero bytes"),
        (not_an_image, "not an image"),
        (truncated_jpeg, "truncated"),
        (truncated_png, "truncated"),
        (floating_point, "floating-point"),
        (thirty_two_bits, "beyond 16 bits"),
    ],
)
def test_unreadable_image_is_left_out_and_reported(
    breaks: Callable[[Path], None], reason: str, root: Path
) -> None:
    breaks(root / "images/cat/03.png")
    prepare(make_params(channels=3), 42, root)
    report = read_report(root)
    assert report["dropped"]["unreadable"]["images"] == 1
    (example,) = report["dropped"]["unreadable"]["examples"]
    assert example.startswith("cat/03.png")
    assert reason in example
    assert sum(part["images"] for part in report["splits"].values()) == 19


def test_too_many_unreadable_images_are_refused(root: Path) -> None:
    for i in range(5):
        zero_bytes(root / f"images/dog/{i:02}.png")
    message = refusal(root, max_unreadable_share=0.2)
    assert "5 of 20 images can't be read (25.0%" in message
    assert "dog/00.png (zero bytes)" in message
    assert "and 2 more" in message


def test_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        not_an_image(tmp_path / "images" / name / "table.csv")
    assert "none of 2 files can be read as an image" in refusal(tmp_path)


def test_mixed_sizes_are_refused_with_two_files_and_the_cure(root: Path) -> None:
    save(noise(5, height=40, width=20), root / "images/dog/tall.png")
    message = refusal(root)
    assert "cat/00.png is 16x16, dog/tall.png is 40x20" in message
    assert "set prepare.image_size" in message


def test_long_lists_are_cut_but_counted(root: Path) -> None:
    fill(root / "images/cat", 3, images=60)
    for i in range(25):
        zero_bytes(root / f"images/cat/{i:02}.png")
    prepare(make_params(), 42, root)
    dropped = read_report(root)["dropped"]["unreadable"]
    assert dropped["images"] == 25
    assert len(dropped["examples"]) == 20


# -- repeated images -------------------------------------------------------------------------------


def test_exact_duplicate_is_dropped_and_the_first_stays(root: Path) -> None:
    Image.fromarray(noise(1003)).save(root / "images/cat/copy.tiff")
    prepare(make_params(), 42, root)
    report = read_report(root)
    assert report["dropped"]["exact duplicate"] == {
        "images": 1,
        "examples": ["cat/copy.tiff (cat) repeats cat/03.png (cat)"],
    }
    assert all_images(root).count(noise(1003).tobytes()) == 1


def test_one_image_under_two_labels_is_dropped_from_both(root: Path) -> None:
    save(noise(1003), root / "images/dog/cat.png")
    prepare(make_params(), 42, root)
    assert read_report(root)["dropped"]["conflicting labels"] == {
        "images": 2,
        "examples": [
            "cat/03.png (cat) repeats dog/cat.png (dog)",
            "dog/cat.png (dog) repeats cat/03.png (cat)",
        ],
    }
    assert noise(1003).tobytes() not in all_images(root)


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_share_a_split(seed: int, root: Path) -> None:
    burst = [np.clip(noise(500).astype(int) + k, 0, 255).astype(np.uint8) for k in range(5)]
    for k, image in enumerate(burst):
        save(image, root / f"images/cat/burst-{k}.png")
    prepare(make_params(), seed, root)
    homes = {
        name
        for name, images in prepared_images(root).items()
        for image in burst
        if image.tobytes() in images
    }
    report = read_report(root)
    assert len(homes) == 1
    assert report["passed"] is True
    assert report["near_duplicates"]["groups"] == 1
    assert report["near_duplicates"]["largest"] == 5


def test_near_duplicates_with_different_labels_are_listed_for_review(root: Path) -> None:
    save(nearly(noise(1003)), root / "images/dog/almost.png")
    prepare(make_params(), 42, root)
    assert read_report(root)["near_duplicates"]["with_different_labels_examples"] == [
        ["cat/03.png (cat)", "dog/almost.png (dog)"]
    ]


def test_search_for_near_duplicates_can_be_turned_off(root: Path) -> None:
    save(nearly(noise(1003)), root / "images/cat/almost.png")
    prepare(make_params(near_duplicate_rms=0), 42, root)
    assert read_report(root)["near_duplicates"]["groups"] == 0


def test_near_pairs_are_those_of_an_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "BLOCK", 16)
    rng = np.random.default_rng(0)
    prints = rng.integers(100, 110, (200, 64), dtype=np.uint8)
    prints[100:] = prints[:100] + rng.integers(0, 4, (100, 64), dtype=np.uint8)
    squares = np.square(prints[:, None].astype(float) - prints).mean(axis=2)
    expected = {(i, j) for i, j in np.argwhere(squares <= 4).tolist() if i < j}
    found = [
        tuple(sorted(pair))
        for i, j in near_pairs(prints, 2.0, keys=np.arange(200))
        for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    assert len(expected) > 50
    assert len(found) == len(expected)
    assert set(found) == expected


def test_a_chain_of_near_duplicates_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "BLOCK", 4)
    chain = np.repeat(np.arange(0, 60, 2, dtype=np.uint8), 64).reshape(30, 64)
    far = np.full((1, 64), 200, dtype=np.uint8)
    groups = near_groups(np.concatenate([chain[::-1], far]), 2.0)
    assert len(set(groups[:30])) == 1
    assert groups[30] != groups[0]


# -- splits and checks -----------------------------------------------------------------------------


def test_every_class_is_in_every_split_even_if_rare_and_grouped() -> None:
    labels = np.repeat([0, 1], [500, 9])
    groups = np.concatenate([np.arange(500), [500, 500, 500, 501, 501, 501, 502, 502, 502]])
    official = np.zeros(509, dtype=bool)
    rng = np.random.default_rng(0)
    places = split(labels, groups, official, (0.1, 0.2), ["common", "rare"], rng)
    assert set(places[labels == 1]) == {0, 1, 2}
    assert all(len(set(places[groups == group])) == 1 for group in range(503))
    assert np.bincount(places[labels == 0]).tolist() == [350, 50, 100]


def test_leak_between_the_finished_splits_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(10):
        save(nearly(noise(1000 + i)), root / f"images/cat/again-{i}.png")

    def careless(labels: np.ndarray, *_: Any) -> np.ndarray:
        return np.arange(len(labels)) // 4 % 3

    monkeypatch.setattr(data, "split", careless)
    prepare(make_params(), 42, root)
    report = read_report(root)
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert report["passed"] is False
    assert failed == ["no near duplicate is in two splits"]
    assert "data check failed: no near duplicate is in two splits" in capsys.readouterr().out


def test_unbalanced_classes_fail_the_report_but_not_the_run(root: Path) -> None:
    fill(root / "images/cat", 5, images=60)
    prepare(make_params(max_class_ratio=3), 42, root)
    report = read_report(root)
    assert report["passed"] is False
    assert [check["name"] for check in report["checks"] if not check["passed"]] == [
        "classes are balanced"
    ]


# -- classes ---------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    assert "images does not exist: correct prepare.folder" in refusal(tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    fill(tmp_path / "images", 1)
    assert "has no class folders: put the images of each class into" in refusal(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    fill(tmp_path / "images/cat", 1)
    assert "only one class, 'cat'" in refusal(tmp_path)


def test_empty_class(root: Path) -> None:
    (root / "images/bird").mkdir()
    assert "no images in class bird" in refusal(root)


def test_class_with_fewer_images_than_splits(root: Path) -> None:
    fill(root / "images/bird", 3, images=2)
    assert "class bird (2)" in refusal(root)


def test_class_emptied_by_cleaning(root: Path) -> None:
    for i in range(3):
        save(noise(1000 + i), root / f"images/bird/{i}.png")
    assert "class bird (0)" in refusal(root)


def test_class_name_in_two_unicode_spellings(root: Path) -> None:
    for form in ("NFC", "NFD"):
        fill(root / "images" / unicodedata.normalize(form, "Möwe"), 3)
    assert "two folders whose name reads 'Möwe'" in refusal(root)


def test_class_name_with_a_line_break(root: Path) -> None:
    fill(root / "images" / "cat\ndog", 3)
    assert r"'cat\ndog' has characters that can't be shown" in refusal(root)


def test_label_out_of_range() -> None:
    with pytest.raises(SourceError, match=r"b has the label 2, but labels go from 0 to 1"):
        Source(
            classes=["x", "y"],
            names=["a", "b"],
            labels=np.array([0, 2]),
            official_test=np.zeros(2, dtype=bool),
            open_image=lambda i: Image.new("L", (1, 1)),
        )


# -- CIFAR-10 --------------------------------------------------------------------------------------


def write_batch(path: Path, content: dict[str, Any]) -> list[str]:
    path.write_bytes(pickle.dumps(content, protocol=2))
    return [path.name, md5(path.read_bytes()).hexdigest()]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a small archive in CIFAR-10's format where a person would place it."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = np.stack([noise(i, 32, 32) for i in range(60)])
    labels = np.arange(60) % 3
    images[59] = images[0]  # an image of the test split is also in the training split, …
    labels[59] = labels[0]
    images[58] = nearly(images[1])  # … another nearly so, …
    images[57] = images[56]  # … and two are the same
    rows = images.transpose(0, 3, 1, 2).reshape(60, -1)
    train = write_batch(
        folder / "data_batch_1", {"data": rows[:40], "labels": labels[:40].tolist()}
    )
    test = write_batch(folder / "test_batch", {"data": rows[40:], "labels": labels[40:].tolist()})
    meta = write_batch(folder / "batches.meta", {"label_names": ["plane", "car", "bird"]})
    archive = tmp_path / "data/downloads" / CIFAR10.filename
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    monkeypatch.setattr(CIFAR10, "train_list", [train])
    monkeypatch.setattr(CIFAR10, "test_list", [test])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta[1]})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    return tmp_path


def test_official_test_split_stays_whole(cifar: Path) -> None:
    prepare(make_params(source="cifar10"), 42, cifar)
    assert class_names(cifar) == ["plane", "car", "bird"]
    test = load_split(cifar, "test")
    names = load_source("cifar10", None, cifar)
    expected = [to_pixels(names.open_image(i), (32, 32), 3).tobytes() for i in range(40, 60)]
    assert sorted(image.tobytes() for image in test.images) == sorted(expected)


def test_what_repeats_the_official_test_split_leaves_the_training_side(cifar: Path) -> None:
    prepare(make_params(source="cifar10"), 42, cifar)
    report = read_report(cifar)
    assert report["dropped"]["exact duplicate"]["examples"] == [
        "train[0] (plane) repeats test[19] (plane)"
    ]
    assert report["dropped"]["near duplicate of a test image"]["examples"] == [
        "train[1] (car) repeats test[18] (car)"
    ]
    assert report["splits"]["train"]["images"] + report["splits"]["validation"]["images"] == 38
    assert report["passed"] is True


def test_without_network_the_archive_can_be_placed_by_hand(cifar: Path) -> None:
    archive = cifar / "data/downloads/cifar-10-python.tar.gz"
    archive.unlink()
    with pytest.raises(SourceError) as caught:
        prepare(make_params(source="cifar10"), 42, cifar)
    message = str(caught.value)
    assert "CIFAR-10 could not be downloaded" in message
    assert "place it at data/downloads/cifar-10-python.tar.gz (md5 " in message


def test_damaged_archive_is_not_used(cifar: Path) -> None:
    archive = cifar / "data/downloads/cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(SourceError, match="CIFAR-10 could not be downloaded"):
        prepare(make_params(source="cifar10"), 42, cifar)


# -- parameters and files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "mnist"}, "source in params.yaml is 'mnist': it must be one of digits"),
        ({"folder": None}, "folder in params.yaml is None: it must be a path"),
        ({"image_size": 32}, r"image_size in params.yaml is 32: .* \[height, width\]"),
        ({"image_size": [32, 0]}, r"image_size in params.yaml is \[32, 0\]"),
        ({"channels": 4}, "channels in params.yaml is 4"),
        ({"validation_share": 0}, "validation_share in params.yaml is 0"),
        ({"validation_share": 0.6, "test_share": 0.4}, "test_share in params.yaml is 0.4"),
        ({"near_duplicate_rms": -1}, "near_duplicate_rms in params.yaml is -1"),
        ({"max_unreadable_share": 1}, "max_unreadable_share in params.yaml is 1"),
        ({"max_class_ratio": 0.5}, "max_class_ratio in params.yaml is 0.5"),
        ({"test_share": "a lot"}, "test_share in params.yaml is 'a lot'"),
    ],
)
def test_parameter_that_cannot_work_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ClassifierError, match=message):
        make_params(**changes)


def test_failed_run_leaves_the_last_good_data(root: Path) -> None:
    prepare(make_params(), 42, root)
    before = read_report(root)
    (root / "images/bird").mkdir()
    with pytest.raises(ClassifierError):
        prepare(make_params(), 42, root)
    assert read_report(root) == before
    assert sorted(path.name for path in (root / "data").iterdir()) == ["prepared"]


def test_splits_that_are_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(ClassifierError, match=r"images.npy is missing: run `make pipeline`"):
        load_split(tmp_path, "test")
    with pytest.raises(ClassifierError, match=r"classes.json is missing: run `make pipeline`"):
        class_names(tmp_path)


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed, images=100, height=256, width=256)
    prepare(make_params(), 42, tmp_path)  # imports are not what is measured
    tracemalloc.start()
    prepare(make_params(), 42, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * peak < 300 * 256 * 256 * 3
