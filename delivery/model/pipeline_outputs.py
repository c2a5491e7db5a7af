"""What the pipeline wrote: the only things that the delivery knows of a model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from delivery.errors import DeliveryError
from workspace.settings import Settings, SettingsError, check, parse_json, read_json

Kind = TypeVar("Kind")

MODEL = Path("artifacts/model")
IN_IMAGE = Path("classifier/about")  # where the files of ABOUT are in an image
ABOUT = {  # name in the image → file of the pipeline
    "metrics.json": Path("metrics.json"),
    "lineage.json": Path("lineage.json"),
    "export.json": Path("artifacts/export.json"),
    "report.json": Path("data/prepared/report.json"),
    "MODEL_CARD.md": Path("MODEL_CARD.md"),
}
# Answers to all test pictures; what earlier versions of this repository made has none.
PREDICTIONS = {"predictions.csv": Path("artifacts/predictions.csv")}
# How held-out pictures and the answers to them look; again, earlier models have none.
BEHAVIOUR = {"behaviour.json": Path("artifacts/behaviour.json")}
PLOTS = [  # of the pipeline; `make ingest` and `make tune` draw others beside them
    Path(f"plots/{name}.png")
    for name in ("data", "learning_curves", "confusion", "per_class", "reliability", "predictions")
]
REQUIRED = [
    MODEL / "classifier/config.pbtxt",
    MODEL / "classifier/labels.txt",
    MODEL / "classifier/golden.npz",
    MODEL / "classifier/1/model.onnx",
    *ABOUT.values(),
]


class Document(Settings, extra="allow"):
    """A part of a file of the pipeline: what the delivery reads has a name, the rest is kept."""


class Metrics(Document):
    """metrics.json; whether its figures are numbers, and good ones, is for the gate to say."""

    accuracy: Any
    macro_f1: Any
    calibration_error: Any
    loss: Any
    support: Any
    intervals: dict[str, Any] = Field(default_factory=dict)


class Hashed(Document):
    """A data set or code, by its hash."""

    sha256: str


class Data(Hashed):
    """What a model was trained and tested with."""

    test_sha256: str


class Trained(Document):
    """On what the training ran."""

    devices: int = 1
    nodes: int = 1
    threads: int | None = None  # of each worker; not noted by older templates


class Lineage(Document):
    """lineage.json: what a model was made from."""

    data: Data
    code: Hashed
    params: dict[str, Any]
    trained: Trained = Trained()


class Lowered(Document):
    """How a graph in fewer bits answers beside that in 32, on the whole test set."""

    flips: Any
    accuracy: Any
    accuracy_fp32: Any
    interval: tuple[Any, Any]
    max_accuracy_loss: Any
    passed: Any = None


class Export(Document):
    """export.json: whether ONNX Runtime answers as torch does, and fewer bits as 32 do."""

    onnx_sha256: str
    passed: Any = None
    max_abs_difference: Any = None
    tolerance: Any = None
    argmax_equal: Any = None
    images: Any = None
    precision: str = "fp32"
    against_fp32: Lowered | None = None


class Splits(Document):
    """The parts of a data set."""

    test: Hashed


class Report(Document):
    """report.json: what the checks of the data found."""

    sha256: str
    splits: Splits
    passed: Any = None
    checks: tuple[dict[str, Any], ...] = ()


class ModelAccount(Settings):
    """The pipeline's own account of a model: figures, lineage, export parity, data report."""

    metrics: Metrics
    lineage: Lineage
    export: Export
    report: Report


def require_outputs(root: Path) -> None:
    """Raise DeliveryError when any file of a packaged model is absent."""
    missing = [str(path) for path in REQUIRED if not (root / path).is_file()]
    if missing:
        raise DeliveryError(
            f"the pipeline has not written {', '.join(missing)}: run `make pipeline`"
        )


def read_outputs(root: Path) -> ModelAccount:
    """Read what the pipeline says of the model in `root`. Raises DeliveryError."""
    require_outputs(root)
    try:
        return read_account(root, ABOUT)
    except SettingsError as error:
        raise DeliveryError(f"{error}: run `make pipeline`") from None


def read_packaged(folder: Path) -> ModelAccount:
    """Read what the image in a folder says of its model. Raises DeliveryError."""
    try:
        return read_account(folder, {name: IN_IMAGE / name for name in ABOUT})
    except (SettingsError, OSError) as error:
        raise DeliveryError(
            f"the image's own account of the model cannot be read ({error}): package it again"
        ) from None


def read_report(root: Path) -> Report:
    """Read what the pipeline says of the data that lie in `root`. Raises SettingsError."""
    path = ABOUT["report.json"]
    return check(Report, read_json(root / path), str(path))


def read_account(folder: Path, files: Mapping[str, Path]) -> ModelAccount:
    """Read an account from files below a folder, `name → path`. Raises SettingsError, OSError."""

    def read(kind: type[Kind], name: str) -> Kind:
        path = files[name]
        return check(kind, parse_json((folder / path).read_bytes(), str(path)), str(path))

    return ModelAccount(
        metrics=read(Metrics, "metrics.json"),
        lineage=read(Lineage, "lineage.json"),
        export=read(Export, "export.json"),
        report=read(Report, "report.json"),
    )


def leaves(document: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Give every value in nested objects and lists with its place: `("params.epochs", 40)`."""
    match document:
        case dict():
            parts = list(document.items())
        case list() | tuple():
            parts = list(enumerate(document))
        case _:
            yield place.removeprefix("."), document
            return
    for key, value in parts:
        yield from leaves(value, f"{place}.{key}")
