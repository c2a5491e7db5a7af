"""The pipeline where there is no checkout: what a training job runs on the cluster.

DVC's run cache carries the trained model: elsewhere, `make pipeline PULL=1` at the same commit
takes it up instead of training again. What Git keeps of a model (its figures, its card) is not in
that cache, so the stages after training run there, where it can be committed.
"""

import shutil
import tempfile
from pathlib import Path, PurePosixPath

from delivery.dvc import dvc_settings, dvc_shown, make_raw, refuse_replaced
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.parameters import data_folder

STAGE = "train"  # with the stages before it


def run(repository: Repository) -> None:
    """Run in a copy of this project, because an image is not written to."""
    run_pipeline(repository.folder, Path(tempfile.gettempdir()) / "project")


def run_pipeline(project: Path, copy: Path) -> None:
    """Run `project`'s pipeline up to the training in its `copy`, which is made or taken up.

    What finished stages made is kept also when a later one fails. Raises DeliveryError.
    """
    shutil.copytree(project, copy, dirs_exist_ok=True)
    store = data_store(copy)
    # An old model that was never pushed is not needed to make a new one.
    if dvc_shown(copy, "pull", "--run-cache", "--allow-missing"):
        raise DeliveryError(f"{store} did not give the data: DVC says why above")
    refuse_replaced(copy)
    make_raw(copy)
    raw = data_folder(copy)
    if not (copy / raw).exists():
        raise DeliveryError(
            f"{store} lacks the pictures of {raw}.dvc: run `make data-push` where the data are"
        )
    failed = dvc_shown(copy, "repro", "--pull", STAGE, STORAGE=checkpoints(store))
    if dvc_shown(copy, "push", "--run-cache"):
        raise DeliveryError(f"{store} did not take the results: DVC says why above")
    if failed:
        raise DeliveryError("the pipeline stopped: see above where; what was done before is kept")
    print(f"the model is in {store}: `make pipeline PULL=1` at this commit takes it up")


def checkpoints(store: str) -> str:
    """Return where checkpoints go: beside the data store, or into one that is a bucket or disk."""
    scheme, colon, name = store.rpartition("://")
    place = PurePosixPath(name)
    folder = place if str(place.parent) in (".", "/") else place.parent
    return f"{scheme}{colon}{folder / 'training'}"


def data_store(folder: Path) -> str:
    """Return the address of DVC's default remote.

    Raises DeliveryError, also when it is a folder of the project, as in a new one.
    """
    found = dvc_settings(folder)
    address = found.get(f"remote.{found.get('core.remote')}.url")
    if not address or Path(address).is_relative_to(folder.resolve()):
        raise DeliveryError(
            f"the data store is {address or 'not set'}, so the results would be lost with this "
            "machine: run `make infra-outputs`, commit .dvc/config, and build the image again"
        )
    return address
