"""Make the model of a commit again: a clone of that commit, its data, its pipeline.

Nothing of it is in the user's checkout, and nothing that the pipeline ever made is used: only what
is in Git and the data that DVC keeps.
"""

import configparser
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from delivery.dvc import DvcError, dvc, dvc_settings, make_raw, refuse_replaced, unavailable
from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from delivery.model.pipeline_outputs import Lineage, Trained
from workspace.files import only_one, replacing
from workspace.pictures import DOWNLOADS
from workspace.settings import check, parse_json

ENVIRONMENT = ("pyproject.toml", "constraints.txt")  # what an environment is made from
MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VENV")  # settings of another checkout
REPRO = ("repro", "--force", "--no-run-cache", "--no-commit")  # run all, take and keep nothing


def rebuild(project: Repository, commit: str, clone: Path) -> None:
    """Make the model of a commit in a clone, to be packaged there. Raises DeliveryError."""
    pull_data(project, commit, clone)
    python = python_for(project, commit, clone)
    trained = trained_on(project, commit)
    print(f"running the pipeline of commit {commit[:12]}", flush=True)
    own = {
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),
        "PYTHONPATH": str(clone / "src"),  # comes before what the environment has installed
        "DEVICES": str(trained.devices),
        "NODES": str(trained.nodes),
        "THREADS": str(trained.threads or ""),
    }
    make_raw(clone)
    if status := run([str(python), "-m", "dvc", *REPRO], clone, outer_variables() | own):
        raise DeliveryError(
            f"the pipeline of commit {commit[:12]} failed with status {status}: it says why above"
        )


@contextmanager
def cloned(project: Repository, commit: str, clone: Path, keep: bool) -> Iterator[None]:
    """Have a fresh clone with a commit checked out, until the block ends.

    Objects are borrowed from the project, whose own branches and worktrees stay as they are. What
    an interrupted run left is replaced. Raises UserError when another one runs, and GitError.
    """
    busy = f"{clone} is in use: another `make reproduce` runs there"
    with only_one(clone.with_suffix(".lock"), busy):
        shutil.rmtree(clone, ignore_errors=True)
        try:
            options = ("--quiet", "--shared", "--no-checkout", "--template=")  # no hooks of others
            project.run("clone", *options, ".", str(clone))
            Repository(clone).run("update-ref", "--no-deref", "HEAD", commit)
            check_out(project, commit, clone)
            yield
        finally:
            if not keep:
                shutil.rmtree(clone, ignore_errors=True)


def check_out(project: Repository, commit: str, clone: Path) -> None:
    """Write the files of a commit into its clone, and prove that they are what the commit has.

    The project's own repository does it: its settings reach what is not here yet. Git's word is
    not taken for it, as it passes over filters that fail and files that it is told to leave out.
    Raises GitError.
    """
    there: dict[str, Any] = {
        "index": clone / ".git/index",
        "work_tree": clone,
        "settings": ["core.autocrlf=false", "core.eol=lf"],
    }
    project.run("read-tree", commit, **there)
    required = filters(project, commit, there)
    there["settings"] += [f"filter.{each}.required=true" for each in required]
    project.run("checkout-index", "--all", "--force", **there)
    project.run("update-index", "-q", "--refresh", fine=(0, 1), **there)
    if differing := project.listed("diff-files", "--name-only", "-z", **there):
        raise GitError(
            f"Git wrote {differing[0]} otherwise than commit {commit[:12]} has "
            "it, and did not say so: put right what .gitattributes says of it, or `git fsck`, and "
            "run this again"
        )


