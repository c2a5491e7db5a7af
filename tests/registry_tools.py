"""Debian's programs that some tests need: installed where they are missing."""

import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from fake_gh import WHICH

LOCK = Path(tempfile.gettempdir()) / "merge-to-serve-apt.lock"  # of tests that run side by side


def need(*tools: str) -> None:
    """Install what is missing; without permission or packages, say what to do."""
    if missing(tools):
        with FileLock(LOCK):
            if left := missing(tools):  # by whoever had the lock before
                install(left)


def missing(tools: tuple[str, ...]) -> list[str]:
    return [tool for tool in tools if not WHICH(tool)]


def install(packages: list[str]) -> None:
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        try:
            subprocess.run(["apt-get", *arguments], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"{' and '.join(packages)} missing and not installable here ({error})")
