"""What the environment's variables say about this machine; the README lists them."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workspace.errors import UserError


@dataclass(frozen=True)
class Machine:
    """The variables that change what commands do.

    Attributes:
        triton_venv: TRITON_VENV, the environment that holds the packaged Triton.
        devices: DEVICES, the processes that train together on each machine, a device each.
        nodes: NODES, the machines that train together.
        threads: THREADS, those of the processor that each of them trains with; 0: as it fits.
        ray_address: RAY_ADDRESS, the Ray cluster to use; empty: Ray is started on this machine.
        storage: STORAGE, a folder or bucket that all machines reach, for checkpoints; or empty.
        waits_for_gpus: ACCELERATOR=gpu, whether a cluster that has no GPU yet will get some.
        compiler: CXX, the C++ compiler that torch.compile is to use; or empty.
        tracking: MLFLOW_TRACKING_URI, the server that is told of every model; or empty.
        signing_key: SIGNING_KEY, the file of the private key that signs releases; or empty.
        ci_run: GITHUB_RUN_ID, the run of GitHub's CI that this is part of; or empty.
        token_realm: TOKEN_REALM, `https://<host>` that may get the registry's password; or empty.
    """

    triton_venv: Path = Path(".venv-triton")
    devices: int = 1
    nodes: int = 1
    threads: int = 0
    ray_address: str = ""
    storage: str = ""
    waits_for_gpus: bool = False
    compiler: str = ""
    tracking: str = ""
    signing_key: str = ""
    ci_run: str = ""
    token_realm: str = ""

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> "Machine":
        """Read them; one that is absent or empty has its default. Raises UserError."""
        accelerator = variables.get("ACCELERATOR", "")
        if accelerator not in ("", "gpu"):
            raise UserError(f"ACCELERATOR is {accelerator!r}: give gpu, or leave it out")
        return cls(
            triton_venv=Path(variables.get("TRITON_VENV") or cls.triton_venv),
            devices=_count(variables, "DEVICES"),
            nodes=_count(variables, "NODES"),
            threads=_count(variables, "THREADS") if variables.get("THREADS") else cls.threads,
            ray_address=variables.get("RAY_ADDRESS", ""),
            storage=variables.get("STORAGE", ""),
            waits_for_gpus=accelerator == "gpu",
            compiler=variables.get("CXX", ""),
            tracking=variables.get("MLFLOW_TRACKING_URI", ""),
            signing_key=variables.get("SIGNING_KEY", ""),
            ci_run=variables.get("GITHUB_RUN_ID", ""),
            token_realm=variables.get("TOKEN_REALM", "").rstrip("/").lower(),
        )


@functools.cache
def this_machine() -> Machine:
    """Return what the environment says, which is read once for the whole process.

    Programs call it where they begin, so that a mistake is told first. Raises UserError.
    """
    return Machine.from_environment()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _count(variables: Mapping[str, str], name: str) -> int:
    value = variables.get(name) or "1"
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name} is {value!r}: give a whole number from 1")
    return int(value)
