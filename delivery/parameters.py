"""The delivery's sections of params.yaml."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from delivery.errors import DeliveryError

Section = TypeVar("Section", "Limits", "Target")


class ParameterError(DeliveryError):
    """A section of params.yaml lacks a key, has an unknown one or a value of the wrong kind."""


@dataclass(frozen=True)
class Limits:
    """Section `gate`: floors for figures from 0 to 1, and how much worse than the released model
    a candidate may be."""

    min_accuracy: float
    min_macro_f1: float
    tolerance: float


@dataclass(frozen=True)
class Target:
    """Section `release`: the registry that images are pushed to."""

    registry: str


def read_parameters(root: Path) -> dict[str, Any]:
    """Read params.yaml. Raises ParameterError."""
    try:
        parameters = yaml.safe_load((root / "params.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ParameterError(
            f"params.yaml cannot be read: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(parameters, dict):
        raise ParameterError("params.yaml holds no sections: restore it from Git")
    return parameters


def limits(parameters: dict[str, Any]) -> Limits:
    """Return the section `gate`. Raises ParameterError."""
    section = _section(parameters, "gate", Limits)
    for name, value in vars(section).items():
        if not isinstance(value, float | int) or not 0 <= value <= 1:
            raise ParameterError(
                f"params.yaml: gate.{name} is {value!r}: give a number from 0 to 1"
            )
    return section


def target(parameters: dict[str, Any]) -> Target:
    """Return the section `release`. Raises ParameterError."""
    section = _section(parameters, "release", Target)
    if not isinstance(section.registry, str):
        raise ParameterError(
            f"params.yaml: release.registry is {section.registry!r}: "
            "give oci:<folder> or <host>/<repository>"
        )
    return section


def _section(parameters: dict[str, Any], name: str, kind: type[Section]) -> Section:
    given = set(parameters.get(name) or {})
    known = {field.name for field in fields(kind)}
    if missing := known - given:
        raise ParameterError(f"params.yaml: section {name} lacks {', '.join(sorted(missing))}")
    if unknown := given - known:
        raise ParameterError(
            f"params.yaml: section {name} has {', '.join(sorted(unknown))}, "
            f"but it takes only {', '.join(sorted(known))}"
        )
    return kind(**parameters[name])
