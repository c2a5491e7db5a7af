"""The page on which a person decides about new pictures, served to this machine alone.

Its address has a secret in it, and a request must name this machine as its host: neither another
user's program nor a page of the web, whose name was bent to this machine, gets anything.
"""

import hmac
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from reporting.pages import beside, embedded_json, page_template
from workspace.errors import UserError, sentence
from workspace.settings import Settings, check, parse_json

LARGEST = 64 * 1024  # bytes of a request
POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)


class Decision(Settings):
    """What the page sends when a person has decided."""

    image: str = Field(description="the name of a picture")
    decision: str = Field(description="keep, drop, a class, or nothing")


@dataclass(frozen=True)
class Review:
    """What there is to decide, and what carries it out.

    `picture` returns a PNG or JPEG of the picture of that name, or raises ValueError or OSError;
    `decide` writes a decision down, or raises UserError.
    """

    title: str
    classes: Sequence[str]
    rows: Callable[[], Sequence[Mapping[str, str]]]
    picture: Callable[[str], bytes]
    decide: Callable[[str, str], None]


def serve(review: Review, announce: Callable[[str], None], port: int = 0) -> None:
    """Serve the page until a person is done, or Ctrl-C; `announce` is told its address."""
    server = Server(review, port)
    announce(server.address)
    with suppress(KeyboardInterrupt), server:
        server.serve_forever(poll_interval=0.1)


class Server(ThreadingHTTPServer):
    """A page's server on a free port of the loopback address."""

    daemon_threads = True

    def __init__(self, review: Review, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.review = review
        self.images = [row["image"] for row in review.rows()]
        self.secret = secrets.token_urlsafe(24)
        self.writing = threading.Lock()

    @property
    def address(self) -> str:
        """What a person opens."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"


class Handler(BaseHTTPRequestHandler):
    """One request: the page, a picture, a decision, or the end."""

    server: Server
    server_version = "review"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer with the page or a picture."""
        place = self.place()
        if place == "":
            self.answer(HTTPStatus.OK, page(self.server.review).encode(), "text/html")
        elif place is not None and place.startswith("picture/"):
            self.send_picture(place.removeprefix("picture/"))
        else:
            self.refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Take a decision, or the end."""
        place = self.place()
        of_page = self.headers.get("Content-Type") == "application/json"
        if place not in ("decide", "done") or not of_page:
            return self.refuse(HTTPStatus.NOT_FOUND)
        try:
            content = self.content()
            if place == "decide":
                made = check(Decision, parse_json(content, "the decision"), "the decision")
                with self.server.writing:
                    self.server.review.decide(made.image, made.decision)
        except (UserError, OSError, ValueError) as error:
            return self.answer(HTTPStatus.CONFLICT, sentence(error).encode())
        self.answer(HTTPStatus.OK, b"")
        if place == "done":
            threading.Thread(target=self.server.shutdown).start()

    def place(self) -> str | None:
        """What is asked for, or None of whoever may not ask."""
        port = self.server.server_port
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        secret, slash, place = urlsplit(self.path).path.removeprefix("/").partition("/")
        is_known = hmac.compare_digest(secret.encode(), self.server.secret.encode())
        return place if is_known and slash and self.headers.get("Host") in hosts else None

    def content(self) -> bytes:
        """Read the body. Raises ValueError for one that is too long or of no length."""
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= LARGEST:
            raise ValueError("the request is too long")
        return self.rfile.read(length)

    def send_picture(self, number: str) -> None:
        """Answer with the picture of that number."""
        images = self.server.images
        if not number.isdecimal() or len(number) > 9 or int(number) >= len(images):
            return self.refuse(HTTPStatus.NOT_FOUND)
        try:
            content = self.server.review.picture(images[int(number)])
        except (ValueError, OSError) as error:
            return self.answer(HTTPStatus.CONFLICT, sentence(error).encode())
        kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
        self.answer(HTTPStatus.OK, content, f"image/{kind}")

    def refuse(self, status: HTTPStatus) -> None:
        """Answer with nothing but a status."""
        self.answer(status, status.phrase.encode())

    def answer(self, status: HTTPStatus, content: bytes, kind: str = "text/plain") -> None:
        """Answer, whatever has become of the browser."""
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing on the terminal."""


def page(review: Review) -> str:
    """The page with what is decided so far."""
    state = {"classes": list(review.classes), "rows": [dict(row) for row in review.rows()]}
    return page_template("review_page.html").render(
        title=review.title,
        css=beside("page.css"),
        script=beside("review_page.js"),
        state=embedded_json(state),
    )
