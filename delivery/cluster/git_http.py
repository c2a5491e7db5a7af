"""A repository over HTTP, to be read: `python -m delivery.cluster.git_http <folder> <host> <port>`.

Git's own `http-backend` answers; this hands requests to it, and none that writes.
"""

import os
import subprocess
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import urlsplit

LARGEST = 16 * 1024 * 1024  # bytes of a request; one names commits, and brings none
READ_ONLY = {
    "GIT_HTTP_EXPORT_ALL": "1",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "http.receivepack",
    "GIT_CONFIG_VALUE_0": "false",
}


class Handler(BaseHTTPRequestHandler):
    """One request for the repository in `folder`, whatever name the client gives it."""

    folder: Path

    def do_GET(self) -> None:
        """Answer what branches there are."""
        self.answer(b"")

    def do_POST(self) -> None:
        """Answer what a client lacks."""
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > LARGEST:
            self.send_error(411)
            return
        self.answer(self.rfile.read(int(size)))

    def answer(self, body: bytes) -> None:
        """Have Git answer, and pass on what it says as it comes."""
        process = subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | READ_ONLY | self.variables(len(body)),
        )
        with process, suppress(BrokenPipeError, ConnectionResetError):
            assert process.stdin and process.stdout
            with suppress(BrokenPipeError), process.stdin as asked:  # it may refuse unread
                asked.write(body)
            status = "200 OK"
            lines = []
            while line := process.stdout.readline().strip():
                name, _, value = line.decode("latin-1").partition(": ")
                if name == "Status":
                    status = value
                else:
                    lines.append((name, value))
            self.send_response(int(status[:3]))
            for name, value in lines:
                self.send_header(name, value)
            self.end_headers()
            copyfileobj(process.stdout, self.wfile)

    def variables(self, size: int) -> dict[str, str]:
        """Return the request in the words of CGI."""
        url = urlsplit(self.path)
        _, _, inside = url.path.lstrip("/").partition("/")
        return {
            "GIT_PROJECT_ROOT": str(self.folder),
            "PATH_INFO": f"/{inside}",
            "QUERY_STRING": url.query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(size),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": self.client_address[0],
        }


def main(folder: str, host: str, port: str) -> None:
    """Serve until the process is ended; print the port, or why there is none."""
    Handler.folder = Path(folder)
    try:
        server = ThreadingHTTPServer((host, int(port)), Handler)
    except OSError as error:
        print(error.strerror, flush=True)
        sys.exit(1)
    print(server.server_address[1], flush=True)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
