"""The folder of a data set: links, litter, names of classes, splits that look like classes."""

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from pictures import cats_and_dogs, fill, noise, prepare, read_report, refusal, save, settings_with
from small_project import PROJECT

from classifier.data import class_names
from classifier.sources import is_litter, load_source
from curation.batch_comparison import batch_source, check_class_names
from curation.ingest import data_folder
from workspace.errors import UserError
from workspace.pictures import MAX_PIXELS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with ten pictures of cats and ten of dogs."""
    return cats_and_dogs(tmp_path / "project")


# -- links -----------------------------------------------------------------------------------------


def to_class(root: Path) -> Path:
    return root / "images/cat"


def to_part_of_class(root: Path) -> Path:
    shutil.copytree(root / "images/cat", root / "images/cat/indoors/night")
    return root / "images/cat/indoors/night"


def to_all(root: Path) -> Path:
    return root / "images"


PLACES = [to_class, to_part_of_class, to_all]


def move_behind_a_link(place: Path, project: Path) -> None:
    elsewhere = project.parent / "elsewhere"
    shutil.move(place, elsewhere)
    place.symlink_to(elsewhere)


@pytest.mark.parametrize("choose", PLACES)
def test_a_folder_behind_a_link_is_refused_and_the_cure_works(choose, root: Path) -> None:
    place = choose(root)
    move_behind_a_link(place, root)
    sentence = f"{place} is a link to a folder, of which DVC would keep nothing: put a copy of the"
    assert sentence in refusal(root)
    with pytest.raises(UserError, match="is a link to a folder"):  # `make ingest` says the same
        data_folder(settings_with(), root)
    content = place.resolve()
    place.unlink()
    shutil.copytree(content, place)
    data_folder(settings_with(), root)
    prepare(root)
    assert class_names(root) == ["cat", "dog"]


@pytest.mark.parametrize("choose", PLACES[:2])
def test_a_batch_with_such_a_folder_is_refused(choose, root: Path) -> None:
    move_behind_a_link(choose(root), root)
    with pytest.raises(UserError, match="is a link to a folder, of which DVC would keep nothing"):
        batch_source(root / "images", MAX_PIXELS)


def test_data_behind_a_link_above_are_refused(root: Path) -> None:
    (root / "images").rename(root.parent / "pictures")
    (root / "data").symlink_to(root.parent)
    with pytest.raises(UserError, match=r"/data is a link to a folder"):
        load_source("folder", "data/pictures", root)


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments, "--quiet"]
    subprocess.run(command, cwd=folder, check=True)


def test_a_link_to_a_file_is_read_and_kept_by_dvc(root: Path) -> None:
    """DVC itself makes such links, with `cache.type symlink`."""
    picture = root / "images/cat/00.png"
    picture.rename(root.parent / "elsewhere.png")
    picture.symlink_to(root.parent / "elsewhere.png")
    prepare(root)
    before = read_report(root)
    assert before["counts"]["found"] == 20
    dvc(root, "init", "--no-scm")
    dvc(root, "add", "images")
    shutil.rmtree(root / "images")
    (root.parent / "elsewhere.png").unlink()
    dvc(root, "checkout")
    prepare(root)
    assert read_report(root) == before


def test_pictures_in_dvcs_cache_are_read(root: Path) -> None:
    dvc(root, "init", "--no-scm")
    dvc(root, "config", "cache.type", "symlink")
    dvc(root, "add", "images")
    assert (root / "images/cat/00.png").is_symlink()
    prepare(root)
    assert read_report(root)["counts"]["found"] == 20


# -- litter ----------------------------------------------------------------------------------------

LITTER = [
    *(".DS_Store", ".thumbnail.png", "._00.png", "Thumbs.db", "desktop.ini", "~$notes.png"),
    *("@eaDir/00.png", "__MACOSX/._00.png", ".ipynb_checkpoints/00.png", "$RECYCLE.BIN/00.png"),
    *("#recycle/00.png", "lost+found/00.png", "System Volume Information/00.png"),
]


@pytest.mark.parametrize("below", ["", "cat", "cat/indoors"])
def test_litter_is_passed_over_and_listed(below: str, root: Path) -> None:
    save(noise(1), root / "images/cat/indoors/1.png")
    for name in LITTER:
        save(noise(7), root / "images" / below / f"{name}.png").rename(
            root / "images" / below / name
        )
    prepare(root)
    report = read_report(root)
    assert class_names(root) == ["cat", "dog"] and report["counts"]["found"] == 21
    assert report["counts"]["after dropping: conflicting labels"] == 21
    dropped = report["dropped"]
    expected = sorted(str(Path(below, name.split("/")[0])) for name in LITTER)
    assert sorted(dropped["litter of other programs"]["examples"]) == expected
    assert dropped["litter of other programs"]["images"] == len(LITTER)
    assert dropped["unreadable"]["images"] == dropped["outside a class folder"]["images"] == 0


def test_names_that_only_begin_like_litter_are_none() -> None:
    assert not any(map(is_litter, ["thumbs", "desktop", "macosx", "~cat", "lost and found"]))


# -- names of classes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a" * 252, "the class folder aaaaaaaaaaaaaaaaaaaa… has a name of 252 bytes: rename it"),
        ("猫" * 84, "has a name of 252 bytes: rename it, 240 are the most"),
        ("cat.", "the class folder cat. ends with a dot, which Windows drops: rename it"),
        ("=HYPERLINK(1)", "the class folder =HYPERLINK(1) begins like a formula, which a spreadsh"),
        ("+1", "the class folder +1 begins like a formula"),
        ("-1", "the class folder -1 begins like a formula"),
        ("@cmd", "the class folder @cmd begins like a formula"),
        ("＝1", "the class folder ＝1 begins like a formula"),
        ("cat ", "the class folder 'cat ' has characters that can't be shown or stray blanks"),
        ("a\u202egnp", r"has characters that can't be shown"),
        ("a\x1b[2J", r"has characters that can't be shown"),
        ("a\xa0b", r"has characters that can't be shown"),
        ("caf\udce9", r"has characters that can't be shown"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_and_renaming_helps(
    name: str, sentence: str, root: Path
) -> None:
    fill(root / "images" / name, 3)
    assert sentence in refusal(root)
    with pytest.raises(UserError, match="rename it"):
        batch_source(root / "images", MAX_PIXELS)
    (root / "images" / name).rename(root / "images/bird")
    prepare(root)
    assert class_names(root) == ["bird", "cat", "dog"]


@pytest.mark.parametrize(
    "twins",
    [
        ("Cat", "cat"),
        ("Straße", "STRASSE"),
        (unicodedata.normalize("NFC", "Möwe"), unicodedata.normalize("NFD", "möwe")),
    ],
)
def test_names_that_are_one_to_some_file_system_are_refused(
    twins: tuple[str, str], tmp_path: Path
) -> None:
    for seed, name in enumerate([*twins, "dog"]):
        fill(tmp_path / "images" / name, seed)
    message = refusal(tmp_path)
    assert "two folders whose name reads" in message
    assert all(ascii(unicodedata.normalize("NFC", name)) in message for name in twins)
    for path in (tmp_path / "images" / twins[1]).iterdir():
        path.rename(tmp_path / "images" / twins[0] / f"merged-{path.name}")
    (tmp_path / "images" / twins[1]).rmdir()
    prepare(tmp_path)
    assert len(class_names(tmp_path)) == 2


def test_a_new_class_that_is_an_old_one_to_some_file_system_is_refused() -> None:
    with pytest.raises(UserError, match=r"class Cat is to some file systems .* cat: rename"):
        check_class_names(["cat", "dog", "Cat"])
    check_class_names(["cat", "dog", "cat"])


ODD = ["'=1", "1-1", "<b>x", "[a](b)", "`ls`", "a|b", '"', "a,b", "#1", "nan", "猫"]


def test_names_that_others_take_for_markup_come_through_as_they_are(tmp_path: Path) -> None:
    for seed, name in enumerate(ODD):
        fill(tmp_path / "images" / name, seed + 1)
    prepare(tmp_path)
    assert class_names(tmp_path) == sorted(ODD)
    assert read_report(tmp_path)["splits"]["train"]["classes"].keys() == set(ODD)


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Test"),
        ("training_set", "test_set"),
        ("train2017", "val2017"),
        ("train-images", "validation images", "TESTING"),
        ("dev", "holdout"),
        ("seg_train", "seg_test", "seg_pred"),
        ("asl_alphabet_train", "asl_alphabet_test"),
        ("images_train", "images_val"),
        ("trainval", "test"),
        ("trn", "tst"),
        ("train", "test", "unlabeled"),
    ],
)
def test_splits_are_no_classes_and_the_cure_works(names: tuple[str, ...], root: Path) -> None:
    images = root / "images"
    for k, name in enumerate(names):
        for seed, kind in enumerate(("cat", "dog")):
            fill(images / name / kind, 10 * k + seed + 3)
    for kind in ("cat", "dog"):
        shutil.rmtree(images / kind)
    message = refusal(root)
    first = sorted(names)[0]
    assert f", {', '.join(sorted(names))}, are splits and no classes: put what is of" in message
    assert f"<class>/{first}/ in place of {first}/<class>/;" in message
    with pytest.raises(UserError, match="are splits and no classes"):
        batch_source(images, MAX_PIXELS)
    for name in names:
        for kind in ("cat", "dog"):
            (images / kind).mkdir(exist_ok=True)
            (images / name / kind).rename(images / kind / name)
        (images / name).rmdir()
    prepare(root)
    assert class_names(root) == ["cat", "dog"]
    assert read_report(root)["counts"]["found"] == 20 * len(names)
    prepare(root, official_test=names[-1])
    assert read_report(root)["splits"]["test"]["images"] == 20


def test_a_class_named_as_a_split_among_others_is_one(root: Path) -> None:
    fill(root / "images/train", 5)
    prepare(root)
    assert class_names(root) == ["cat", "dog", "train"]


@pytest.mark.parametrize("names", [("freight_train", "passenger_train"), ("test", "tester")])
def test_classes_with_such_words_are_none(names: tuple[str, str], tmp_path: Path) -> None:
    for seed, name in enumerate(names):
        fill(tmp_path / "images" / name, seed)
    prepare(tmp_path)
    assert class_names(tmp_path) == sorted(names)


def flatten(folder: Path) -> None:
    """Put the pictures of each class straight into its folder, where they are in folders of it."""
    for part in [path for path in folder.iterdir() if path.is_dir()]:
        for path in list(part.rglob("*.png")):
            (folder / path.parent.name).mkdir(exist_ok=True)
            path.rename(folder / path.parent.name / f"{part.name}-{path.name}")
        shutil.rmtree(part)


@pytest.mark.parametrize("names", [("a", "b"), ("1", "2", "3"), ("train", "test", "more")])
def test_folders_with_the_same_sub_folders_are_refused_and_the_cure_works(
    names: tuple[str, ...], root: Path
) -> None:
    images = root / "images"
    shutil.rmtree(images)
    for k, name in enumerate(names):
        for seed, kind in enumerate(("cat", "dog")):
            fill(images / name / kind, 10 * k + seed + 3)
        (images / name / "labels.csv").write_text("00.png,cat")
    if len(names) > 2:  # two are enough
        fill(images / names[-1] / "bird", 99)
    same = ", ".join(sorted(names[: 2 if len(names) > 2 else None]))
    message = refusal(root)
    assert f"the folders {same} have the same sub-folders, cat, dog, and no pictures be" in message
    assert message.endswith("put all pictures of a class straight into <class>/")
    flatten(images)
    prepare(root)
    assert class_names(root) == (["bird"] if len(names) > 2 else []) + ["cat", "dog"]


def test_classes_with_the_same_sub_folders_are_some_if_pictures_are_beside(root: Path) -> None:
    for seed, place in enumerate(("cat/indoors", "cat/outdoors", "dog/indoors", "dog/outdoors")):
        fill(root / "images" / place, seed + 3)
    prepare(root)
    assert class_names(root) == ["cat", "dog"]
    assert read_report(root)["counts"]["found"] == 60


def test_a_test_set_that_is_named_tells_classes_from_splits(root: Path) -> None:
    for kind in ("cat", "dog"):
        for seed, name in enumerate(("one", "two")):
            fill(root / "images" / kind / name, 10 * seed + len(name) + ord(kind[0]))
        for path in (root / "images" / kind).glob("*.png"):
            path.unlink()
    assert "the folders cat, dog have the same sub-folders, one, two, and no" in refusal(root)
    prepare(root, official_test="two")
    assert read_report(root)["splits"]["test"]["images"] == 20


def test_all_in_one_folder_is_moved_up(root: Path) -> None:
    images = root / "images"
    images.rename(root / "archive")
    images.mkdir()
    (root / "archive").rename(images / "archive")
    message = refusal(root)
    assert "there is only one class, 'archive': a classifier needs at least two" in message
    assert message.endswith("; move its sub-folders cat, dog one up, if these are the data set")
    for kind in ("cat", "dog"):
        (images / "archive" / kind).rename(images / kind)
    (images / "archive").rmdir()
    prepare(root)
    assert class_names(root) == ["cat", "dog"]


# -- larger than memory ----------------------------------------------------------------------------

READ_LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
import torch
from classifier.batches import Batches
from classifier.data import open_split
from classifier.model import Classifier
from classifier.networks import Shape
from classifier.params import TrainParams
resource.setrlimit(resource.RLIMIT_DATA, (4 * 2**30, 4 * 2**30))  # what may be written to
split = open_split(Path(sys.argv[1]))
Classifier(Shape(128, 128, 3, 2), TrainParams(**{train})).fit_to(split, seed=1)
images, labels = next(iter(Batches(split, 8, seed=1)))
assert images.shape == (8, 128, 128, 3) and split.images.nbytes > 16 * 2**30
"""


def test_a_split_larger_than_memory_is_opened_and_trained_with(root: Path) -> None:
    folder = root / "large"
    folder.mkdir()
    count = 17 * 2**30 // (128 * 128 * 3)
    shape = (count, 128, 128, 3)
    with (folder / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.truncate(file.tell() + count * 128 * 128 * 3)  # a hole, which takes no room
    np.save(folder / "labels.npy", np.arange(count) % 2)
    train = settings_with().train.model_dump() | {"network": "mlp", "options": {}}
    script = READ_LARGE.format(train=train)
    source = {"PYTHONPATH": str(PROJECT / "src")}
    command = [sys.executable, "-c", script, str(folder)]
    result = subprocess.run(command, env=os.environ | source, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "not writable" not in result.stderr
