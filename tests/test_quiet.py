"""Nothing that a project runs tells its maker so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import workspace
from conftest import TEMPLATE, UNBAKED
from delivery.triton.server import ready_path, start
from tiny import write_repository

BACKEND = (
    TEMPLATE / "delivery/triton/onnxruntime_backend.py"
)  # Triton's, which gives it its environment
HOMES = (UNBAKED / "src", TEMPLATE)
PACKAGES = [UNBAKED / "src/classifier", *(TEMPLATE / name for name in ("delivery", "reporting"))]
IMPORTS = re.compile(r"^ *(import|from) onnxruntime", re.MULTILINE)


def users() -> list[str]:
    """The modules that import ONNX Runtime."""
    files = [(each.parent, path) for each in PACKAGES for path in each.rglob("*.py")]
    found = [each for each in files if each[1] != BACKEND and IMPORTS.search(each[1].read_text())]
    return sorted(".".join(path.relative_to(home).with_suffix("").parts) for home, path in found)


def left_by(code: str, folder: Path) -> list[str]:
    """What a program leaves in its home, where its environment says nothing."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    kept |= {"HOME": str(folder), "PYTHONPATH": os.pathsep.join(map(str, HOMES))}
    subprocess.run([sys.executable, "-c", code], env=kept, check=True)
    return [path.name for path in folder.rglob("*")]


def test_onnx_runtime_by_itself_numbers_this_machine(tmp_path: Path) -> None:
    assert "deviceid" in left_by("import onnxruntime", tmp_path)


def test_these_use_it() -> None:
    assert {"classifier.export", "reporting.latency", "delivery.model.predictions"} <= {*users()}


@pytest.mark.parametrize("module", users())
def test_it_does_not_where_ours_use_it(module: str, tmp_path: Path) -> None:
    left = left_by(f"import {module}, onnxruntime", tmp_path)
    assert "deviceid" not in left and "onnxruntime.db" not in left


def test_it_does_not_in_triton_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, home = write_repository(tmp_path / "model", version=1), tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    server = start(repository, tmp_path / "log")
    try:
        server.wait(ready_path(1), 300)
    finally:
        server.kill()
    assert "deviceid" not in [path.name for path in home.rglob("*")]


def test_what_is_set_already_stays() -> None:
    code = "import os, workspace; assert {*map(os.environ.get, workspace.QUIET)} == {'0'}"
    given = os.environ | dict.fromkeys(workspace.QUIET, "0")
    subprocess.run([sys.executable, "-c", code], env=given, cwd=TEMPLATE, check=True)


def test_the_cluster_keeps_grafana_quiet() -> None:
    chart = TEMPLATE / "argocd/platform/controllers/kube-prometheus-stack.yaml"
    grafana = yaml.safe_load(chart.read_text())["settings"]["grafana"]
    assert not any(grafana["grafana.ini"]["analytics"].values())
