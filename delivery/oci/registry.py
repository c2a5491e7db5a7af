"""Push and pull model images.

A registry is `oci:<folder>` (an image layout on disk) or `<host>/<name>` (any registry that
follows the OCI distribution specification, through skopeo). A reference adds the digest:
`<registry>@sha256:…`.
"""

import hashlib
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK, Blob, checked_digest, digest_of, parse_manifest, tag_of
from delivery.oci.layout import Layout
from delivery.oci.remote import NAME, Remote
from workspace.files import publish

DEEPEST = 32  # folders in one another that are unpacked; a model has four


def open_registry(name: str) -> Layout | Remote:
    """Return the registry with this name. Raises DeliveryError."""
    if name.startswith("oci:") and len(name) > len("oci:"):
        return Layout(Path(name.removeprefix("oci:")))
    if NAME.fullmatch(name):
        return Remote(name)
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


def pull(reference: str, folder: Path) -> int:
    """Unpack an image into a new folder and return the number of bytes received.

    Every size and digest is checked, and the folder appears only when all of it is right. Raises
    DeliveryError.
    """
    name, digest = parse_reference(reference)
    registry = open_registry(name)
    if folder.exists():
        raise DeliveryError(f"{folder} exists: remove it, or pull {reference} into another folder")
    content = _document(registry, digest)
    manifest = parse_manifest(content, reference)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        layout = registry.fetch(digest, manifest.layer, Path(scratch) / "layout")
        config = _document(layout, manifest.config.digest)
        _unpack(layout, manifest.layer, Path(scratch) / "image")
        publish(Path(scratch) / "image", folder)
    return len(content) + len(config) + manifest.layer.size


class CheckedReader:
    """A binary stream of a blob that ends with an error unless its digest is right."""

    def __init__(self, stream: IO[bytes], blob: Blob, origin: str) -> None:
        """Read `blob` from `stream`; `origin` is what messages call the registry."""
        self._stream = stream
        self._blob = blob
        self._origin = origin
        self._hash = hashlib.sha256()

    def read(self, size: int = CHUNK) -> bytes:
        """Read at most `size` bytes."""
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        return chunk

    def finish(self) -> None:
        """Read what is left; raises DeliveryError unless the digest is right."""
        while self.read():
            pass
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._blob.digest:
            raise DeliveryError(_mismatch(self._origin, self._blob.digest, found))


def _mismatch(name: str, wanted: str, found: str) -> str:
    return f"what {name} gave is corrupt: its digest is {found} instead of {wanted}; push it again"


def _document(registry: Layout | Remote, digest: str) -> bytes:
    """Read an image manifest or configuration and check its digest."""
    content = registry.read_manifest(digest)
    if digest_of(content) != digest:
        raise DeliveryError(_mismatch(registry.name, digest, digest_of(content)))
    return content


def _unpack(layout: Layout, layer: Blob, folder: Path) -> None:
    folder.mkdir()
    with (
        layout.read(layer.digest) as file,
        tqdm.wrapattr(
            file, "read", total=layer.size, desc="pull", delay=1, mininterval=1, disable=None
        ) as stream,
    ):
        if (size := layout.path(layer.digest).stat().st_size) != layer.size:
            raise DeliveryError(
                f"{layout.name} gave {size} instead of {layer.size} bytes for {layer.digest}: "
                "push the image again"
            )
        _extract(CheckedReader(cast(Any, stream), layer, layout.name), folder)


def _extract(reader: CheckedReader, folder: Path) -> None:
    """Extract a stream. That its bytes are wrong comes before what they made of the archive."""
    try:
        with tarfile.open(fileobj=cast(Any, reader), mode="r|", bufsize=CHUNK) as archive:
            cast(Any, archive).copybufsize = CHUNK
            for entry in archive:
                _place(archive, entry, folder)
    except (tarfile.TarError, ValueError) as error:  # of names with a NUL, too
        reader.finish()
        raise DeliveryError(f"the layer is not a tar archive ({error})") from error
    except DeliveryError:
        reader.finish()
        raise
    reader.finish()


def _place(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(entry.name)
    target = folder / name
    if name.is_absolute() or ".." in name.parts:
        raise DeliveryError(f"the layer holds {entry.name!r}, which lies outside the image")
    if len(name.parts) > DEEPEST:
        raise DeliveryError(f"the layer holds {name.parts[0]!r} with folders nested too deeply")
    if entry.type not in (tarfile.REGTYPE, tarfile.DIRTYPE) or entry.issparse():
        raise DeliveryError(f"the layer holds {entry.name!r}, which is neither a file nor a folder")
    if target.exists() or any(parent.is_file() for parent in target.parents):
        raise DeliveryError(f"the layer holds {entry.name!r} twice, or as file and as folder")
    archive.extract(entry, folder, set_attrs=False, filter="data")
