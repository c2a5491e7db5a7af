"""What refers to an image in its registry: its signatures, each an image manifest with a subject.

A registry that knows no such thing gets a list of them under the tag `sha256-<hex>`, as the OCI
distribution specification has it for that case; a folder always keeps that list.
"""

from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin

from delivery.oci.image import MANIFEST, Blob, canonical, digest_of
from delivery.oci.layout import Index, Layout, MissingBlobError
from delivery.oci.origin import PATIENCE, Origin
from delivery.oci.registry import open_registry
from delivery.oci.remote import Remote
from delivery.oci.signature import BUNDLE
from workspace.settings import Settings, SettingsError, check, parse_json

LISTING = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
NOTHING = b"{}"  # the configuration of what is no program
CONTENT = {"dev.sigstore.bundle.content": "dsse-envelope"}  # as cosign describes a bundle


class Referrer(Settings, extra="ignore"):
    """An image manifest that refers to another one; its layers are what it brings."""

    layers: list[Blob]


class Store(Protocol):
    """Where small documents are read and written by digest or tag."""

    def read(self, kind: str, reference: str) -> bytes | None:
        """Return one of `manifests`, `blobs` or `referrers`, unchecked; None if not there."""

    def write_blob(self, media_type: str, content: bytes) -> None:
        """Keep a blob under its digest."""

    def write_manifest(self, media_type: str, content: bytes, tag: str) -> bool:
        """Keep a manifest, by a tag if it has one; tell whether its subject was understood."""


def attach(registry: str, digest: str, bundle: bytes) -> bool:
    """Put a signature beside an image; tell whether it was not there. Raises UserError."""
    store = open_store(registry, "pull,push")
    if bundle in _bundles(store, registry, digest):
        return False
    image = store.read("manifests", digest)
    if image is None:
        raise MissingBlobError(f"{registry} does not hold the image {digest[:19]}")
    store.write_blob(EMPTY, NOTHING)
    store.write_blob(BUNDLE, bundle)
    content = referrer_content(image, bundle)
    if not store.write_manifest(MANIFEST, content, ""):
        entry = _blob(MANIFEST, content) | {"artifactType": BUNDLE}
        others = [each for each in _tagged(store, digest) if each["digest"] != entry["digest"]]
        listing = {"schemaVersion": 2, "mediaType": LISTING, "manifests": [*others, entry]}
        store.write_manifest(LISTING, canonical(listing), _tag(digest))
    return True


def attached(registry: str, digest: str) -> list[bytes]:
    """Return the signatures beside an image; who reads one checks it. Raises UserError."""
    return _bundles(open_store(registry, "pull"), registry, digest)


def referrer_content(image: bytes, bundle: bytes) -> bytes:
    """Return the image manifest that a signature of an image is in."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": _blob(EMPTY, NOTHING),
            "layers": [_blob(BUNDLE, bundle)],
            "subject": _blob(MANIFEST, image),
            "annotations": CONTENT,
        }
    )


def open_store(name: str, actions: str) -> Store:
    """Return where a registry's small documents are. Raises DeliveryError."""
    registry = open_registry(name)
    return Folder(registry) if isinstance(registry, Layout) else Host(registry, actions)


@dataclass(frozen=True)
class Folder:
    """A layout: it keeps lists by tag."""

    layout: Layout

    def read(self, kind: str, reference: str) -> bytes | None:
        """Return a document; of manifests also by tag. It has no list of `referrers`."""
        if kind == "referrers":
            return None
        digest = reference if ":" in reference else self.layout.tagged(reference)
        try:
            return self.layout.read_manifest(digest) if digest else None
        except MissingBlobError:
            return None

    def write_blob(self, media_type: str, content: bytes) -> None:
        """Keep a blob."""
        self.layout.add_bytes(media_type, content)

    def write_manifest(self, media_type: str, content: bytes, tag: str) -> bool:
        """Keep a manifest; a layout looks at no subject."""
        if tag:
            self.layout.write_manifest(content, tag, media_type)
        else:
            self.layout.add_bytes(media_type, content)
        return False


class Host:
    """A registry over HTTP, which has PATIENCE for all that it is asked."""

    def __init__(self, remote: Remote, actions: str) -> None:
        """Find the login for `actions`. Raises UserError."""
        self.remote, self.origin = remote, Origin(remote.name, actions, PATIENCE)
        self.place = f"/v2/{self.origin.repository}"

    def read(self, kind: str, reference: str) -> bytes | None:
        """Return a document of the registry."""
        headers = {"Accept": f"{MANIFEST}, {LISTING}"} if kind != "blobs" else {}
        status, content, _ = self._send("GET", f"{self.place}/{kind}/{reference}", headers)
        return content if status == 200 else None

    def write_blob(self, media_type: str, content: bytes) -> None:
        """Send a blob that the registry lacks."""
        digest = digest_of(content)
        if self.origin.size(digest) == len(content):
            return
        path = f"{self.place}/blobs/uploads/"
        _, _, told = self._send("POST", path, {"Content-Length": "0"})
        url = urljoin(f"http://{self.origin.host}{path}", told.get("Location", ""))
        upload = self.origin.inside(url)
        if upload is None:
            raise self.origin.refused(url)
        kind = {"Content-Type": "application/octet-stream"}
        upload += f"{'&' if '?' in upload else '?'}digest={digest}"
        self._send("PUT", upload, kind, content)

    def write_manifest(self, media_type: str, content: bytes, tag: str) -> bool:
        """Send a manifest; a registry that lists what refers to an image says `OCI-Subject`."""
        path = f"{self.place}/manifests/{tag or digest_of(content)}"
        return "OCI-Subject" in self._send("PUT", path, {"Content-Type": media_type}, content)[2]

    def _send(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, bytes, Any]:
        """Return status, content and headers of an answer. Raises UserError for what went wrong."""
        status, content, told = self.origin.ask(method, path, headers, body)
        if status >= 400 and (method != "GET" or status not in (400, 404, 405)):
            raise self.remote.failure(f"{method} of a signature: {status}")
        return status, content, told


def _bundles(store: Store, registry: str, digest: str) -> list[bytes]:
    """Return all signatures, of the registry's own list and of the one by tag."""
    name = f"what {registry} says of signatures"
    own = _listing(store.read("referrers", digest), name)
    found = []
    for each in dict.fromkeys(entry["digest"] for entry in [*own, *_tagged(store, digest)]):
        content = store.read("manifests", each)
        if content is None or digest_of(content) != each:
            continue
        try:
            layers = check(Referrer, parse_json(content, name), name).layers
        except SettingsError:  # something else that refers to it
            continue
        documents = [store.read("blobs", one.digest) for one in layers if one.media_type == BUNDLE]
        found += [each for each in documents if each is not None]
    return found


def _tagged(store: Store, digest: str) -> list[dict[str, Any]]:
    return _listing(store.read("manifests", _tag(digest)), f"the list {_tag(digest)[:19]}")


def _listing(content: bytes | None, name: str) -> list[dict[str, Any]]:
    if content is None:
        return []
    return [each.model_dump() for each in check(Index, parse_json(content, name), name).manifests]


def _tag(digest: str) -> str:
    return digest.replace(":", "-")


def _blob(media_type: str, content: bytes) -> dict[str, Any]:
    blob = Blob(media_type=media_type, digest=digest_of(content), size=len(content))
    return blob.document()
