"""Compare the model in /models with what was signed; end with status 1 if it is something else.

It runs in a pod before the server, with nothing but Python: no network, no packages. What it is
told stands in the environment: IMAGE by digest, VERSION, SIGNATURE (base64 of a Sigstore bundle),
and KEY, the public key (PEM, ECDSA on P-256). It writes layer and image manifest again, byte by
byte as `make package` does, and keeps nothing but their digests.
"""

import base64
import hashlib
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, cast

# The curve P-256 of FIPS 186-5: y² = x³ - 3x + B modulo P, with N points that G makes.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
# How the DER of every public key of this curve begins; two coordinates follow.
HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
CHUNK = 1024 * 1024
Point = tuple[int, int]


class Hashing:
    """A stream that keeps nothing but the digest and the size of what is written."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.hash, self.size = hashlib.sha256(), 0

    def write(self, chunk: bytes) -> int:
        """Take in bytes."""
        self.hash.update(chunk)
        self.size += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        """Return how many there were."""
        return self.size


def layer(folder: Path) -> dict[str, Any]:
    """Return the blob that all files of a folder are as a layer."""
    stream = Hashing()
    with tarfile.TarFile(
        fileobj=cast(Any, stream), mode="w", format=tarfile.PAX_FORMAT, copybufsize=CHUNK
    ) as archive:
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                sys.exit(f"not the model that was signed: {path} is neither a file nor a folder")
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
                continue
            with path.open("rb") as source:
                entry.mode, entry.size = 0o644, path.stat().st_size
                archive.addfile(entry, source)
    return {
        "mediaType": LAYER,
        "digest": f"sha256:{stream.hash.hexdigest()}",
        "size": stream.size,
    }


def image(blob: dict[str, Any], version: str) -> str:
    """Return the digest of the image of a version that has a layer."""
    config = canonical(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [blob["digest"]]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [blob],
        "annotations": {"org.opencontainers.image.version": version},
    }
    return digest(canonical(manifest))


def canonical(document: dict[str, Any]) -> bytes:
    """Write JSON as image manifests have it."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes) -> str:
    """Return `sha256:<hex>` of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def add(one: Point | None, other: Point | None) -> Point | None:
    """Add two points of the curve; None is the point at infinity."""
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 - 3) * pow(2 * one[1], -1, P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope**2 - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def times(factor: int, point: Point | None) -> Point | None:
    """Add a point to itself so many times."""
    total: Point | None = None
    while factor:
        if factor & 1:
            total = add(total, point)
        point, factor = add(point, point), factor >> 1
    return total


def public_key(pem: str) -> Point:
    """Return the point that a public key is. Raises ValueError."""
    lines = [line.strip() for line in pem.splitlines() if not line.startswith("-----")]
    der = base64.b64decode("".join(lines), validate=True)
    x, y = (int.from_bytes(each, "big") for each in (der[len(HEAD) : -32], der[-32:]))
    if not der.startswith(HEAD) or len(der) != len(HEAD) + 64 or (y**2 - x**3 + 3 * x - B) % P:
        raise ValueError("KEY is no public key of ECDSA on P-256")
    return x, y


def numbers(der: bytes) -> tuple[int, int]:
    """Return the two numbers of a signature in DER. Raises ValueError."""
    if len(der) < 8 or der[0] != 0x30 or der[1] != len(der) - 2 or der[2] != 2:
        raise ValueError("the signature is not written as ECDSA's are")
    middle = 4 + der[3]
    first, rest = der[4:middle], der[middle:]
    if len(rest) < 3 or rest[0] != 2 or rest[1] != len(rest) - 2:
        raise ValueError("the signature is not written as ECDSA's are")
    return int.from_bytes(first, "big"), int.from_bytes(rest[2:], "big")


def is_signed(content: bytes, signature: bytes, key: Point) -> bool:
    """Tell whether a signature of SHA-256 is the key's (FIPS 186-5, 6.4.2)."""
    r, s = numbers(signature)
    if not (0 < r < N and 0 < s < N):
        return False
    inverse = pow(s, -1, N)
    hashed = int.from_bytes(hashlib.sha256(content).digest(), "big")
    point = add(times(hashed * inverse % N, G), times(r * inverse % N, key))
    return point is not None and point[0] % N == r


def signed_digests(bundle: bytes, key: Point) -> list[str]:
    """Return the digests that a bundle's statement is about. Raises ValueError, KeyError …"""
    envelope = json.loads(bundle)["dsseEnvelope"]
    kind, content = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(content), content)
    (signature,) = envelope["signatures"]
    if not is_signed(encoded, base64.b64decode(signature["sig"]), key):
        raise ValueError("the key did not sign it")
    return [f"sha256:{each['digest']['sha256']}" for each in json.loads(content)["subject"]]


def main() -> None:
    """Verify first the signature, which is fast, then the files."""
    wanted = os.environ["IMAGE"].rpartition("@")[2]
    folder = Path(os.environ.get("MODELS", "/models"))
    try:
        signature = base64.b64decode(os.environ["SIGNATURE"], validate=True)
        signed = signed_digests(signature, public_key(os.environ["KEY"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"not signed: {type(error).__name__}: {error}")
    if wanted not in signed:
        sys.exit(f"not signed: the signature is of another image than {wanted}")
    begun = time.monotonic()
    blob = layer(folder)
    found, seconds = image(blob, os.environ["VERSION"]), time.monotonic() - begun
    if found != wanted:
        sys.exit(f"not the model that was signed: {folder} is {found} instead of {wanted}")
    print(
        f"{wanted} is signed and whole: {blob['size'] / 1e9:.3f} GB in {seconds:.2f} s", flush=True
    )


main()
