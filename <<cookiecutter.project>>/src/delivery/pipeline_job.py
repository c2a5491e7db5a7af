"""The pipeline where there is no checkout: what a training job runs on the cluster.

DVC's run cache carries the trained model: elsewhere, `make pipeline PULL=1` at the same commit
takes it up instead of training again. What Git keeps of a model (its figures, its card) is not in
that cache, so the stages after training run there, where it can be committed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from delivery.errors import DeliveryError

PROJECT = Path(__file__).resolve().parents[2]
STAGE = "train"  # with the stages before it


class NoDataStoreError(DeliveryError):
    """The project names no data store that could keep the results."""


class PipelineError(DeliveryError):
    """A stage failed, or the data store did not give or take what it should."""


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `run-pipeline`."""
    parser = subparsers.add_parser(
        "run-pipeline",
        help="what a training job does: get the data, train, keep the model",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run in a copy of this project, because an image is not written to."""
    run_pipeline(PROJECT, Path(tempfile.gettempdir()) / "project")


def run_pipeline(project: Path, copy: Path) -> None:
    """Run `project`'s pipeline up to the training in its `copy`, which is made or taken up.

    What finished stages made is kept also when a later one fails. Raises NoDataStoreError and
    PipelineError.
    """
    shutil.copytree(project, copy, dirs_exist_ok=True)
    store = data_store(copy)
    # An old model that was never pushed is not needed to make a new one.
    if dvc(copy, "pull", "--run-cache", "--allow-missing"):
        raise PipelineError(f"{store} did not give the data: DVC says why above")
    require_data(copy, store)
    failed = dvc(copy, "repro", "--pull", STAGE, STORAGE=f"{store.rpartition('/')[0]}/training")
    if dvc(copy, "push", "--run-cache"):
        raise PipelineError(f"{store} did not take the results: DVC says why above")
    if failed:
        raise PipelineError("the pipeline stopped: see above where; what was done before is kept")
    print(f"the model is in {store}: `make pipeline PULL=1` at this commit takes it up")


def require_data(folder: Path, store: str) -> None:
    """Raise PipelineError when DVC knows images of one's own that the data store lacks."""
    images = folder / "data/raw"
    if not images.with_suffix(".dvc").exists():
        images.mkdir(parents=True, exist_ok=True)  # DVC wants it to exist
    elif not images.exists():
        raise PipelineError(f"{store} lacks the images: run `make data-push` where they are")


def data_store(folder: Path) -> str:
    """Return the address of DVC's default remote.

    Raises NoDataStoreError when there is none, or only a folder that goes with this copy.
    """
    name = setting(folder, "core.remote")
    address = name and setting(folder, f"remote.{name}.url")
    if not address or Path(address).is_relative_to(folder.resolve()):
        raise NoDataStoreError(
            f"the data store is {address or 'not set'}, so the results would be lost: run "
            "`make infra-outputs`, commit .dvc/config, and build the image again"
        )
    return address


def setting(folder: Path, name: str) -> str:
    """Return one of DVC's settings, empty where it is not set."""
    command = [sys.executable, "-m", "dvc", "config", name]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout.strip()


def dvc(folder: Path, *arguments: str, **environment: str) -> int:
    """Run a DVC command that shows its progress; return its exit status."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | environment).returncode
