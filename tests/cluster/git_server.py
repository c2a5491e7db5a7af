"""An HTTPS server under the names of github.com and raw.githubusercontent.com, to read from only.

Run as a program: `python git_server.py <folder> <address> <certificate> <key>`. The folder has bare
repositories below `github.com/` and files below `raw.githubusercontent.com/`. A repository with a
file `token` is private: it is read with that password only, as GitHub has it.
"""

import base64
import os
import ssl
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import unquote, urlsplit

FILES = "raw.githubusercontent.com"
TOKEN = "token"  # a file of a private repository


class Server(ThreadingHTTPServer):
    """Does not look its own name up: in a node's network that takes ten seconds, and fails."""

    def server_bind(self) -> None:
        """Take the address."""
        TCPServer.server_bind(self)


class Handler(BaseHTTPRequestHandler):
    """Files as they are, repositories through `git http-backend`."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a client may be silent
    folder: Path

    def do_GET(self) -> None:
        """A file, or what a repository has to say."""
        if self.headers["Host"] == FILES:
            path = self.folder / FILES / unquote(urlsplit(self.path).path).lstrip("/")
            self.answer(*((200, path.read_bytes()) if path.is_file() else (404, b"")))
        else:
            self.do_POST()

    def do_POST(self) -> None:
        """Hand a request to Git and its answer back."""
        asked = urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if not self.may_read(unquote(asked.path)):
            self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="GitHub"'})
            return
        result = subprocess.run(
            ["git", "-c", "safe.directory=*", "http-backend"],
            input=body,
            stdout=subprocess.PIPE,
            env=os.environ
            | {
                "GIT_PROJECT_ROOT": str(self.folder / "github.com"),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": unquote(asked.path),
                "QUERY_STRING": asked.query,
                "CONTENT_TYPE": self.headers["Content-Type"] or "",
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers["Content-Encoding"] or "",
                "HTTP_GIT_PROTOCOL": self.headers["Git-Protocol"] or "",
            },
        )
        head, _, content = result.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(fields.pop("Status", "200").split()[0])
        self.answer(status, content, fields)

    def may_read(self, path: str) -> bool:
        """Whether who asks knows the token of a repository that has one."""
        repository = self.folder / "github.com" / path.lstrip("/").partition(".git/")[0]
        token = repository.with_name(f"{repository.name}.git") / TOKEN
        kind, _, said = self.headers.get("Authorization", "").partition(" ")
        known = base64.b64decode(said) if kind == "Basic" else b""
        return not token.exists() or known.partition(b":")[2] == token.read_bytes()

    def answer(self, status: int, content: bytes, fields: dict[str, str] | None = None) -> None:
        """Send an answer."""
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until the process is ended."""
    folder, address, certificate, key = sys.argv[1:]
    Handler.folder = Path(folder)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server = Server((address, 443), Handler)
    # Each client's handshake is its own thread's, so that one that stalls holds nobody up.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.serve_forever()


if __name__ == "__main__":
    main()
