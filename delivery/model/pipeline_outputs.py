"""What the pipeline wrote: the only things that the delivery knows of a model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError

MODEL = Path("artifacts/model")
ABOUT = {  # name in the image → file of the pipeline
    "metrics.json": Path("metrics.json"),
    "lineage.json": Path("lineage.json"),
    "export.json": Path("artifacts/export.json"),
    "report.json": Path("data/prepared/report.json"),
    "MODEL_CARD.md": Path("MODEL_CARD.md"),
}
PLOTS = [  # of the pipeline; `make ingest` and `make tune` draw others beside them
    Path("plots/data.png"),
    Path("plots/learning_curves.png"),
    Path("plots/confusion.png"),
    Path("plots/per_class.png"),
    Path("plots/reliability.png"),
    Path("plots/predictions.png"),
]
REQUIRED = [
    MODEL / "classifier/config.pbtxt",
    MODEL / "classifier/labels.txt",
    MODEL / "classifier/golden.npz",
    MODEL / "classifier/1/model.onnx",
    *ABOUT.values(),
]
NEEDED = {  # what the delivery reads, by file
    "metrics.json": ["accuracy", "macro_f1", "calibration_error", "loss", "support"],
    "lineage.json": ["data.sha256", "data.test_sha256", "code.sha256", "params"],
    "export.json": ["onnx_sha256"],
    "report.json": ["sha256", "splits.test.sha256"],
}


class MissingOutputError(DeliveryError):
    """The pipeline has not run to its end."""


class UnreadableOutputError(DeliveryError):
    """A file of the pipeline is not what it should be."""


@dataclass(frozen=True)
class Outputs:
    """The pipeline's own account of a model: figures, lineage, export parity, data report."""

    metrics: dict[str, Any]
    lineage: dict[str, Any]
    export: dict[str, Any]
    report: dict[str, Any]


def require_outputs(root: Path) -> None:
    """Raise MissingOutputError when any file of a packaged model is absent."""
    missing = [str(path) for path in REQUIRED if not (root / path).is_file()]
    if missing:
        raise MissingOutputError(
            f"the pipeline has not written {', '.join(missing)}: run `make pipeline`"
        )


def read_outputs(root: Path) -> Outputs:
    """Read the pipeline's account; raises MissingOutputError and UnreadableOutputError."""
    require_outputs(root)
    return Outputs(*(_read(root, ABOUT[name], needed) for name, needed in NEEDED.items()))


def _read(root: Path, path: Path, needed: list[str]) -> dict[str, Any]:
    try:
        document = json.loads((root / path).read_text())
    except ValueError as error:
        raise UnreadableOutputError(f"{path} is not JSON ({error}): run `make pipeline`") from error
    for place in needed:
        if not _has(document, place.split(".")):
            raise UnreadableOutputError(f"{path} lacks {place}: run `make pipeline`")
    return document


def _has(document: Any, keys: list[str]) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
