"""Push and pull model images.

A registry is `oci:<folder>` (an image layout on disk) or `<host>/<repository>` (any registry that
follows the OCI distribution specification, through skopeo). A reference adds the digest:
`<registry>@sha256:…`.
"""

import hashlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import (
    CHUNK,
    Blob,
    checked_digest,
    digest_of,
    parse_manifest,
    tag_of,
)
from delivery.oci.layout import Layout
from delivery.oci.remote import NAME, Remote


@dataclass(frozen=True)
class Pushed:
    """An image in a registry: its reference, and whether it was not there before."""

    reference: str
    new: bool


def open_registry(name: str) -> Layout | Remote:
    """Return the registry with this name. Raises DeliveryError."""
    if name.startswith("oci:") and len(name) > len("oci:"):
        return Layout(Path(name.removeprefix("oci:")))
    if NAME.fullmatch(name):
        return Remote(name)
    raise DeliveryError(
        f"{name!r} is not a registry: give oci:<folder> or <host>/<repository>, without a tag"
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


def push(layout: Layout, digest: str, registry: str) -> Pushed:
    """Copy an image from a layout into a registry, the image manifest last.

    What the registry holds is not sent again. An interrupted push leaves at most blobs that no
    image manifest names. Raises DeliveryError.
    """
    target = open_registry(registry)
    content = layout.read_manifest(digest)
    manifest = parse_manifest(content, f"{layout.name}@{digest}")
    new = target.take(layout, content, tag_of(manifest.version, digest))
    return Pushed(f"{registry}@{digest}", new)


def pull(reference: str, folder: Path) -> int:
    """Unpack an image into a new folder and return the number of bytes received.

    Every size and digest is checked, and the folder appears only when all of it is right. Raises
    DeliveryError.
    """
    name, digest = parse_reference(reference)
    registry = open_registry(name)
    if folder.exists():
        raise DeliveryError(f"{folder} exists: remove it, or pull {reference} into another folder")
    content = registry.read_manifest(digest)
    if digest_of(content) != digest:
        raise DeliveryError(_mismatch(f"{name}'s image manifest", digest, digest_of(content)))
    manifest = parse_manifest(content, reference)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        layout = registry.fetch(digest, manifest.layer, Path(scratch) / "layout")
        config = _read(layout, manifest.config)
        _unpack(layout, manifest.layer, Path(scratch) / "image")
        (Path(scratch) / "image").rename(folder)
    return len(content) + len(config) + manifest.layer.size


class CheckedReader:
    """A binary stream of a blob that ends with an error unless size and digest are right."""

    def __init__(self, stream: IO[bytes], blob: Blob, origin: str) -> None:
        """Read `blob` from `stream`; `origin` is what messages call the registry."""
        self._stream = stream
        self._blob = blob
        self._origin = origin
        self._hash = hashlib.sha256()
        self._count = 0

    def read(self, size: int = CHUNK) -> bytes:
        """Read at most `size` bytes. Raises DeliveryError when the blob is too long."""
        chunk = self._stream.read(size)
        self._hash.update(chunk)
        self._count += len(chunk)
        if self._count > self._blob.size:
            raise DeliveryError(self._wrong_size("more than"))
        return chunk

    def finish(self) -> None:
        """Read what is left; raises DeliveryError unless size and digest are right."""
        while self.read():
            pass
        if self._count < self._blob.size:
            raise DeliveryError(self._wrong_size(f"only {self._count} of"))
        found = f"sha256:{self._hash.hexdigest()}"
        if found != self._blob.digest:
            raise DeliveryError(_mismatch(f"a blob of {self._origin}", self._blob.digest, found))

    def _wrong_size(self, amount: str) -> str:
        return (
            f"{self._origin} gave {amount} {self._blob.size} bytes for {self._blob.digest}: "
            "push the image again"
        )


def _mismatch(what: str, wanted: str, found: str) -> str:
    return f"{what} is corrupt: its digest is {found} instead of {wanted}; push the image again"


@contextmanager
def _checked(layout: Layout, blob: Blob) -> Iterator[CheckedReader]:
    with (
        layout.read(blob.digest) as stream,
        tqdm.wrapattr(
            stream, "read", total=blob.size, desc="pull", delay=1, mininterval=1, disable=None
        ) as counted,
    ):
        yield CheckedReader(cast(Any, counted), blob, layout.name)


def _read(layout: Layout, blob: Blob) -> bytes:
    with _checked(layout, blob) as reader:
        content = reader.read(blob.size)
        reader.finish()
    return content


def _unpack(layout: Layout, layer: Blob, folder: Path) -> None:
    folder.mkdir()
    with _checked(layout, layer) as reader:
        _extract(reader, folder)


def _extract(reader: CheckedReader, folder: Path) -> None:
    """Extract a stream. That its bytes are wrong comes before what they made of the archive."""
    try:
        with tarfile.open(fileobj=cast(Any, reader), mode="r|", bufsize=CHUNK) as archive:
            cast(Any, archive).copybufsize = CHUNK
            for entry in archive:
                _place(archive, entry, folder)
    except (tarfile.TarError, DeliveryError) as error:
        reader.finish()
        if isinstance(error, tarfile.TarError):
            raise DeliveryError(f"the layer is not a tar archive ({error})") from error
        raise
    reader.finish()


def _place(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(entry.name)
    target = folder / name
    if name.is_absolute() or ".." in name.parts:
        raise DeliveryError(f"the layer holds {entry.name!r}, which lies outside the image")
    if entry.type not in (tarfile.REGTYPE, tarfile.DIRTYPE) or entry.issparse():
        raise DeliveryError(f"the layer holds {entry.name!r}, which is neither a file nor a folder")
    if target.exists() or any(parent.is_file() for parent in target.parents):
        raise DeliveryError(f"the layer holds {entry.name!r} twice, or as file and as folder")
    archive.extract(entry, folder, set_attrs=False, filter="data")
