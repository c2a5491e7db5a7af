"""A registry over HTTP, through skopeo, which knows credentials, tokens, redirects and proxies."""

import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.oci.image import Blob, digest_of
from delivery.oci.layout import Layout, MissingBlobError
from workspace.settings import check, parse_json

DELAYS = [1, 2, 4]  # seconds before each further attempt
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
BROKEN = re.compile(r"connection|pipe|EOF|timeout|(?:registry|status|:) (?:429|50[0-4])\b")
INSTALL = (
    "skopeo, which talks to registries, is not installed: `sudo apt install skopeo` "
    "(Fedora: `sudo dnf install skopeo`, macOS: `brew install skopeo`)"
)


class UnavailableError(DeliveryError):
    """A registry does not answer, or says that it can't at the moment."""


@dataclass(frozen=True)
class Remote:
    """One name in a registry, `<host>/<name>`; plain HTTP on loopback only.

    Everything raises DeliveryError with skopeo's reason, and reading MissingBlobError.
    """

    name: str

    def read_manifest(self, reference: str) -> bytes:
        """Return the bytes of the image manifest with a digest or tag, unchecked."""
        return self._skopeo("inspect", "--raw", f"--{self._tls}", self._address(reference))

    def read_config(self, digest: str, system: str, architecture: str) -> dict[str, Any]:
        """Return an image's configuration; of an index, that of the image for a platform."""
        platform = [f"--override-os={system}", f"--override-arch={architecture}"]
        source = [f"--{self._tls}", self._address(digest)]
        name = f"the configuration of {self.name}@{digest}"
        content = self._skopeo("inspect", "--config", *platform, *source)
        return check(dict[str, Any], parse_json(content, name), name)

    def take(self, layout: Layout, content: bytes, tag: str) -> bool:
        """Copy an image from a layout, which lists it by a tag; tell whether it was not here.

        `content` is its image manifest, which goes last and is read back.
        """
        digest = digest_of(content)
        if self._gives(digest, content):
            with suppress(DeliveryError):  # blobs that were lost; the tag may be immutable
                self._send(layout, tag, digest)
            return False
        self._send(layout, tag, tag)
        if not self._gives(digest, content):
            raise DeliveryError(
                f"{self.name} does not give {digest} back after it was sent: "
                "check that this is the address of a registry"
            )
        return True

    def fetch(self, digest: str, largest: Blob, folder: Path) -> Layout:
        """Copy an image into a new layout; no file grows far beyond its largest blob."""
        folder.mkdir()
        source = [f"--src-{self._tls}", self._address(digest), "oci:.:image"]
        blocks = largest.size // 512 + 2048  # a MiB more, for what describes the image
        self._skopeo("copy", "--preserve-digests", *source, folder=folder, blocks=blocks)
        return Layout(folder)

    def _send(self, layout: Layout, tag: str, reference: str) -> None:
        target = [f"--dest-{self._tls}", f"oci:.:{tag}", self._address(reference)]
        self._skopeo("copy", "--preserve-digests", *target, folder=layout.folder)

    def _gives(self, digest: str, content: bytes) -> bool:
        try:
            return self.read_manifest(digest) == content
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
        self, *arguments: str, folder: Path | None = None, blocks: int | None = None
    ) -> bytes:
        """Run skopeo in a folder, with a limit of a file's 512-byte blocks; try again if broken."""
        command = ["skopeo", *arguments]
        command.append(f"--command-timeout={'2m' if 'inspect' in arguments else '1h'}")
        if blocks:
            command = ["sh", "-c", f'ulimit -f {blocks}; exec "$@"', "sh", *command]
        for delay in DELAYS:
            try:
                return self._once(command, folder)
            except UnavailableError as error:
                print(f"{error}; trying again in {delay} s", file=sys.stderr)
                time.sleep(delay)
        return self._once(command, folder)

    def _once(self, command: list[str], folder: Path | None) -> bytes:
        """Run a command and return what it printed; on a terminal it shows what it copies."""
        shown = "copy" in command and sys.stderr.isatty()
        stdout = sys.stderr if shown else subprocess.PIPE
        try:
            answer = subprocess.run(command, cwd=folder, stdout=stdout, stderr=subprocess.PIPE)
        except FileNotFoundError:
            raise DeliveryError(INSTALL) from None
        if answer.returncode:
            raise self._failure(reason(answer.stderr.decode(errors="replace")))
        return answer.stdout or b""

    def _failure(self, why: str) -> DeliveryError:
        if ABSENT.search(why):
            return MissingBlobError(
                f"{self.name} does not hold it ({why}): push the image to it again"
            )
        sentence = f"skopeo failed with {self.name} ({why})"
        if DENIED.search(why):
            insecure = f"--{self._tls} " if self._tls.endswith("false") else ""
            return DeliveryError(f"{sentence}: run `skopeo login {insecure}{self._host}`")
        return (UnavailableError if BROKEN.search(why) else DeliveryError)(sentence)


def reason(printed: str) -> str:
    """Return the end of what was printed, where the cause is: at most 200 plain characters."""
    line = printed.strip().rpartition("\n")[2]
    quoted = re.search(r'msg="(.*)"$', line)  # as skopeo logs it
    text = re.sub(r"\\[nrt]", " ", quoted[1]).replace('\\"', '"') if quoted else line
    text = re.sub(r'(?:Error parsing image name|initializing \w+) "?docker://\S*: ', "", text)
    text = re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    plain = "".join(each if " " <= each <= "~" else ascii(each)[1:-1] for each in text)
    return " ".join(plain.split())[-200:]
