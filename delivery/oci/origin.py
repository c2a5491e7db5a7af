"""A registry's own host, the only place that gets the login and the tokens for it.

A registry answers with the addresses of token servers, uploads and blobs. Those on its own host are
asked over its own scheme; elsewhere goes no login and no token, unless TOKEN_REALM says so.
"""

import math
import re
import ssl
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from threading import Lock, Thread
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from pydantic import Field

from delivery.errors import DeliveryError
from delivery.oci.image import CHUNK, LARGEST_DOCUMENT
from delivery.oci.login import HUB, IDENTITY, find_login
from workspace.machine import this_machine
from workspace.settings import Settings, check, parse_json, shown

LOOPBACK = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
HOSTS = {HUB: "registry-1.docker.io"}  # of names that are not those of the host
REALMS = {  # token servers that are known to be of the same house
    HOSTS[HUB]: "https://auth.docker.io",
    "registry.gitlab.com": "https://gitlab.com",
}
PATIENCE = 120  # seconds that a registry has for an answer
TIMEOUT = urllib3.Timeout(connect=30, read=60)  # seconds without a byte
REDIRECTS = 5
LARGEST_TOKEN = 64 * 1024  # bytes of a token server's answer

Result = TypeVar("Result")


class UnavailableError(DeliveryError):
    """A registry does not answer, or says that it can't at the moment."""


class Token(Settings, extra="ignore"):
    """A token server's answer; its two names for the token mean the same."""

    token: str = Field(default="", pattern="^[!-~]*$", description="a token")
    access_token: str = Field(default="", pattern="^[!-~]*$", description="a token")
    expires_in: float = Field(default=60, ge=0, description="seconds")


