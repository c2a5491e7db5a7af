"""A registry over HTTP, through skopeo: its requests pass a gate of ours, which adds the login."""

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from delivery.errors import DeliveryError
from delivery.oci.gate import gate_to
from delivery.oci.image import ImageManifest, digest_of, parse_manifest
from delivery.oci.layout import AGAIN, Layout, MissingBlobError
from delivery.oci.origin import LOOPBACK, PATIENCE, Origin, UnavailableError, late
from workspace.settings import Settings, check, parse_json

DELAYS = [1, 2, 4]  # seconds before each further attempt
SLOWEST = 256 * 1024  # bytes a second of a copy, or it is given up
# A host without dot and port would be a folder of Docker Hub to skopeo, so it is none here.
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOST = rf"(?:localhost|\[::1\]|{LABEL}(?:\.{LABEL})+|{LABEL}(?=:))(?::[0-9]{{1,5}})?"
PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{HOST}(?:/{PART})+")
# How skopeo says that a registry lacks what was asked for, holds something else, wants other
# credentials, or may do better the next time; its own retries leave out connections that are cut.
ABSENT = re.compile(r"reading .*(?:(?:manifest|blob) unknown|(?:registry|:) 404\b)")
DAMAGED = re.compile(r"[Dd]igest did not match|does not match provided manifest digest")
DENIED = re.compile(r"unauthorized|denied|(?:registry|:) 40[13]\b")
BROKEN = re.compile(r"connection|pipe|EOF|timeout|(?:registry|status|:) (?:429|50[0-4])\b")
HERE = "{repository}"  # in skopeo's words: how the gate calls what is behind it
COPY = ["copy", "--preserve-digests"]
INSTALL = (
    "skopeo, which talks to registries, is not installed: `sudo apt install skopeo` "
    "(Fedora: `sudo dnf install skopeo`, macOS: `brew install skopeo`)"
)


class DeniedError(DeliveryError):
    """A registry wants a login, or another one than there is."""


class Built(Settings, extra="ignore"):
    """What was said to the builder of an image."""

    labels: dict[str, str] | None = Field(default=None, alias="Labels", description="labels")


class Configuration(Settings, extra="ignore"):
    """The configuration of an image that was not made here."""

    config: Built = Built()


