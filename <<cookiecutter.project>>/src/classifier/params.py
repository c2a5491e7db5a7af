"""`params.yaml` as frozen dataclasses: one section per stage of the pipeline."""

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from classifier.augmentation import Augmentation
from classifier.data import PrepareParams
from classifier.errors import ClassifierError

FILE = "params.yaml"

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Section = TypeVar("Section")


class ParamsError(ClassifierError):
    """params.yaml is missing, is not YAML, or holds a key or a value that no stage understands."""


@dataclass(frozen=True)
class TrainParams:
    """How a network is trained."""

    network: str
    options: dict[str, Any]
    epochs: PositiveInt
    batch_size: PositiveInt
    optimizer: Literal["adamw", "sgd", "lbfgs"]
    learning_rate: PositiveFloat
    schedule: Literal["one_cycle", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    patience: PositiveInt | None
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    threads: PositiveInt | None = None
    channels_last: bool = True
    compile: bool = False
    data_on_device: bool = True
    deterministic: bool = True


@dataclass(frozen=True)
class EvaluateParams:
    """How the figures of the test set are computed."""

    bootstrap_samples: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)]
    calibration_bins: PositiveInt


@dataclass(frozen=True)
class ExportParams:
    """What the exported graph must hold to."""

    tolerance: PositiveFloat
    golden_images: Annotated[int, Field(ge=1, le=256)]


@dataclass(frozen=True)
class Params:
    """All that the pipeline reads; `gate` and `release` belong to the delivery."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams


@dataclass(frozen=True)
class IngestParams:
    """How a batch of new images is judged; no stage reads it."""

    min_confidence: Annotated[float, Field(ge=0, lt=1)]
    judged_by: PositiveInt
    max_drift: Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class TuneParams:
    """How parameters of the section `train` are searched for; no stage reads it."""

    trials: PositiveInt
    objective: Literal["validation_loss", "validation_accuracy"]
    grace_epochs: PositiveInt
    reduction_factor: Annotated[int, Field(ge=2)]
    trials_per_gpu: PositiveInt
    space: dict[str, dict[str, Any]]  # network: parameter: a value, or a range (`space.Range`)


SECTIONS = tuple(Params.__dataclass_fields__)


def load(root: Path) -> Params:
    """Read the pipeline's sections of params.yaml.

    Raises ParamsError, which names the key, the value and what would do.
    """
    return parse({name: section for name, section in read(root).items() if name in SECTIONS})


def load_section(root: Path, name: str, kind: type[Section]) -> Section:
    """Read a section that no stage reads; raises ParamsError as `load` does."""
    content = read(root)
    if name not in content:
        raise ParamsError(f"{FILE}: the section {name!r} is missing.")
    return check(kind, content[name], name)


def read(root: Path) -> dict[str, Any]:
    """Read params.yaml as it is; raises ParamsError when it cannot be."""
    try:
        content = yaml.safe_load((root / FILE).read_text())
    except FileNotFoundError:
        raise ParamsError(
            f"{FILE} is not in {root.resolve()}: run in the project's root."
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{FILE} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{FILE} holds no sections: it needs {', '.join(SECTIONS)}.")
    return content


def write_train(root: Path, before: TrainParams, after: TrainParams) -> None:
    """Write into params.yaml what differs between two sections `train`; all else stays as it is."""
    file = YAML()
    file.preserve_quotes = True
    file.width = 1000  # no line is broken
    file.representer.add_representer(float, plain_float)
    file.representer.add_representer(type(None), plain_null)
    path = root / FILE
    text = path.read_text()
    content = file.load(text)
    overwrite(content["train"], asdict(before), asdict(after), text.splitlines())
    partial = path.with_suffix(".partial")
    with partial.open("w") as stream:
        file.dump(content, stream)
    partial.replace(path)


def overwrite(
    section: Any, before: dict[str, Any], after: dict[str, Any], lines: Sequence[str]
) -> None:
    """Change in a section of those lines what differs between two of its contents."""
    for name in before.keys() - after.keys():
        section.pop(name, None)
    for name, value in after.items():
        if name in before and before[name] == value:
            continue
        if isinstance(value, dict) and isinstance(section.get(name), dict):
            overwrite(section[name], before.get(name, {}), value, lines)
        else:
            section[name] = value
        _, _, comment, *_ = section.ca.items.get(name) or [None] * 3
        if comment and not lines[comment.start_mark.line][: comment.column].endswith("  "):
            comment.start_mark.column = 0  # no column of comments: it follows its value


def plain_float(representer: Any, number: float) -> Any:
    """A number without an exponent, which readers of YAML 1.1 would take for text."""
    text = np.format_float_positional(number, trim="0")
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def plain_null(representer: Any, _: None) -> Any:
    """A null that can be seen."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def parse(content: dict[str, Any]) -> Params:
    """Check the sections and build them; raises ParamsError on the first mistake."""
    return check(Params, content)


def check(kind: type[Section], content: Any, *place: str) -> Section:
    """Build what belongs at that place of the file; raises ParamsError on the first mistake."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        # A typo makes two mistakes, a key too many and one too few: the first explains both.
        mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] == "missing")
        raise ParamsError(sentence(mistakes[0], kind, place)) from None


def train_params(content: dict[str, Any]) -> TrainParams:
    """Build the section `train` of what a checkpoint holds."""
    return TypeAdapter(TrainParams).validate_python(content)


def sentence(mistake: Any, kind: Any = Params, place: Sequence[str] = ()) -> str:
    """Say one mistake that pydantic found in what belongs at that place."""
    path = [str(part) for part in mistake["loc"]]
    key = ".".join([*place, *path])
    if mistake["type"] == "unexpected_keyword_argument":
        known = fields_of(kind, path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
        return f"{FILE}: there is no parameter {key!r}: {hint}"
    if mistake["type"] == "missing":
        return f"{FILE}: the parameter {key!r} is missing."
    return f"{FILE}: {key} is {mistake['input']!r}: {mistake['msg'].lower()}."


def fields_of(section: Any, path: Sequence[str]) -> list[str]:
    """Names of the fields of the section at that path below another."""
    for name in path:
        section = section.__dataclass_fields__[name].type
    return list(section.__dataclass_fields__)


for section in (
    *(Params, PrepareParams, TrainParams, EvaluateParams, ExportParams),
    *(Augmentation, IngestParams, TuneParams),
):
    section.__pydantic_config__ = ConfigDict(extra="forbid", strict=False)  # type: ignore[union-attr]
