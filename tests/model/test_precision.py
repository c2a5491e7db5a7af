"""Exports in fewer bits: what they are, what they lose, and that their bytes stay the same."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from small_project import fixed, prepared_project

from classifier import data, evaluation, export, params, precision, training
from classifier.model import load_model
from classifier.params import Params
from delivery.model import golden
from delivery.model.pipeline_outputs import read_outputs
from delivery.proposals.gate import failed_checks, lowered
from delivery.triton.client import connect
from delivery.triton.server import ready_path, start
from workspace.errors import UserError

GRAPH = Path("artifacts/model/classifier/1/model.onnx")
LOWERED = {"fp16": "FLOAT16", "int8": "INT8"}  # and the type that its weights have


@pytest.fixture(scope="module")
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> Path:
    """A project before its export."""
    folder = prepared_project(tmp_path_factory.mktemp("project"))
    training.train(settings, folder)
    evaluation.evaluate(settings, folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def graph(trained: Path) -> Iterator[bytes]:
    """The graph in 32 bits, which takes torch seconds, once for all exports."""
    model = load_model(trained / training.CHECKPOINT).eval()
    content = export.to_onnx(export.Served(model), model.shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "to_onnx", lambda *_: content)
        yield content


def exported(settings: Params, folder: Path, **changes: Any) -> dict[str, Any]:
    """Export with other parameters; return the report."""
    values = settings.export.model_copy(update={"max_accuracy_loss": 0.5} | changes)
    export.export(settings.model_copy(update={"export": values}), folder)
    return json.loads((folder / "artifacts/export.json").read_text())


@pytest.mark.parametrize("bits", LOWERED)
def test_fewer_bits_answer_as_the_report_says_and_as_triton_serves_them(
    bits: str, trained: Path, settings: Params, tmp_path: Path
) -> None:
    folder = tmp_path / "project"
    shutil.copytree(trained, folder, symlinks=True)
    report = exported(settings, folder, precision=bits)
    found = report["against_fp32"]
    assert report["passed"] and report["precision"] == bits and found["passed"]

    content = (folder / GRAPH).read_bytes()
    assert report["onnx_sha256"] == hashlib.sha256(content).hexdigest()
    made = onnx.load_from_string(content).graph
    (pixels,), (answer,) = made.input, made.output
    assert pixels.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert answer.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    types = {onnx.TensorProto.DataType.Name(each.data_type) for each in made.initializer}
    assert LOWERED[bits] in types
    if bits == "int8":
        zeros = [node.input[2] for node in made.node if node.op_type == "QuantizeLinear"]
        kinds = {each.name: each.data_type for each in made.initializer}
        assert {kinds[name] for name in zeros} == {onnx.TensorProto.UINT8}

    test = data.load_split(folder, "test")
    session = onnxruntime.InferenceSession(content)
    (answers,) = session.run(None, {"image": test.images})
    right = answers.argmax(1) == test.labels
    assert found["accuracy"] == right.mean()
    assert found["newly_right"] - found["newly_wrong"] == round(
        33 * (found["accuracy"] - found["accuracy_fp32"])
    )
    recorded = golden.load(folder / GRAPH.parent.parent / "golden.npz")
    (own,) = session.run(None, {"image": recorded.images})
    assert np.abs(own - recorded.probabilities).max() < 1e-6
    assert recorded.tolerance == precision.TOLERANCE[bits]
    told = f"{bits} gives another class to {found['flips']} of 33 test pictures than fp32"
    assert told in (folder / "MODEL_CARD.md").read_text()

    server = start(folder / "artifacts/model", tmp_path / "triton.log")
    try:
        server.wait(ready_path(1), 300)
        with connect("http", server.ports) as client:
            for batch in (1, 7, 32):
                assert golden.compare(client, recorded, batch).passed
    finally:
        server.kill()


def test_the_same_model_gives_the_same_bytes_in_another_process(
    trained: Path, graph: bytes, tmp_path: Path
) -> None:
    (tmp_path / "fp32.onnx").write_bytes(graph)
    script = (
        "import sys, onnx; from pathlib import Path; from classifier import data, precision\n"
        "split = data.open_split(Path(sys.argv[2]))\n"
        "for bits in ('fp16', 'int8'):\n"
        "    lowered = precision.lower(onnx.load(sys.argv[1]), bits, split, 40)\n"
        "    sys.stdout.buffer.write(lowered.SerializeToString(deterministic=True))\n"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "fp32.onnx", trained / "data/prepared/train"],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(trained / "src")},
            capture_output=True,
        )
        for seed in ("1", "2")
    ]
    assert made[0].stdout == made[1].stdout != b"", made[0].stderr
    assert not made[0].stderr, "nothing is said to whoever exports"
    assert tempfile.gettempdir().encode() not in made[0].stdout


def test_what_loses_too_much_is_refused_and_fp32_is_not(
    trained: Path, settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "to_int8", lambda graph, *_: without_weights(graph))
    with pytest.raises(UserError, match=r"set export\.precision to fp32") as refusal:
        exported(settings, trained, precision="int8", max_accuracy_loss=0.1)
    report = json.loads((trained / "artifacts/export.json").read_text())
    found = report["against_fp32"]
    assert not report["passed"] and found["flips"] > 10 and found["interval"][0] < -0.1
    assert f"int8 gives another class to {found['flips']} of 33 test" in str(refusal.value)
    assert not (trained / "artifacts/model").exists()
    report = exported(settings, trained, precision="fp32")
    assert report["passed"] and "against_fp32" not in report


def without_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with weights of nothing, so that it gives all pictures one class."""
    for each in graph.graph.initializer:
        if len(each.dims) == 4:
            zeros = np.zeros(each.dims, np.float32)
            each.CopyFrom(onnx.numpy_helper.from_array(zeros, each.name))
    return graph


