"""DVC as the delivery uses it: the environment's own, with its reason on one line."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
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

    Folders in them are absolute. They are read in this process, as DVC itself takes half a second
    to start. Raises DvcError.
    """
    from dvc.config import Config
    from dvc.utils.flatten import flatten

    try:
        found = flatten(Config(str(folder / ".dvc"), validate=False))
    except Exception as error:  # of any kind: anybody may have written the files
        raise DvcError(f"dvc config failed: {said(str(error))}") from None
    return {name: str(value) for name, value in found.items()}


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


def refuse_replaced(folder: Path, *outs: str) -> None:
    """Refuse what a pull, of all or of some `outs`, has found to be not what its name says.

    DVC says nothing of a list of files that was replaced, and takes what it names. Raises
    DeliveryError, after listing all objects of the store that must go.
    """
    if objects := replaced_objects(folder, outs):
        print("\n".join(objects))
        raise DeliveryError(
            "the data store does not have what was put there: remove the objects that are listed "
            "above, run `make data-push` where the data were made, and try again here"
        )


def replaced_objects(folder: Path, outs: Collection[str]) -> list[str]:
    """Return the store's objects that DVC would not take, with the lists of files that name them.

    While such a list is there, DVC never looks for the files again.
    """
    from dvc.repo import Repo

    with Repo(str(folder)) as repo:
        store, cache = repo.cloud.get_remote_odb(), repo.cache.local
        index = repo.index.data["repo"]
        index.onerror = lambda entry, error: None  # a list that is no list counts as it is
        entries = {
            key: entry.hash_info.value
            for key, entry in index.iteritems()
            if entry.hash_info and (not outs or any(Path(*key).is_relative_to(out) for out in outs))
        }
        missing = {oid for oid in entries.values() if not cache.exists(oid)}
        replaced = {oid for oid in missing if store.exists(oid)}
        if replaced:
            repo.drop_data_index()  # or a list that was replaced would be remembered
        lists = {
            entries[above]
            for key, oid in entries.items()
            if oid in replaced
            for above in (key[:length] for length in range(len(key)))
            if above in entries
        }
        paths = (store.oid_to_path(oid) for oid in sorted(replaced | lists))
        return [store.fs.unstrip_protocol(path) for path in paths]


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
    place = unkept_place(folder)
    return data_folder(folder) if place and any(place.glob("*/*")) else ""


def make_raw(folder: Path) -> None:
    """Make the folder of pictures unless DVC knows it: the pipeline wants it, even if empty."""
    if place := unkept_place(folder):
        place.mkdir(parents=True, exist_ok=True)


def unkept_place(folder: Path) -> Path | None:
    """Return where pictures of one's own are, unless DVC keeps them or it is outside."""
    place = folder / data_folder(folder)
    is_known = place.with_name(f"{place.name}.dvc").exists()
    is_inside = place.resolve().is_relative_to(folder.resolve())
    return place if is_inside and not is_known else None
