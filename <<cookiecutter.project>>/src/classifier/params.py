"""`params.yaml` as settings: one section for each stage of the pipeline, and those of two commands.

The file states units and reasons; the descriptions here are what a mistake is answered with.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationInfo, field_validator

from classifier.augmentation import Augmentation
from workspace import settings
from workspace.pictures import MAX_PIXELS, PILLOWS_LIMIT, WHITE
from workspace.settings import Settings, SettingsError

FILE = "params.yaml"

Kind = TypeVar("Kind")


def number(wanted: str, example: float, **limits: Any) -> Any:
    """A field for a number: within limits as pydantic names them, and how to say them."""
    return Field(description=wanted, examples=[example], **limits)


LONGEST = 4096  # pixels of a side: 50 MB a picture, and several are in memory at once
Side = Annotated[int, Field(ge=1, le=LONGEST)]
Count = Annotated[int, number("a whole number from 1", 20, ge=1)]
Above0 = Annotated[float, number("a number above 0", 0.01, gt=0)]
From0 = Annotated[float, number("a number from 0", 0.1, ge=0)]
Share = Annotated[float, number("a share from 0 to below 1", 0.1, ge=0, lt=1)]


class PrepareParams(Settings):
    """Where the pictures come from, and how they are cleaned and split."""

    source: Literal["digits", "cifar10", "folder"]
    folder: str | None = Field(
        description="the folder of your pictures, as source is folder", examples=["data/raw"]
    )
    official_test: str | None = Field(
        None,
        description="null, or for source folder the name of a sub-folder of the class folders",
        examples=["test"],
    )
    image_size: tuple[Side, Side] | None = Field(
        description=f"null or [height, width] in pixels, each from 1 to {LONGEST}",
        examples=[[96, 96]],
    )
    channels: Literal[1, 3] | None = Field(description="null, 1 (grey) or 3 (colour)")
    validation_share: float = number("a share above 0 and below 1", 0.1, gt=0, lt=1)
    test_share: float = number(
        "a share above 0 that leaves training data beside validation_share", 0.2, gt=0, lt=1
    )
    near_duplicate_rms: float = number("0 to 255 grey levels", 2.0, ge=0, lt=256)
    max_pixels: int = number(
        f"a whole number from 1 to {PILLOWS_LIMIT:_}",
        MAX_PIXELS,
        ge=1,
        le=PILLOWS_LIMIT,
        default=MAX_PIXELS,
    )
    white: int = number(f"a whole number from 1 to {WHITE}", 4095, ge=1, le=WHITE, default=WHITE)
    max_unreadable_share: Share
    max_class_ratio: float = number("a number from 1", 20, ge=1)

    @field_validator("folder")
    @classmethod
    def _is_there_if_needed(cls, folder: str | None, known: ValidationInfo) -> str | None:
        if known.data.get("source") == "folder" and not folder:
            raise ValueError
        return folder

    @field_validator("official_test")
    @classmethod
    def _is_a_folder_of_a_folder(cls, name: str | None, known: ValidationInfo) -> str | None:
        if name is not None and (known.data.get("source") != "folder" or not name.strip("./")):
            raise ValueError
        return name

    @field_validator("test_share")
    @classmethod
    def _leaves_training_data(cls, share: float, known: ValidationInfo) -> float:
        if share + known.data.get("validation_share", 0) >= 1:
            raise ValueError
        return share


class TrainParams(Settings):
    """How a network is trained."""

    network: str
    options: dict[str, Any] = Field(
        description="options of the network, or {}", examples=[{"width": 32}]
    )
    epochs: Count
    batch_size: Count
    optimizer: Literal["adamw", "sgd", "lbfgs"]
    learning_rate: Above0
    schedule: Literal["one_cycle", "constant"]
    weight_decay: From0
    patience: Count | None = Field(description="null or a whole number from 1", examples=[10])
    augmentation: Augmentation = Augmentation()
    class_weights: bool = False
    label_smoothing: Share = 0.0
    ema: Share = 0.0
    pretrained: bool = False
    weights: str | None = Field(
        None, description="null, a file or an address", examples=["weights/resnet18.pth"]
    )
    weights_sha256: str | None = Field(
        None,
        description="null or 64 digits from 0 to f",
        examples=["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
        pattern="^[0-9a-f]{64}$",
    )
    head_epochs: int = number("a whole number from 0", 1, ge=0, default=1)
    body_rate: Above0 = 0.1
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed"] = "auto"
    threads: Count | None = Field(None, description="null or a whole number from 1", examples=[1])
    channels_last: bool = True
    compile: bool = False
    data_on_device: bool = True
    deterministic: bool = True


class EvaluateParams(Settings):
    """How the figures of the test set are computed."""

    bootstrap_samples: Count
    confidence: float = number("a share above 0 and below 1", 0.95, gt=0, lt=1)
    calibration_bins: Count


class ExportParams(Settings):
    """What the exported graph must hold to."""

    tolerance: Above0
    golden_images: int = number("a whole number from 1 to 256", 64, ge=1, le=256)
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    calibration_pictures: int = number("a whole number from 1", 512, ge=1, default=512)
    max_accuracy_loss: float = number("a share from 0 to below 1", 0.02, ge=0, lt=1, default=0.02)


class Params(Settings):
    """All that the pipeline reads; `gate` and `release` belong to the delivery."""

    seed: int = number("a whole number from 0 to below 2**32", 42, ge=0, lt=2**32)
    prepare: PrepareParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams


class IngestParams(Settings):
    """How a batch of new pictures is judged; no stage reads it."""

    min_confidence: Share
    judged_by: Count
    max_drift: float = number("a distance above 0, 1 at most", 0.2, gt=0, le=1)


class TuneParams(Settings):
    """How parameters of the section `train` are searched for; no stage reads it."""

    trials: Count
    objective: Literal["validation_loss", "validation_accuracy"]
    grace_epochs: Count
    reduction_factor: int = number("a whole number from 2", 2, ge=2)
    trials_per_gpu: Count
    space: dict[str, dict[str, Any]]  # network: parameter: a value, or a range


SECTIONS = tuple(Params.model_fields)


def load(root: Path) -> Params:
    """Read the pipeline's sections of params.yaml. Raises SettingsError."""
    return parse({name: section for name, section in read(root).items() if name in SECTIONS})


def load_section(root: Path, name: str, kind: type[Kind]) -> Kind:
    """Read a section that no stage reads. Raises SettingsError."""
    content = read(root)
    if name not in content:
        raise SettingsError(f"{FILE}: the section {name!r} is missing")
    return check(kind, content[name], name)


def read(root: Path) -> dict[str, Any]:
    """Read params.yaml as it is. Raises SettingsError when it cannot be."""
    content = settings.read_yaml(root / FILE)
    if not isinstance(content, dict):
        raise SettingsError(f"{FILE} holds no sections: it needs {', '.join(SECTIONS)}")
    return content


def parse(content: dict[str, Any]) -> Params:
    """Check the pipeline's sections. Raises SettingsError for the first mistake."""
    return check(Params, content)


def check(kind: type[Kind], content: Any, *place: str) -> Kind:
    """Check what belongs at that place of the file. Raises SettingsError for the first mistake."""
    return settings.check(kind, content, FILE, *place)
