"""A registry over HTTP: the parts of the OCI distribution specification that a model needs."""

import base64
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.credentials import credentials
from delivery.oci.image import MANIFEST, Blob, digest_of
from delivery.oci.layout import MissingBlobError

DELAYS = [1, 2, 4, 8]  # seconds before each further attempt
TIMEOUT = (10, 300)  # seconds: to connect; until an answer, as a registry hashes a large upload
TRANSIENT = {408, 429, 500, 502, 503, 504}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

Result = TypeVar("Result")


class UnavailableError(DeliveryError):
    """A registry does not answer, or says that it can't at the moment: worth another attempt."""


def retry(operation: Callable[[], Result]) -> Result:
    """Try again, each time after a longer pause, while the registry is unavailable."""
    for delay in DELAYS:
        try:
            return operation()
        except UnavailableError as error:
            print(f"{error}; trying again in {delay} s", file=sys.stderr)
            time.sleep(delay)
    return operation()


class Authorization(requests.auth.AuthBase):
    """Adds the registry's token or password, to requests to the registry's own host only."""

    def __init__(self, host: str) -> None:
        """Start without credentials: a registry says which it wants."""
        self.host = host
        self.header: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Authorize one request."""
        if self.header and urlsplit(str(request.url)).netloc == self.host:
            request.headers["Authorization"] = self.header
        return request

    def answer(self, challenge: str) -> None:
        """Get what a `WWW-Authenticate` header asks for. Raises DeliveryError."""
        known = credentials(self.host)
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            self.header = f"Bearer {self._token(fields, known)}"
        elif known:
            self.header = "Basic " + base64.b64encode(":".join(known).encode()).decode()
        else:
            raise DeliveryError(f"{self.host} wants credentials: run `docker login {self.host}`")

    def _token(self, fields: dict[str, str], known: tuple[str, str] | None) -> str:
        realm = fields.pop("realm", "")
        with unavailable(self.host):
            response = requests.get(realm, params=fields, auth=known, timeout=TIMEOUT)
        check_answer(response, self.host, "a token")
        answer = response.json()
        return answer.get("token") or answer.get("access_token") or ""


class Remote:
    """One name in a registry, `<host>/<repository>`; plain HTTP on loopback only."""

    def __init__(self, name: str) -> None:
        """Open `<host>/<repository>`; nothing is sent yet."""
        self.name = name
        self.host, _, path = name.partition("/")
        scheme = "http" if self.host.rsplit(":", 1)[0] in LOOPBACK else "https"
        self.url = f"{scheme}://{self.host}/v2/{path}/"
        self.session = requests.Session()
        self.authorization = Authorization(self.host)
        self.session.auth = self.authorization
        self.session.trust_env = scheme == "https"  # no proxy for loopback

    def has(self, blob: Blob) -> bool:
        """Tell whether the registry holds a blob."""
        return retry(lambda: self._found(f"blobs/{blob.digest}"))

    def read(self, digest: str) -> IO[bytes]:
        """Open a blob; the reader checks the digest. Raises MissingBlobError."""
        return cast(IO[bytes], self._get(f"blobs/{digest}", stream=True).raw)

    def read_manifest(self, reference: str, accept: str = MANIFEST) -> bytes:
        """Return the bytes of the image manifest with a digest or tag, unchecked.

        `accept` lists media types as the HTTP header does. Raises MissingBlobError.
        """
        return retry(
            lambda: self._get(f"manifests/{reference}", headers={"Accept": accept}).content
        )

    def write(self, blob: Blob, source: Path) -> int:
        """Upload a blob from a file, unless it is there; return the bytes sent."""
        return retry(lambda: self._upload(blob, source))

    def write_manifest(self, content: bytes, tag: str) -> int:
        """Upload an image manifest, unless it is there; return the bytes sent.

        Raises DeliveryError when the registry stored something else.
        """
        digest = digest_of(content)
        if retry(lambda: self._found(f"manifests/{digest}")):
            return 0
        headers = {"Content-Type": MANIFEST}
        response = retry(
            lambda: self._done("PUT", f"manifests/{tag}", data=content, headers=headers)
        )
        stored = response.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise DeliveryError(f"{self.name} stored {stored} instead of {digest}")
        return len(content)

    def _upload(self, blob: Blob, source: Path) -> int:
        """Upload in one request, which every registry takes, from the start at each attempt."""
        if self._found(f"blobs/{blob.digest}"):
            return 0
        started = self._done("POST", "blobs/uploads/")
        location = urljoin(started.url, started.headers["Location"])
        with (
            source.open("rb") as file,
            tqdm.wrapattr(
                file, "read", total=blob.size, desc="push", delay=1, mininterval=1, disable=None
            ) as stream,
        ):
            headers = {"Content-Type": "application/octet-stream"}
            digest = {"digest": blob.digest}
            self._done("PUT", location, params=digest, data=stream, headers=headers)
        return blob.size

    def _found(self, path: str) -> bool:
        response = self._request("HEAD", path, headers={"Accept": MANIFEST})
        if response.status_code != 404:
            check_answer(response, self.name, path)
        return response.status_code != 404

    def _get(self, path: str, **options: Any) -> requests.Response:
        response = self._request("GET", path, **options)
        if response.status_code == 404:
            raise MissingBlobError(f"{self.name} does not hold {path}: push the image to it again")
        check_answer(response, self.name, path)
        return response

    def _done(self, method: str, path: str, **options: Any) -> requests.Response:
        response = self._request(method, path, **options)
        check_answer(response, self.name, path)
        return response

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send a request; answer one demand for credentials."""
        url = urljoin(self.url, path)
        for _ in range(2):
            with unavailable(self.host):
                response = self.session.request(
                    method, url, timeout=TIMEOUT, allow_redirects=True, **options
                )
            challenge = response.headers.get("WWW-Authenticate")
            if response.status_code != 401 or not challenge:
                break
            self.authorization.answer(challenge)
            if hasattr(options.get("data"), "seek"):
                options["data"].seek(0)
        return response


@contextmanager
def unavailable(host: str) -> Iterator[None]:
    """Turn what a broken connection raises into UnavailableError."""
    try:
        yield
    except (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError) as error:
        raise UnavailableError(f"no answer from the registry {host} ({_reason(error)})") from error


def check_answer(response: requests.Response, where: str, what: str) -> None:
    """Raise UnavailableError, or DeliveryError where another attempt is of no use."""
    if response.ok:
        return
    said = " ".join(response.text.split())[:200]
    sentence = f"{where} answered {response.status_code} for {what}" + (f": {said}" if said else "")
    if response.status_code in TRANSIENT:
        raise UnavailableError(sentence)
    cure = f": run `docker login {urlsplit(response.url).netloc}`"
    raise DeliveryError(sentence + (cure if response.status_code in (401, 403) else ""))


def _reason(error: BaseException) -> str:
    """Find the plainest words in a chain of wrapped exceptions."""
    while inner := getattr(error, "reason", None) or (error.args and error.args[-1]):
        if not isinstance(inner, BaseException):
            break
        error = inner
    return str(error).rsplit(": ", 1)[-1]
