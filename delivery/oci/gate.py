"""The gate on loopback where skopeo finds a registry, so that it never holds a login.

skopeo sends passwords and tokens wherever a registry's answers point to. Here it has a key to the
gate only; what is needed is added behind the gate, for the registry's own host.
"""

import json
import secrets
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import urllib3

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK, LARGEST_DOCUMENT
from delivery.oci.layout import AGAIN
from delivery.oci.login import Login
from delivery.oci.origin import Origin
from workspace.errors import UserError

FORTH = ("Accept", "Content-Type", "Content-Length", "Content-Range", "Range", "User-Agent")
BACK = ("Content-Type", "Content-Range", "Docker-Content-Digest", "Range", "Retry-After")


class Gate(ThreadingHTTPServer):
    """The server; `failure` is what went wrong behind it."""

    daemon_threads = True

    def __init__(self, origin: Origin, sizes: dict[str, int]) -> None:
        """Lead to a registry; `sizes` are the bytes of the blobs that may be large."""
        super().__init__(("127.0.0.1", 0), Passage)
        self.origin, self.sizes = origin, sizes
        self.host = f"127.0.0.1:{self.server_port}"
        self.name = f"{self.host}/{origin.repository}"
        self.key = Login("gate", secrets.token_hex()).basic  # for other users of this machine
        self.failure: UserError | None = None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: skopeo says that its connection broke."""


@contextmanager
def gate_to(origin: Origin, sizes: dict[str, int]) -> Iterator[tuple[Gate, Path]]:
    """Keep a gate open for a while; give it and the file with the key, which skopeo takes."""
    with Gate(origin, sizes) as gate, tempfile.TemporaryDirectory() as folder:
        key = {"auth": gate.key.removeprefix("Basic ")}
        (Path(folder) / "key.json").write_text(json.dumps({"auths": {gate.host: key}}))
        threading.Thread(target=gate.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield gate, Path(folder) / "key.json"
        finally:
            gate.shutdown()


class Passage(BaseHTTPRequestHandler):
    """One connection of skopeo's."""

    protocol_version = "HTTP/1.1"
    server: Gate

    def pass_on(self) -> None:
        """Send a request to the registry and its answer back."""
        if self.headers.get("Authorization") != self.server.key:
            self._head(401, {"WWW-Authenticate": 'Basic realm="gate"', "Content-Length": "0"})
            return
        headers = {name: self.headers[name] for name in FORTH if name in self.headers}
        length = int(headers.get("Content-Length", 0))
        body = self._body(length) if length else None
        origin = self.server.origin
        try:
            with origin.send(self.command, self.path, headers, body) as answer:
                self._answer(answer)
        except (UserError, ValueError, urllib3.exceptions.HTTPError) as error:
            self.server.failure = error if isinstance(error, UserError) else origin.broken(error)
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _body(self, left: int) -> Iterator[bytes]:
        while left:
            chunk = self.rfile.read(min(CHUNK, left))
            if not chunk:
                raise ConnectionError("skopeo ended")
            left -= len(chunk)
            yield chunk

    def _answer(self, answer: Any) -> None:
        told = answer.headers.get("Content-Length", "")
        size = self.server.sizes.get(self.path.rpartition("/")[2])
        if answer.status == 200 and size is not None and told != str(size):
            if self.command == "HEAD":  # as if it were not there, so that it is sent again
                self._head(404, {"Content-Length": "0"})
                return
            if told:
                raise self._wrong(f"{told} instead of {size} bytes for {self.path}")
        headers = {name: answer.headers[name] for name in BACK if name in answer.headers}
        whole = told.isdecimal() or self.command == "HEAD" or answer.status == 204
        headers |= {"Content-Length": told or "0"} if whole else {"Transfer-Encoding": "chunked"}
        self._head(answer.status, headers | self._location(answer))
        most = LARGEST_DOCUMENT if size is None else size
        for chunk in answer.stream(CHUNK, decode_content=False):
            most -= len(chunk)
            if most < 0:
                raise self._wrong(f"more bytes than announced for {self.path}")
            self.wfile.write(chunk if whole else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"" if whole else b"0\r\n\r\n")

    def _wrong(self, what: str) -> DeliveryError:
        return DeliveryError(f"{self.server.origin.name} gave {what}: {AGAIN}")

    def _location(self, answer: Any) -> dict[str, str]:
        """Return where an upload goes on: through this gate."""
        origin = self.server.origin
        if self.command not in ("POST", "PATCH") or answer.status >= 300:
            return {}
        if answer.status == 200 or "Location" not in answer.headers:
            raise DeliveryError(
                f"{origin.name} takes no uploads: check that this is the address of a registry"
            )
        url = urljoin(f"http://{origin.host}{self.path}", answer.headers["Location"])
        path = origin.inside(url)
        if path is None:
            raise origin.refused(url)
        return {"Location": f"http://{self.server.host}{path}"}

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
