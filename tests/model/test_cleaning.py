"""Data preparation: what is left out of the splits, what never leaks, and what a user is told."""

import io
import pickle
import shutil
import tarfile
import tracemalloc
import unicodedata
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import (
    all_images,
    cats_and_dogs,
    fill,
    nearly,
    noise,
    prepare,
    prepared_images,
    read_report,
    refusal,
    save,
)
from PIL import Image

from classifier import cleaning, preparation
from classifier.cleaning import near_groups, near_pairs
from classifier.data import class_names, load_split
from classifier.sources import Source, load_source
from workspace.errors import UserError
from workspace.pictures import to_pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with ten images of cats and ten of dogs."""
    return cats_and_dogs(tmp_path)


def test_splits_are_there_once_the_pipeline_has_run(root: Path) -> None:
    with pytest.raises(UserError, match="is missing: run `make pipeline`"):
        load_split(root, "test")
    prepare(root)
    assert len(load_split(root, "test").labels)


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
        (not_an_image, "not a picture in AVIF, BMP"),
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
    prepare(root, channels=3)
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
    assert "5 of 20 pictures can't be read (25.0%" in message
    assert "dog/00.png (zero bytes)" in message
    assert "and 2 more" in message
    for i in range(5):
        (root / f"images/dog/{i:02}.png").unlink()
    prepare(root, max_unreadable_share=0.2)


def test_a_single_broken_file_among_few_stops_nothing(root: Path) -> None:
    zero_bytes(root / "images/dog/00.png")
    prepare(root, max_unreadable_share=0.01)
    assert read_report(root)["dropped"]["unreadable"]["examples"] == ["dog/00.png (zero bytes)"]
    with pytest.raises(UserError, match=r"1 of 20 pictures can't be read \(5.0%"):
        prepare(root, max_unreadable_share=0)


def test_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        not_an_image(tmp_path / "images" / name / "table.csv")
    assert "none of 2 files can be read as a picture" in refusal(tmp_path)


def test_mixed_sizes_are_refused_with_two_files_and_the_cure(root: Path) -> None:
    save(noise(5, height=40, width=20), root / "images/dog/tall.png")
    message = refusal(root)
    assert "cat/00.png is 16x16, dog/tall.png is 40x20" in message
    assert "set prepare.image_size" in message
    prepare(root, image_size=[16, 16])


def test_long_lists_are_cut_but_counted(root: Path) -> None:
    fill(root / "images/cat", 3, images=60)
    for i in range(25):
        zero_bytes(root / f"images/cat/{i:02}.png")
    prepare(root)
    dropped = read_report(root)["dropped"]["unreadable"]
    assert dropped["images"] == 25
    assert len(dropped["examples"]) == 20


# -- repeated images -------------------------------------------------------------------------------


def test_exact_duplicate_is_dropped_and_the_first_stays(root: Path) -> None:
    Image.fromarray(noise(1003)).save(root / "images/cat/copy.tiff")
    prepare(root)
    report = read_report(root)
    assert report["dropped"]["exact duplicate"] == {
        "images": 1,
        "examples": ["cat/copy.tiff (cat) repeats cat/03.png (cat)"],
    }
    assert all_images(root).count(noise(1003).tobytes()) == 1


def test_one_image_under_two_labels_is_dropped_from_both(root: Path) -> None:
    save(noise(1003), root / "images/dog/cat.png")
    prepare(root)
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
    prepare(
        root,
        seed=seed,
    )
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
    prepare(root)
    assert read_report(root)["near_duplicates"]["with_different_labels_examples"] == [
        ["cat/03.png (cat)", "dog/almost.png (dog)"]
    ]


def test_search_for_near_duplicates_can_be_turned_off(root: Path) -> None:
    save(nearly(noise(1003)), root / "images/cat/almost.png")
    prepare(root, near_duplicate_rms=0)
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


def test_leak_between_the_finished_splits_is_found(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(10):
        save(nearly(noise(1000 + i)), root / f"images/cat/again-{i}.png")

    def careless(labels: np.ndarray, *_: Any) -> np.ndarray:
        return np.arange(len(labels)) // 4 % 3

    monkeypatch.setattr(preparation, "split", careless)
    prepare(root)
    report = read_report(root)
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert report["passed"] is False
    assert failed == ["no near duplicate is in two splits"]
    assert "data check failed: no near duplicate is in two splits" in capsys.readouterr().out


def test_unbalanced_classes_fail_the_report_but_not_the_run(root: Path) -> None:
    fill(root / "images/cat", 5, images=60)
    prepare(root, max_class_ratio=3)
    report = read_report(root)
    assert report["passed"] is False
    assert [check["name"] for check in report["checks"] if not check["passed"]] == [
        "classes are balanced"
    ]


# -- classes ---------------------------------------------------------------------------------------


def test_missing_folder(tmp_path: Path) -> None:
    cats_and_dogs(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    assert "images does not exist: correct prepare.folder" in refusal(tmp_path)
    prepare(tmp_path, folder="pictures")


def test_images_without_class_folders(tmp_path: Path) -> None:
    fill(tmp_path / "images", 1)
    assert "has no class folders: put the pictures of each class into" in refusal(tmp_path)
    for path in list((tmp_path / "images").iterdir()):
        path.rename(save(noise(9), tmp_path / "images/cat" / path.name))
    fill(tmp_path / "images/dog", 2)
    prepare(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    fill(tmp_path / "images/cat", 1)
    assert "only one class, 'cat'" in refusal(tmp_path)


def test_empty_class(root: Path) -> None:
    (root / "images/bird").mkdir()
    assert "no pictures in class bird" in refusal(root)
    fill(root / "images/bird", 3)
    prepare(root)
    shutil.rmtree(root / "images/bird")
    prepare(root)


def test_class_with_fewer_images_than_splits(root: Path) -> None:
    fill(root / "images/bird", 3, images=2)
    assert "class bird (2)" in refusal(root)
    fill(root / "images/bird", 3)
    prepare(root)
    shutil.rmtree(root / "images/bird")
    prepare(root)


def test_near_duplicates_are_distinct_at_a_lower_limit(root: Path) -> None:
    for name, pixels in (("a", noise(9)), ("b", nearly(noise(9))), ("c", noise(9) ^ 2)):
        save(pixels, root / f"images/bird/{name}.png")
    assert "class bird (1): add pictures, remove the class or lower prepare.near" in refusal(root)
    prepare(root, near_duplicate_rms=0)


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
    def source(*labels: int) -> Source:
        return Source(
            classes=["x", "y"],
            names=["a", "b"],
            labels=np.array(labels),
            official_test=np.zeros(2, dtype=bool),
            open_image=lambda i: Image.new("L", (1, 1)),
            sha256=lambda i: "",
        )

    with pytest.raises(UserError, match=r"b has the label 2, but labels go from 0 to 1: correct"):
        source(0, 2)
    assert source(0, 1).names == ["a", "b"]


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
    prepare(cifar, source="cifar10")
    assert class_names(cifar) == ["plane", "car", "bird"]
    test = load_split(cifar, "test")
    names = load_source("cifar10", None, cifar)
    expected = [to_pixels(names.open_image(i), (32, 32), 3).tobytes() for i in range(40, 60)]
    assert sorted(image.tobytes() for image in test.images) == sorted(expected)


def test_what_repeats_the_official_test_split_leaves_the_training_side(cifar: Path) -> None:
    prepare(cifar, source="cifar10")
    report = read_report(cifar)
    assert report["dropped"]["exact duplicate"]["examples"] == [
        "train[0] (plane) repeats test[19] (plane)"
    ]
    assert report["dropped"]["near duplicate of a test picture"]["examples"] == [
        "train[1] (car) repeats test[18] (car)"
    ]
    assert report["splits"]["train"]["images"] + report["splits"]["validation"]["images"] == 38
    assert report["passed"] is True


def test_without_network_the_archive_can_be_placed_by_hand(cifar: Path) -> None:
    archive = cifar / "data/downloads/cifar-10-python.tar.gz"
    archive.rename(cifar / "elsewhere")
    with pytest.raises(UserError) as caught:
        prepare(cifar, source="cifar10")
    message = str(caught.value)
    assert "CIFAR-10 could not be downloaded" in message
    assert "place it at data/downloads/cifar-10-python.tar.gz (md5 " in message
    (cifar / "elsewhere").rename(archive)
    prepare(cifar, source="cifar10")


def test_damaged_archive_is_not_used(cifar: Path) -> None:
    archive = cifar / "data/downloads/cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-10])
    with pytest.raises(UserError, match="CIFAR-10 could not be downloaded"):
        prepare(cifar, source="cifar10")


# What an archive may hold that is not the data set's; its MD5 is made that of the known one.


def link(tar: tarfile.TarFile, info: tarfile.TarInfo, _: bytes) -> None:
    """A link to a file of the machine in place of a part."""
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(info)


def hard_link(tar: tarfile.TarFile, info: tarfile.TarInfo, _: bytes) -> None:
    info.type, info.linkname = tarfile.LNKTYPE, "../../params.yaml"
    tar.addfile(info)


def device(tar: tarfile.TarFile, info: tarfile.TarInfo, _: bytes) -> None:
    info.type = tarfile.FIFOTYPE
    tar.addfile(info)


def twice(tar: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
    tar.addfile(info, io.BytesIO(content))


def large(tar: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
    info.size = 2**28 + 1
    tar.addfile(info, io.BytesIO(bytes(info.size)))


def nothing(*_: Any) -> None:
    """A part is not there."""


@pytest.mark.parametrize("put", [link, hard_link, device, twice, large, nothing])
def test_an_archive_with_other_members_is_not_unpacked(
    put: Callable[..., None], cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(cifar, monkeypatch, "cifar-10-batches-py/test_batch", put)
    with pytest.raises(UserError, match=r"CIFAR-10 could not be downloaded \(cifar-10-python"):
        prepare(cifar, source="cifar10")
    assert not (cifar / "data/downloads/cifar-10-batches-py").exists()


def test_members_that_nobody_asked_for_stay_in_the_archive(
    cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def more(tar: tarfile.TarFile, info: tarfile.TarInfo, content: bytes) -> None:
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        for name in ("../../escaped", "/tmp/escaped-by-cifar", "cifar-10-batches-py/more"):
            other = tarfile.TarInfo(name)
            other.size = 3
            tar.addfile(other, io.BytesIO(b"bad"))

    rewrite(cifar, monkeypatch, "cifar-10-batches-py/test_batch", more)
    prepare(cifar, source="cifar10")
    unpacked = {path.name for path in (cifar / "data/downloads/cifar-10-batches-py").iterdir()}
    assert unpacked == {"data_batch_1", "test_batch", "batches.meta"}
    assert not (cifar / "escaped").exists() and not Path("/tmp/escaped-by-cifar").exists()


def rewrite(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, put: Callable[..., None]
) -> None:
    """Put something else in a member's place."""
    from torchvision.datasets import CIFAR10

    archive = project / "data/downloads" / CIFAR10.filename
    with tarfile.open(archive) as tar:
        members = [(each, tar.extractfile(each)) for each in tar.getmembers() if each.isfile()]
        contents = [(each, file.read() if file else b"") for each, file in members]
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for each, content in contents:
            if each.name == name:
                put(tar, tarfile.TarInfo(name), content)
            else:
                tar.addfile(each, io.BytesIO(content))
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive.read_bytes()).hexdigest())


# -- memory ----------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        fill(tmp_path / "images" / name, seed, images=100, height=256, width=256)
    prepare(tmp_path)  # imports are not what is measured
    tracemalloc.start()
    prepare(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2 * peak < 300 * 256 * 256 * 3
