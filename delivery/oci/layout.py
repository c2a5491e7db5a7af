"""An OCI image layout: a registry that is a folder on disk.

A blob is written under a temporary name and renamed to its digest when it is complete, and the
index, which makes an image visible, comes last: a writer that is killed leaves nothing that
looks complete.
"""

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from delivery.errors import DeliveryError
from delivery.oci.image import MANIFEST, Blob, canonical, digest_of

REFERENCE_NAME = "org.opencontainers.image.ref.name"


class MissingBlobError(DeliveryError):
    """A registry does not hold a blob or manifest."""


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
        """Tell whether the blob is there in full size."""
        path = self.path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def read(self, digest: str) -> BinaryIO:
        """Open a blob; the reader checks the digest. Raises MissingBlobError."""
        try:
            return self.path(digest).open("rb")
        except FileNotFoundError as error:
            raise MissingBlobError(
                f"{self.name} does not hold {digest}: push the image to it again"
            ) from error

    def read_manifest(self, digest: str) -> bytes:
        """Return a manifest's bytes, unchecked. Raises MissingBlobError."""
        with self.read(digest) as stream:
            return stream.read()

    def write(self, blob: Blob, source: Path) -> int:
        """Copy a blob from a file, unless it is there; return the bytes written."""
        if self.has(blob):
            return 0
        with source.open("rb") as stream:
            copy = self.add(blob.media_type, lambda out: shutil.copyfileobj(stream, out))
        if copy != blob:
            raise DeliveryError(f"{source} is corrupt: package the model again")
        return blob.size

    def add(self, media_type: str, produce: Callable[[HashingWriter], object]) -> Blob:
        """Store what `produce` writes under the digest that it turns out to have."""
        with self._partial() as stream:
            writer = HashingWriter(stream)
            produce(writer)
            stream.flush()
            path = self.path(writer.digest)
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(stream.name).rename(path)
        return Blob(media_type, writer.digest, writer.size)

    def add_bytes(self, media_type: str, content: bytes) -> Blob:
        """Store a small blob."""
        return self.add(media_type, lambda out: out.write(content))

    def write_manifest(self, content: bytes, tag: str) -> int:
        """Store a manifest and list it in the index; return the bytes written."""
        entry = {
            **Blob(MANIFEST, digest_of(content), len(content)).document(),
            "annotations": {REFERENCE_NAME: tag},
        }
        with self._locked():
            listed = self._listed()
            if entry in listed and self.path(entry["digest"]).is_file():
                return 0
            self.add_bytes(MANIFEST, content)
            others = [item for item in listed if item["digest"] != entry["digest"]]
            self._write_index([*others, entry])
        return len(content)

    def _listed(self) -> list[dict[str, Any]]:
        index = self.folder / "index.json"
        return json.loads(index.read_text())["manifests"] if index.exists() else []

    def _write_index(self, manifests: list[dict[str, Any]]) -> None:
        self._replace("oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
        self._replace("index.json", canonical({"schemaVersion": 2, "manifests": manifests}))

    def _replace(self, name: str, content: bytes) -> None:
        with self._partial() as stream:
            stream.write(content)
            stream.flush()
            Path(stream.name).rename(self.folder / name)

    @contextmanager
    def _partial(self) -> Iterator[IO[bytes]]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=self.folder, prefix=".partial-", delete=False
        ) as stream:
            try:
                Path(stream.name).chmod(0o644)
                yield stream
            finally:
                Path(stream.name).unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
