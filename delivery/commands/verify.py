"""Verify: say who signed a released model, and what."""

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.referrers import attached
from delivery.oci.registry import parse_reference
from delivery.oci.signature import SignatureError
from delivery.proposals.release_file import Release
from delivery.proposals.releases import all_releases, check_image
from delivery.proposals.signing import Trust, read_trust

ARGUMENTS = {
    "version": {"type": int},
    "--environment": {"help": "where it was released; default: anywhere"},
}


def run(repository: Repository, version: int, environment: str | None = None) -> None:
    """Check the signature of a version that the commit checked out knows, with its key in Git.

    Only what has no signature in its release file is looked for in the registry. Raises UserError
    unless the key signed it.
    """
    commit = repository.head()
    trust = read_trust(repository, commit)
    if trust.key is None:
        raise SignatureError(
            "params.yaml names no release.signing_key to check signatures with: commit a public "
            "key and name it there"
        )
    past = all_releases(repository, commit)
    own = [each.release for each in past if environment in (None, each.environment)]
    found = next((each for each in own if each.version == version), None)
    if found is None:
        known = ", ".join(map(str, sorted({each.version for each in own})))
        hint = f"give VERSION={known}" if known else "`make release`, and merge it first"
        raise DeliveryError(f"there is no model {version} in this commit's history: {hint}")
    check_image(version, found.digest, past)
    print(f"model {version} ({found.digest[:19]}): {vouched(trust, found)}")


def vouched(trust: Trust, release: Release) -> str:
    """Say who signed a release, in its file or in the registry. Raises UserError if nobody did."""
    if release.signature is not None:
        return trust.judge(release)
    name, digest = parse_reference(release.image)
    wrong = SignatureError(f"model {release.version} is unsigned")
    for bundle in attached(name, digest):
        try:
            return trust.vouches(bundle, release)
        except SignatureError as error:
            wrong = error
    raise wrong
