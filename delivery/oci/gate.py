"""The gate on loopback where skopeo finds a registry, so that it never holds a login.

skopeo sends passwords and tokens wherever a registry's answers point to. Here it talks to us,
without any; what is needed is added behind the gate, for the registry's own host only.
"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from types import TracebackType
from typing import Any
from urllib.parse import urljoin

import urllib3

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK, LARGEST_DOCUMENT
from delivery.oci.layout import AGAIN
from delivery.oci.origin import Origin
from workspace.errors import UserError

FORTH = ("Accept", "Content-Type", "Content-Length", "Content-Range", "Range", "User-Agent")
BACK = ("Content-Type", "Content-Range", "Docker-Content-Digest", "Range", "Retry-After")


class Gate(ThreadingHTTPServer):
    """A server as long as a `with` lasts; `failure` is what went wrong behind it."""

    daemon_threads = True

    def __init__(self, origin: Origin, sizes: dict[str, int]) -> None:
        """Lead to a registry; `sizes` are the bytes of the blobs that may be large."""
        super().__init__(("127.0.0.1", 0), Passage)
        self.origin, self.sizes = origin, sizes
        self.host = f"127.0.0.1:{self.server_port}"
        self.name = f"{self.host}/{origin.repository}"
        self.failure: UserError | None = None

    def __enter__(self) -> "Gate":
        """Open."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; connections that hang end by themselves."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: skopeo says that its connection broke."""


class Body:
    """What skopeo sends with a request, as a stream."""

    def __init__(self, stream: BufferedIOBase, left: int) -> None:
        """Read `left` bytes."""
        self._stream, self._left = stream, left

    def read(self, size: int = CHUNK) -> bytes:
        """Read at most `size` bytes."""
        chunk = self._stream.read(min(size, self._left))
        if not chunk and self._left:
            raise ConnectionError("skopeo ended")
        self._left -= len(chunk)
        return chunk


class Passage(BaseHTTPRequestHandler):
    """One connection of skopeo's."""

    protocol_version = "HTTP/1.1"
    server: Gate

    def pass_on(self) -> None:
        """Send a request to the registry and its answer back."""
        if self.path == "/v2/":  # skopeo asks how to log in: not at all
            self._head(200, {"Content-Length": "0"})
            return
        headers = {name: self.headers[name] for name in FORTH if name in self.headers}
        length = int(headers.get("Content-Length", 0))
        body = Body(self.rfile, length) if length else None
        try:
            with self.server.origin.send(self.command, self.path, headers, body) as answer:
                self._answer(answer)
        except urllib3.exceptions.HTTPError as error:
            self._fail(self.server.origin.broken(error))
        except UserError as error:
            self._fail(error)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _fail(self, failure: UserError) -> None:
        self.server.failure = failure
        self.close_connection = True

    def _answer(self, answer: Any) -> None:
        length = answer.headers.get("Content-Length", "")
        most = self._most(length) if answer.status == 200 else LARGEST_DOCUMENT
        if most is None:
            self._head(404, {"Content-Length": "0"})
            return
        headers = {name: answer.headers[name] for name in BACK if name in answer.headers}
        whole = length.isdecimal() or self.command == "HEAD" or answer.status == 204
        headers |= {"Content-Length": length or "0"} if whole else {"Transfer-Encoding": "chunked"}
        self._head(answer.status, headers | self._location(answer))
        for chunk in answer.stream(CHUNK, decode_content=False):
            most -= len(chunk)
            if most < 0:
                raise self._too_long()
            self.wfile.write(chunk if whole else b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.wfile.write(b"" if whole else b"0\r\n\r\n")

    def _most(self, length: str) -> int | None:
        """Return how many bytes may come; None for a blob of another size, which is none at all."""
        digest = self.path.rpartition("/")[2]
        size = self.server.sizes.get(digest)
        told = int(length) if length.isdecimal() else None
        if size is not None and told != size:
            if self.command == "HEAD":
                return None
            if told is not None:
                raise DeliveryError(
                    f"{self.server.origin.name} gave {told} instead of {size} bytes for {digest}: "
                    f"{AGAIN}"
                )
        most = LARGEST_DOCUMENT if size is None else size
        if told is not None and told > most and self.command == "GET":
            raise self._too_long()
        return most

    def _too_long(self) -> DeliveryError:
        return DeliveryError(f"{self.server.origin.name} gave more bytes than announced: {AGAIN}")

    def _location(self, answer: Any) -> dict[str, str]:
        """Return where an upload goes on: through this gate."""
        location = answer.headers.get("Location", "")
        if self.command not in ("POST", "PATCH") or answer.status >= 300:
            return {}
        if not location or answer.status == 200:
            raise DeliveryError(
                f"{self.server.origin.name} does not take uploads: "
                "check that this is the address of a registry"
            )
        url = urljoin(f"http://{self.server.origin.host}{self.path}", location)
        path = self.server.origin.inside(url)
        if path is None:
            raise self.server.origin.refused("uploads", url)
        return {"Location": f"http://{self.server.host}{path}"}

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
