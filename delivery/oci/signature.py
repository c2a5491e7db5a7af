"""Signatures: a statement about an image that a key has signed, as a Sigstore bundle.

The bundle (version 0.3) holds a DSSE envelope with an in-toto statement. cosign 3 writes and checks
the same, with the same keys: ECDSA on P-256, in PEM files.
"""

import base64
import hashlib
from dataclasses import dataclass
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import AfterValidator, Field
from pydantic.alias_generators import to_camel

from delivery.errors import DeliveryError
from delivery.oci.image import canonical
from workspace.settings import Settings, SettingsError, check, parse_json

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
ALGORITHM = ec.ECDSA(hashes.SHA256())
# The same statement gets the same signature, so a release that is repeated changes nothing.
SIGNING = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class SignatureError(DeliveryError):
    """A signature that is missing, broken, of another key or of something else."""


def decoded(text: str) -> bytes:
    """Read base64. Raises ValueError."""
    return base64.b64decode(text, validate=True)


def checked_base64(text: str) -> str:
    """Return a text that is base64. Raises ValueError."""
    decoded(text)
    return text


Base64 = Annotated[str, AfterValidator(checked_base64)]


class Document(Settings, extra="ignore", alias_generator=to_camel, populate_by_name=True):
    """A part of a bundle or of a statement; what is not needed here is passed over."""


class Signed(Document):
    """One signature of an envelope."""

    sig: Base64 = Field(description="base64")


class Envelope(Document):
    """A DSSE envelope with one signature."""

    payload: Base64 = Field(description="base64")
    payload_type: str = Field(pattern=f"^{PAYLOAD.replace('+', '[+]')}$", description=PAYLOAD)
    signatures: tuple[Signed]


class Bundle(Document):
    """A Sigstore bundle; which key it is of is tried, not read."""

    dsse_envelope: Envelope = Field(description="a DSSE envelope")


class Subject(Document):
    """What a statement is about."""

    digest: dict[str, str]


class Statement(Document):
    """An in-toto statement: that its predicate, of some type, holds of its subjects."""

    subject: list[Subject]
    predicate_type: str
    predicate: dict[str, Any] | None = None

    def is_about(self, digest: str) -> bool:
        """Tell whether `sha256:<hex>` is one of the subjects."""
        return any(f"sha256:{each.digest.get('sha256')}" == digest for each in self.subject)


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with; `name` is what a sentence calls it."""

    name: str
    key: ec.EllipticCurvePublicKey

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key, by which people and bundles name it."""
        form, encoding = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.DER
        return hashlib.sha256(self.key.public_bytes(encoding, form)).digest()

    def __str__(self) -> str:
        """Return name and the beginning of the digest."""
        return f"{self.name} ({self.digest.hex()[:12]})"


def public_key(pem: bytes, name: str) -> PublicKey:
    """Read a public key. Raises SignatureError."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError(
            f"{name} holds no public key of ECDSA on P-256: write it anew with "
            f"`openssl pkey -in <private key> -pubout -out {name}`"
        )
    return PublicKey(name, key)


def private_key(pem: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key without a password. Raises SignatureError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise SignatureError(
            f"{name} holds no private key of ECDSA on P-256 without a password: make one with "
            f"`openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}`"
        )
    return key


def statement(digest: str, predicate_type: str, predicate: dict[str, Any]) -> bytes:
    """Write the statement that a predicate holds of an image, whatever registry it is in."""
    subject = {"digest": dict([digest.split(":")])}
    document = {"_type": STATEMENT, "subject": [subject], "predicateType": predicate_type}
    return canonical(document | {"predicate": predicate})


def sign(content: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the bundle with a statement and its signature."""
    signature = key.sign(encoded(PAYLOAD, content), SIGNING)
    hint = base64.b64encode(PublicKey("", key.public_key()).digest).decode()
    envelope = {
        "payload": base64.b64encode(content).decode(),
        "payloadType": PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    material = {"publicKey": {"hint": hint}}
    document = {"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return canonical(document)


def encoded(kind: str, content: bytes) -> bytes:
    """Return what DSSE signs: type and content with their lengths, so that neither is ambiguous."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(content), content)


def verify(bundle: bytes, digest: str, key: PublicKey) -> Statement:
    """Return the statement in a bundle, if the key signed it and it is about the image.

    `digest` is the image's, `sha256:<hex>`. Raises SignatureError.
    """
    try:
        envelope = check(Bundle, parse_json(bundle, "the signature"), "the signature").dsse_envelope
        content = decoded(envelope.payload)
        key.key.verify(
            decoded(envelope.signatures[0].sig), encoded(envelope.payload_type, content), ALGORITHM
        )
        found = check(Statement, parse_json(content, "what was signed"), "what was signed")
    except InvalidSignature:
        raise SignatureError(f"the signature is not one of {key}, or was changed") from None
    except SettingsError as error:
        raise SignatureError(f"the signature cannot be read ({error})") from None
    if not found.is_about(digest):
        raise SignatureError(f"the signature of {key} is of another image than {digest[:19]}")
    return found
