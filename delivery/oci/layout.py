"""An OCI image layout: a registry that is a folder on disk.

A blob is written under a temporary name and renamed to its digest when it is complete, and the
index, which makes an image visible, comes last: a writer that is killed leaves nothing that
looks complete.
"""

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock
from pydantic import Field

from delivery.errors import DeliveryError
from delivery.oci.image import (
    LARGEST_DOCUMENT,
    MANIFEST,
    Blob,
    ImageManifest,
    canonical,
    digest_of,
    parse_manifest,
)
from workspace.files import replacing, sha256, write
from workspace.settings import Settings, SettingsError, check, read_json

REFERENCE_NAME = "org.opencontainers.image.ref.name"
AGAIN = "have it deleted there, then push the image to it again"
HERE = "package it again, `make package VERSION=<its version>`, or push the image to it again"


class MissingBlobError(DeliveryError):
    """A registry does not hold a blob or an image manifest."""


class Listed(Settings, extra="allow"):
    """An image in an index; what else stands there stays there."""

    digest: str


class Index(Settings, extra="ignore"):
    """The list of a layout's images, `index.json`."""

    manifests: list[Listed] = Field(description="the list of the layout's images")


class HashingWriter:
    """A binary stream that hashes and counts what passes through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Pass on to `stream`."""
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> int:
        """Write bytes and take them into the digest."""
        self._hash.update(chunk)
        self.size += len(chunk)
        return self._stream.write(chunk)

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"sha256:{self._hash.hexdigest()}"


@dataclass(frozen=True)
class Layout:
    """The image layout in a folder, which is made when it is first written to."""

    folder: Path

    @property
    def name(self) -> str:
        """What references call this registry."""
        return f"oci:{self.folder}"

    def path(self, digest: str) -> Path:
        """Return where a blob lies, present or not."""
        return self.folder / "blobs" / digest.replace(":", "/", 1)

    def has(self, blob: Blob) -> bool:
        """Tell whether the blob is there, whole and sound."""
        path = self.path(blob.digest)
        return path.is_file() and self.digest_stored(blob.digest) == blob.digest

    def digest_stored(self, digest: str) -> str:
        """Return the digest of what lies where a blob is kept, which may be damaged."""
        return f"sha256:{sha256(self.path(digest))}"

    def read(self, digest: str) -> BinaryIO:
        """Open a blob; the reader checks the digest. Raises MissingBlobError."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise MissingBlobError(f"{self.name} does not hold {digest}: {HERE}") from error

    def read_manifest(self, digest: str) -> bytes:
        """Return an image manifest's first bytes, unchecked. Raises MissingBlobError."""
        with self.read(digest) as stream:
            return stream.read(LARGEST_DOCUMENT)

    def take(self, layout: "Layout", content: bytes, tag: str) -> bool:
        """Copy an image from another layout; tell whether it was not here.

        `content` is its image manifest, which comes last. Raises DeliveryError.
        """
        manifest = parse_manifest(content, layout.name)
        missing = [blob for blob in (manifest.config, manifest.layer) if not self.has(blob)]
        for blob in missing:
            layout.require(blob)
            with layout.read(blob.digest) as stream:
                self.add(blob.media_type, partial(shutil.copyfileobj, stream))
        return self.write_manifest(content, tag) or bool(missing)

    def fetch(self, digest: str, manifest: ImageManifest, folder: Path) -> "Layout":
        """Return where an image can be read, which is here."""
        return self

    def require(self, blob: Blob) -> None:
        """Raise DeliveryError unless the blob is here."""
        if not self.has(blob):
            raise DeliveryError(f"{self.path(blob.digest)} is corrupt: package the model again")

    def add(self, media_type: str, produce: Callable[[HashingWriter], object]) -> Blob:
        """Store what `produce` writes under the digest that it turns out to have."""
        place = self.folder / "blob"
        with (
            writing(self.folder, ".blob.*"),
            replacing(place, "wb", lambda: self.path(writer.digest)) as stream,
        ):
            writer = HashingWriter(stream)
            produce(writer)
        return Blob(media_type=media_type, digest=writer.digest, size=writer.size)

    def add_bytes(self, media_type: str, content: bytes) -> Blob:
        """Store a small blob."""
        return self.add(media_type, lambda out: out.write(content))

    def tagged(self, tag: str) -> str | None:
        """Return the digest of what the index lists by a tag, or None."""
        return next((each["digest"] for each in self._listed() if _name(each) == tag), None)

    def write_manifest(self, content: bytes, tag: str, media_type: str = MANIFEST) -> bool:
        """Store a manifest and list it in the index by its tag; tell whether it was not there."""
        blob = Blob(media_type=media_type, digest=digest_of(content), size=len(content))
        entry = {**blob.document(), "annotations": {REFERENCE_NAME: tag}}
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock"):
            listed = self._listed()
            if entry in listed and self.has(blob):
                return False
            self.add_bytes(media_type, content)
            others = [each for each in listed if each["digest"] != blob.digest]
            others = [each for each in others if _name(each) != tag]
            index = {"schemaVersion": 2, "manifests": [*others, entry]}
            write(self.folder / "oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
            write(self.folder / "index.json", canonical(index))
        return True

    def _listed(self) -> list[dict[str, Any]]:
        path = self.folder / "index.json"
        if not path.exists():
            return []
        try:
            index = check(Index, read_json(path), str(path))
        except SettingsError as error:
            raise DeliveryError(
                f"{error}; or remove it: it only lists what the folder holds, and what is packaged "
                "or released again is listed again"
            ) from None
        return [each.model_dump() for each in index.manifests]


def _name(listed: dict[str, Any]) -> Any:
    """Return the tag of an entry of an index, if it has one."""
    annotations = listed.get("annotations")
    return annotations.get(REFERENCE_NAME) if isinstance(annotations, dict) else None


@contextmanager
def writing(folder: Path, unfinished: str) -> Iterator[None]:
    """Hold a lock that all writers into a folder share.

    Whoever is alone removes what others, which were killed, left there under unfinished names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".writing").open("wb") as lock:
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for path in folder.glob(unfinished):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
