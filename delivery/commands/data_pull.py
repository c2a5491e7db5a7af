"""`make data-pull`: data, models and the stages' results of this commit, from the data store."""

from delivery.dvc import absent_store, default_store, dvc_shown, refuse_replaced
from delivery.errors import DeliveryError
from delivery.git import Repository


def run(repository: Repository) -> None:
    """Pull into the working tree. Raises DeliveryError."""
    folder = repository.folder
    default_store(folder)
    failed, absent = dvc_shown(folder, "pull", "--run-cache"), absent_store(folder)
    if not absent:
        refuse_replaced(folder)
    if failed:
        raise DeliveryError(
            f"not all of this commit could be had, as {absent or 'DVC says above'}; run `make "
            "data-push` where it was made, or `make pipeline` to make it here"
        )