def test_figures_of_known_answers() -> None:
    full = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)
    lowered = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.1, 0.9]], np.float32)
    found = precision.compare(full, lowered, np.array([0, 0, 1, 1]), 0.95, 0.02)
    assert (found["flips"], found["newly_wrong"], found["newly_right"]) == (2, 1, 1)
    assert found["accuracy"] == found["accuracy_fp32"] == 0.75
    assert found["max_abs_difference"] == pytest.approx(0.5)
    assert not found["passed"]  # four pictures show nothing
    lowered[0] = np.nan
    assert not precision.compare(full, lowered, np.array([0, 0, 1, 1]), 0.95, 0.999)["passed"]


def test_the_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    random, held = np.random.default_rng(0), []
    for _ in range(1000):
        cells = random.choice(4, 300, p=[0.90, 0.04, 0.02, 0.04])  # both, before, after, none
        before, after = cells < 2, (cells == 0) | (cells == 2)
        low, high = precision.paired_interval(before, after, 0.95)
        held.append(low <= -0.02 <= high)
    assert 0.93 <= np.mean(held) <= 0.98


def test_more_pictures_narrow_the_interval_and_none_that_change_leave_one() -> None:
    same = np.arange(100) > 4
    low, high = precision.paired_interval(same, same, 0.95)
    assert low == pytest.approx(-high) and low < 0
    more = np.tile(same, 20)
    assert precision.paired_interval(more, more, 0.95)[0] > low / 5


def test_golden_requests_are_those_that_no_rounding_decides(tmp_path: Path) -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    answers = np.array([[0.9, 0.1], [0.52, 0.48], [0.2, 0.8], [0.5, 0.5], [0.7, 0.3], [0, 1]], "f4")
    split = data.Split(images, np.zeros(6, np.int64))
    export.write_golden(tmp_path / "golden.npz", split, answers, 64, 0.05)
    assert golden.load(tmp_path / "golden.npz").images.ravel().tolist() == [0, 2, 4, 5]


def test_the_gate_says_what_fewer_bits_cost(trained: Path, settings: Params) -> None:
    exported(settings, trained, precision="int8")
    account = read_outputs(trained)
    found = account.export.against_fp32
    assert found and not list(failed_checks(account))
    said = f"int8 gives another class to {found.flips} of 33 test pictures than fp32, accuracy "
    assert lowered(account.export).startswith(said)
    worse = account.export.model_copy(
        update={"passed": False, "against_fp32": found.model_copy(update={"passed": False})}
    )
    (sentence,) = failed_checks(account.model_copy(update={"export": worse}))
    assert said in sentence and sentence.endswith(
        "and export.max_accuracy_loss is 0.5; set export.precision to fp32 in params.yaml and run "
        "`make pipeline`"
    )
    exported(settings, trained, precision="fp32")  # as it says
    account = read_outputs(trained)
    assert not list(failed_checks(account)) and not lowered(account.export)
