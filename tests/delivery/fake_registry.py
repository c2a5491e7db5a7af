"""A registry on loopback that can fail on command: what a real one does on a bad day."""

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from delivery.oci import remote
from registry_tools import need

Fault = Callable[["Handler"], bool]  # answers the request itself and returns True, or lets it pass


class FakeRegistry(ThreadingHTTPServer):
    """Blobs and manifests in memory; `faults` see every request first."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__((host, 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.content: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.uploading = b""
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()

    @property
    def name(self) -> str:
        return f"{self.host}/team/model"

    @property
    def host(self) -> str:
        return f"{self.server_address[0]}:{self.server_port}"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeRegistry

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def break_off(self) -> None:
        """Close the connection without another word."""
        self.close_connection = True

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def handle_request(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if any(fault(self) for fault in self.server.faults):
            return
        getattr(self, self.command.lower())(self.path.rpartition("/")[2])

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = handle_request  # noqa: N815

    def get(self, name: str) -> None:
        if self.path == "/v2/":
            return self.answer(200)
        if "/referrers/" in self.path:
            return self.answer(404)
        content = self.server.content.get(self.server.tags.get(name, name))
        if content is None:
            return self.answer(404)
        kind = "index" if b'"manifests"' in content else "manifest"
        headers = {"Content_Type": f"application/vnd.oci.image.{kind}.v1+json"}
        self.answer(200, content, **(headers if "/manifests/" in self.path else {}))

    head = get

    def post(self, _: str) -> None:
        self.answer(202, Location="/v2/team/model/blobs/uploads/1?state=x")

    def patch(self, _: str) -> None:
        self.server.uploading = self.body()
        self.post(_)

    def put(self, name: str) -> None:
        content = self.body() or self.server.uploading
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if "/manifests/" in self.path:
            self.server.tags[name] = digest
        elif parse_qs(urlsplit(self.path).query)["digest"] != [digest]:
            return self.answer(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
        self.server.content[digest] = content
        self.answer(201, Docker_Content_Digest=digest)


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep the credentials of whoever runs the tests away; theirs are in `docker/` of a folder."""
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    for name, place in {
        "HOME": "home",
        "XDG_RUNTIME_DIR": "run",
        "DOCKER_CONFIG": "docker",
    }.items():
        monkeypatch.setenv(name, str(folder / place))


@contextmanager
def alone_with_registry(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[FakeRegistry]:
    """A registry that is asked without credentials, proxies and pauses."""
    need("skopeo")
    monkeypatch.setattr(remote, "DELAYS", [0])
    isolate(monkeypatch, folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FakeRegistry()
    try:
        yield server
    finally:
        server.close()


def once(fault: Fault) -> Fault:
    """Let a fault happen one time only."""
    left: list[Any] = [None]

    def first(handler: Handler) -> bool:
        if left and fault(handler):
            left.clear()
            return True
        return False

    return first
