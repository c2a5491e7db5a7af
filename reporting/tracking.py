"""A model in a team's MLflow: parameters, curves, figures, page and pictures, once for each model.

What is sent are files that the pipeline wrote, so that a server that is away costs no training.
"""

import csv
import io
import math
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from workspace.errors import UserError, sentence
from workspace.settings import read_json, read_text

TOGETHER = 100  # parameters in one request; MLflow takes so many
TAG = "onnx_sha256"
ARTIFACTS = ("artifacts/report.html", "artifacts/predictions.csv", "MODEL_CARD.md", "lineage.json")


def send(root: Path, address: str) -> str:
    """Send the model that is here to a server, unless it is there; return what became of it.

    The experiment is called as the project's folder.

    Raises UserError: there is no client, or the server does not take it.
    """
    try:
        import mlflow
    except ImportError:
        raise UserError(
            "MLFLOW_TRACKING_URI is set, but its client is not installed: run `.venv/bin/uv pip "
            "install --python .venv/bin/python --constraint constraints.txt --group tracking`, or "
            "unset it"
        ) from None
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "2"  # seven take minutes
    try:
        client = mlflow.MlflowClient(address)
        return _send(client, root)
    except Exception as error:  # of the client, anything
        raise UserError(
            f"the model is made, but not in MLflow at {address} ({sentence(error)}): run `make "
            "pipeline` again when that is put right"
        ) from None


def _send(client: Any, root: Path) -> str:
    project = root.resolve().name
    known = client.get_experiment_by_name(project)
    experiment = known.experiment_id if known else client.create_experiment(project)
    digest = read_json(root / "artifacts/export.json")["onnx_sha256"]
    if there := client.search_runs([experiment], f"tags.{TAG} = '{digest}'"):
        return f"in MLflow already as {there[0].info.run_name}"
    lineage, metrics = read_json(root / "lineage.json"), read_json(root / "metrics.json")
    name = run_name(lineage["params"]["train"]["network"], metrics["accuracy"], datetime.now())
    tags = {"data": lineage["data"]["sha256"], "code": lineage["code"]["sha256"]}
    run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    log_figures(client, run, lineage["params"], curves(root), figures(metrics))
    for path in sorted([*(root / "plots").glob("*.png"), *(root / each for each in ARTIFACTS)]):
        if path.is_file():
            client.log_artifact(run, str(path), path.parent.name if path.suffix == ".png" else None)
    client.set_tag(run, TAG, digest)  # last: a run that was cut off is sent again
    client.set_terminated(run)
    return f"in MLflow as {name}"


def run_name(network: str, accuracy: float, when: datetime) -> str:
    """A name that a person can read: date, network, accuracy."""
    return f"{when:%Y-%m-%d %H.%M} {network} {100 * accuracy:.1f} %"


def log_figures(
    client: Any,
    run: str,
    params: Mapping[str, Any],
    history: list[tuple[str, float, int]],
    last: Mapping[str, float],
) -> None:
    """Log parameters, figures of each epoch, and those of the test set."""
    from mlflow.entities import Metric, Param

    now = int(1000 * time.time())
    values = [Param(name, str(value)[:500]) for name, value in flat(params)]
    for start in range(0, len(values), TOGETHER):
        client.log_batch(run, params=values[start : start + TOGETHER])
    told = [*history, *((name, value, 0) for name, value in last.items())]
    for start in range(0, len(told), TOGETHER):
        some = [Metric(name, value, now, step) for name, value, step in told[start:][:TOGETHER]]
        client.log_batch(run, metrics=some)


def flat(params: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every parameter with its place, such as `train.learning_rate`."""
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value


def curves(root: Path) -> list[tuple[str, float, int]]:
    """Figures of the epochs: name, value, epoch; what is no number is left out."""
    rows = csv.DictReader(io.StringIO(read_text(root / "artifacts/history.csv")))
    told = [
        (name, float(value), int(row["epoch"]))
        for row in rows
        for name, value in row.items()
        if name != "epoch" and value
    ]
    return [each for each in told if math.isfinite(each[1])]


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The figures of the test set."""
    return {
        f"test_{name}": float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float)
    }
