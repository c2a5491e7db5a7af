"""A deployment that failed, as GitHub tells a workflow of it, and whether Git still asks for it.

Argo CD's notifications tell GitHub (`argocd/components/notifications`), and they may do so twice or
late. What is told is foreign text: it comes through a file, and no shell and no make reads it.
"""

from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from pydantic import Field

from delivery.errors import DeliveryError
from delivery.git import BRANCH, Repository
from delivery.proposals.release_file import COMMIT, Release
from delivery.proposals.releases import all_releases, environments, released
from workspace.errors import said, shown
from workspace.settings import Settings, check, read_json


class Deployment(Settings, extra="ignore"):
    """What was to be deployed, and where."""

    sha: str = COMMIT
    environment: str


class DeploymentStatus(Settings, extra="ignore"):
    """What became of it."""

    description: str | None = None


class Event(Settings, extra="ignore"):
    """The event `deployment_status` of a workflow."""

    deployment: Deployment = Field(description="a deployment")
    deployment_status: DeploymentStatus = Field(description="its status")


@dataclass(frozen=True)
class Failure:
    """What failed: the release that an environment has at a commit, and what was said of it."""

    environment: str
    commit: str
    says: str


def read_failure(path: Path) -> Failure:
    """Read the event that GitHub gives a workflow as a file. Raises SettingsError."""
    event = check(Event, read_json(path), str(path))
    return Failure(
        event.deployment.environment,
        event.deployment.sha,
        said(event.deployment_status.description or ""),
    )


def settled(repository: Repository, base: str, failure: Failure) -> str:
    """Say why Git no longer asks for what failed; nothing if it does. Raises ReleaseFileError."""
    environment = failure.environment
    if environment not in environments(repository, base):
        return f"{BRANCH} has no environment {shown(environment)}"
    if not repository.contains(base, failure.commit):
        return f"{BRANCH} does not have the commit {failure.commit[:12]}"
    failed = released(repository, failure.commit, environment)
    wanted = released(repository, base, environment)
    if failed and wanted and wanted.is_same_as(failed):
        return ""
    return f"{environment} has {named(wanted)} in Git by now, and {named(failed)} failed"


def named(release: Release | None) -> str:
    """Name a release."""
    return f"model {release.version}" if release else "nothing"


def check_first_time(repository: Repository, base: str, environment: str) -> None:
    """Raise DeliveryError where an environment came back to the release that it has.

    Taking that away would undo what somebody did who took another one away.
    """
    past = all_releases(repository, base)
    own = [each.release for each in past if each.environment == environment]
    if any(map(own[0].is_same_as, dropwhile(own[0].is_same_as, own))):
        raise DeliveryError(
            f"{environment} went back to model {own[0].version}, and that fails, too: a revert is "
            "not reverted by itself, so see what `make status` says, and go further back with "
            f"`make rollback ENV={environment}`"
        )
