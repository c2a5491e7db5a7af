"""Show a model: the page of what was trained here, or of a version that was released.

The pipeline writes the page from its own files, and `make release` sends it to the data store with
the data. What is added here belongs to this machine and this day, so it travels nowhere.
"""

from pathlib import Path

from delivery.dvc import DvcError, dvc, unavailable
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.pipeline_outputs import require_outputs
from delivery.proposals.release_file import Release
from delivery.proposals.releases import all_releases, digests, is_genuine
from reporting import latency, model_page

FOLDER = Path(".local/reports")

ARGUMENTS = {
    "name": {"help": "of the project"},
    "--version": {"type": int, "help": "a released one; default: the model that is here"},
}


def run(repository: Repository, name: str, version: int | None = None) -> None:
    """Write a page and say where it is. Raises UserError."""
    page = FOLDER / (f"{version}.html" if version else "report.html")
    if version:
        bring_back(repository, find(repository, version), page)
    else:
        require_outputs(repository.folder)
        measured = latency.measure(repository.folder / model_page.GRAPH)
        model_page.write(repository.folder, name, page, measured)
    print(f"page: {page}")


def find(repository: Repository, version: int) -> Release:
    """Return the release of a version, in whichever environment. Raises DeliveryError."""
    past = all_releases(repository, repository.head())
    known = digests(past)
    for each in past:
        if each.release.version == version and is_genuine(each.release, known):
            return each.release
    there = ", ".join(map(str, sorted(known))) or "none"
    raise DeliveryError(f"no model {version} was released; give one of: {there}")


def bring_back(repository: Repository, release: Release, page: Path) -> None:
    """Get the page of a release from the data store. Raises DeliveryError."""
    commit = release.commit
    if model_page.PAGE.as_posix() not in (repository.read(commit, "dvc.lock") or b"").decode():
        raise DeliveryError(
            f"the pipeline of model {release.version} wrote no page: look at MODEL_CARD.md of "
            f"commit {commit[:12]}"
        )
    (repository.folder / page).parent.mkdir(parents=True, exist_ok=True)
    place = ("--rev", commit, "--force", "--out", str(page))
    try:
        dvc(repository.folder, "get", ".", model_page.PAGE.as_posix(), *place)
    except DvcError as error:
        raise DeliveryError(
            f"the page of model {release.version} can't be had"
            f"{unavailable(repository.folder, error)}"
        ) from None
