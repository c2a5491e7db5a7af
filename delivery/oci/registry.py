"""Push and pull model images.

A registry is `oci:<folder>` (an image layout on disk) or `<host>/<name>` (any registry that
follows the OCI distribution specification, through skopeo). A reference adds the digest:
`<registry>@sha256:…`.
"""

import math
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO, cast

from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import Blob, checked_digest, digest_of, parse_manifest, tag_of
from delivery.oci.layer import unpack
from delivery.oci.layout import AGAIN, HERE, Layout, writing
from delivery.oci.remote import NAME, Remote
from workspace.files import publish


def open_registry(name: str, until: float = math.inf) -> Layout | Remote:
    """Return the registry with this name, to be used until a time of the clock `monotonic`.

    Raises DeliveryError.
    """
    if name.startswith("oci:") and len(name) > len("oci:"):
        return Layout(Path(name.removeprefix("oci:")))
    if NAME.fullmatch(name):
        return Remote(name, until)
    raise DeliveryError(
        f"{name!r} is not a registry: give oci:<folder> or <host>/<name>, without a tag"
    )


def parse_reference(reference: str) -> tuple[str, str]:
    """Split `<registry>@sha256:<hex>` into registry and digest. Raises DeliveryError."""
    name, _, digest = reference.rpartition("@")
    try:
        return name, checked_digest(digest)
    except ValueError as error:
        raise DeliveryError(
            f"{reference!r} does not name an image by its digest: give <registry>@sha256:<64 hex>"
        ) from error


def push(layout: Layout, digest: str, registry: str) -> bool:
    """Copy an image from a layout into a registry; tell whether it was not there.

    What the registry holds is not sent again. An interrupted push leaves at most blobs that no
    image manifest names. Raises DeliveryError.
    """
    target = open_registry(registry)
    content = layout.read_manifest(digest)
    manifest = parse_manifest(content, f"{layout.name}@{digest}")
    return target.take(layout, content, tag_of(manifest.version, digest))


def pull(reference: str, folder: Path, deadline: float = math.inf) -> int:
    """Unpack an image into a new folder and return the number of bytes received.

    Every size and digest is checked, and the folder appears only when all of it is right. A
    registry has `deadline` seconds in all, and at most as long as its bytes may take. Raises
    DeliveryError.
    """
    name, digest = parse_reference(reference)
    registry = open_registry(name, time.monotonic() + deadline)
    if folder.exists():
        raise DeliveryError(f"{folder} exists: remove it, or pull {reference} into another folder")
    content = _document(registry, digest)
    manifest = parse_manifest(content, reference)
    with (
        writing(folder.parent, f".{folder.name}-*"),
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch,
    ):
        _require_room(manifest.layer, folder.parent, copies=1 + isinstance(registry, Remote))
        layout = registry.fetch(digest, manifest, Path(scratch) / "layout")
        config = _document(layout, manifest.config.digest)
        _unpack(layout, manifest.layer, Path(scratch) / "image")
        publish(Path(scratch) / "image", folder)
    return len(content) + len(config) + manifest.layer.size


def _require_room(layer: Blob, folder: Path, copies: int) -> None:
    """Refuse what the disk cannot take: a copy as it comes, and one unpacked."""
    free = shutil.disk_usage(folder).free
    if copies * layer.size > free:
        raise DeliveryError(
            f"the image needs {copies * layer.size / 1e9:,.1f} GB in {folder}, where "
            f"{free / 1e9:,.1f} GB are free: make room"
        )


def _mismatch(registry: Layout | Remote, wanted: str, found: str) -> str:
    cure = AGAIN if isinstance(registry, Remote) else HERE
    return (
        f"what {registry.name} gave is corrupt: its digest is {found} instead of {wanted}; {cure}"
    )


def _document(registry: Layout | Remote, digest: str) -> bytes:
    """Read an image manifest or configuration and check its digest."""
    content = registry.read_manifest(digest)
    if digest_of(content) != digest:
        raise DeliveryError(_mismatch(registry, digest, digest_of(content)))
    return content


def _unpack(layout: Layout, layer: Blob, folder: Path) -> None:
    """Unpack a layer. That its bytes are wrong comes before what they made of the archive."""
    with (
        layout.read(layer.digest) as file,
        tqdm.wrapattr(
            file, "read", total=layer.size, desc="pull", delay=1, mininterval=1, disable=None
        ) as stream,
    ):
        if (size := layout.path(layer.digest).stat().st_size) != layer.size:
            raise DeliveryError(
                f"{layout.name} gave {size} instead of {layer.size} bytes for {layer.digest}; "
                f"{HERE}"
            )
        try:
            found = unpack(cast(IO[bytes], stream), folder)
            why = "the layer is written in another way than `make package` does it"
        except (tarfile.TarError, ValueError) as error:  # of names with a NUL, too
            found, why = "", f"the layer is not a tar archive ({error})"
        except DeliveryError as error:
            found, why = "", str(error)
        if found == layer.digest:
            return
    stored = layout.digest_stored(layer.digest)
    raise DeliveryError(why if stored == layer.digest else _mismatch(layout, layer.digest, stored))
