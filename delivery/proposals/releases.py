"""Releases in Git: what each environment should serve, now and before."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.release_file import (
    RELEASE_FILE,
    Release,
    next_number,
    parse_release,
    readable,
)
from workspace.settings import SMALL

ENVIRONMENTS = "argocd/environments"
NAME = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # of an environment, as of a namespace
KUSTOMIZATION = re.compile(rf"{ENVIRONMENTS}/({NAME})/kustomization\.yaml")
FIRST = "staging"  # where a release begins


def release_path(environment: str) -> str:
    """Return where an environment's release file is."""
    return f"{ENVIRONMENTS}/{environment}/{RELEASE_FILE}"


def environments(repository: Repository, commit: str) -> list[str]:
    """List the environments of a commit: the folders with a kustomization."""
    paths = repository.files(commit, ENVIRONMENTS)
    return [found[1] for path in paths if (found := KUSTOMIZATION.fullmatch(path))]


def check_environment(repository: Repository, commit: str, environment: str) -> None:
    """Raise DeliveryError unless the commit has the environment."""
    known = environments(repository, commit)
    if environment not in known:
        raise DeliveryError(
            f"there is no environment {environment!r}: give ENV={' or ENV='.join(known)}"
        )


def released_content(repository: Repository, commit: str, environment: str) -> bytes | None:
    """Return an environment's release file at a commit, or None before its first release.

    Raises ReleaseFileError for one that is too large.
    """
    with readable():
        return repository.read(commit, release_path(environment), SMALL)


def released(repository: Repository, commit: str, environment: str) -> Release | None:
    """Return what an environment serves at a commit, or None. Raises ReleaseFileError."""
    content = released_content(repository, commit, environment)
    return None if content is None else parse_release(content, release_path(environment))


@dataclass(frozen=True)
class Past:
    """What an environment had at some time: a release, and its file."""

    environment: str
    release: Release
    content: bytes


def all_releases(repository: Repository, commit: str) -> list[Past]:
    """Return what all environments ever had up to a commit, newest first.

    What could not be read then served nothing, so it is passed over, whatever it is.
    """
    found = []
    for path, content in repository.versions(commit, release_path("*"), SMALL):
        with suppress(Exception):
            release = parse_release(content, path)
            found.append(Past(PurePosixPath(path).parent.name, release, content))
    return found


def next_version(past: list[Past]) -> int:
    """Return a version that was never released anywhere, also none that was rolled back."""
    return next_number(each.release.version for each in past)


def digests(past: list[Past]) -> dict[int, str]:
    """Return the digest of each version's image: the first that it had, and no other's before."""
    found: dict[int, str] = {}
    for each in reversed(past):
        version, digest = each.release.version, each.release.digest
        if digest not in found.values():
            found.setdefault(version, digest)
    return found


def is_genuine(release: Release, known: dict[int, str]) -> bool:
    """Tell whether a release has its own version's image, and not another one's."""
    return known.get(release.version) == release.digest


def check_image(version: int, digest: str, past: list[Past]) -> None:
    """Raise DeliveryError when a version was released with another image, or the image as another.

    Who looks at a version later must find the same model, in whichever environment.
    """
    known = digests(past)
    others = {image: number for number, image in known.items() if number != version}
    if known.get(version, digest) != digest:
        wrong = f"model {version} was released with the image {known[version][:19]}"
    elif digest in others:
        wrong = f"this image was released as model {others[digest]}"
    else:
        return
    raise DeliveryError(
        f"model {version} with the image {digest[:19]}: {wrong}, and a version's image never "
        f"changes: `make rollback ENV={FIRST}` if someone edited its file, or `make release` for a "
        "version of its own"
    )
