"""What a model image is: one uncompressed layer, a configuration and a manifest.

The documents follow the OCI image specification. They hold nothing but what follows from the
content (no creation time, no builder), so equal content has equal digests everywhere.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from delivery.errors import DeliveryError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
VERSION = "org.opencontainers.image.version"
REVISION = "org.opencontainers.image.revision"  # the commit that a training image was built from
# An image for several platforms is an index (OCI) or a manifest list (Docker).
ANY_MANIFEST = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)
CHUNK = 1024 * 1024  # bytes: all that is held of a file at once


@dataclass(frozen=True)
class Blob:
    """A piece of content: its media type, `sha256:<hex>` digest and size in bytes."""

    media_type: str
    digest: str
    size: int

    def document(self) -> dict[str, Any]:
        """Describe the blob as a manifest does."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Manifest:
    """The root of an image: its configuration, its only layer and the model version in it."""

    config: Blob
    layer: Blob
    version: str

    def content(self) -> bytes:
        """Return the manifest's bytes; their digest names the image."""
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self.config.document(),
                "layers": [self.layer.document()],
                "annotations": {VERSION: self.version},
            }
        )


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes, `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def checked_digest(text: str) -> str:
    """Return a digest that is safe to use as a path; raises ValueError."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is not sha256: and 64 hexadecimal digits")
    return text


def canonical(document: dict[str, Any]) -> bytes:
    """Write JSON with sorted keys and no spaces: one document, one sequence of bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def config_content(layer: Blob) -> bytes:
    """Return the image configuration; the platform is that of the nodes with a GPU."""
    return canonical(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            # the layer is not compressed, so its digest is also that of its content
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        }
    )


def parse_manifest(content: bytes, name: str) -> Manifest:
    """Read a manifest; `name` is what a message calls it.

    Raises DeliveryError when it isn't JSON, has no single uncompressed layer or lacks a field.
    """
    try:
        document = json.loads(content)
        (layer,) = document["layers"]
        manifest = Manifest(
            _blob(document["config"], CONFIG),
            _blob(layer, LAYER),
            str(document["annotations"][VERSION]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DeliveryError(
            f"{name} is not a model image ({error!r}): it needs one uncompressed layer "
            "and a version; give the digest that `make release` printed"
        ) from error
    return manifest


def _blob(document: dict[str, Any], media_type: str) -> Blob:
    if document["mediaType"] != media_type:
        raise ValueError(f"{document['mediaType']} instead of {media_type}")
    return Blob(media_type, checked_digest(document["digest"]), int(document["size"]))


def tag_of(version: int | str, digest: str) -> str:
    """Name an image for people and for registries that expire untagged ones.

    It follows from the content, so it never moves, and nothing is deployed by it.
    """
    return f"v{version}-{digest.removeprefix('sha256:')[:12]}"
