"""Batches of new images: what is refused, what a person is asked, and what is added."""

import contextlib
import csv
import fcntl
import io
import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
import requests
import yaml
from dvc.cli import main as dvc_main
from PIL import Image
from sklearn.datasets import load_digits
from small_project import CLASSES, PARAMS, PROJECT, add_code, images_of

import curation.ingest
import deep_colour
from classifier import data, params, preparation, training
from classifier.cleaning import SPLITS, digest
from curation import __main__, review
from curation.ingest import LOCK, ingest
from params_edit import edit, other_sections
from reporting import review_page
from workspace import files
from workspace.errors import UserError
from workspace.root import CAPTURED

SRC = str(PROJECT / "src")


def save(pixels: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(path)
    return path


def pixels_of(label: int, seed: int) -> np.ndarray:
    """An image of a class, unlike that of any other seed."""
    return images_of(np.array([label]), np.random.default_rng(seed))[0]


def fill(folder: Path, seed: int, images: int = 30) -> Path:
    """Write that many images, the classes in turn, as <class>/<number>.png; return the folder."""
    for i in range(images):
        label = i % len(CLASSES)
        save(pixels_of(label, 1000 * seed + i), folder / CLASSES[label] / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def dvc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `dvc init` makes; once, as it takes a second."""
    folder = tmp_path_factory.mktemp("dvc")
    dvc(folder, "init", "--no-scm", "--quiet")
    dvc(folder, "config", "core.analytics", "false")  # a process of its own for every command
    return folder / ".dvc"


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(autouse=True)
def dvc_adds_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have DVC add pictures in this process: to start it takes longer than to work."""
    run = subprocess.run

    def instead(command: Any, **options: Any) -> "subprocess.CompletedProcess[Any]":
        words = [str(each) for each in command]
        if words[:4] != [*curation.ingest.DVC, "add"]:
            return run(command, **options)
        with contextlib.chdir(options["cwd"]), contextlib.redirect_stdout(io.StringIO()):
            return subprocess.CompletedProcess(words, dvc_main(words[3:]))

    monkeypatch.setattr(subprocess, "run", instead)


@pytest.fixture
def empty(tmp_path: Path, dvc_folder: Path) -> Path:
    """A project whose images come from a folder that is not there yet."""
    return new_project(tmp_path, dvc_folder)


def new_project(folder: Path, dvc_folder: Path) -> Path:
    root = folder / "project"
    shutil.copytree(dvc_folder, root / ".dvc")
    (root / "params.yaml").write_text(PARAMS.read_text() + other_sections())
    edit(root, prepare={"source": "folder", "max_unreadable_share": 0.1})
    return root


@pytest.fixture
def root(empty: Path) -> Path:
    """A project with sixty images of three classes."""
    fill(empty / "data/raw", seed=1, images=60)
    return empty


def images(root: Path) -> dict[str, bytes]:
    """Every file of the data set."""
    folder = root / "data/raw"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(root: Path, batch: Path, *new_classes: str) -> str:
    """The sentence a user gets, after checking that nothing was written."""
    before = images(root), reviews(root)
    with pytest.raises(UserError) as caught:
        ingest(batch, new_classes, root)
    assert (images(root), reviews(root)) == before
    assert not (root / "data/.ingesting").exists()
    return str(caught.value)


def reviews(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (root / "reviews").glob("*")}


def questions(root: Path, batch: Path, *new_classes: str) -> dict[str, dict[str, str]]:
    """What a person is asked, by image, after checking that nothing was added."""
    before = images(root)
    ingest(batch, new_classes, root)
    assert images(root) == before
    assert not (root / "data/.ingesting").exists()
    with (root / f"reviews/{batch.name}.csv").open(newline="") as file:
        return {row["image"]: row for row in csv.DictReader(file)}


def answer(root: Path, batch: Path, **decisions: str) -> None:
    """Write decisions into the review file: by the image's stem, or `others`."""
    path = root / f"reviews/{batch.name}.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["decision"] = decisions.get(Path(row["image"]).stem, decisions.get("others", ""))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def report(root: Path, batch: Path) -> str:
    return (root / f"reviews/{batch.name}.md").read_text()


@pytest.fixture
def june(tmp_path: Path) -> Path:
    """A batch with nothing wrong in it."""
    return fill(tmp_path / "june", seed=2)


# -- what is added ---------------------------------------------------------------------------------


def test_a_clean_batch_is_added_and_reported(root: Path, june: Path) -> None:
    before = images(root)
    ingest(june, [], root)
    after = images(root)
    assert before.items() <= after.items() and len(after) == 90
    assert dvc(root, "status", "data/raw.dvc").strip().endswith("up to date.")
    text = report(root, june)
    assert "Added to the 60 pictures of the data set: 30." in text
    assert "| circle | 20 | 33.3 % | 10 | 30 | 33.3 % |" in text
    assert "No drift." in text
    assert [*reviews(root)] == ["june.md"]  # nothing to decide, so no questions


def test_of_pictures_that_a_model_labelled_each_is_asked(root: Path) -> None:
    batch = fill(root / CAPTURED / "staging-1", seed=2)
    asked = questions(root, batch)
    assert len(asked) == 30
    assert {row["reason"] for row in asked.values()} == {"the label is a model's answer"}
    before = images(root)
    answer(root, batch, others="keep")
    ingest(batch, [], root)
    assert len(images(root)) == len(before) + 30


def test_names_that_are_taken_get_a_digest(root: Path, june: Path) -> None:
    ingest(june, [], root)
    there = images(root)
    pixels = digest(pixels_of(0, 2000)).hex()[:12]
    assert there[f"circle/00-{pixels}.png"] == (june / "circle/00.png").read_bytes()


def test_the_first_batch_makes_the_data_set(empty: Path, june: Path) -> None:
    ingest(june, [], empty)
    assert images(empty) == {
        path.relative_to(june).as_posix(): path.read_bytes() for path in june.rglob("*.png")
    }
    assert (empty / "data/raw.dvc").is_file()


def test_the_same_batch_again_changes_nothing(root: Path, june: Path) -> None:
    ingest(june, [], root)
    before = images(root), reviews(root)
    ingest(june, [], root)
    assert (images(root), reviews(root)) == before


def test_the_same_batch_gives_the_same_report(root: Path, june: Path) -> None:
    save(pixels_of(0, 7), june / "square/odd.png")
    found = []
    for _ in range(2):
        shutil.rmtree(root / "reviews", ignore_errors=True)
        questions(root, june)
        found.append(reviews(root))
    assert found[0] == found[1]


def test_other_light_is_reported_as_drift(root: Path, tmp_path: Path) -> None:
    for i in range(30):
        pixels = pixels_of(i % 3, 5000 + i)
        save(pixels // 2 + 120, tmp_path / "july" / CLASSES[i % 3] / f"{i}.png")
    ingest(tmp_path / "july", [], root)  # the quick model may be unsure of such images, or not
    assert "**The batch differs in brightness, contrast" in report(root, tmp_path / "july")


# -- ten kinds of broken batches -------------------------------------------------------------------


def test_truncated_jpegs_are_left_out_and_named(root: Path, june: Path) -> None:
    whole = june / "circle/whole.jpg"
    Image.fromarray(pixels_of(0, 1)).resize((10, 12)).save(whole, quality=95)
    (june / "circle/cut.jpg").write_bytes(whole.read_bytes()[:-20])
    whole.unlink()
    ingest(june, [], root)
    assert "circle/cut.jpg" not in images(root)
    assert "| can't be read | 1 | circle/cut.jpg: image file is truncated" in report(root, june)


def test_however_many_files_are_broken_the_others_are_added(
    root: Path, june: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (june / "circle").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    ingest(june, [], root)
    assert len(images(root)) == 80
    text = report(root, june)
    assert "| can't be read | 10 | circle/00.png: " in text
    assert "Classes that the batch does not have: circle." in text
    said = "left out: 10 of 30 files of june can't be read; reviews/june.md names them"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("fixed", [{}, {"image_size": [12, 10], "channels": 3}])
def test_a_batch_of_which_nothing_can_be_read_is_copied_again(
    fixed: dict[str, Any], root: Path, june: Path
) -> None:
    edit(root, prepare=fixed)
    shutil.copytree(june, june.with_name("whole"))
    for path in june.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])
    assert "none of " in (message := refusal(root, june))
    assert "30 files " in message and "can be read" in message
    shutil.rmtree(june)
    june.with_name("whole").rename(june)
    ingest(june, [], root)
    assert len(images(root)) == 90


def test_zero_bytes_and_other_files_are_left_out_and_named(root: Path, june: Path) -> None:
    (june / "circle/none.png").touch()
    (june / "cross/letter.png").write_text("Dear all")
    (june / "README").write_text("from the north camera")
    ingest(june, [], root)
    text = report(root, june)
    assert "| can't be read | 2 | circle/none.png: zero bytes<br>cross/letter.png: not a " in text
    assert "| outside a class folder | 1 | README |" in text
    assert len(images(root)) == 90


def test_litter_is_left_out_and_named(root: Path, june: Path) -> None:
    for name in ("Thumbs.db", "@eaDir/00.png", ".DS_Store"):
        (june / "circle" / name).parent.mkdir(exist_ok=True)
        (june / "circle" / name).write_text("x")
    (june / "__MACOSX").mkdir()
    ingest(june, [], root)
    names = "__MACOSX<br>circle/.DS\\_Store<br>circle/@eaDir<br>circle/Thumbs.db"
    assert f"| litter of other programs | 4 | {names} |".replace("__", "\\_\\_", 1) in report(
        root, june
    )
    assert len(images(root)) == 90


def test_pictures_of_12_bits_are_refused_and_the_cure_works(root: Path, june: Path) -> None:
    edit(root, prepare={"channels": 1})
    deep = Image.fromarray(pixels_of(0, 8000)[:, :, 0].astype(np.uint16) * 16)
    deep.save(june / "circle/deep.png")
    message = refusal(root, june)
    assert message.endswith("set prepare.white, which is 65535, to 4095")
    edit(root, prepare={"white": 4095})
    ingest(june, [], root)
    assert len(images(root)) == 91


def test_colour_of_16_bits_is_left_out_and_named(root: Path, june: Path) -> None:
    deep_colour.write(june / "circle/deep.png", deep_colour.values(1, 4095))
    ingest(june, [], root)
    assert "| can't be read | 1 | circle/deep.png: colour of 16 bits a channel, of" in report(
        root, june
    )
    assert len(images(root)) == 90


def digits(folder: Path, chosen: range, wrong: set[int] = frozenset()) -> Path:  # type: ignore[assignment]
    """Write those of scikit-learn's digits, some of them as the digit one higher."""
    bunch = load_digits()
    for i in chosen:
        pixels = np.round(bunch.images[i] * 255 / 16).astype(np.uint8)[:, :, None]
        label = (bunch.target[i] + (i in wrong)) % 10
        save(pixels, folder / str(label) / f"{i}.png")
    return folder


def test_most_wrong_labels_are_found_and_few_right_ones(empty: Path, tmp_path: Path) -> None:
    digits(empty / "data/raw", range(700))
    wrong = set(range(700, 1300, 33))
    batch = digits(tmp_path / "june", range(700, 1300), wrong)
    asked = questions(empty, batch)
    found = {int(Path(image).stem) for image in asked}
    assert len(found & wrong) >= 0.7 * len(wrong)
    assert len(found - wrong) <= 0.03 * 600
    right = [row for row in asked.values() if int(Path(row["image"]).stem) in wrong]
    assert sum(int(row["label"]) == (int(row["suggestion"]) + 1) % 10 for row in right) >= 13
    assert all(float(row["confidence"]) >= 0.5 for row in asked.values())
    assert "a quick model in 5 folds" in report(empty, batch)
    assert (empty / "plots/review.png").stat().st_size > 10_000


def test_renamed_classes_are_refused_with_what_they_may_be(root: Path, june: Path) -> None:
    (june / "circle").rename(june / "Circles")
    message = refusal(root, june)
    assert "no class Circles (did you mean circle?)" in message
    assert "NEW_CLASSES=Circles;" in message
    (june / "Circles").rename(june / "circle")  # or, as another test does, allow it
    ingest(june, [], root)


def test_the_hint_for_new_classes_can_be_typed(
    root: Path, june: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["ice cream", "it's $5", 'the "best"']
    for name in names:
        shutil.copytree(june / "circle", june / name)
    hint = refusal(root, june).split("allow new classes with ")[1].split("; it has")[0]
    shutil.copy(PROJECT / "Makefile", root)
    (root / "python").mkdir()
    (root / "python/ready").touch()
    run = f"make -o python/ready VENV=python RUN='printf %s\\\\n' ingest BATCH=june {hint}"
    # of the `make test` that runs this, which would have its say
    outer = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(["bash", "-c", run], cwd=root, env=outer, capture_output=True, text=True)
    module, *arguments = said.stdout.splitlines()
    (root / "dvc.yaml").touch()
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(__main__, "ingest", lambda *given: told.append(given))
    monkeypatch.chdir(root)
    assert (module, __main__.main(arguments)) == ("curation", 0)
    assert told == [(Path("june"), names, Path())]


@pytest.mark.parametrize("name", ["keep", "Drop"])
def test_a_class_named_as_a_decision_is_refused(name: str, root: Path, june: Path) -> None:
    (june / "circle").rename(june / name)
    assert f"the class {name} has the name of a decision, keep or drop: rename" in (
        refusal(root, june, name)
    )
    (june / name).rename(june / "circle")
    ingest(june, [], root)


def test_a_class_named_as_a_folder_of_the_project_is_kept(root: Path, june: Path) -> None:
    shutil.copy(PROJECT / ".dvcignore", root)
    (june / "circle").rename(june / "runs")
    (root / "data/raw/circle").rename(root / "data/raw/runs")
    ingest(june, [], root)
    tracked = yaml.safe_load((root / "data/raw.dvc").read_text())["outs"][0]
    assert tracked["nfiles"] == len(images(root)) == 90
    ignored = ["src/classifier/__pycache__/data.pyc", "runs/last.ckpt"]
    for name in (*ignored, "src/classifier/data.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert dvc(root, "check-ignore", *ignored).split() == ignored
    (root / "dvc.yaml").write_text("stages: {code: {cmd: echo, deps: [src]}}")
    dvc(root, "repro")
    (code,) = yaml.safe_load((root / "dvc.lock").read_text())["stages"]["code"]["deps"]
    assert code["nfiles"] == 1


def test_new_classes_are_added_when_allowed(root: Path, june: Path) -> None:
    for i in range(10):
        band = pixels_of(0, 9000 + i)[:, ::-1].copy()
        band[:, 4:] += 100
        save(band, june / f"triangle/{i}.png")
    assert "no class triangle: rename" in refusal(root, june)
    ingest(june, ["triangle"], root)
    assert "New classes: triangle." in report(root, june)
    assert len([name for name in images(root) if name.startswith("triangle/")]) == 10


def test_absent_classes_are_reported(root: Path, june: Path) -> None:
    shutil.rmtree(june / "cross")
    ingest(june, [], root)
    assert "Classes that the batch does not have: cross." in report(root, june)


def prepared(root: Path) -> dict[str, set[bytes]]:
    preparation.prepare(params.load(root), root)
    return {
        name: {digest(image) for image in data.load_split(root, name).images} for name in SPLITS
    }


def test_images_of_the_test_split_do_not_come_in_again(root: Path, june: Path) -> None:
    test = prepared(root)["test"]
    known = [i for i in range(60) if digest(pixels_of(i % 3, 1000 + i)) in test]
    assert known
    for i in known:
        save(pixels_of(i % 3, 1000 + i), june / CLASSES[i % 3] / f"again-{i}.png")
    ingest(june, [], root)
    assert f"| in the data set already | {len(known)} | " in report(root, june)
    assert len(images(root)) == 90
    assert sum(len(split) for split in prepared(root).values()) == 90
    assert data.report(root)["passed"]


def test_repetitions_within_the_batch_are_left_out(root: Path, june: Path) -> None:
    shutil.copy(june / "circle/00.png", june / "circle/again.png")
    ingest(june, [], root)
    assert len(images(root)) == 90
    assert "| repeated within the batch | 1 | circle/again.png = circle/00.png |" in report(
        root, june
    )


def test_near_duplicates_stay_and_are_reported(root: Path, june: Path) -> None:
    save(pixels_of(0, 1000) ^ 1, june / "circle/near.png")
    ingest(june, [], root)
    assert "circle/near.png ≈ data/raw/circle/00.png" in report(root, june)
    assert "circle/near.png" in images(root)


def test_near_duplicates_with_another_label_are_asked_about(root: Path, june: Path) -> None:
    save(pixels_of(0, 1000) ^ 1, june / "cross/near.png")
    asked = questions(root, june)
    assert asked["cross/near.png"]["reason"] == (
        "is nearly the same as data/raw/circle/00.png, which is circle"
    )
    assert asked["cross/near.png"]["suggestion"] == "circle"


def test_16_bit_and_palette_images_are_converted_and_compared(root: Path, june: Path) -> None:
    grey = [pixels_of(0, 8000 + i)[:, :, :1] for i in range(2)]
    for i, name in enumerate(("deep", "palette")):  # the same pixels are in the data set already
        save(grey[i].repeat(3, axis=2), root / f"data/raw/circle/{name}.png")
    Image.fromarray(grey[0][:, :, 0].astype(np.uint16) * 257).save(june / "circle/deep.png")
    Image.fromarray(grey[1][:, :, 0]).convert("P").save(june / "circle/palette.png")
    Image.fromarray(pixels_of(0, 8002)[:, :, 0]).convert("P").save(june / "circle/new.gif")
    ingest(june, [], root)
    text = report(root, june)
    assert "`prepare` will convert: 16 bits to 8 1, palette to colour 2." in text
    assert "| in the data set already | 2 | " in text
    assert "circle/new.gif" in images(root) and len(images(root)) == 93


def test_mixed_sizes_are_refused(root: Path, june: Path) -> None:
    save(np.zeros((9, 9, 3), np.uint8), june / "circle/zz.png")
    assert "pictures differ in size: circle/00.png is 12x10, circle/zz.png is 9x9" in refusal(
        root, june
    )
    edit(root, prepare={"image_size": [12, 10]})
    ingest(june, [], root)


def test_another_size_than_the_data_set_is_refused(root: Path, tmp_path: Path) -> None:
    for name in CLASSES:
        save(np.zeros((9, 9, 3), np.uint8), tmp_path / "july" / name / "a.png")
    message = refusal(root, tmp_path / "july")
    assert "the batch's pictures are 9x9, those of the data set 12x10 (heightxwidth)" in message
    edit(root, prepare={"image_size": [12, 10]})
    ingest(tmp_path / "july", [], root)  # three of one content are asked about
    assert (root / "reviews/july.md").exists()


def test_mixed_sizes_are_taken_where_a_size_is_set(root: Path, june: Path) -> None:
    edit(root, prepare={"image_size": [12, 10]})
    large = Image.fromarray(pixels_of(0, 8000)).resize((40, 48), Image.Resampling.NEAREST)
    large.save(june / "circle/large.png")
    ingest(june, [], root)
    assert len(images(root)) == 91


def test_colour_for_a_grey_data_set_is_refused(empty: Path, tmp_path: Path) -> None:
    digits(empty / "data/raw", range(30))
    save(np.full((8, 8, 3), [255, 0, 0], np.uint8), tmp_path / "july/3/red.png")
    assert "has pictures in colour, the data set is grey" in refusal(empty, tmp_path / "july")
    for channels in (1, 3):
        edit(empty, prepare={"channels": channels})
        ingest(tmp_path / "july", [], empty)  # a person is asked about the one picture, or not
        assert (empty / "reviews/july.md").exists()
        shutil.rmtree(empty / "reviews")


UNICODE = {
    "composed": unicodedata.normalize("NFC", "Möwe.png"),
    "decomposed": unicodedata.normalize("NFD", "Möwe.png"),
    "emoji": "🐦‍⬛ bird.png",
    "right to left": "צפור.png",
    "turned": "a\u202egnp.png",
    "line break": "a\nb.png",
    "comma, quote and bar": 'a,"b"|c.png',
    "not UTF-8": "caf\udce9.png",
}


def test_any_name_comes_in_and_can_be_decided_on(root: Path, june: Path) -> None:
    for i, name in enumerate(UNICODE.values()):
        save(pixels_of(0, 8000 + i), june / "circle" / name)
        save(pixels_of(0, 8100 + i), june / "cross" / name)  # wrong on purpose
    asked = questions(root, june)
    expected = [
        *("Möwe.png", unicodedata.normalize("NFD", "Möwe.png"), "🐦\\u200d⬛ bird.png", "צפור.png"),
        *("a\\u202egnp.png", "a\\nb.png", 'a,"b"|c.png', "caf\\udce9.png"),
    ]
    assert {f"cross/{name}" for name in expected} == {*asked}
    answer(root, june, others="circle")
    ingest(june, [], root)
    added = [name for name in images(root) if not name[-6:-4].isdigit()]
    assert len(images(root)) == 60 + 30 + 2 * len(UNICODE)
    assert all(name.isprintable() and name.encode() for name in added)
    assert all(unicodedata.is_normalized("NFC", name) for name in added)
    assert {"circle/צפור.png", "circle/Möwe.png"} <= {*added}
    assert sum(map(len, prepared(root).values())) == len(images(root))
    assert 'a,"b"\\|c.png' in report(root, june)


def test_a_class_in_another_spelling_is_the_same_class(root: Path, june: Path) -> None:
    name = unicodedata.normalize("NFC", "Kreisé")
    (june / "circle").rename(june / name)
    (root / "data/raw/circle").rename(root / "data/raw" / unicodedata.normalize("NFD", name))
    ingest(june, [], root)
    assert len([*(root / "data/raw").iterdir()]) == 3
    assert len(images(root)) == 90


MEASURE = """
import resource, shutil, sys
from pathlib import Path
from curation.ingest import ingest
root, *batches = map(Path, sys.argv[1:])
for batch in batches:
    shutil.rmtree(root / "data", ignore_errors=True)
    ingest(batch, [], root)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_pixels(empty: Path, tmp_path: Path) -> None:
    side, sizes = 256, (100, 400)
    edit(empty, ingest={"judged_by": 300})
    for images in sizes:
        for i in range(images):
            small = Image.fromarray(pixels_of(i % 3, i))
            path = tmp_path / str(images) / CLASSES[i % 3] / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            small.resize((side, side), Image.Resampling.NEAREST).save(path)
    batches = [str(tmp_path / str(images)) for images in sizes]
    command = [sys.executable, "-c", MEASURE, str(empty), *batches]
    result = subprocess.run(command, env={"PYTHONPATH": SRC}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, second = (int(line) for line in result.stdout.splitlines() if line.isdigit())
    assert second - first < 0.5 * (sizes[1] - sizes[0]) * side * side * 3


# -- decisions -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, dvc_folder: Path) -> Path:
    """A folder with a project and a batch with three wrong labels: a cross, d and s are circles."""
    folder = tmp_path_factory.mktemp("asked")
    project, june = new_project(folder, dvc_folder), fill(folder / "june", seed=2)
    fill(project / "data/raw", seed=1, images=60)
    for name, seed in (("a", 1), ("d", 2), ("s", 3)):
        save(pixels_of(0, 8000 + seed), june / f"cross/{name}.png")
    assert {*questions(project, june)} == {f"cross/{name}.png" for name in "ads"}
    return folder


@pytest.fixture
def doubtful(root: Path, june: Path, asked: Path) -> Path:
    """That batch, in this test's own project."""
    shutil.copytree(asked, june.parent, dirs_exist_ok=True)
    return june


def test_decisions_are_applied(root: Path, doubtful: Path) -> None:
    answer(root, doubtful, a="circle", d="DROP", s=" keep ")
    ingest(doubtful, [], root)
    there = images(root)
    assert {"circle/a.png", "cross/s.png"} <= there.keys()
    assert not {"cross/a.png", "cross/d.png", "circle/d.png"} & there.keys()
    text = report(root, doubtful)
    assert "Added to the 60 pictures of the data set: 32." in text
    assert "1 dropped, 1 given another label, 1 kept." in text
    assert "| cross/a.png | cross | the label looks wrong | circle " in text


def test_a_missing_decision_is_asked_for_again(
    root: Path, doubtful: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(root, doubtful, a="circle", d="drop")
    before = (root / "reviews/june.csv").read_bytes()
    ingest(doubtful, [], root)
    assert capsys.readouterr().out.startswith("1 picture waits for a decision: `make review BATCH")
    assert (root / "reviews/june.csv").read_bytes() == before
    assert len(images(root)) == 60
    answer(root, doubtful, others="keep")
    ingest(doubtful, [], root)
    assert len(images(root)) > 60


def test_a_removed_question_is_asked_again(root: Path, doubtful: Path) -> None:
    answer(root, doubtful, others="circle")
    path = root / "reviews/june.csv"
    path.write_text("".join(line for line in path.open() if "/d.png" not in line))
    asked = questions(root, doubtful)
    assert {row["image"]: row["decision"] for row in asked.values()} == {
        "cross/a.png": "circle",
        "cross/d.png": "",
        "cross/s.png": "circle",
    }


@pytest.mark.parametrize(
    ("decision", "hint"),
    [("kep", ", did you mean keep"), ("Circle", ", did you mean circle"), ("?", "")],
)
def test_an_unknown_decision_is_named_with_its_line(
    decision: str, hint: str, root: Path, doubtful: Path
) -> None:
    answer(root, doubtful, a="drop", d="drop", s="drop")
    path = root / "reviews/june.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].removesuffix("drop") + decision
    path.write_text("\n".join(lines))
    assert f"reviews/june.csv line 3: the decision {decision!r} is unknown: write" in (
        message := refusal(root, doubtful)
    )
    assert message.endswith(f"the class it is{hint}" + "?" * bool(hint))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",", ";"), "line 2: the columns must be image,label,reason"),
        (lambda text: text.replace("/a.png", "/b.png"), "cross/b.png is not in the batch"),
        (lambda text: text + text.splitlines()[-1], "line 5: .* is there twice"),
        (lambda text: text.replace("wrong", "\udcff"), "is not a CSV file in UTF-8"),
    ],
    ids=["semicolons", "another image", "twice", "another encoding"],
)
def test_a_review_file_that_cannot_be_read_is_refused(
    change: Callable[[str], str], message: str, root: Path, doubtful: Path
) -> None:
    path = root / "reviews/june.csv"
    path.write_bytes(change(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=message):
        ingest(doubtful, [], root)
    assert len(images(root)) == 60


def test_decisions_on_a_batch_that_has_changed_are_refused(root: Path, doubtful: Path) -> None:
    answer(root, doubtful, others="circle")
    save(pixels_of(0, 8999), doubtful / "cross/s.png")
    assert "are about other pictures than the batch now has" in refusal(root, doubtful)
    for name in ("june.md", "june.csv"):
        (root / "reviews" / name).unlink()
    questions(root, doubtful)  # decide anew
    answer(root, doubtful, others="circle")
    ingest(doubtful, [], root)


def test_a_second_batch_of_the_same_name_is_refused(root: Path, june: Path) -> None:
    ingest(june, [], root)
    shutil.rmtree(june)
    fill(june, seed=3)
    assert "if it is another batch, rename its folder" in refusal(root, june)
    ingest(june.rename(june.with_name("july")), [], root)


def test_an_answer_counts_only_for_its_question(root: Path, june: Path) -> None:
    save(pixels_of(0, 8000), june / "cross/x.png")
    assert questions(root, june)["cross/x.png"]["reason"] == "the label looks wrong"
    answer(root, june, x="keep")
    shutil.copy(june / "cross/x.png", root / "data/raw/circle/x.png")
    asked = questions(root, june)["cross/x.png"]
    assert asked["reason"] == "has the same pixels as data/raw/circle/x.png, which is circle"
    assert asked["decision"] == ""
    answer(root, june, x="keep")  # now it is known what that means
    ingest(june, [], root)
    assert "circle/x.png" not in images(root)


def test_a_batch_with_decisions_again_asks_nothing(root: Path, doubtful: Path) -> None:
    answer(root, doubtful, a="circle", d="drop", s="keep")
    ingest(doubtful, [], root)
    before = images(root), reviews(root)
    ingest(doubtful, [], root)  # what was a cross is known as a circle by now
    assert (images(root), reviews(root)) == before


def test_the_report_is_final_when_all_is_dropped(root: Path, tmp_path: Path) -> None:
    batch = tmp_path / "june"
    shutil.copytree(root / "data/raw/circle", batch / "cross")
    questions(root, batch)
    assert "Waiting for a decision in `june.csv`: 20." in report(root, batch)
    answer(root, batch, others="drop")
    ingest(batch, [], root)
    assert "Added to the 60 pictures of the data set: 0." in report(root, batch)
    assert len(images(root)) == 60


def test_answers_without_their_report_are_refused(root: Path, doubtful: Path) -> None:
    (root / "reviews/june.md").unlink()
    assert "reviews/june.csv is there without june.md" in refusal(root, doubtful)
    (root / "reviews/june.csv").unlink()
    questions(root, doubtful)  # decide anew
    (root / "reviews/june.md").rename(root / "kept.md")
    assert "put that back" in refusal(root, doubtful)
    (root / "kept.md").rename(root / "reviews/june.md")
    answer(root, doubtful, others="circle")
    ingest(doubtful, [], root)


def test_answers_for_another_size_are_refused(root: Path, doubtful: Path) -> None:
    edit(root, prepare={"image_size": [8, 8]})
    assert "or about these in another size or colour: if" in refusal(root, doubtful)


@pytest.fixture
def contradicting(root: Path, june: Path) -> Path:
    """A batch that says cross of an image that is a circle in the data set."""
    shutil.copy(root / "data/raw/circle/00.png", june / "cross/x.png")
    asked = questions(root, june)["cross/x.png"]
    assert asked["reason"] == "has the same pixels as data/raw/circle/00.png, which is circle"
    assert asked["suggestion"] == "circle"
    return june


@pytest.mark.parametrize("decision", ["drop", "circle"])
def test_the_known_label_stays(decision: str, root: Path, contradicting: Path) -> None:
    before = images(root)
    answer(root, contradicting, x=decision)
    ingest(contradicting, [], root)
    assert len(images(root)) == 90 and before.items() <= images(root).items()


@pytest.mark.parametrize("decision", ["keep", "cross"])
def test_the_new_label_moves_the_known_image(
    decision: str, root: Path, contradicting: Path
) -> None:
    before = images(root)
    answer(root, contradicting, x=decision)
    ingest(contradicting, [], root)
    after = images(root)
    moved = before.pop("circle/00.png")
    assert len(after) == 90 and before.items() <= after.items()
    (place,) = [name for name, content in after.items() if content == moved]
    assert place.startswith("cross/00")
    assert "1 of these get another class: 30." in report(root, contradicting)
    assert sum(map(len, prepared(root).values())) == 90
    ingest(contradicting, [], root)  # again: nothing changes
    assert images(root) == after


def test_a_picture_of_the_official_test_set_stays_in_it(root: Path, contradicting: Path) -> None:
    edit(root, prepare={"official_test": "test"})
    for label, name in enumerate(CLASSES):
        save(pixels_of(label, 9000 + label), root / f"data/raw/{name}/test/a.png")
    known = root / "data/raw/circle/00.png"
    known.rename(known.parent / "test/00.png")
    ingest(contradicting, [], root)
    answer(root, contradicting, x="keep")
    ingest(contradicting, [], root)
    assert "cross/test/00.png" in images(root) and "circle/test/00.png" not in images(root)


def test_contradictions_within_the_batch_need_one_answer(root: Path, june: Path) -> None:
    shutil.copy(june / "circle/00.png", june / "cross/x.png")
    assert {*questions(root, june)} == {"circle/00.png", "cross/x.png"}
    answer(root, june, others="keep")
    assert "circle/00.png and cross/x.png have the same pixels, but the decisions" in refusal(
        root, june
    )
    answer(root, june, **{"00": "cross", "x": "keep"})
    ingest(june, [], root)
    names = [n for n, c in images(root).items() if c == (june / "cross/x.png").read_bytes()]
    assert len(names) == 1 and names[0].startswith("cross/")


def test_the_trained_model_judges_where_it_can(root: Path, june: Path) -> None:
    edit(
        root,
        train={"network": "mlp", "options": {"width": 16}, "epochs": 8, "batch_size": 16},
    )
    add_code(root)
    prepared(root)
    training.train(params.load(root), root)
    save(pixels_of(0, 8000), june / "cross/x.png")
    asked = questions(root, june)
    assert asked["cross/x.png"]["suggestion"] == "circle"
    assert "judged by the trained mlp of artifacts/model.ckpt" in report(root, june)

    (root / "data/raw/circle/00.png").rename(june / "circle/back.png")  # as of an older version
    shutil.rmtree(root / "reviews")
    questions(root, june)
    assert "as the trained one may have seen pictures of the batch; it" in report(root, june)

    (root / "artifacts/model.ckpt").write_bytes(b"PK of an earlier version")
    shutil.rmtree(root / "reviews")
    questions(root, june)
    assert "as artifacts/model.ckpt can't be read; it agrees with" in report(root, june)


# -- what stops a batch ----------------------------------------------------------------------------


def test_another_source_than_a_folder(root: Path, june: Path) -> None:
    edit(root, prepare={"source": "digits"})
    assert "prepare.source in params.yaml is 'digits': set it to folder" in refusal(root, june)
    edit(root, prepare={"source": "folder"})
    ingest(june, [], root)


def test_a_folder_outside_the_project(root: Path, june: Path, tmp_path: Path) -> None:
    (root / "data/raw").rename(tmp_path / "images")
    edit(root, prepare={"folder": str(tmp_path / "images")})
    assert "outside the project" in refusal(root, june)
    (tmp_path / "images").rename(root / "inside")
    edit(root, prepare={"folder": "inside"})
    ingest(june, [], root)


def test_a_batch_that_is_not_there(root: Path, tmp_path: Path) -> None:
    assert "july is not a folder: give one" in refusal(root, tmp_path / "july")
    ingest(fill(tmp_path / "july", seed=3), [], root)


def test_a_batch_without_images(root: Path, tmp_path: Path) -> None:
    (tmp_path / "july").mkdir()
    assert "july has no class folders" in refusal(root, tmp_path / "july")
    (tmp_path / "july/circle").mkdir()
    assert "there is no file in the class folders of" in refusal(root, tmp_path / "july")


@pytest.mark.parametrize("place", ["data/raw", "data/raw/circle", "data", "."])
def test_a_batch_in_the_data_set_or_around_it(place: str, root: Path) -> None:
    fill(root / "data/raw/new", seed=2)
    assert "are in one another: move the batch out" in refusal(root, root / place)
    ingest((root / "data/raw/new").rename(root.parent / "new"), [], root)


def test_a_first_batch_of_one_class(empty: Path, june: Path) -> None:
    shutil.rmtree(june / "cross")
    shutil.rmtree(june / "square")
    assert "there is only one class, 'circle'" in refusal(empty, june)


def test_a_data_set_that_is_not_the_version_in_git(root: Path, june: Path) -> None:
    dvc(root, "add", "data/raw")
    (root / "data/raw/circle/00.png").unlink()
    message = refusal(root, june)
    assert "data/raw is not what" in message
    checkout, pull, add = re.findall("`([^`]+)`", message)
    assert checkout.startswith(".venv/bin/dvc checkout") and pull == "make data-pull"
    dvc(root, *add.split()[1:])
    (root / "data/raw/circle/03.png").unlink()
    dvc(root, *checkout.split()[1:])
    shutil.rmtree(root / "data/raw")
    assert "are not on this machine: run `make data-pull`" in refusal(root, june)
    dvc(root, "checkout", "data/raw.dvc")  # as a pull does with what it gets
    ingest(june, [], root)
    assert len(images(root)) == 59 + 30


def test_a_second_run_in_the_same_folder_is_refused(root: Path, june: Path) -> None:
    (root / LOCK).parent.mkdir()
    with (root / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert refusal(root, june) == (
            "another `make ingest` is running in this folder: wait for it"
        )
    ingest(june, [], root)


@pytest.mark.parametrize("most", [2_000, 60_000], ids=["reading", "copying"])
def test_a_disk_that_takes_no_more(most: int, root: Path, june: Path) -> None:
    with (june / "circle/00.png").open("ab") as file:
        file.write(bytes(100_000))  # behind the image's end
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        message = refusal(root, june)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (
        "june can't be compared or copied, nothing is added: [Errno 27] File too large" in message
    )


def test_a_disk_that_takes_no_report(root: Path, june: Path) -> None:
    (root / "reviews").write_text("a file")
    with pytest.raises(UserError, match=r"june is added to .* only in part \(.*put it right"):
        ingest(june, [], root)
    (root / "reviews").unlink()
    ingest(june, [], root)
    assert len(images(root)) == 90


def test_dvc_that_failed_is_asked_again(
    root: Path, june: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setattr(curation.ingest, "DVC", ("false",))
        with pytest.raises(UserError, match=r"`dvc add` failed .*: put it right and run `make in"):
            ingest(june, [], root)
    ingest(june, [], root)
    assert len(images(root)) == 90 and (root / "data/raw.dvc").is_file()


def test_a_file_where_the_copies_go(root: Path, june: Path) -> None:
    (root / "data/.ingesting").write_text("mine")
    with pytest.raises(UserError, match=r"nothing is added: .*data/\.ingesting"):
        ingest(june, [], root)
    assert len(images(root)) == 60


def test_the_command_ends_with_a_sentence(
    root: Path, june: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PROJECT / "dvc.yaml", root)
    monkeypatch.chdir(root)
    save(pixels_of(0, 8000), june / "cross/x.png")
    assert __main__.main([str(june)]) == 0
    said = capsys.readouterr().out
    assert "the column decision of reviews/june.csv. Then run the same command again" in said
    answer(root, june, x="circle")
    assert __main__.main([str(june)]) == 0
    assert "commit data/raw.dvc and reviews/" in capsys.readouterr().out
    monkeypatch.chdir(PROJECT)
    assert params.load_section(PROJECT, "ingest", params.IngestParams).min_confidence == 0.5


# -- the page --------------------------------------------------------------------------------------


@pytest.fixture
def served(root: Path, doubtful: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the page on which the doubts of that batch are decided."""
    addresses: Queue[str] = Queue()
    serve = review_page.serve
    monkeypatch.setattr(review_page, "serve", lambda page, _: serve(page, addresses.put))
    thread = threading.Thread(target=curation.ingest.review_on_page, args=(doubtful, root))
    thread.start()
    address = addresses.get(timeout=60)
    yield address
    requests.post(f"{address}done", json={}, timeout=10)
    thread.join(timeout=10)
    assert not thread.is_alive()


def decision(root: Path, image: str) -> str:
    with (root / "reviews/june.csv").open(newline="") as file:
        return {row["image"]: row["decision"] for row in csv.DictReader(file)}[image]


def test_a_decision_on_the_page_is_in_the_review_file(
    served: str, root: Path, doubtful: Path
) -> None:
    content = {"image": "cross/a.png", "decision": "circle"}
    assert requests.post(f"{served}decide", json=content, timeout=10).status_code == 200
    assert decision(root, "cross/a.png") == "circle" and decision(root, "cross/d.png") == ""
    picture = requests.get(f"{served}picture/0", timeout=10)
    assert picture.headers["Content-Type"].startswith("image/png")
    assert Image.open(io.BytesIO(picture.content)).mode == "RGB"
    wrong = requests.post(f"{served}decide", json=content | {"decision": "circel"}, timeout=10)
    assert (wrong.status_code, "did you mean circle?" in wrong.text) == (409, True)
    gone = requests.post(f"{served}decide", json=content | {"image": "x"}, timeout=10)
    assert "has no line for 'x': load the page again" in gone.text
    assert "cross/a.png" in requests.get(served, timeout=10).text
    answer(root, doubtful, a="circle", others="drop")
    ingest(doubtful, [], root)
    assert "circle/a.png" in images(root)


def test_the_page_is_for_its_reader_alone(served: str, root: Path) -> None:
    content = {"image": "cross/a.png", "decision": "drop"}
    place = served.rsplit("/", 2)[0]
    bent = {"Host": "example.com"}
    for status in (
        requests.get(served, headers=bent, timeout=10).status_code,
        requests.get(f"{place}/wrong/", timeout=10).status_code,
        requests.get(f"{served}picture/../../params.yaml", timeout=10).status_code,
        requests.get(f"{served}picture/999", timeout=10).status_code,
        requests.post(f"{place}/wrong/decide", json=content, timeout=10).status_code,
        requests.post(f"{served}decide", headers=bent, json=content, timeout=10).status_code,
        # as a form of another page would
        requests.post(f"{served}decide", data=content, timeout=10).status_code,
    ):
        assert status == 404
    assert decision(root, "cross/a.png") == ""
    assert served.startswith("http://127.0.0.1:")


def test_without_questions_there_is_no_page(
    root: Path, june: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(PROJECT / "dvc.yaml", root)
    monkeypatch.chdir(root)
    assert __main__.main(["--review", str(june)]) == 1
    assert capsys.readouterr().err.startswith("error: nothing is asked about june: run `make")
    with pytest.raises(UserError, match=r"nothing is asked about june: run `make ingest BATCH=.*"):
        curation.ingest.review_on_page(june, root)
    save(pixels_of(0, 8000), june / "cross/x.png")
    assert questions(root, june)


# -- kill ------------------------------------------------------------------------------------------


def kill_at(call: int, holder: Any, function: str, batch: Path, root: Path) -> None:
    """Add a batch in a process that ends as by `kill -9` at the n-th call of a function."""
    original, calls = getattr(holder, function), itertools.count(1)

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    def work() -> None:
        setattr(holder, function, counted)
        ingest(batch, [], root)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("holder", "function", "call"),
    [(Path, "replace", 1), (review, "write", 1), (Path, "replace", 2)],
    ids=["report", "questions", "questions written in part"],
)
def test_a_run_killed_while_it_asks_is_repeated_by_the_next(
    holder: Any, function: str, call: int, root: Path, june: Path
) -> None:
    save(pixels_of(0, 8000), june / "cross/x.png")
    kill_at(call, holder, function, june, root)
    assert not (root / "reviews/june.csv").exists()
    assert (root / "reviews/june.md").exists() == ((function, call) != ("replace", 1))
    assert {*questions(root, june)} == {"cross/x.png"}
    assert {*reviews(root)} == {"june.csv", "june.md"}


@pytest.mark.parametrize(
    ("holder", "function", "call", "planned"),
    [
        (shutil, "copyfile", 7, False),
        (curation.ingest, "finish", 2, True),
        (curation.ingest, "move", 12, True),
        (files, "write", 2, True),
        (shutil, "rmtree", 1, True),
    ],
    ids=["copying", "planned", "adding", "reporting", "tidying"],
)
def test_a_killed_run_is_finished_by_the_next(
    holder: Any, function: str, call: int, planned: bool, root: Path, june: Path
) -> None:
    shutil.copy(root / "data/raw/circle/00.png", june / "cross/x.png")
    questions(root, june)
    answer(root, june, x="cross")  # a known image moves as well
    before = images(root)
    kill_at(call, holder, function, june, root)
    if planned:
        with pytest.raises(UserError, match=r"has been added to .* only in part: run"):
            preparation.prepare(params.load(root), root)
    else:
        assert images(root) == before
    ingest(june, [], root)
    after = images(root)
    expected = [*before.values(), *(p.read_bytes() for p in june.rglob("*.png"))]
    expected.remove((june / "cross/x.png").read_bytes())
    assert sorted(after.values()) == sorted(expected)
    assert len([n for n, c in after.items() if c == before["circle/00.png"]]) == 1
    assert not (root / "data/.ingesting").exists()
    assert "1 of these get another class: 30." in report(root, june)
    assert dvc(root, "status", "data/raw.dvc").strip().endswith("up to date.")


def test_a_file_in_the_way_is_not_overwritten(root: Path, june: Path) -> None:
    kill_at(2, curation.ingest, "finish", june, root)
    steps = json.loads((root / "data/.ingesting/plan.json").read_text())["steps"]
    target = root / "data" / steps[5][1]
    target.write_text("mine")
    with pytest.raises(UserError, match="has come into being since the batch was planned"):
        ingest(june, [], root)
    assert target.read_text() == "mine"
    target.unlink()
    ingest(june, [], root)
    assert len(images(root)) == 90


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("null", "it is None"),
        ('{"batch": "june"}', "is missing"),
        ('{"batch": "../june", "steps": [], "report": ""}', "the name of a batch"),
        (
            '{"batch": "june", "steps": [["/etc/hosts", "raw/a"]], "report": ""}',
            "pairs of paths",
        ),
        ('{"batch": "june", "steps": [["raw/a", "../../a"]], "report": ""}', "pairs of paths"),
        ('{"batch": "june", "steps": [["raw/a"]], "report": ""}', "steps"),
        ('{"batch": "june", "steps": [], "report": "", "more": 1}', "there is no 'more'"),
    ],
)
def test_a_plan_that_no_run_wrote_is_refused_and_the_cure_works(
    content: str, sentence: str, root: Path, june: Path
) -> None:
    before = images(root)
    (root / "data/.ingesting").mkdir()
    (root / "data/.ingesting/plan.json").write_text(content)
    with pytest.raises(UserError) as caught:
        ingest(june, [], root)
    message = str(caught.value)
    assert images(root) == before and sentence in message
    assert message.endswith("data/.ingesting and run `make ingest` again")
    shutil.rmtree(root / "data/.ingesting")
    ingest(june, [], root)
    assert len(images(root)) == 90
