"""DVC as the delivery uses it: the environment's own, with its reason on one line."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from pydantic import Field

from delivery.errors import DeliveryError
from workspace.settings import Settings, check, parse_yaml

RAW = "data/raw"  # where pictures of one's own are


class DvcError(DeliveryError):
    """A DVC command failed."""


class Tracked(Settings, extra="ignore"):
    """A file or folder that a stage read or wrote, in `dvc.lock`."""

    path: str
    md5: str = ""
    size: int | None = None


class Stage(Settings, extra="ignore"):
    """A stage in `dvc.lock`."""

    deps: tuple[Tracked, ...] = ()
    outs: tuple[Tracked, ...] = ()


class Lock(Settings, extra="ignore"):
    """What `dvc.lock` says: the stages by name, in the file's order."""

    stages: dict[str, Stage] = Field(default_factory=dict)


def parse_lock(content: bytes | None) -> Lock:
    """Read a `dvc.lock`, or where there is none an empty one. Raises SettingsError."""
    return check(Lock, parse_yaml(content or b"{}", "dvc.lock"), "dvc.lock")


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
        said, *_ = re.split("Traceback|Having any troubles", answer.stderr or "DVC says why above")
        reason = " ".join(said.split())
        raise DvcError(f"dvc {arguments[0]} failed: {reason}")
    return answer.stdout


def dvc_shown(folder: Path, *arguments: str, **environment: str) -> int:
    """Run a DVC command that shows its progress; return its exit status."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | environment).returncode


def typed_dvc(folder: Path) -> str:
    """Return what a person types in a folder for DVC, which is not on the PATH."""
    program = Path(sys.prefix) / "bin/dvc"
    if program.is_relative_to(folder.absolute()):
        program = program.relative_to(folder.absolute())
    return shlex.quote(str(program))


def dvc_settings(folder: Path) -> dict[str, str]:
    """Return DVC's settings by name, such as `core.remote`, from all of its files.

    Folders in them are absolute. Raises DvcError.
    """
    lines = dvc(folder, "config", "--list").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def default_store(folder: Path) -> tuple[str, str]:
    """Return the name and the address of DVC's default remote. Raises DeliveryError."""
    found = dvc_settings(folder)
    name = found.get("core.remote", "")
    if address := found.get(f"remote.{name}.url"):
        return name, address
    raise DeliveryError(
        f"DVC has no default remote: `{typed_dvc(folder)} remote add --force --default store "
        "<address> && git commit --message 'Name the data store' .dvc/config && git push`"
    )


def absent_store(folder: Path) -> str:
    """Say what to do where DVC's store is a folder of another machine; else nothing.

    Raises DeliveryError where there is no store.
    """
    name, address = default_store(folder)
    if "://" in address or Path(address).exists():
        return ""
    return (
        f"DVC's store is {address}, a folder that this machine does not have: give both "
        f"machines one, or a bucket, and name it here, `{typed_dvc(folder)} remote modify --local "
        f"{name} url <folder>`"
    )


def unavailable(folder: Path, error: DvcError) -> str:
    """Say why DVC's store did not give or take data, and what to do: goes on with a sentence.

    Raises DeliveryError where there is no store.
    """
    if absent := absent_store(folder):
        return f", as {absent}"
    return f" ({error}): correct the default remote in .dvc/config or .dvc/config.local"


def adding(folder: Path, path: str) -> str:
    """Return what a person types to have DVC keep pictures of one's own, and Git their version."""
    return (
        f"{typed_dvc(folder)} add {path} && git add {path}.dvc && "
        f"git commit --message 'Add {path}' && git push"
    )


def raw_is_unknown(folder: Path) -> bool:
    """Tell whether there are pictures of one's own that DVC does not keep."""
    return any(folder.glob(f"{RAW}/*/*")) and not (folder / f"{RAW}.dvc").exists()


def make_raw(folder: Path) -> None:
    """Make `data/raw` unless DVC knows what is in it: otherwise DVC wants it to exist."""
    if not (folder / f"{RAW}.dvc").exists():
        (folder / RAW).mkdir(parents=True, exist_ok=True)
