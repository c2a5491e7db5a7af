"""What is sent to an MLflow server; `benchmarks/mlflow_server.py` sends it to a real one."""

import json
import sys
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import example_model
from reporting import tracking
from workspace.errors import UserError


class Client:
    """Stands for MLflow's client: keeps what it is told."""

    def __init__(self, address: str) -> None:
        if "away" in address:
            raise ConnectionError("nobody answers")
        self.runs: dict[str, dict[str, Any]] = RUNS

    def get_experiment_by_name(self, name: str) -> None:
        self.name = name

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, experiments: list[str], text: str) -> list[Any]:
        info = [SimpleNamespace(run_name=name) for name, run in self.runs.items() if run["ended"]]
        return [SimpleNamespace(info=each) for each in info]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        self.runs[run_name] = {"params": {}, "metrics": [], "files": [], "ended": False}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_batch(self, run: str, params: Any = (), metrics: Any = ()) -> None:
        assert len(params) <= 100 and len(metrics) <= 1000
        self.runs[run]["params"] |= dict(params)
        self.runs[run]["metrics"] += [(name, value, step) for name, value, _, step in metrics]

    def log_artifact(self, run: str, path: str, folder: str | None) -> None:
        self.runs[run]["files"].append(f"{folder or ''}/{Path(path).name}")

    def set_tag(self, run: str, name: str, value: str) -> None:
        self.runs[run]["tag"] = value

    def set_terminated(self, run: str) -> None:
        self.runs[run]["ended"] = True


RUNS: dict[str, dict[str, Any]] = {}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    example_model.write(tmp_path, ["a", "b"], 20)
    (tmp_path / "artifacts/export.json").write_text('{"onnx_sha256": "feed"}')
    lineage = json.loads((tmp_path / "lineage.json").read_text())
    (tmp_path / "lineage.json").write_text(json.dumps(lineage | {"data": {"sha256": "d"}}))
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots/confusion.png").write_bytes(b"")
    return tmp_path


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    names = {"mlflow": {"MlflowClient": Client}}
    names["mlflow.entities"] = {
        "Metric": lambda *values: values,
        "Param": lambda name, value: (name, value),
    }
    for name, content in names.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")  # is put back


@pytest.mark.usefixtures("mlflow")
def test_a_model_is_sent_once_with_a_name_for_people(project: Path) -> None:
    assert tracking.send(project, "http://127.0.0.1:1").startswith("in MLflow as 20")
    ((name, run),) = RUNS.items()
    assert " cnn " in name and name.endswith(" %") and run["tag"] == "feed"
    assert run["params"]["train.network"] == "cnn"
    assert ("validation_loss", 0.2, 7) in run["metrics"]  # the lowest, at its epoch
    assert {name for name, _, step in run["metrics"] if not step} > {"test_accuracy"}
    assert {"plots/confusion.png", "/predictions.csv", "/lineage.json"} <= {*run["files"]}
    assert tracking.send(project, "http://127.0.0.1:1") == f"in MLflow already as {name}"
    assert len(RUNS) == 1


@pytest.mark.usefixtures("mlflow")
def test_a_server_that_is_away_costs_no_model(project: Path) -> None:
    with pytest.raises(UserError, match="the model is made, but not in MLflow at http://away"):
        tracking.send(project, "http://away")
    assert tracking.send(project, "http://127.0.0.1:1").startswith("in MLflow as")


def test_without_its_client_the_way_to_it_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(UserError, match="--group tracking`, or unset it"):
            tracking.send(project, "http://127.0.0.1:1")
    request.getfixturevalue("mlflow")
    assert tracking.send(project, "http://127.0.0.1:1").startswith("in MLflow as")


def test_a_runs_name_is_read_by_people() -> None:
    when = datetime(2026, 11, 26, 4, 37)
    assert tracking.run_name("resnet18", 0.98765, when) == "2026-11-26 04.37 resnet18 98.8 %"
