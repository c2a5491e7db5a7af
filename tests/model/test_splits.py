"""A picture's split is a property of its content: what is added or removed moves no other."""

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    cats_and_dogs,
    fill,
    nearly,
    noise,
    prepare,
    read_report,
    refusal,
    save,
    settings_with,
)
from small_project import PROJECT

from classifier import splits
from classifier.cleaning import NEW, near_groups
from classifier.data import SPLITS, load_split
from classifier.splits import LEDGER, Ledger, split
from workspace.errors import UserError

NONE: dict[bytes, int] = {}
CLASSES = ["a", "b"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with ten images of cats and ten of dogs."""
    return cats_and_dogs(tmp_path)


def homes(root: Path) -> dict[str, str]:
    """The split of each file that is in one."""
    return {p.file: name for name in SPLITS for p in load_split(root, name).pictures()}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- any history of a data set ---------------------------------------------------------------------


def contents_of(numbers: list[int]) -> np.ndarray:
    return np.array([hashlib.sha256(b"%d" % n).hexdigest().encode() for n in numbers], "S64")


def deal(numbers: list[int], ledger: Ledger, seed: int = 42) -> tuple[np.ndarray, Ledger]:
    """Deal pictures by their numbers: those of one ten are near duplicates, of two classes."""
    contents = contents_of(numbers)
    labels = np.array([n // 10 % 2 for n in numbers])
    groups = np.array([n // 10 for n in numbers])
    known = splits.look_up(ledger, contents, contents, np.zeros(len(numbers), bool))
    places = split(labels, groups, known, contents, (0.2, 0.2), CLASSES, False, seed)
    return places, splits.enter(ledger, contents, places)


BASE = [10 * group for group in range(12)]  # six groups of each class, which never go
SETS = st.lists(st.sets(st.integers(0, 399), max_size=40), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sets=SETS, seeds=st.lists(st.integers(0, 99), min_size=6, max_size=6))
def test_whatever_is_added_and_removed_no_picture_moves(
    sets: list[set[int]], seeds: list[int]
) -> None:
    ledger, ever = NONE, {}
    for numbers, seed in zip([set(), *sets], [42, *seeds], strict=False):
        there = sorted({*BASE, *numbers})
        places, ledger = deal(there, ledger, seed)
        for number, place in zip(there, places.tolist(), strict=True):
            assert ever.setdefault(number, place) == place
        group_places = {(n // 10, place) for n, place in zip(there, places, strict=True)}
        assert len(group_places) == len({n // 10 for n in there})  # near duplicates together
        again, same = deal(there, ledger, 77)
        assert again.tolist() == places.tolist() and same == ledger


@settings(max_examples=40, deadline=None, derandomize=True)
@given(more=st.lists(st.integers(0, 60), min_size=1, max_size=8), seed=st.integers(0, 999))
def test_classes_have_their_shares_after_every_batch(more: list[int], seed: int) -> None:
    ledger, there = NONE, [10 * n for n in range(20)]
    places, ledger = deal(there, ledger, seed)
    for count in more:
        there += [10 * (len(there) + n) for n in range(count)]
        places, ledger = deal(there, ledger, seed)
        for label in range(2):
            its = np.array([n // 10 % 2 == label for n in there])
            counts = np.bincount(places[its], minlength=3)
            assert np.abs(counts[1:] - 0.2 * its.sum()).max() <= 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(one=st.sets(st.integers(120, 399)), other=st.sets(st.integers(120, 399)))
def test_two_branches_that_are_merged_move_what_they_share_nearer_to_the_training(
    one: set[int], other: set[int]
) -> None:
    _, base = deal(BASE, NONE)
    sides = [deal(sorted({*BASE, *numbers}), base)[1] for numbers in (one, other)]
    for order in (sides, sides[::-1]):  # as Git unites the lines, whichever comes first
        merged = read_lines([line for side in order for line in lines_of(side)])
        for key, place in merged.items():
            assert place == min(side[key] for side in sides if key in side)
        assert {key: merged[key] for key in base} == base


def lines_of(ledger: Ledger) -> list[str]:
    return [f"{key.decode()},{SPLITS[place]}" for key, place in ledger.items()]


def read_lines(lines: list[str]) -> Ledger:
    return splits.parse("\n".join([splits.HEADER, *lines]), "the ledger")


def test_every_class_is_in_every_split_even_if_rare_and_grouped() -> None:
    labels = np.repeat([0, 1], [500, 9])
    groups = np.concatenate([np.arange(500), [500, 500, 500, 501, 501, 501, 502, 502, 502]])
    contents, new = contents_of([*range(509)]), np.full(509, NEW)
    places = split(labels, groups, new, contents, (0.1, 0.2), ["common", "rare"], False, 0)
    assert set(places[labels == 1]) == {0, 1, 2}
    assert all(len(set(places[groups == group])) == 1 for group in range(503))
    assert np.bincount(places[labels == 0]).tolist() == [350, 50, 100]


# -- a project -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{"image_size": [8, 8]}, {"channels": 1}, {"seed": 7}, {"test_share": 0.5}],
    ids=lambda changes: "".join(changes),
)
def test_parameters_move_no_picture(changes: dict[str, object], root: Path) -> None:
    prepare(root)
    before, test = homes(root), load_split(root, "test").pictures()
    prepare(root, **changes)
    assert homes(root) == before
    assert load_split(root, "test").pictures() == test  # in the same order


def test_a_picture_that_comes_back_or_is_called_otherwise_is_where_it_was(root: Path) -> None:
    prepare(root)
    before = homes(root)
    gone = [name for name, home in before.items() if home == "test"][:2]
    for name in gone:
        (root / "images" / name).rename(root / name.replace("/", "-"))
    fill(root / "images/cat/more", 5)
    prepare(root)
    assert {name: home for name, home in homes(root).items() if name in before} == {
        name: home for name, home in before.items() if name not in gone
    }
    for name in gone:
        place = root / "images" / name
        (root / name.replace("/", "-")).rename(place.with_name(f"renamed-{place.name}"))
    prepare(root)
    back = {name: home for name, home in homes(root).items() if "renamed" in name}
    assert len(back) == 2 and set(back.values()) == {"test"}


def picture_in(root: Path, split_name: str) -> tuple[str, np.ndarray]:
    """A picture of cats that is in a split: its file and pixels."""
    part = load_split(root, split_name)
    files = [picture.file for picture in part.pictures()]
    i = next(i for i, file in enumerate(files) if file.startswith("cat/"))
    return files[i], np.array(part.images[i])


@pytest.mark.parametrize("split_name", SPLITS)
@pytest.mark.parametrize("change", [nearly, np.copy], ids=["near", "the same pixels"])
def test_a_new_picture_joins_those_that_it_resembles(
    split_name: str, change: Callable[[np.ndarray], np.ndarray], root: Path
) -> None:
    prepare(root)
    before = homes(root)
    file, pixels = picture_in(root, split_name)
    save(change(pixels), root / "images/cat/0.bmp")  # before all others
    prepare(root)
    after = homes(root)
    assert {name: home for name, home in after.items() if name != "cat/0.bmp"} == {
        name: home for name, home in before.items() if name in after
    }
    assert after["cat/0.bmp"] == split_name
    prepared = (root / "data/prepared/report.json").read_bytes()
    prepare(root)  # known now: the same again, to the last byte
    assert (root / "data/prepared/report.json").read_bytes() == prepared
    (root / "images" / file).unlink()
    prepare(root)
    assert homes(root)["cat/0.bmp"] == split_name


def between(one: np.ndarray, other: np.ndarray) -> list[np.ndarray]:
    """Pictures on the way from one to another, each nearly the same as the next."""
    steps = int(np.abs(one.astype(int) - other).max())
    way = [one + (other.astype(float) - one) * k / steps for k in range(1, steps)]
    return [np.round(pixels).astype(np.uint8) for pixels in way]


def test_what_links_two_splits_is_left_out_and_moves_no_other(root: Path) -> None:
    prepare(root)
    before = homes(root)
    (tested, test), (_, train) = picture_in(root, "test"), picture_in(root, "train")
    for k, pixels in enumerate(between(test, train)):
        save(pixels, root / f"images/cat/link-{k:03}.png")
    prepare(root)
    assert homes(root) == before
    report = read_report(root)
    assert report["passed"] is True
    assert report["dropped"]["near duplicate in two splits"]["images"] > 50
    (root / "images" / tested).unlink()  # nothing is linked any more
    fill(root / "images/cat", 9, images=3)
    prepare(root)
    assert set(homes(root).values()) == set(SPLITS)
    assert homes(root)["cat/link-000.png"] == "train"


def test_pictures_that_a_merge_brings_together_test_nothing_that_was_trained_on(
    root: Path,
) -> None:
    prepare(root)
    file, pixels = picture_in(root, "test")
    near = save(nearly(pixels), root / "images/cat/near.png")
    with (root / LEDGER).open("a") as ledger:  # of another branch, which did not know the other
        ledger.write(f"{sha(near)[: splits.DIGITS]},train\n")
    fill(root / "images/cat", 9, images=5)
    prepare(root)
    after, report = homes(root), read_report(root)
    assert after["cat/near.png"] == "train" and file not in after
    assert report["passed"] is True
    assert report["dropped"]["near duplicate in two splits"]["examples"] == [
        f"{file} (cat) repeats cat/near.png (cat)"
    ]


# -- an official test set --------------------------------------------------------------------------


def test_a_folder_may_have_an_official_test_set(root: Path) -> None:
    prepare(root)  # dealt without it first
    for seed, kind in enumerate(("cat", "dog")):
        fill(root / "images" / kind / "test", 20 + seed, images=5)
    save(nearly(noise(20_001)), root / "images/cat/again.png")
    prepare(root, official_test="test")
    found = homes(root)
    assert {file for file, home in found.items() if home == "test"} == {
        f"{kind}/test/{i:02}.png" for kind in ("cat", "dog") for i in range(5)
    }
    assert "cat/again.png" not in found and set(found.values()) == set(SPLITS)
    assert read_report(root)["passed"] is True
    lines = (root / LEDGER).read_bytes()
    prepare(root, official_test="test")
    assert homes(root) == found and (root / LEDGER).read_bytes() == lines


def test_an_official_test_set_that_is_not_there_is_refused(root: Path) -> None:
    assert "there is no picture in " in (message := refusal(root, official_test="tset"))
    assert message.endswith(
        "/<class>/tset/, which prepare.official_test names: put the test set "
        "there, or set it to null"
    )
    for kind in ("cat", "dog"):
        fill(root / "images" / kind / "tset", ord(kind[0]), images=2)
    prepare(root, official_test="tset")
    prepare(root, official_test=None)


@pytest.mark.parametrize(("source", "name"), [("digits", "test"), ("folder", "."), ("folder", "")])
def test_an_official_test_set_is_a_folder_of_a_folder(source: str, name: str) -> None:
    with pytest.raises(
        UserError, match=r"official_test is .+: give null, or for source folder the"
    ):
        settings_with(source=source, official_test=name)


# -- the ledger ------------------------------------------------------------------------------------


def test_the_ledger_says_where_each_picture_is(root: Path) -> None:
    prepare(root)
    lines = (root / LEDGER).read_text().splitlines()
    assert lines[0] == "sha256,split" and lines[1:] == sorted(lines[1:])
    found = dict(line.split(",") for line in lines[1:])
    expected = {sha(root / "images" / file)[:16]: home for file, home in homes(root).items()}
    assert found == expected and len(found) == 20


def test_a_line_that_is_none_is_named_and_the_cure_works(root: Path) -> None:
    prepare(root)
    before, whole = homes(root), (root / LEDGER).read_text()
    lines = whole.splitlines()
    conflict = [*lines[:3], "=" * 7, *lines[3:]]
    (root / LEDGER).write_text("\n".join(conflict) + "\n")
    with pytest.raises(UserError, match=r"splits.csv, line 4, is '=======' and no picture's split"):
        prepare(root)
    (root / LEDGER).write_text("\n".join(each for each in conflict if each in lines) + "\n")
    prepare(root)
    assert homes(root) == before and (root / LEDGER).read_text() == whole


def test_git_merges_what_two_branches_added(root: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    shutil.copy(PROJECT / ".gitattributes", root)
    (root / ".gitignore").write_text("/data/?*/\n/plots/\n")
    prepare(root)
    sides: dict[str, dict[str, str]] = {}
    git("init", "--quiet", "--initial-branch=main")
    for branch, seed in (("main", 0), ("june", 31), ("july", 32)):
        if seed:
            git("switch", "--quiet", "--create", branch, "main")
            fill(root / "images/cat" / branch, seed, images=12)
            prepare(root)
            sides[branch] = homes(root)
        git("add", "--all")
        git("commit", "--quiet", "--message", branch)
    git("merge", "--quiet", "june")
    prepare(root)
    assert homes(root) == sides["june"] | sides["july"] and len(homes(root)) == 44


def test_a_class_that_lost_its_test_pictures_is_refused_and_each_cure_works(root: Path) -> None:
    prepare(root)
    gone = [file for file, home in homes(root).items() if home == "test" and file[:3] == "cat"]
    for file in gone:
        (root / "images" / file).unlink()
    with pytest.raises(
        UserError, match=r"no picture changes its split: cat \(test\); add pictures"
    ):
        prepare(root)
    save(noise(7), root / "images/cat/new.png")
    prepare(root)
    assert homes(root)["cat/new.png"] == "test"
    (root / "images/cat/new.png").unlink()
    (root / LEDGER).unlink()
    prepare(root)
    assert set(homes(root).values()) == set(SPLITS)


def test_nothing_is_written_down_before_all_is_well(root: Path) -> None:
    (root / "images/bird").mkdir()
    refusal(root)
    assert not (root / LEDGER).exists()


def test_sixty_thousand_pictures_make_a_small_ledger(tmp_path: Path) -> None:
    places = np.arange(60_000) % 3
    splits.write(splits.enter(NONE, contents_of([*range(60_000)]), places), tmp_path)
    assert (tmp_path / LEDGER).stat().st_size < 2**21
    assert len(splits.read(tmp_path)) == 60_000


def test_groups_are_numbered_within_the_pictures() -> None:
    prints = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 64).reshape(5, 64)
    assert near_groups(prints, 2.0).max() < 5
