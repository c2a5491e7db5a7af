"""The delivery's sections of params.yaml."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from delivery.git import Repository
from workspace.pictures import MAX_PIXELS, WHITE
from workspace.settings import Settings, check, parse_yaml, read_yaml

# Of a registry. Signs that look like others, or that a shell or Markdown reads, are in no name.
NAME = r"[A-Za-z0-9\[][A-Za-z0-9._:/+~=,\[\]-]*"


class Limits(Settings, strict=True):
    """Section `gate`: floors for figures, and which loss against the released model is refused.

    Refused is a loss of more than `tolerance` that equally good models would show, by chance, in
    less than a share of 1 − `confidence` of all cases.
    """

    min_accuracy: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.9])
    min_macro_f1: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.9])
    tolerance: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.005])
    confidence: float = Field(
        default=0.9,  # files of earlier versions have none
        ge=0.5,
        le=0.999,
        description="a number from 0.5 to 0.999",
        examples=[0.9],
    )


class Target(Settings):
    """Section `release`: where images are pushed, whose signature counts.

    And what may be released and promoted.
    """

    registry: str = Field(
        pattern=f"^{NAME}$",
        description="oci:<folder> or <host>/<name>, of ASCII letters, digits and ._:/+~=,-",
        examples=["oci:.local/registry"],
    )
    signing_key: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*$",
        description="null, or the file of a public key in Git",
        examples=["argocd/signing/signing.pub"],
    )
    require_signature: bool = Field(
        default=False, description="false, or true with a signing_key beside it"
    )
    accept_interface_change: str | None = Field(
        default=None,
        description="null, or the change as the gate's refusal names it",
        examples=["labels: + otter"],
    )
    accept_test_data: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{12,64}$",
        description="null, or the start, in 12 digits or more, of the test data's SHA-256",
        examples=["3f0a9c51d2e7"],
    )
    soak: float = Field(
        default=0,
        ge=0,
        description="hours that staging serves a model before it may be promoted",
        examples=[24],
    )
    require_healthy: bool = Field(
        default=False,
        strict=True,
        description="true: promote only what is known to be served well",
        examples=[True],
    )

    @field_validator("require_signature")
    @classmethod
    def can_be_checked(cls, required: bool, beside: ValidationInfo) -> bool:
        """Refuse to require what nothing can be checked with."""
        if required and not beside.data.get("signing_key"):
            raise ValueError("there is no signing_key")
        return required


class Policy(Settings):
    """Section `check`: what the fixed policy of `make check` lets pass nevertheless."""

    accept: tuple[str, ...] = Field(
        default=(),
        description="what is accepted, as the refusal names it",
        examples=[["cluster kind PriorityClass"]],
    )


class Pictures(Settings, extra="ignore"):
    """Section `prepare`: where pictures of one's own are, and how pictures are read."""

    folder: str | None = None
    max_pixels: int = MAX_PIXELS
    white: int = WHITE


class Parameters(Settings, extra="ignore"):
    """What the delivery reads of params.yaml; the rest is the pipeline's."""

    gate: Limits = Field(description="the gate's limits")
    release: Target = Field(description="where releases go")
    check: Policy = Field(default=Policy(), description="what the fixed policy accepts")


def read_pictures(root: Path) -> Pictures:
    """Read what params.yaml says of pictures, whatever else it holds. Raises SettingsError."""
    content = read_yaml(root / "params.yaml")
    section = content.get("prepare") if isinstance(content, dict) else None
    return check(Pictures, section or {}, "params.yaml", "prepare")


def data_folder(root: Path) -> str:
    """Return the folder of pictures of one's own, below the project's. Raises SettingsError."""
    return read_pictures(root).folder or "data/raw"


def read_parameters(root: Path) -> Parameters:
    """Read params.yaml. Raises SettingsError."""
    return check(Parameters, read_yaml(root / "params.yaml"), "params.yaml")


def committed_target(repository: Repository, commit: str) -> Target | None:
    """Read the section `release` alone, as a commit has it, if it has one. Raises SettingsError."""
    content = repository.read(commit, "params.yaml")
    if content is None:
        return None
    name = f"params.yaml of commit {commit[:12]}"
    document = parse_yaml(content, name)
    section = document.get("release") if isinstance(document, dict) else None
    return None if section is None else check(Target, section, name, "release")


def committed_parameters(repository: Repository, commit: str) -> Parameters:
    """Read params.yaml as a commit has it. Raises SettingsError."""
    name = f"params.yaml of commit {commit[:12]}"
    return check(Parameters, parse_yaml(repository.read(commit, "params.yaml") or b"", name), name)
