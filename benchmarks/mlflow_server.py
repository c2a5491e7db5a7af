"""A real MLflow server told of a model: both from a package index, in an environment of their own.

Prints what the server has afterwards, and how long it took to tell it.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

TEMPLATE = Path(__file__).parent.parent
sys.path[:0] = [str(TEMPLATE), str(TEMPLATE / "tests/model")]
import example_model  # noqa: E402
from reporting import model_page  # noqa: E402

ENVIRONMENT = TEMPLATE / ".cache/mlflow-venv"
PACKAGE = "mlflow>=3.5"

# Runs in that environment: what is told is what `make pipeline` tells.
TELL = """
import sys, time
from pathlib import Path
root, address, template = sys.argv[1:]
sys.path.insert(0, template)
from reporting import tracking
for said in ("first", "again"):
    start = time.perf_counter()
    print(tracking.send(Path(root), address), f"({time.perf_counter() - start:.1f} s)")
"""


def main() -> None:
    """Start a server, tell it of a model twice, and ask it what it has."""
    python = environment()
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary, "photo-classifier")
        prepare(project)
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        server = start(python, Path(temporary), port)
        try:
            wait(server, address)
            command = [python, "-c", TELL, str(project), address, str(TEMPLATE)]
            subprocess.run(command, check=True, cwd=temporary)
            show(address)
        finally:
            server.terminate()
            server.wait()


def prepare(project: Path) -> None:
    """Write what the pipeline leaves of a model."""
    example_model.write(project, ["cat", "dog", "cow"], 90)
    model_page.write(project, "photo-classifier")
    (project / "artifacts/export.json").write_text('{"onnx_sha256": "feed"}')
    lineage = json.loads((project / "lineage.json").read_text())
    (project / "lineage.json").write_text(json.dumps(lineage | {"data": {"sha256": "d"}}))


def environment() -> str:
    """The Python of an environment with MLflow, made unless it is there."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run(
            [*uv, "venv", "--quiet", "--python", sys.executable, ENVIRONMENT], check=True
        )
        packages = [PACKAGE, "filelock", "pydantic", "pyyaml"]
        subprocess.run(
            [*uv, "pip", "install", "--quiet", "--python", python, *packages], check=True
        )
    return str(python)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def start(python: str, folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server on loopback, with all that it keeps in a folder."""
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    artifacts = ["--artifacts-destination", str(folder / "artifacts")]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [python, "-m", "mlflow", "server", *store, *artifacts, *where]
    log = (folder / "server.log").open("wb")
    return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=dict(os.environ))


def wait(server: subprocess.Popen[bytes], address: str) -> None:
    """Wait until the server answers."""
    for _ in range(1500):
        try:
            if requests.get(f"{address}/health", timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
        if server.poll() is not None:
            raise SystemExit(f"the server ended with status {server.returncode}")
    raise SystemExit("the server does not answer")


def show(address: str) -> None:
    """Print what the server has, and fail if it is not what was told."""
    api = f"{address}/api/2.0/mlflow"
    found = requests.get(
        f"{api}/experiments/get-by-name", {"experiment_name": "photo-classifier"}, timeout=10
    ).json()["experiment"]["experiment_id"]
    (run,) = requests.post(
        f"{api}/runs/search", json={"experiment_ids": [found]}, timeout=10
    ).json()["runs"]
    identity = {"run_id": run["info"]["run_id"]}
    curve = requests.get(
        f"{api}/metrics/get-history", identity | {"metric_key": "validation_loss"}, timeout=10
    ).json()["metrics"]
    files = requests.get(f"{api}/artifacts/list", identity, timeout=10).json()["files"]
    names = sorted(each["path"] for each in files)
    print(run["info"]["run_name"], run["info"]["status"], len(run["data"]["params"]), "parameters")
    print(len(curve), "epochs;", ", ".join(names))
    assert run["info"]["status"] == "FINISHED" and len(curve) == 12 and "report.html" in names


if __name__ == "__main__":
    main()
