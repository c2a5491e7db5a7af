"""Roll back: propose an earlier release file of an environment, as it was."""

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.contest import meet_again
from delivery.oci.registry import open_registry, parse_reference
from delivery.proposals.proposal import propose
from delivery.proposals.release_file import Release
from delivery.proposals.releases import (
    Past,
    all_releases,
    check_environment,
    digests,
    is_genuine,
    released,
)
from delivery.proposals.texts import rollback_proposal

ARGUMENTS = {
    "environment": {},
    "--to": {
        "type": int,
        "dest": "version",
        "help": "version; default: what the current one replaced",
    },
}


def run(repository: Repository, environment: str, version: int | None = None) -> None:
    """Propose an earlier release file of an environment, as it was. Raises DeliveryError."""
    base = repository.fetch()
    check_environment(repository, base, environment)
    current = released(repository, base, environment)
    if current is None:
        raise DeliveryError(f"{environment} has no release: there is nothing to roll back")
    past = all_releases(repository, base)
    restored = earlier(past, current, version, environment)
    if doubt := doubtful_image(restored.release):
        print(doubt)
    text = restored.content.decode()
    rival = None if doubt else meet_again(restored.release.image, current.image)
    proposal = rollback_proposal(environment, text, restored.release, current, rival, doubt)
    propose(repository, base, proposal)


def earlier(past: list[Past], current: Release, version: int | None, environment: str) -> Past:
    """Find what an environment had, among the releases of the past, newest first.

    Without a version it is what the current model replaced when it was first released: after a
    rollback the next one goes further back instead of returning to what was rolled back. A file
    with another version's image was a slip, and is no release to go back to. Raises DeliveryError.
    """
    known = digests(past)
    own = [each for each in past if each.environment == environment]
    genuine = [each for each in own if is_genuine(each.release, known)]
    if version == current.version and is_genuine(current, known):
        raise DeliveryError(f"{environment} already serves model {version}")
    if version is None:
        when = max(place for place, each in enumerate(own) if each.release.is_same_as(current))
        found = [each for each in own[when + 1 :] if each in genuine]
    else:
        found = [each for each in genuine if each.release.version == version]
    if found:
        return found[0]
    wanted = "an earlier release" if version is None else f"model {version}"
    versions = {current.version, *(each.release.version for each in genuine)}
    raise DeliveryError(
        f"{environment} serves model {current.version} and never had {wanted} to go back to "
        f"(in its history: {', '.join(map(str, sorted(versions)))})"
    )


def doubtful_image(release: Release) -> str:
    """Say that nobody could serve a release, because its image is gone, or that this is not known.

    It is for the approver to judge: a merge would leave what serves in place, on a cluster.
    """
    name, digest = parse_reference(release.image)
    try:
        open_registry(name).read_manifest(digest)
    except DeliveryError as error:
        return (
            f"**{name} does not give the image of model {release.version} ({error}):** look for it "
            "before you merge this.\n\n"
        )
    return ""
