"""Evaluation and export: figures, a graph that answers as torch does, and its papers."""

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from small_project import CLASSES, OWN_NETWORKS, change, prepared_project

from classifier import data, evaluation, export, training
from classifier.augmentation import Augmentation
from classifier.params import EvaluateParams, Params
from reporting import model_card
from workspace import behaviour
from workspace.errors import UserError
from workspace.model_code import code_sha256

PLOTS = {"learning_curves", "confusion", "per_class", "reliability", "predictions"}
SETTINGS = EvaluateParams(bootstrap_samples=500, confidence=0.95, calibration_bins=10)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> Path:
    """A project after the whole pipeline."""
    folder = prepared_project(tmp_path_factory.mktemp("project"))
    training.train(settings, folder)
    evaluation.evaluate(settings, folder)
    export.export(settings, folder)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_figures_of_known_answers() -> None:
    probabilities = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    labels = torch.tensor([0, 0, 1, 1])
    figures = evaluation.figures(probabilities, labels, ["a", "b"], SETTINGS)
    assert figures["accuracy"] == 0.75
    assert figures["per_class"]["a"] == {
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "f1": pytest.approx(0.8),
        "support": 2,
    }
    assert figures["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert figures["loss"] == pytest.approx(-np.log([0.8, 0.6, 0.7, 0.1]).mean(), rel=1e-5)
    # Each answer has a bin of its own here: the error is the mean of |right − confidence|.
    assert figures["calibration_error"] == pytest.approx((0.2 + 0.4 + 0.3 + 0.9) / 4, abs=1e-6)


def test_intervals_hold_the_figure_and_narrow_with_more_images() -> None:
    few = evaluation.intervals(np.array([[45, 5], [5, 45]]), SETTINGS, seed=0)["accuracy"]
    many = evaluation.intervals(np.array([[4500, 500], [500, 4500]]), SETTINGS, seed=0)["accuracy"]
    assert few[0] < 0.9 < few[1] and many[0] < 0.9 < many[1]
    # The binomial standard error, sqrt(0.9 · 0.1 / 100), times 2 · 1.96.
    assert few[1] - few[0] == pytest.approx(0.1176, rel=0.2)
    assert many[1] - many[0] < 0.2 * (few[1] - few[0])


def test_a_class_that_a_draw_lacks_is_no_mistake() -> None:
    """Of the last class are two pictures, which one draw in eight leaves out."""
    faultless = np.diag([12, 12, 2])
    assert evaluation.intervals(faultless, SETTINGS, seed=0)["macro_f1"] == [1.0, 1.0]


def test_evaluation_writes_metrics_and_plots(exported: Path) -> None:
    metrics = read(exported / "metrics.json")
    assert metrics["support"] == 33 and list(metrics["per_class"]) == CLASSES
    assert metrics["intervals"]["accuracy"][0] <= metrics["accuracy"]
    plots = {path.stem for path in (exported / "plots").glob("*.png")}
    assert plots == PLOTS


def test_evaluation_writes_the_answer_on_every_test_picture(exported: Path) -> None:
    with (exported / "artifacts/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    split = data.load_split(exported, "test")
    assert [row["label"] for row in rows] == [CLASSES[label] for label in split.labels]
    assert [row["file"] for row in rows] == [picture.file for picture in split.pictures()]
    right = [row["label"] == row["predicted"] for row in rows]
    assert sum(right) / len(rows) == pytest.approx(read(exported / "metrics.json")["accuracy"])
    for row in rows:
        shares = {name: float(row[f"p_{name}"]) for name in CLASSES}
        assert row["predicted"] == max(shares, key=lambda name: shares[name])
        assert float(row["confidence"]) == max(shares.values())
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)


def test_the_model_repository_is_complete(exported: Path) -> None:
    folder = exported / "artifacts/model"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    names = ("config.pbtxt", "labels.txt", "golden.npz", "1/model.onnx")
    assert files == {f"classifier/{name}" for name in names}
    assert (folder / "classifier/labels.txt").read_text().split() == CLASSES
    golden = np.load(folder / "classifier/golden.npz")
    session = onnxruntime.InferenceSession(folder / "classifier/1/model.onnx")
    answers = session.run(None, {"image": golden["images"]})[0]
    np.testing.assert_allclose(answers, golden["probabilities"], atol=1e-4)
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-5)
    assert read(exported / "artifacts/export.json")["passed"] is True


def test_evaluation_counts_how_held_out_pictures_and_their_answers_look(exported: Path) -> None:
    said = read(exported / "artifacts/behaviour.json")
    splits = [data.load_split(exported, name) for name in ("validation", "test")]
    images = np.concatenate([split.images for split in splits])
    session = onnxruntime.InferenceSession(exported / "artifacts/model/classifier/1/model.onnx")
    (answers,) = session.run(None, {"image": images})
    seen = behaviour.counts(behaviour.figures(images, answers), said["features"])
    counted = {name: feature["counts"] for name, feature in said["features"].items()}
    assert {name: each.tolist() for name, each in seen.items()} == counted
    assert said["features"]["class"]["bins"] == CLASSES
    assert (said["pictures"], said["labelled"]) == (len(images), len(splits[0].labels))


