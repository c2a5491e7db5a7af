"""A registry over HTTP, through skopeo: credentials, tokens, redirects and retries are its own."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.oci.image import Blob, digest_of
from delivery.oci.layout import Layout, MissingBlobError

DELAYS = [1, 2, 4]  # seconds before each further attempt
SHORT, LONG = "2m", "1h"  # to read a document; to copy an image
# A host without dot and port would be a folder of Docker Hub to skopeo, so it is none here.
LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
HOST = rf"(?:localhost|\[::1\]|{LABEL}(?:\.{LABEL})+|{LABEL}(?=:))(?::[0-9]{{1,5}})?"
PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{HOST}(?:/{PART})+")
LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
# How skopeo says that a registry lacks what was asked for, wants other credentials, or may do
# better the next time; its own retries leave out connections that are cut.
ABSENT = re.compile(r"reading .*(?:(?:manifest|blob) unknown|(?:registry|:) 404\b)")
DENIED = re.compile(r"unauthorized|denied|(?:registry|:) 40[13]\b")
BROKEN = re.compile(r"connection|EOF|timeout|(?:registry|status|:) (?:429|50[0-4])\b")
INSTALL = (
    "skopeo, which talks to registries, is not installed: `sudo apt install skopeo` "
    "(Fedora: `sudo dnf install skopeo`, macOS: `brew install skopeo`)"
)


class UnavailableError(DeliveryError):
    """A registry does not answer, or says that it can't at the moment: worth another attempt."""


def retry(operation: Callable[[], bytes]) -> bytes:
    """Try again, each time after a longer pause, while the registry is unavailable."""
    for delay in DELAYS:
        try:
            return operation()
        except UnavailableError as error:
            print(f"{error}; trying again in {delay} s", file=sys.stderr)
            time.sleep(delay)
    return operation()


@dataclass(frozen=True)
class Remote:
    """One name in a registry, `<host>/<repository>`; plain HTTP on loopback only."""

    name: str

    def read_manifest(self, reference: str) -> bytes:
        """Return the bytes of the image manifest with a digest or tag, unchecked.

        Raises MissingBlobError, or DeliveryError with skopeo's reason.
        """
        source = self._address(reference)
        return self._skopeo("inspect", "--raw", f"--{self._tls}", source, limit=SHORT)

    def read_config(self, digest: str, platform: tuple[str, str]) -> dict[str, Any]:
        """Return an image's configuration; of an index, that of (system, architecture).

        Raises MissingBlobError, or DeliveryError with skopeo's reason.
        """
        system, architecture = platform
        chosen = [f"--override-os={system}", f"--override-arch={architecture}"]
        arguments = [*chosen, "inspect", "--config", f"--{self._tls}", self._address(digest)]
        return json.loads(self._skopeo(*arguments, limit=SHORT))

    def take(self, layout: Layout, content: bytes, tag: str) -> bool:
        """Copy an image from a layout, which lists it by a tag; tell whether it was not here.

        `content` is its image manifest, which goes last and is read back. Raises DeliveryError.
        """
        digest = digest_of(content)
        if self._gives(content):
            with suppress(DeliveryError):  # a tag may be immutable; this mends what was lost
                self._send(layout, tag, digest)
            return False
        self._send(layout, tag, tag)
        if not self._gives(content):
            raise DeliveryError(
                f"{self.name} does not give {digest} back after it was sent: "
                "check that this is the address of a registry"
            )
        return True

    def _send(self, layout: Layout, tag: str, reference: str) -> None:
        target = [f"--dest-{self._tls}", f"oci:.:{tag}", self._address(reference)]
        self._skopeo("copy", "--preserve-digests", *target, folder=layout.folder)

    def fetch(self, digest: str, largest: Blob, folder: Path) -> Layout:
        """Copy an image into a new layout; no file grows beyond its largest blob.

        Raises DeliveryError.
        """
        folder.mkdir()
        source = [f"--src-{self._tls}", self._address(digest), "oci:.:image"]
        blocks = largest.size // 512 + 2048  # a MiB more, for what describes the image
        self._skopeo("copy", "--preserve-digests", *source, folder=folder, blocks=blocks)
        return Layout(folder)

    def _gives(self, content: bytes) -> bool:
        """Tell whether the registry gives an image manifest by its digest."""
        try:
            return self.read_manifest(digest_of(content)) == content
        except UnavailableError:
            raise
        except DeliveryError:
            return False

    @property
    def _host(self) -> str:
        return self.name.partition("/")[0]

    @property
    def _tls(self) -> str:
        return f"tls-verify={'false' if LOOPBACK.fullmatch(self._host) else 'true'}"

    def _address(self, reference: str) -> str:
        return f"docker://{self.name}{'@' if ':' in reference else ':'}{reference}"

    def _skopeo(
        self,
        *arguments: str,
        limit: str = LONG,
        folder: Path | None = None,
        blocks: int | None = None,
    ) -> bytes:
        """Run skopeo in a folder, with limits of time and of a file's size in 512 bytes."""
        command = ["skopeo", f"--command-timeout={limit}", *arguments]
        if blocks:
            command = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *command]
        return retry(lambda: self._run(command, folder))

    def _run(self, command: list[str], folder: Path | None) -> bytes:
        """Return what skopeo printed; on a terminal it shows what it copies."""
        shown = "copy" in command and sys.stderr.isatty()
        try:
            answer = subprocess.run(
                command,
                cwd=folder,
                stdout=sys.stderr if shown else subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except FileNotFoundError:
            raise DeliveryError(INSTALL) from None
        if answer.returncode:
            raise self._failure(reason(answer.stderr.decode(errors="replace")))
        return answer.stdout or b""

    def _failure(self, why: str) -> DeliveryError:
        """Make one sentence of skopeo's reason, with a cure where there is one."""
        sentence = f"skopeo failed with {self.name} ({shortened(why)})"
        if ABSENT.search(why):
            absent = f"{self.name} does not hold it ({shortened(why)})"
            return MissingBlobError(f"{absent}: push the image to it again")
        if DENIED.search(why):
            insecure = f"--{self._tls} " if self._tls.endswith("false") else ""
            return DeliveryError(f"{sentence}: run `skopeo login {insecure}{self._host}`")
        return (UnavailableError if BROKEN.search(why) else DeliveryError)(sentence)


def reason(printed: str) -> str:
    """Return the last line that skopeo printed, in plain characters."""
    line = printed.strip().rpartition("\n")[2]
    quoted = re.search(r'msg="(.*)"$', line)
    text = re.sub(r"\\[nt]", " ", quoted[1]).replace('\\"', '"') if quoted else line
    text = re.sub(r'(?:Error parsing image name|initializing \w+) "?docker://\S*: ', "", text)
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    plain = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text)
    return " ".join(plain.split())


def shortened(text: str) -> str:
    """Return a text in at most 200 characters; what happened is at its begin or its end."""
    return text if len(text) <= 200 else f"{text[:95]} ... {text[-100:]}"
