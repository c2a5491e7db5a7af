"""DVC as the delivery uses it: the environment's own, with its reason on one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from delivery.errors import DeliveryError

RAW = "data/raw"  # where images of one's own are


class DvcError(DeliveryError):
    """A DVC command failed."""


def dvc(folder: Path, *arguments: str) -> str:
    """Run a DVC command in a folder and return what it printed. Raises DvcError with its reason.

    On a terminal DVC shows its progress, and what went wrong, itself.
    """
    watched = sys.stderr.isatty()
    answer = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=None if watched else subprocess.PIPE,
        text=True,
    )
    if answer.returncode:
        reason = " ".join((answer.stderr or "DVC says why above").split())
        raise DvcError(f"dvc {arguments[0]} failed: {reason}")
    return answer.stdout


def dvc_shown(folder: Path, *arguments: str, **environment: str) -> int:
    """Run a DVC command that shows its progress; return its exit status."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | environment).returncode


def settings(folder: Path) -> dict[str, str]:
    """Return DVC's settings by name, such as `core.remote`, from all of its files.

    Folders in them are absolute. Raises DvcError.
    """
    lines = dvc(folder, "config", "--list").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def make_raw(folder: Path) -> None:
    """Make `data/raw` unless DVC knows what is in it: otherwise DVC wants it to exist."""
    if not (folder / f"{RAW}.dvc").exists():
        (folder / RAW).mkdir(parents=True, exist_ok=True)


def locked(lock: bytes | None, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """List the `deps` or the `outs` in a `dvc.lock`, each with its stage, in the file's order."""
    stages = (yaml.safe_load(lock or b"") or {}).get("stages", {})
    return [(stage, each) for stage, entry in stages.items() for each in entry.get(kind, [])]
