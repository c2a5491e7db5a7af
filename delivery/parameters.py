"""The delivery's sections of params.yaml."""

from pathlib import Path

from pydantic import Field

from workspace.settings import Settings, check, read_yaml

# Of a registry. Signs that look like others, or that a shell or Markdown reads, are in no name.
NAME = r"[A-Za-z0-9\[][A-Za-z0-9._:/+~=,\[\]-]*"


class Limits(Settings, strict=True):
    """Section `gate`: floors for figures, and how much worse than the released model a candidate
    may be."""

    min_accuracy: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.9])
    min_macro_f1: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.9])
    tolerance: float = Field(ge=0, le=1, description="a number from 0 to 1", examples=[0.005])


class Target(Settings):
    """Section `release`: the registry that images are pushed to."""

    registry: str = Field(
        pattern=f"^{NAME}$",
        description="oci:<folder> or <host>/<repository>, of ASCII letters, digits and ._:/+~=,-",
        examples=["oci:.local/registry"],
    )


class Parameters(Settings, extra="ignore"):
    """What the delivery reads of params.yaml; the rest is the pipeline's."""

    gate: Limits = Field(description="the gate's limits")
    release: Target = Field(description="where releases go")


def read_parameters(root: Path) -> Parameters:
    """Read params.yaml. Raises SettingsError."""
    return check(Parameters, read_yaml(root / "params.yaml"), "params.yaml")