def filters(project: Repository, commit: str, there: dict[str, Any]) -> list[str]:
    """List the filters that must work when a commit is checked out.

    Without its filter, a file that is kept elsewhere would be an address instead of a content.
    Raises GitError for one that is not set up.
    """
    paths = "\0".join(project.files(commit)).encode(errors="surrogateescape")
    asked = ("check-attr", "--cached", "-z", "--stdin", "filter")
    fields = project.listed(*asked, stdin=paths, **there)
    wanted = dict(zip(fields[2::3], fields[::3], strict=True))  # the last path of each
    for plain in ("unspecified", "unset", "set"):
        wanted.pop(plain, None)
    settings = ("config", "-z", "--name-only", "--get-regexp", r"^filter\.")
    parts = [each.removeprefix("filter.") for each in project.listed(*settings, fine=(0, 1))]
    known = [(name, kind) for name, _, kind in (part.rpartition(".") for part in parts)]
    for name, path in wanted.items():
        if name not in dict(known):
            raise GitError(
                f"{path} of commit {commit[:12]} goes through Git's filter {name!r}, which is not "
                "set up here: do what its program says for that (git lfs install, for Git LFS)"
            )
    return [name for name, kind in known if name in wanted and kind in ("smudge", "process")]


def pull_data(project: Repository, commit: str, clone: Path) -> None:
    """Bring the data that the pipeline starts from into the clone. Raises DeliveryError.

    Only data that were added to DVC by themselves; what stages wrote is to be made again.
    """
    downloads = project.folder / DOWNLOADS
    if downloads.is_dir():  # the source checks what it finds there
        (clone / DOWNLOADS).parent.mkdir(parents=True, exist_ok=True)
        (clone / DOWNLOADS).symlink_to(downloads.absolute())
    sources = [path for path in project.files(commit) if path.endswith(".dvc")]
    if not sources:
        return
    print(f"pulling {', '.join(sources)}", flush=True)
    try:
        use_stores(project.folder, clone)
        dvc(clone, "pull", *sources)
    except DvcError as error:
        why = unavailable(project.folder, error)
        raise DeliveryError(
            f"the data of commit {commit[:12]} cannot be had{why}; `make data-push` puts them there"
        ) from None
    refuse_replaced(clone, *(path.removesuffix(".dvc") for path in sources))


def use_stores(project: Path, clone: Path) -> None:
    """Give the clone the project's DVC settings of today: they say where the data are now.

    DVC lists them with paths that are absolute, from all of its configuration files.
    """
    config = configparser.RawConfigParser()
    cache = {"cache.dir": str(project.absolute() / ".dvc/cache")}  # what is here: not fetched
    for place, value in (cache | dvc_settings(project)).items():
        section, _, option = place.rpartition(".")
        if section.startswith("remote."):
            section = f"'remote \"{section.removeprefix('remote.')}\"'"
        config.read_dict({section: {option: f'"{value}"'}})
    with replacing(clone / ".dvc/config") as file:
        config.write(file)


def python_for(project: Repository, commit: str, clone: Path) -> Path:
    """Return this Python, or one that the commit's own Makefile installs. Raises DeliveryError."""
    changed = [name for name in ENVIRONMENT if project.read(commit, name) != content(project, name)]
    if not changed:
        print("using this environment: the commit wants the same", flush=True)
        return Path(sys.executable)
    print(f"installing the commit's own environment: other {' and '.join(changed)}", flush=True)
    python = Path(sys.executable).resolve()  # the one that this environment was made with
    command = ["make", "--no-print-directory", f"PYTHON={python}", ".venv/ready"]
    if status := run(command, clone, outer_variables()):
        raise DeliveryError(
            f"the environment of commit {commit[:12]} cannot be installed (status {status}): "
            "pip says why above"
        )
    return clone / ".venv/bin/python"


def content(project: Repository, name: str) -> bytes | None:
    """Return a file of the checkout, or None where it has no such file."""
    path = project.folder / name
    return path.read_bytes() if path.is_file() else None


def trained_on(project: Repository, commit: str) -> Trained:
    """Return on how many devices, with how many threads, a model was trained.

    Raises SettingsError.
    """
    name = "lineage.json"
    told = project.read(commit, name)
    return check(Lineage, parse_json(told, name), name).trained if told else Trained()


def outer_variables() -> dict[str, str]:
    """Return the environment's variables without those that Make set for this checkout."""
    return {name: value for name, value in os.environ.items() if name not in MAKE}


def run(command: list[str], folder: Path, variables: dict[str, str]) -> int:
    """Run a command that prints as it likes; it ends, with all it started, when this does."""
    process = subprocess.Popen(command, cwd=folder, env=variables, start_new_session=True)
    try:
        return process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
