"""GitHub's REST API as far as commits and deployments are told of, and issues opened.

Run as a program: `python github_api.py <address> <port> <file>`. What it is told goes into the
file, a line of JSON each time: path and body.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from git_server import Server

APP, INSTALLATION = 7, 42
TOKEN = "ghs_of-the-app"
LATER = "2099-01-01T00:00:00Z"


class Handler(BaseHTTPRequestHandler):
    """Tokens of the App, statuses of commits, deployments and what becomes of them."""

    told: Path
    deployments: list[dict[str, Any]]

    def do_GET(self) -> None:
        """List the deployments of a commit and an environment."""
        query = parse_qs(urlsplit(self.path).query)
        asked = {key: query[key][0] for key in ("ref", "environment") if key in query}
        assert asked
        self.answer(200, [each for each in self.deployments if asked.items() <= each.items()])

    def do_POST(self) -> None:
        """Give a token to whoever is the App; write down what others tell."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or b"{}")
        path = urlsplit(self.path).path
        if path == f"/app/installations/{INSTALLATION}/access_tokens":
            self.answer(201, {"token": TOKEN, "expires_at": LATER})
            return
        if self.headers["Authorization"] not in (f"token {TOKEN}", f"Bearer {TOKEN}"):
            self.answer(401, {"message": "Bad credentials"})
            return
        with self.told.open("a") as file:
            file.write(json.dumps({"path": path.removeprefix("/api/v3"), "body": body}) + "\n")
        if not isinstance(body, dict):
            self.answer(400, {"message": "Body should be a JSON object"})
            return
        made = body | {"id": 1 + len(self.deployments)}
        if re.fullmatch(r"/api/v3/repos/\w[\w-]*/\w[\w-]*/deployments", path):
            self.deployments.append(made)
        self.answer(201, made)

    def answer(self, status: int, content: Any) -> None:
        """Send an answer."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def server(address: str, port: int, told: Path) -> Server:
    """Such an API, which nobody serves yet."""
    handler = type("Told", (Handler,), {"told": told, "deployments": []})
    return Server((address, port), handler)


def read(told: Path) -> list[dict[str, Any]]:
    """What it was told."""
    return [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []


if __name__ == "__main__":
    server(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])).serve_forever()
