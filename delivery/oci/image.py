"""What a model image is: one uncompressed layer, a configuration and an image manifest.

The documents follow the OCI image specification. They hold nothing but what follows from the
content (no creation time, no builder), so equal content has equal digests everywhere.
"""

import hashlib
import json
import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field
from pydantic.alias_generators import to_camel

from delivery.errors import DeliveryError
from workspace.settings import Settings, SettingsError, check, parse_json

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
VERSION: Final = "org.opencontainers.image.version"
REVISION = "org.opencontainers.image.revision"  # the commit that a training image was built from
CHUNK = 1024 * 1024  # bytes: all that is held of a file at once
LARGEST_DOCUMENT = 4 * CHUNK  # bytes of an image manifest or a configuration, skopeo's limit, too


def digest_of(content: bytes) -> str:
    """Return the digest of some bytes, `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def checked_digest(text: str) -> str:
    """Return a digest that is safe to use as a path; raises ValueError."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise ValueError(f"{text!r} is not sha256: and 64 hexadecimal digits")
    return text


class Blob(Settings, extra="ignore", alias_generator=to_camel, populate_by_name=True):
    """A piece of content: its media type, `sha256:<hex>` digest and size in bytes."""

    media_type: str
    digest: Annotated[str, AfterValidator(checked_digest)]
    size: int

    def document(self) -> dict[str, Any]:
        """Describe the blob as an image manifest does."""
        return self.model_dump(by_alias=True)


class Annotations(Settings, extra="ignore"):
    """What an image manifest says besides its blobs."""

    version: str = Field(alias=VERSION, pattern="^[1-9][0-9]*$", description="a model version")


class ImageManifest(Settings, extra="ignore"):
    """The root of an image: its configuration, its only layer and the model version in it."""

    config: Blob
    layers: tuple[Blob]
    annotations: Annotations

    @property
    def layer(self) -> Blob:
        """The layer."""
        return self.layers[0]

    @property
    def version(self) -> str:
        """The model version."""
        return self.annotations.version


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


def manifest_content(config: Blob, layer: Blob, version: str) -> bytes:
    """Return the image manifest; the digest of these bytes names the image."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.document(),
            "layers": [layer.document()],
            "annotations": {VERSION: version},
        }
    )


def image_content(layer: Blob, version: str) -> bytes:
    """Return the image manifest of the one image of a version that has this layer."""
    config = config_content(layer)
    return manifest_content(
        Blob(media_type=CONFIG, digest=digest_of(config), size=len(config)), layer, version
    )


def parse_manifest(content: bytes, image: str) -> ImageManifest:
    """Read an image manifest; `image` is what a message calls it.

    Programs differ in what they read in JSON, so it must be, byte for byte, what is written here.
    Raises DeliveryError unless it is that of a model image.
    """
    name = "its image manifest"
    try:
        manifest = check(ImageManifest, parse_json(content, name), name)
        layer = Blob(media_type=LAYER, digest=manifest.layer.digest, size=manifest.layer.size)
        if content != image_content(layer, manifest.version):
            raise SettingsError(f"{name} is written in another way than `make package` does it")
    except SettingsError as error:
        raise DeliveryError(
            f"{image} is not a model image ({error}): give the digest that `make release` printed"
        ) from None
    return manifest


def tag_of(version: int | str, digest: str) -> str:
    """Name an image for people and for registries that expire untagged ones.

    It follows from the content, so it never moves, and nothing is deployed by it.
    """
    return f"v{version}-{digest.removeprefix('sha256:')[:12]}"