@dataclass(frozen=True)
class Remote:
    """One name in a registry, `<host>/<name>`; plain HTTP on loopback only.

    Everything raises UserError with the reason, and reading MissingBlobError; nothing goes on after
    `until` on the clock `monotonic`.
    """

    name: str
    until: float = math.inf

    def read_manifest(self, reference: str) -> bytes:
        """Return the bytes of the image manifest with a digest or tag, unchecked."""
        return self._skopeo("inspect", "--raw", "--tls-verify=false", _address(reference))

    def read_labels(self, digest: str, system: str, architecture: str) -> dict[str, str]:
        """Return the labels of an image; of an index, of its image for a platform."""
        platform = [f"--override-os={system}", f"--override-arch={architecture}"]
        name = f"the configuration of {self.name}@{digest}"
        content = self._skopeo(
            "inspect", "--config", *platform, "--tls-verify=false", _address(digest)
        )
        return check(Configuration, parse_json(content, name), name).config.labels or {}

    def take(self, layout: Layout, content: bytes, tag: str) -> bool:
        """Copy an image from a layout, which lists it by a tag; tell whether it was not here.

        `content` is its image manifest, which goes last. All is asked for afterwards.
        """
        digest, manifest = digest_of(content), parse_manifest(content, layout.name)
        listed = self._gives(digest, content)
        if listed and self._holds_blobs(manifest):
            return False
        for blob in (manifest.config, manifest.layer):
            layout.require(blob)
        # An image that lost its blobs goes by its digest: a tag may be immutable.
        target = ["--dest-tls-verify=false", f"oci:.:{tag}", _address(digest if listed else tag)]
        self._skopeo(*COPY, *target, manifest=manifest, folder=layout.folder, actions="pull,push")
        if not (self._gives(digest, content) and self._holds_blobs(manifest)):
            raise DeliveryError(
                f"{self.name} does not give {digest} back after it was sent: "
                "check that this is the address of a registry"
            )
        return True

    def fetch(self, digest: str, manifest: ImageManifest, folder: Path) -> Layout:
        """Copy an image into a new layout; no blob may be larger than announced."""
        folder.mkdir()
        source = ["--src-tls-verify=false", _address(digest), "oci:.:image"]
        self._skopeo(*COPY, *source, manifest=manifest, folder=folder)
        return Layout(folder)

    def _gives(self, digest: str, content: bytes) -> bool:
        try:
            return self.read_manifest(digest) == content
        except UnavailableError:
            raise
        except DeliveryError:
            return False

    def _holds_blobs(self, manifest: ImageManifest) -> bool:
        origin = Origin(self.name, "pull", self._left(PATIENCE))
        blobs = (manifest.config, manifest.layer)
        return all(origin.size(blob.digest) == blob.size for blob in blobs)

    def _left(self, seconds: float) -> float:
        """Return how many of these seconds are left until the end of all."""
        return max(0, min(seconds, self.until - time.monotonic()))

    def _skopeo(
        self,
        *command: str,
        manifest: ImageManifest | None = None,
        folder: Path | None = None,
        actions: str = "pull",
    ) -> bytes:
        """Run skopeo in a folder; try again if the connection breaks."""
        blobs = (manifest.config, manifest.layer) if manifest else ()
        sizes = {blob.digest: blob.size for blob in blobs}
        for delay in DELAYS:
            try:
                return self._once(command, sizes, folder, actions)
            except UnavailableError as error:
                if time.monotonic() + delay > self.until:
                    raise
                print(f"{error}; trying again in {delay} s", file=sys.stderr)
                time.sleep(delay)
        return self._once(command, sizes, folder, actions)

    def _once(
        self, command: Iterable[str], sizes: dict[str, int], folder: Path | None, actions: str
    ) -> bytes:
        seconds = self._left(PATIENCE + sum(sizes.values()) / SLOWEST)
        with gate_to(Origin(self.name, actions), sizes) as (gate, key):
            words = [word.replace(HERE, gate.name) for word in command]
            try:
                return self._run(words, key, folder, seconds)
            except subprocess.CalledProcessError as error:
                why = error.stderr.decode(errors="replace").replace(gate.name, self.name)
                raise gate.failure or self.failure(reason(why)) from None

    def _run(self, command: list[str], key: Path, folder: Path | None, seconds: float) -> bytes:
        """Run a command and return what it printed; on a terminal it shows what it copies."""
        shown = "copy" in command and sys.stderr.isatty()
        stdout = sys.stderr if shown else subprocess.PIPE
        # Behind the gate no setting of the user's names the registry: none of them counts. What is
        # taken is decided by its digest.
        alone = ["--insecure-policy", f"--registries.d={key.parent}"]
        places = {"HOME": key.parent, "XDG_CONFIG_HOME": key.parent, "REGISTRY_AUTH_FILE": key}
        places["CONTAINERS_REGISTRIES_CONF"] = Path(os.devnull)
        try:
            process = subprocess.Popen(
                ["skopeo", *alone, *command],
                cwd=folder,
                env=os.environ | {name: str(path) for name, path in places.items()},
                stdout=stdout,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError:
            raise DeliveryError(INSTALL) from None
        with process:
            try:
                printed, errors = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise late(self.name, seconds) from None
            finally:
                if process.poll() is None:
                    process.kill()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command, printed, errors)
        return printed or b""

    def failure(self, why: str) -> DeliveryError:
        """Return what is raised for a reason that skopeo or the registry gave."""
        if ABSENT.search(why):
            return MissingBlobError(
                f"{self.name} does not hold it ({why}): push the image to it again"
            )
        sentence = f"skopeo failed with {self.name} ({why})"
        if DENIED.search(why):
            host = self.name.partition("/")[0]
            insecure = "--tls-verify=false " if LOOPBACK.fullmatch(host) else ""
            return DeniedError(f"{sentence}: run `skopeo login {insecure}{host}`")
        if DAMAGED.search(why):
            return DeliveryError(f"{sentence}: {AGAIN}")
        return (UnavailableError if BROKEN.search(why) else DeliveryError)(sentence)


def _address(reference: str) -> str:
    return f"docker://{HERE}{'@' if ':' in reference else ':'}{reference}"


def reason(printed: str) -> str:
    """Return the end of what was printed, where the cause is: at most 200 plain characters."""
    line = printed.strip().rpartition("\n")[2]
    quoted = re.search(r'msg="(.*)"$', line)  # as skopeo logs it
    text = re.sub(r"\\[nrt]", " ", quoted[1]).replace('\\"', '"') if quoted else line
    text = re.sub(r'(?:Error parsing image name|initializing \w+) "?docker://\S*: ', "", text)
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    plain = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text)
    return " ".join(plain.split())[-200:]
