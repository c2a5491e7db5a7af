"""Releases in Git: what each environment should serve, now and before."""

import re
from contextlib import suppress
from pathlib import PurePosixPath

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.release_file import RELEASE_FILE, Release, ReleaseFileError, parse_release

ENVIRONMENTS = "argocd/environments"
NAME = re.compile("[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # of an environment, as of a namespace
FIRST = "staging"  # where a release begins


def release_path(environment: str) -> str:
    """Return where an environment's release file is."""
    return f"{ENVIRONMENTS}/{environment}/{RELEASE_FILE}"


def environments(repository: Repository, commit: str) -> list[str]:
    """List the environments of a commit: the folders with a kustomization."""
    paths = map(PurePosixPath, repository.files(commit, ENVIRONMENTS))
    names = [path.parent.name for path in paths if path.name == "kustomization.yaml"]
    return [name for name in names if NAME.fullmatch(name)]


def check_environment(repository: Repository, commit: str, environment: str) -> None:
    """Raise DeliveryError unless the commit has the environment."""
    known = environments(repository, commit)
    if environment not in known:
        raise DeliveryError(
            f"there is no environment {environment!r}: give ENV={' or ENV='.join(known)}"
        )


def released_text(repository: Repository, commit: str, environment: str) -> str | None:
    """Return an environment's release file at a commit, or None before its first release."""
    content = repository.read(commit, release_path(environment))
    return None if content is None else content.decode()


def released(repository: Repository, commit: str, environment: str) -> Release | None:
    """Return what an environment serves at a commit, or None. Raises ReleaseFileError."""
    text = released_text(repository, commit, environment)
    return None if text is None else parse_release(text, release_path(environment))


def released_before(
    repository: Repository, commit: str, environment: str
) -> list[tuple[Release, str]]:
    """Return every release that an environment had up to a commit, with its file, newest first.

    A file that could not be read then served nothing, so it is passed over.
    """
    path = release_path(environment)
    found = []
    for each in repository.history(commit, path):
        text = released_text(repository, each, environment)
        if text is None:  # the commit removed it
            continue
        with suppress(ReleaseFileError):
            found.append((parse_release(text, path), text))
    return found


def next_version(repository: Repository, commit: str, environment: str) -> int:
    """Return one more than the highest version ever released, also if it was rolled back."""
    past = released_before(repository, commit, environment)
    return 1 + max((release.version for release, _ in past), default=0)
