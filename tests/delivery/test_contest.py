"""What is found when a candidate meets the served model: interfaces, and answers to pictures."""

from pathlib import Path

import pytest

import fake_pipeline
from delivery.errors import DeliveryError
from delivery.model.contest import IMAGES, Side, at_hand, compared
from delivery.model.interface import Interface, change_between, read_interface
from delivery.model.pipeline_outputs import IN_IMAGE

KNOWN = Interface("image", "UINT8", "40x40x3", "probabilities", ("cat", "dog"))


def changed(**values: object) -> str:
    return change_between(KNOWN, Interface(**vars(KNOWN) | values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, ""),
        ({"shape": "64x64x3"}, "shape: 40x40x3 -> 64x64x3"),
        ({"input": "picture", "type": "FP32"}, "input: image -> picture; type: UINT8 -> FP32"),
        ({"labels": ("cat", "dog", "otter")}, "labels: + otter"),
        ({"labels": ("cat",)}, "labels: - dog"),
        ({"labels": ("dog", "cat")}, "labels: 0 cat -> dog, 1 dog -> cat"),
        ({"labels": ("ant", "cat", "dog")}, "labels: 0 cat -> ant, 1 dog -> cat, + dog"),
        ({"labels": ("c`t\n", "dog")}, r"labels: 0 cat -> c't\n"),
    ],
)
def test_a_change_is_named(values: dict[str, object], change: str) -> None:
    assert changed(**values) == change


def test_a_long_change_is_short_and_still_another_than_any_other() -> None:
    many = tuple(f"a class with a name of its own {place}" for place in range(1000))
    one, other = changed(labels=many), changed(labels=(*many[:-1], "and another"))
    assert one != other and len(one) < 400
    assert one[:300] == other[:300] and " more (" in one


def test_the_interface_is_that_of_the_configuration(tmp_path: Path) -> None:
    fake_pipeline.write_outputs(tmp_path)
    model = tmp_path / "artifacts/model"
    assert read_interface(model) == Interface(
        "image", "UINT8", "1x1x1", "probabilities", ("zero", "one")
    )
    (model / "classifier/config.pbtxt").write_text("input [ {")
    with pytest.raises(DeliveryError, match=r"the interface cannot be read \(.*config.pbtxt|Parse"):
        read_interface(model)


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Side, Side]:
    """A project whose model is a bit better than that of an image."""
    root, image = tmp_path / "project", tmp_path / "image"
    fake_pipeline.write_outputs(root, 0.99)
    fake_pipeline.write_outputs(image, 0.97)
    for old, new in (("artifacts/model/classifier", "classifier"), ("artifacts", str(IN_IMAGE))):
        (image / old).rename(image / new)
    return root, Side.of_pipeline(root), Side.of_image(image)


def rename(path: Path, number: int) -> None:
    """Have a table tell of another picture in place of that number."""
    path.write_text(path.read_text().replace(f"{number:064x}", f"7{'0' * 63}"))


def test_both_are_compared_on_both_sets(sides: tuple[Path, Side, Side]) -> None:
    root, candidate, served = sides
    rename(served.answers, 150)
    present, own = compared(candidate, served, root=root, keep=root).contests
    assert (present.result.gained, present.result.lost, present.result.pictures) == (4, 0, 200)
    assert (own.result.gained, own.result.lost, own.result.pictures) == (4, 0, 199)
    assert present.result.accuracy.served == 0.97
    assert (root / "predictions.csv").read_text().count("\n") == 201


def test_one_set_is_compared_on_once(sides: tuple[Path, Side, Side]) -> None:
    root, candidate, served = sides
    (only,) = compared(candidate, served, root=root).contests
    assert only.pictures == "the present test set" and only.result.pictures == 200
    (only,) = compared(candidate, served).contests
    assert only.pictures == "the released model's own test set of 200"


def test_pictures_of_a_new_class_are_left_out(sides: tuple[Path, Side, Side]) -> None:
    root, candidate, served = sides
    for path in ("artifacts/predictions.csv", "data/prepared/classes.json"):
        text = (root / path).read_text()
        fake_pipeline.write(root, path, text.replace('"one"', '"otter"').replace(",one", ",otter"))
    labels = root / "artifacts/model/classifier/labels.txt"
    labels.write_text("zero\notter\n")
    rival = compared(candidate, served, root=root)
    assert rival.change == "labels: 1 one -> otter"
    assert [(each.result.pictures, each.unknown) for each in rival.contests] == [(100, ("otter",))]


