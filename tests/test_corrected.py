"""A value that is refused, and one that is as the sentence wants it: which is taken."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from classifier import networks
from classifier.params import Params
from conftest import UNBAKED, mark_root
from curation import review
from curation.batch_comparison import Comparison
from delivery.errors import DeliveryError
from delivery.model.pipeline_outputs import read_packaged
from delivery.proposals.run_file import Run, parse_run
from delivery.triton.server import check_version
from tuning import search_space
from tuning.trials import Record
from workspace.errors import UserError
from workspace.pictures import open_picture
from workspace.root import check_root
from workspace.settings import Settings, check, parse_json, parse_yaml

CONTENT = parse_yaml((UNBAKED / "params.yaml").read_bytes(), "params.yaml")
VALUES = Params(**{name: CONTENT[name] for name in Params.model_fields})
SHAPE = networks.Shape(8, 8, 1, 2)
IMAGE, COMMIT = f"r.example/t@sha256:{'1' * 64}", "2" * 40
RUN = Run(run=3, image=IMAGE, nodes=2, commit=COMMIT).to_yaml()


class Section(Settings):
    """A section of a file."""

    epochs: int


# What reads a value; one that is refused, with what the sentence says to do; one that is taken.
CASES: dict[str, tuple[Callable[[Any], object], Any, str, Any]] = {
    "a network": (
        lambda name: networks.build(name, SHAPE),
        "vgg",
        "train.network is 'vgg': give one of .*mlp",
        "mlp",
    ),
    "a network's space": (
        lambda name: search_space.parse({name: {"learning_rate": 0.1}}, VALUES.train),
        "cnm",
        "cnm is no network: use one of .*cnn",
        "cnn",
    ),
    "a value of a space": (
        lambda value: search_space.parse({"cnn": {"options.dropout": value}}, VALUES.train),
        2,
        "dropout cannot be 2: dropout probability has to be between 0 and 1",
        0.5,
    ),
    "text in other bytes": (
        lambda text: parse_yaml(text, "a.yaml"),
        "name: Möwe".encode("latin-1"),
        "is not UTF-8 at byte 8; save it as UTF-8",
        "name: Möwe".encode(),
    ),
    "a mark before the text": (
        lambda text: parse_yaml(text, "a.yaml"),
        b"\xef\xbb\xbfa: 1",
        "begins with a byte order mark: save it without one",
        b"a: 1",
    ),
    "an alias": (
        lambda text: parse_yaml(text, "a.yaml"),
        "a: &x 1\nb: *x",
        "anchors, aliases and tags are not read: write the value out",
        "a: 1\nb: 1",
    ),
    "a NUL": (
        lambda text: parse_json(text, "a.json"),
        '{"a": "\\u0000"}',
        "with NUL or half of a character: correct it",
        '{"a": "b"}',
    ),
    "a key": (
        lambda content: check(Section, content, "a.yaml"),
        {"epoch": 1},
        "there is no 'epoch': did you mean 'epochs'",
        {"epochs": 1},
    ),
    "a number in a ConfigMap": (
        lambda text: parse_run(text, "run.yaml"),
        RUN.replace('"3"', "3"),
        "run is 3, not text: write it in double quotes",
        RUN,
    ),
}


@pytest.mark.parametrize(("read", "wrong", "sentence", "right"), CASES.values(), ids=CASES)
def test_what_is_corrected_as_the_sentence_says_is_taken(
    read: Callable[[Any], object], wrong: Any, sentence: str, right: Any
) -> None:
    with pytest.raises(UserError, match=sentence):
        read(wrong)
    read(right)


def test_a_command_works_in_the_folder_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark_root(tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"is not the root of a project, .*: `cd` to the folder"):
        check_root()
    os.chdir("project")
    check_root()


def test_a_picture_that_is_saved_otherwise_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(40))
    with pytest.raises(ValueError, match="a HEIC picture, which is not read: save it as JPEG or"):
        open_picture(tmp_path / "a.jpg")
    for format in ("JPEG", "PNG"):
        Image.new("L", (4, 4)).save(tmp_path / "a.jpg", format)
        assert open_picture(tmp_path / "a.jpg").size == (4, 4)


BATCH = cast(
    Comparison,
    SimpleNamespace(
        names=["cross/a.png", "cross/b.png"],
        classes=["circle", "cross"],
        old=0,
        candidates=np.arange(2),
    ),
)
HEADER = ",".join(review.COLUMNS) + "\n"


def row(name: str, decision: str) -> str:
    values = {"image": name, "label": "cross", "decision": decision}
    return ",".join(values.get(column, "") for column in review.COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("wrong", "sentence", "right"),
    [
        (row("cross/c.png", "keep"), "c.png is not in the batch: remove the line", ""),
        (2 * row("cross/a.png", "keep"), "is there twice: remove the line", None),
        (row("cross/a.png", "kep"), "did you mean keep", row("cross/a.png", "keep")),
        (row("cross/a.png", "no"), "write keep, drop or the class", row("cross/a.png", "circle")),
        (row("cross/ä.png", "drop"), "in UTF-8 .*: save it as one", row("cross/b.png", "drop")),
    ],
)
def test_a_review_file_that_is_corrected_is_read(
    wrong: str, sentence: str, right: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "june.csv"
    path.write_text(HEADER + wrong, encoding="latin-1")
    with pytest.raises(UserError, match=sentence):
        review.read(path, BATCH)
    path.write_text(HEADER + (wrong[: len(wrong) // 2] if right is None else right))
    review.read(path, BATCH)


def test_a_trial_whose_line_is_removed_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text("{}\n")
    with pytest.raises(UserError, match="remove the line, and its trial runs again"):
        Record(path).read([VALUES])
    path.write_text("")
    assert Record(path).read([VALUES]) == []


def test_an_image_that_is_packaged_again_is_read(tmp_path: Path) -> None:
    import fake_pipeline  # beside the tests of delivery
    from delivery.model.packaging import package
    from delivery.oci.layout import Layout
    from delivery.oci.registry import pull

    fake_pipeline.write_outputs(tmp_path / "project")
    layout = Layout(tmp_path / "registry")
    digest = package(tmp_path / "project", 8, layout)
    pull(f"{layout.name}@{digest}", tmp_path / "model")
    (tmp_path / "model/classifier/about/metrics.json").write_text("{")
    with pytest.raises(DeliveryError, match=r"cannot be read .*: package it again"):
        read_packaged(tmp_path / "model")
    again = package(tmp_path / "project", 8, layout)
    pull(f"{layout.name}@{again}", tmp_path / "again")
    assert read_packaged(tmp_path / "again").metrics.accuracy == 0.97
    with pytest.raises(DeliveryError, match="says 9: release the image that was packaged for this"):
        check_version(tmp_path / "again", 9)
    nine = package(tmp_path / "project", 9, layout)
    pull(f"{layout.name}@{nine}", tmp_path / "nine")
    check_version(tmp_path / "nine", 9)
