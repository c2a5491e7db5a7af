"""`make data-push`: data, models and the stages' results, into the data store."""

from pathlib import Path

from delivery.dvc import absent_store, adding, default_store, dvc_shown, unknown_data
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.parameters import data_folder
from workspace.pictures import refuse_links


def run(repository: Repository) -> None:
    """Push from the working tree. Raises DeliveryError; UserError for links in the data."""
    folder = repository.folder
    _, address = default_store(folder)
    place = Path(data_folder(folder))
    if place.is_dir():
        refuse_links(place, Path())
    if raw := unknown_data(folder):
        raise DeliveryError(
            f"DVC does not know {raw} yet, so it would stay on this machine: "
            f"`{adding(folder, raw)}`, and `make data-push` again"
        )
    if dvc_shown(folder, "push", "--run-cache"):
        why = absent_store(folder) or f"DVC says above of {address}: put it right"
        raise DeliveryError(
            f"not all is in the data store, as {why}, and run `make data-push` again"
        )
    print(f"the data store is {address}")