# Networks of one's own may learn more slowly; all must go through evaluation and export.
SHIPPED = [
    *("linear_regression", "logistic_regression", "linear_svm", "kernel_svm"),
    *("mlp", "cnn", "resnet18"),
]


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_every_network_learns_and_exports(
    name: str, root: Path, settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "plots", Mock())  # drawn once is enough
    few = {"resnet18": 3}  # learns fast, and takes its time
    fast = {"epochs": few.get(name, 8), "learning_rate": 0.003, "augmentation": Augmentation()}
    values = change(settings, network=name, options={}, **fast)
    training.train(values, root)
    evaluation.evaluate(values, root)
    export.export(values, root)
    assert read(root / "metrics.json")["accuracy"] > (0.9 if name in SHIPPED else 0.0)
    report = read(root / "artifacts/export.json")
    assert report["images"] == report["argmax_equal"] == 33
    graph = onnx.load(root / "artifacts/model/classifier/1/model.onnx")
    (pixels,), (answer,) = graph.graph.input, graph.graph.output
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    dims = [d.dim_param or d.dim_value for d in pixels.type.tensor_type.shape.dim]
    assert dims[1:] == [12, 10, 3] and isinstance(dims[0], str)
    assert answer.name == "probabilities"


def test_exporting_again_elsewhere_gives_the_same_bytes_without_a_path_of_the_machine(
    exported: Path, settings: Params, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    export.export(settings, other)
    graph = Path("artifacts/model/classifier/1/model.onnx")
    content = (other / graph).read_bytes()
    assert content == (exported / graph).read_bytes()
    assert b".py" not in content and str(Path.cwd()).encode() not in content


def test_a_graph_that_answers_differently_is_refused(
    exported: Path, settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(exported, folder)
    scores_of = export.scores_of
    with monkeypatch.context() as other:
        other.setattr(export, "scores_of", lambda *a: (scores_of(*a)[0].flip(1), scores_of(*a)[1]))
        with pytest.raises(UserError, match="test pictures get another class; look for an oper"):
            export.export(settings, folder)
    assert not (folder / "artifacts/model").exists()
    assert read(folder / "artifacts/export.json")["passed"] is False
    export.export(settings, folder)  # with an operation that has the same precision there
    assert read(folder / "artifacts/export.json")["passed"] is True


def test_a_graph_that_answers_nan_is_refused() -> None:
    report = {"passed": False, "max_abs_difference": float("nan"), "tolerance": 1e-4}
    with pytest.raises(UserError, match="nan"):
        export.refuse_unless_passed(report | {"images": 3, "argmax_equal": 0})


def test_the_papers_tell_where_the_model_comes_from(exported: Path) -> None:
    papers = read(exported / "lineage.json")
    assert papers["data"] == {
        "source": "digits",
        "sha256": "sha256 of all",
        "test_sha256": "sha256 of test",
    }
    assert papers["params"]["train"]["epochs"] == 3 and papers["seed"] == 42
    assert papers["code"]["sha256"] == code_sha256(exported)
    text = (exported / "MODEL_CARD.md").read_text()
    matter = yaml.safe_load(text.split("---\n")[1])
    accuracy = read(exported / "metrics.json")["accuracy"]
    (result,) = matter["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(accuracy, abs=1e-6)
    assert "sha256 of all" in text


def test_the_model_card_says_how_to_call_this_very_model(exported: Path) -> None:
    text = (exported / "MODEL_CARD.md").read_text()
    assert "| input | `image` | UINT8 | [batch, 12, 10, 3]: height, width, red, green and" in text
    assert "| output | `probabilities` | FP32 | [batch, 3]" in text
    assert all(f"| {index} | {name} |" in text for index, name in enumerate(CLASSES))
    assert "stretched to 12 × 10 pixels" in text
    plots = re.findall(r"!\[.*\]\((.*)\)", text)
    assert set(plots) == {"plots/data.png", *(f"plots/{name}.png" for name in PLOTS)}


@pytest.mark.parametrize(("white", "told"), [(65535, "does all that,"), (4095, "`--white=4095`,")])
def test_the_model_card_says_what_is_white(white: int, told: str) -> None:
    text = model_card.usage({"height": 12, "width": 10, "channels": 3}, CLASSES, white)
    assert f"16 bits of grey become 8, so that {white} becomes 255" in text and told in text


def test_the_model_cards_examples_make_requests_of_the_models_shape(exported: Path) -> None:
    text = (exported / "MODEL_CARD.md").read_text()
    shell, python = re.findall(r"```(?:sh|python)\n(.*?)```", text, re.DOTALL)
    made = subprocess.run(shell.split("|")[0], shell=True, capture_output=True, check=True).stdout
    (image,) = json.loads(made)["inputs"]
    assert image["shape"] == [1, 12, 10, 3] and len(image["data"]) == 12 * 10 * 3
    picture = exported / "picture.png"
    Image.new("RGBA", (30, 20)).save(picture)
    sent: list[np.ndarray] = []
    library = SimpleNamespace(
        InferInput=FakeInput, InferenceServerClient=lambda _: FakeServer(sent)
    )
    lines = python.replace("import tritonclient.http as triton\n", "").replace(
        "picture.png", str(picture)
    )
    exec(lines, {"triton": library})
    assert sent[0].shape == (1, 12, 10, 3) and sent[0].dtype == np.uint8


class FakeInput:
    """As much of Triton's client as the example uses."""

    def __init__(self, name: str, shape: list[int], datatype: str) -> None:
        assert (name, shape, datatype) == ("image", [1, 12, 10, 3], "UINT8")

    def set_data_from_numpy(self, pixels: np.ndarray) -> None:
        self.pixels = pixels


class FakeServer:
    """Answers with even probabilities, and keeps what was sent."""

    def __init__(self, sent: list[np.ndarray]) -> None:
        self.sent = sent

    def infer(self, model: str, inputs: list[FakeInput]) -> SimpleNamespace:
        assert model == "classifier"
        self.sent += [each.pixels for each in inputs]
        return SimpleNamespace(as_numpy=lambda name: np.full((1, 3), 1 / 3))


def test_an_unprepared_project_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make pipeline"):
        data.load_split(tmp_path, "train")
