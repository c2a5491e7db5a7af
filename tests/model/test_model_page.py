"""The page of a model: what it says, and that it says the same of the same model."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import example_model
from conftest import UNBAKED
from reporting import answers, model_page
from reporting.latency import Latency, Row
from reporting.occlusion import explain
from workspace.errors import UserError
from workspace.model_code import code_files

SPY = """
import sys
from pathlib import Path
from reporting import __main__
source = Path(sys.argv[1])
for module in list(sys.modules.values()):
    file = Path(getattr(module, "__file__", None) or "")
    if file.is_relative_to(source):
        print("src" / file.relative_to(source))
"""

CLASSES = ["cat", "dog", "cow"]
HERE = Latency("a processor", 2, [Row(1, 0.5, 0.9)])


def test_the_stage_names_the_modules_that_it_imports_and_no_other() -> None:
    source = UNBAKED / "src"
    command = [sys.executable, "-c", SPY, str(source)]
    answer = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(source)}, capture_output=True, text=True
    )
    named = {path for path in code_files(UNBAKED, "report") if path.endswith(".py")}
    assert named == set(answer.stdout.split()), answer.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    example_model.write(tmp_path, CLASSES, 60)
    return tmp_path


def test_the_same_model_has_the_same_page(project: Path, tmp_path: Path) -> None:
    model_page.write(project, "p")
    first = (project / model_page.PAGE).read_bytes()
    example_model.write_answers(  # belongs to a day, not to the model
        project / "artifacts/served/predictions.csv", CLASSES, np.zeros(60, int), np.eye(60, 3)
    )
    model_page.write(project, "p")
    assert (project / model_page.PAGE).read_bytes() == first
    assert b"Latency on this machine" not in first and b"epoch 7," in first


def test_here_and_now_adds_the_latency_and_the_served_model(project: Path) -> None:
    scores = np.zeros((60, 3))
    scores[:, 0] = 1  # all are cats
    labels = np.arange(60) % 3
    served = project / "artifacts/served"
    example_model.write_answers(served / "predictions.csv", CLASSES, labels, scores)
    (served / "served.json").write_text('{"version": 7, "image": "sha256:0"}')
    model_page.write(project, "p", Path("page.html"), HERE)
    page = (project / "page.html").read_text()
    own = answers.read_answers(project / model_page.PREDICTIONS)
    better = int((own.right & (labels != 0)).sum())
    worse = int((~own.right & (labels == 0)).sum())
    assert "Model 7 is served" in page and "it is right on 20, this one" in " ".join(page.split())
    assert f"{better} pictures are newly right, {worse} newly wrong" in page
    assert "a processor" in page and "0.50" in page


def test_of_many_pictures_some_are_embedded_and_the_page_says_so(tmp_path: Path) -> None:
    names = [f"class {k} {'of a long name ' * 6}" for k in range(40)]
    example_model.write(tmp_path, names, 4000, side=40)
    model_page.write(tmp_path, "p")
    page = (tmp_path / model_page.PAGE).read_text()
    assert "600 of the 4000 test pictures are in this page" in page
    assert len(page) < 5_000_000


def test_answers_are_compared_by_the_content_of_their_pictures() -> None:
    def table(digests: list[str], predicted: list[int], classes: list[str]) -> answers.Answers:
        size, labels = len(digests), np.zeros(len(digests), np.int64)
        shares = np.full((size, len(classes)), 0.5, np.float32)
        return answers.Answers(classes, digests, digests, labels, np.array(predicted), shares)

    own = table(["a", "b", "c", "new"], [0, 1, 0, 0], ["cat", "dog"])
    other = table(["c", "b", "a"], [0, 1, 0], ["dog", "cat"])  # in another order of classes
    change = answers.changes(own, other)
    assert (change.both, change.own_right, change.other_right) == (3, 2, 1)
    assert list(change.newly_right) == [(0, 2), (2, 0)] and list(change.newly_wrong) == [(1, 1)]


def test_the_interval_of_a_share_is_wilsons() -> None:
    # Table I of Agresti & Coull (1998) has the interval of 0 of 10: 0 to 0.278.
    assert answers.wilson(0, 10, 0.95) == pytest.approx((0, 0.2775), abs=1e-4)
    assert answers.wilson(5, 10, 0.95) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert answers.wilson(0, 0, 0.95) == (0, 1)


def test_bins_of_confidence_hold_every_answer_once(project: Path) -> None:
    own = answers.read_answers(project / model_page.PREDICTIONS)
    bins = answers.reliability(own, 15)
    assert sum(each.count for each in bins) == 60
    assert sum(each.right for each in bins) == own.right.sum()
    assert all(each.low <= each.confidence <= each.high + 1e-6 for each in bins)


def test_an_answer_that_needs_one_corner_falls_only_there() -> None:
    image = np.full((16, 12, 3), 255, np.uint8)

    def answer(images: np.ndarray) -> np.ndarray:
        corner = images[:, 0, 0, 0] / np.float32(255)
        return np.stack([1 - corner, corner], axis=1)

    explained = explain(image, 1, answer, np.zeros(3, np.uint8))
    assert explained.side == (4, 3) and explained.fall.shape == (9, 9)
    assert explained.fall[0, 0] == 1 and np.count_nonzero(explained.fall) == 1


@pytest.mark.parametrize(
    "content",
    ["", "a,b\n1,2\n", "sha256,file,label,predicted,confidence,p_a\n0,f,a,z,1,1\n", '"a\n'],
)
def test_a_table_that_evaluate_has_not_written_is_refused(content: str, project: Path) -> None:
    table = project / model_page.PREDICTIONS
    table.write_text(content)
    with pytest.raises(UserError, match="is no table of answers as `evaluate` writes it"):
        model_page.write(project, "p")
    table.unlink()
    with pytest.raises(UserError, match="is missing: run `make pipeline`"):
        model_page.write(project, "p")
    example_model.write_answers(table, CLASSES, np.arange(60) % 3, np.eye(60, 3))
    model_page.write(project, "p")


def test_answers_on_another_test_split_are_refused(project: Path) -> None:
    split = project / "data/prepared/test"
    shutil.copy(project / "data/prepared/train/images.npy", split / "images.npy")
    with pytest.raises(UserError, match="answers on 60 pictures and the test split has 120"):
        model_page.write(project, "p")
    table = project / model_page.PREDICTIONS
    example_model.write_answers(table, CLASSES, np.arange(120) % 3, np.eye(120, 3))
    model_page.write(project, "p")