class Origin:
    """The host behind `<host>/<name>`; plain HTTP on loopback only."""

    def __init__(self, name: str, actions: str, seconds: float = PATIENCE) -> None:
        """Find the login for `actions`: `pull`, or `pull,push`. Raises UserError.

        All that is asked with `ask` is to be answered within `seconds` from now.
        """
        host, _, self.repository = name.partition("/")
        self.name, self.seconds, self._ends = name, seconds, time.monotonic() + seconds
        self.host = HOSTS.get(host, host)
        self._scheme = "http" if LOOPBACK.fullmatch(host) else "https"
        self._login = find_login(name)
        self._scope = f"repository:{self.repository}:{actions}"
        self._authorization, self._until = "", -math.inf
        self._lock = Lock()

    def send(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        """Send a request and return urllib3's answer, whose body is not yet read.

        Reading follows redirects, to other hosts without login or token. Raises UserError.
        """
        url = self._at(path)
        for _ in range(REDIRECTS):
            own = self.inside(url)
            url = self._at(own) if own else url
            authorization = self._authorized() if own else {}
            response = self._request(method, url, headers | authorization, body)
            if not (location := response.get_redirect_location()):
                return response
            response.close()
            url = urljoin(url, location)
            if method not in ("GET", "HEAD") or not url.startswith(("https:", f"{self._scheme}:")):
                raise self.refused(url)
        raise DeliveryError(f"{self.name} redirects without end: check the address of the registry")

    def ask(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None = None
    ) -> tuple[int, bytes, Any]:
        """Send a request; return status, content and headers of its answer. Raises UserError."""

        def whole() -> tuple[int, bytes, Any]:
            with self.send(method, path, headers, body) as answer:
                return answer.status, self._content(answer, LARGEST_DOCUMENT), answer.headers

        try:
            return within(max(0, self._ends - time.monotonic()), whole)
        except TimeoutError:
            raise late(self.name, self.seconds) from None

    def size(self, digest: str) -> int | None:
        """Return a blob's size as the registry tells it; None if it does not hold the blob."""
        status, _, told = self.ask("HEAD", f"/v2/{self.repository}/blobs/{digest}", {})
        length = told.get("Content-Length", "")
        return int(length) if status == 200 and length.isdecimal() else None

    def inside(self, url: str) -> str | None:
        """Return path and query of a URL on this host, whatever its scheme; None on another."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return None
        if self._brief(parts.netloc) != self._brief(self.host):
            return None
        return f"/{parts.path.lstrip('/')}" + (f"?{parts.query}" if parts.query else "")

    def broken(self, error: Exception | str) -> DeliveryError:
        """Return what is raised when the connection breaks, or cannot be trusted."""
        cause = error.args[-1] if isinstance(error, urllib3.exceptions.ProtocolError) else error
        why = re.split(r"\w+\(host=[^)]*\): |\[[^]]*\] ", str(cause))[-1]
        kind = DeliveryError if isinstance(error, urllib3.exceptions.SSLError) else UnavailableError
        return kind(f"skopeo failed with {self.name} ({shown(why)[1:-1]})")

    def refused(self, url: str) -> DeliveryError:
        """Return what is raised when a registry sends something where it may not go."""
        return DeliveryError(
            f"{self.name} sends what it is asked to {shown(url)}, another or a less safe host: "
            "check the address of the registry"
        )

    def _brief(self, host: str) -> str:
        """Return a host without the port that goes without saying."""
        return host.lower().removesuffix(":443" if self._scheme == "https" else ":80")

    def _at(self, path: str) -> str:
        return f"{self._scheme}://{self.host}{path}"

    def _authorized(self) -> dict[str, str]:
        with self._lock:
            if time.monotonic() >= self._until:
                self._authorization, seconds = self._authorize()
                self._until = time.monotonic() + seconds
        return {"Authorization": self._authorization} if self._authorization else {}

    def _authorize(self) -> tuple[str, float]:
        """Ask how to log in; return the header `Authorization` and for how many seconds."""
        with self._request("GET", self._at("/v2/"), {}) as response:
            status, wanted = response.status, response.headers.get("WWW-Authenticate", "")
        if status == 429 or status >= 500:
            raise self.broken(f"status {status}")
        if status == 401 and (bearer := re.search(r"(?i)\bbearer +(.*)", wanted)):
            fields = re.findall(r'(\w+)="([^"]*)"', bearer[1])
            return self._token(dict(reversed(fields)))  # of two challenges, the first
        basic = status == 401 and re.match(r"(?i)basic\b", wanted) and self._login
        return (basic.basic if basic and basic.user != IDENTITY else ""), math.inf

    def _token(self, challenge: dict[str, str]) -> tuple[str, float]:
        """Buy a token. Without one the registry itself says that it is missing."""
        url, login = self._realm(challenge.get("realm", "")), self._login
        form = {"service": challenge.get("service", ""), "scope": self._scope}
        if login and login.user == IDENTITY:
            form |= {"grant_type": "refresh_token", "client_id": "merge-to-serve"}
            content = urlencode(form | {"refresh_token": login.secret})
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._request("POST", url, kind, content)
        else:
            url = f"{url}{'&' if '?' in url else '?'}{urlencode(form)}"
            response = self._request("GET", url, {"Authorization": login.basic} if login else {})
        if response.status in (400, 401, 403):
            return "", math.inf
        if response.status != 200:
            raise self.broken(f"its token server answers with status {response.status}")
        name = f"the token of {self.name}"
        answer = check(Token, parse_json(self._content(response, LARGEST_TOKEN), name), name)
        return f"Bearer {answer.token or answer.access_token}", max(answer.expires_in - 10, 1)

    def _realm(self, realm: str) -> str:
        """Return the address of the token server, if it may know the login."""
        if own := self.inside(realm):
            return self._at(own)
        match = re.match(r"(?i)https?://[a-z0-9.\[\]:-]+(?=[/?]|$)", realm)
        host = match[0].lower() if match else ""
        safe = host.startswith("https:") or LOOPBACK.fullmatch(host.removeprefix("http://"))
        trusted = (REALMS.get(self._brief(self.host)), this_machine().token_realm)
        if host and safe and host in trusted:
            return host + realm[len(host) :]
        cure = f"set TOKEN_REALM={host} if both are yours, or " if host and safe else ""
        raise DeliveryError(
            f"{self.name} wants its password sent to {shown(realm)}, which is not its own host: "
            f"{cure}give another registry"
        )

    def _content(self, answer: Any, largest: int) -> bytes:
        try:
            content = answer.read(largest, decode_content=False)
            answer.read(1, decode_content=False)  # raises an error if it broke off before its end
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise self.broken(error) from None
        return bytes(content)

    def _request(self, method: str, url: str, headers: dict[str, str], body: Any = None) -> Any:
        plain: dict[str, Any] = {"redirect": False, "retries": False, "preload_content": False}
        try:
            return self._pool(url).request(
                method, url, headers=headers, body=body, timeout=TIMEOUT, **plain
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self.broken(error) from None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Whom this machine trusts: to read that takes longer than a request on loopback."""
        return ssl.create_default_context()

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return connections to a host, through the environment's proxy unless on loopback."""
        parts = urlsplit(url)
        tls = self._tls if parts.scheme == "https" else None
        host = parts.hostname or ""
        near = host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host)
        if near or not (proxy := find_proxy(parts.scheme, host)):
            return urllib3.PoolManager(ssl_context=tls, blocksize=CHUNK)
        user = unquote(urlsplit(proxy).netloc.rpartition("@")[0])
        headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
        return urllib3.ProxyManager(proxy, proxy_headers=headers, ssl_context=tls, blocksize=CHUNK)


def find_proxy(scheme: str, host: str) -> str:
    """Return the environment's proxy, as curl reads it; empty if there is none.

    Raises DeliveryError for one that speaks something else than HTTP.
    """
    known = getproxies()
    proxy = known.get(scheme) or known.get("all", "")
    kind, found, _ = proxy.rpartition("://")
    if kind.lower() not in ("", "http", "https"):
        raise DeliveryError(
            f"the environment's proxy for {host} speaks {shown(kind)}: set {scheme}_proxy to one "
            f"that speaks HTTP, or no_proxy={host} where none is needed"
        )
    return proxy if found or not proxy else f"http://{proxy}"


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """Wait for what a thread does, and leave it behind when that takes longer.

    Who waits for each byte alone may wait for ever. Raises TimeoutError.
    """
    done: Future[Result] = Future()

    def do() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=do, daemon=True).start()
    return done.result(seconds)


def late(name: str, seconds: float) -> DeliveryError:
    """Return what is raised when a registry goes on and on."""
    return DeliveryError(f"{name} did not answer in full within {seconds:.0f} s: try again")
