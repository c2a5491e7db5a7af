"""DVC as the delivery uses it: the environment's own, with its reason on one line."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from pydantic import Field

from delivery.errors import DeliveryError
from delivery.parameters import data_folder
from workspace.errors import said
from workspace.settings import Settings, SettingsError, check, parse_yaml

LOCK = "dvc.lock"


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
    """Read a `dvc.lock`, or where there is none an empty one. Raises DvcError."""
    try:
        return Lock() if content is None else check(Lock, parse_yaml(content, LOCK), LOCK)
    except SettingsError as error:
        raise DvcError(f"{error}; restore it, or remove it and run `make pipeline`") from None


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
        errors="replace",
    )
    if answer.returncode:
        printed = answer.stderr or "DVC says why above"
        reason = said(re.split("Traceback|Having any troubles", printed)[0])
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


def replaced_objects(folder: Path) -> list[str]:
    """Return where DVC's store has what a pull did not take, as it is not what its name says."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(folder)) as repo:
            store, cache = repo.cloud.get_remote_odb(), repo.cache.local
            entries = [entry for _, entry in repo.index.data["repo"].iteritems()]
            wanted = sorted({entry.hash_info.value for entry in entries if entry.hash_info})
            there = [oid for oid in wanted if not cache.exists(oid) and store.exists(oid)]
            return [store.fs.unstrip_protocol(store.oid_to_path(oid)) for oid in there]
    except DvcException:  # whatever it is, the pull has said it
        return []


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


def unknown_data(folder: Path) -> str:
    """Return the folder of pictures of one's own if DVC does not keep what is in it, or nothing."""
    raw = data_folder(folder)
    place = folder / raw
    is_known = place.with_name(f"{place.name}.dvc").exists()
    return raw if place.is_relative_to(folder) and any(place.glob("*/*")) and not is_known else ""


def make_raw(folder: Path) -> None:
    """Make the folder of pictures unless DVC knows it: the pipeline wants it, even if empty."""
    place = folder / data_folder(folder)
    if place.is_relative_to(folder) and not place.with_name(f"{place.name}.dvc").exists():
        place.mkdir(parents=True, exist_ok=True)
