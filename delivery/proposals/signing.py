"""Who vouches for a release: the key in Git that the signature in its file is checked with.

The signature is of the image's digest and of all else that the release file says, so nobody can
give a signed model other figures or another origin.
"""

import base64
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from delivery.git import Repository
from delivery.oci.signature import (
    PublicKey,
    SignatureError,
    private_key,
    public_key,
    sign,
    statement,
    verify,
)
from delivery.parameters import committed_target
from delivery.proposals.config_map import written
from delivery.proposals.release_file import Release
from workspace.errors import shown
from workspace.machine import this_machine

PREDICATE = "urn:merge-to-serve:release:1"  # the type of what is signed: a release file's values
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True)
class Trust:
    """Whose signature counts; `key` is None where nobody's does."""

    key: PublicKey | None = None
    required: bool = False

    def judge(self, release: Release) -> str:
        """Say who signed a release, or that nobody did.

        Raises SignatureError for a signature that is wrong, or missing where one is required.
        """
        if release.signature is None and self.required:
            raise SignatureError(
                f"model {release.version} is unsigned, and release.require_signature in "
                "params.yaml is true: `make release SIGNING_KEY=<private key>` releases it signed"
            )
        if release.signature is None:
            return "unsigned"
        if self.key is None:
            return "signed, but params.yaml names no release.signing_key to check that with"
        return self.vouches(release.bundle, release)

    def vouches(self, bundle: bytes, release: Release) -> str:
        """Say what a signature tells of a release. Raises SignatureError where it is wrong."""
        assert self.key
        found = verify(bundle, release.digest, self.key)
        if found.predicate_type != PREDICATE:  # such as cosign's own
            return f"its image is signed with {self.key}, its figures are not"
        signed = found.predicate or {}
        for name, value in told(release).items():
            if signed.get(name) != value:
                raise SignatureError(
                    f"model {release.version}: {name} is {shown(value)} in the release file and "
                    f"{shown(signed.get(name))} in what {self.key} signed"
                )
        return f"signed with {self.key}"


def read_trust(repository: Repository, commit: str) -> Trust:
    """Read whose signature counts, as a commit has it. Raises UserError."""
    target = committed_target(repository, commit)
    if target is None or target.signing_key is None:
        return Trust()
    pem = repository.read(commit, target.signing_key)
    if pem is None:
        raise SignatureError(
            f"release.signing_key in params.yaml is {shown(target.signing_key)}, which commit "
            f"{commit[:12]} does not have: commit the public key there"
        )
    return Trust(public_key(pem, target.signing_key), target.require_signature)


def read_signer(trust: Trust) -> EllipticCurvePrivateKey | None:
    """Read the private key that SIGNING_KEY names, None without one.

    Raises SignatureError for one that is not the trusted key's, or that others may read.
    """
    path = this_machine().signing_key
    if not path:
        if trust.required:
            raise SignatureError(
                "release.require_signature in params.yaml is true, so a release needs a key: "
                "`make release SIGNING_KEY=<private key>`"
            )
        return None
    if trust.key is None:
        raise SignatureError(
            "SIGNING_KEY is given, and params.yaml names no release.signing_key that others can "
            "check the signature with: commit the public key and name it there"
        )
    key = private_key(_secret(Path(path)), path)
    if PublicKey(path, key.public_key()).digest != trust.key.digest:
        raise SignatureError(f"{path} is not the private key of {trust.key}: give SIGNING_KEY that")
    return key


def signed(release: Release, key: EllipticCurvePrivateKey) -> Release:
    """Return a release with its signature."""
    bundle = sign(statement(release.digest, PREDICATE, told(release)), key)
    return release.model_copy(update={"signature": base64.b64encode(bundle).decode()})


def told(release: Release) -> dict[str, str]:
    """Return what is signed besides the digest: all that does not depend on the registry."""
    kept = written(release).items()
    return {name: value for name, value in kept if name not in ("image", "signature")}


def _secret(path: Path) -> bytes:
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise SignatureError(
            f"SIGNING_KEY is {shown(str(path))}, which cannot be read: {error.strerror}"
        ) from None
    if mode & OTHERS:
        raise SignatureError(f"others may read the private key {path}: `chmod 600 {path}`")
    return content
