"""What the environment's variables say about this machine; the README lists them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The variables that change what commands do.

    Attributes:
        triton_venv: TRITON_VENV, the environment that holds the packaged Triton.
    """

    triton_venv: Path

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "Machine":
        """Read them; one that is absent or empty has its default."""
        return cls(triton_venv=Path(variables.get("TRITON_VENV") or ".venv-triton"))