def test_pictures_that_the_served_model_learnt_from_do_not_count(
    sides: tuple[Path, Side, Side],
) -> None:
    root, candidate, served = sides
    for path in ("artifacts/predictions.csv", "data/prepared/test/pictures.csv"):
        rename(root / path, 1)
    seen = frozenset({"7" + "0" * 15, "e" * 16})
    present, _ = compared(candidate, served, root=root, seen=seen).contests
    assert present.result.pictures == 199
    assert present.pictures == (
        "the present test set without 1 that the released model learnt from"
    )


def test_a_model_of_another_shape_is_compared_by_its_own_account(
    sides: tuple[Path, Side, Side],
) -> None:
    root, candidate, served = sides
    config = served.model / "classifier/config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 1, 1, 1 ]", "dims: [ 2, 2, 1 ]"))
    rival = compared(candidate, served, root=root)
    assert rival.change == "shape: 2x2x1 -> 1x1x1"
    assert [each.pictures for each in rival.contests] == [
        "the released model's own test set of 200"
    ]
    served.answers.unlink()
    assert compared(candidate, served, root=root).silence == (
        "it takes '2x2x1', the test pictures are 1x1x1"
    )


def test_too_few_pictures_are_no_comparison(sides: tuple[Path, Side, Side]) -> None:
    root, candidate, served = sides
    fake_pipeline.write_test_pictures(root, range(2))
    fake_pipeline.write_predictions(root, 0.99, range(2))
    rival = compared(candidate, served, root=root)
    assert not rival.contests and rival.silence == "both know too few of the test pictures"


def test_an_image_elsewhere_is_not_fetched_without_the_network(tmp_path: Path) -> None:
    """What was unpacked once is at hand for good."""
    image = f"registry.example.com/digits@sha256:{'1' * 64}"
    with pytest.raises(DeliveryError, match="not on this machine, and `make judge` fetches it"):
        at_hand(tmp_path, image, network=False)
    (tmp_path / IMAGES / ("1" * 64)).mkdir()
    assert at_hand(tmp_path, image, network=False) == tmp_path / IMAGES / ("1" * 64)


def model_that_is_none(root: Path, served: Side) -> None:
    (served.model / "classifier/1/model.onnx").write_bytes(b"not a graph")
    served.answers.unlink()


def answers_to_other_pictures(root: Path, served: Side) -> None:
    fake_pipeline.write_test_pictures(root, range(50, 100))


def account_that_is_cut(root: Path, served: Side) -> None:
    path = root / "artifacts/predictions.csv"
    path.write_text(path.read_text()[:-20])


def account_of_another_form(root: Path, served: Side) -> None:
    fake_pipeline.write(root, "artifacts/predictions.csv", "file,label\n")


def no_account(root: Path, served: Side) -> None:
    (root / "artifacts/predictions.csv").unlink()


def pictures_without_names(root: Path, served: Side) -> None:
    (root / "data/prepared/test/pictures.csv").unlink()


@pytest.mark.parametrize(
    ("spoil", "silence"),
    [
        (model_that_is_none, "ONNX Runtime does not run it ("),
        (answers_to_other_pictures, "the candidate's answers are to other test pictures than"),
        (account_that_is_cut, "predictions.csv has a line that is too short or too long"),
        (account_of_another_form, "predictions.csv has no column sha256"),
        (pictures_without_names, "pictures.csv is no table that can be read (pictures.csv cannot"),
        (no_account, "the candidate has no account of its answers, predictions.csv"),
    ],
)
def test_what_stands_in_the_way_is_told(
    sides: tuple[Path, Side, Side], spoil: object, silence: str
) -> None:
    root, candidate, served = sides
    spoil(root, served)  # type: ignore[operator]
    rival = compared(candidate, served, root=root)
    assert str(root.parent) not in rival.silence
    assert silence in rival.silence and not rival.contests and rival.change == ""
