"""What lies between two runs: plan and review of a batch, record of a search, ledger of splits."""

import csv
import io
import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier import splits
from classifier.params import Params
from conftest import UNBAKED
from curation import review
from curation.batch_comparison import Comparison
from curation.ingest import finish, path_of, read_plan
from curation.review import Question
from hostile import changed_text, files, texts, value_or_sentence
from tuning.trials import Record
from workspace.errors import UserError
from workspace.settings import parse_yaml

STEPS = [["data/.ingesting/files/0", "raw/cross/a.png"], ["raw/circle/%FF.png", "raw/cross/b.png"]]
PARAMS = parse_yaml((UNBAKED / "params.yaml").read_bytes(), "params.yaml")
VALUES = Params(**{name: PARAMS[name] for name in Params.model_fields})
LINE = {
    "train": VALUES.train.model_dump(),
    "ended": "finished",
    "epochs": [{"epoch": 1, "validation_loss": 0.1, "validation_accuracy": 0.9, "train_loss": 1}],
    "reason": "",
}
# What `review.read` looks at of a comparison: two new pictures of two classes.
BATCH = cast(
    Comparison,
    SimpleNamespace(
        names=["cross/a.png", "circle/ü.png"],
        classes=["circle", "cross", "1,0"],
        old=0,
        candidates=np.arange(2),
    ),
)
QUESTIONS = [
    Question("cross/a.png", "cross", "the label looks wrong", "circle", "0.93", "drop"),
    Question("circle/ü.png", "circle", "it is nearly the same as x, which is y", "1,0", "", "1,0"),
]


def written(questions: list[Question]) -> str:
    """Return the text of a review file."""
    with tempfile.TemporaryDirectory() as folder:
        review.write(Path(folder) / "june.csv", questions)
        return (Path(folder) / "june.csv").read_bytes().decode()


def read_review(content: bytes) -> dict[int, Question]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "june.csv").write_bytes(content)
        return review.read(Path(folder) / "june.csv", BATCH)


@given(files({"batch": "june", "steps": STEPS, "report": "# Batch june\n"}))
def test_a_plan(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_bytes(content)
        found = value_or_sentence(read_plan, path)
        places = [Path(path_of(step)) for pair in found.steps for step in pair] if found else []
        assert not any(".." in place.parts or place.is_absolute() for place in places)


@given(changed_text(written(QUESTIONS).encode()))
def test_a_review(content: bytes) -> None:
    found = value_or_sentence(read_review, content) or {}
    assert all(not each.confidence or float(each.confidence) < 2 for each in found.values())


def test_a_review_is_read_as_it_was_written() -> None:
    assert read_review(written(QUESTIONS).encode()) == dict(enumerate(QUESTIONS))


@given(st.text(st.sampled_from("=+-@\t\r'\"a1,; \n"), max_size=6))
def test_a_cell_is_read_as_it_was_written(value: str) -> None:
    value = value.replace("\r", "")  # such a name is written with its escape
    question = Question("a", value, value, value, "")
    rows = list(csv.DictReader(io.StringIO(written([question]), newline="")))
    assert rows[0] == asdict(question)


@given(files(LINE))
def test_a_record_of_trials(content: bytes) -> None:
    def read() -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trials.jsonl"
            path.write_bytes(
                json.dumps(LINE).encode() + b"\n" + content.replace(b"\n", b" ") + b"\n"
            )
            return Record(path).read([VALUES])

    value_or_sentence(read)


@pytest.mark.parametrize("left", [b"", b"\0" * 40], ids=["empty", "of zeros"])
def test_a_plan_that_a_power_loss_emptied_is_cured_as_it_says(tmp_path: Path, left: bytes) -> None:
    raw, plan = tmp_path / "data/raw", tmp_path / "data/.ingesting/plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_bytes(left)
    with pytest.raises(UserError, match=f"remove {plan.parent} and run `make ingest` again"):
        finish(raw, tmp_path)
    shutil.rmtree(plan.parent)
    assert finish(raw, tmp_path) is None  # nothing is in the way of the batch any more


LEDGER = "sha256,split\n0123456789abcdef,train\nfedcba9876543210,test\n"


def read_ledger(content: bytes) -> splits.Ledger:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        (Path(folder) / splits.LEDGER).write_bytes(content)
        return splits.read(Path(folder))


@given(texts(LEDGER))
def test_a_ledger(content: bytes) -> None:
    for key, place in (value_or_sentence(read_ledger, content) or {}).items():
        assert len(key) == splits.DIGITS and 0 <= place < len(splits.SPLITS)
