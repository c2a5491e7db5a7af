"""What somebody logged in to a registry with, where `skopeo login` and `docker login` keep it."""

import base64
import binascii
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from delivery.errors import DeliveryError
from workspace.settings import Settings, check, parse_json, read_json

HUB = "docker.io"  # has other names in files and for helpers
HUB_KEY = "https://index.docker.io/v1/"
IDENTITY = "<token>"  # in the place of a name: the secret is a token that buys others


@dataclass(frozen=True)
class Login:
    """A name and its secret, which is never printed."""

    user: str
    secret: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The header `Authorization` that sends it."""
        pair = base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()
        return f"Basic {pair}"


class Stored(Settings, extra="ignore"):
    """An entry of such a file."""

    auth: str = Field(default="", description="base64 of <name>:<password>")
    identitytoken: str = Field(default="", description="a token")


class LoginFile(Settings, extra="ignore"):
    """A file with logins, or with the programs that keep them."""

    auths: dict[str, Stored] = Field(default={}, description="an object of logins")
    credHelpers: dict[str, str] = Field(default={}, description="an object of names")  # noqa: N815
    credsStore: str = Field(default="", description="a name")  # noqa: N815


class Answer(Settings, extra="ignore"):
    """What a program that keeps passwords prints."""

    Username: str = Field(description="a name")
    Secret: str = Field(description="a secret")


def find_login(name: str) -> Login | None:
    """Return the login for `<host>/<name>`, or None. Raises UserError.

    The files are those of skopeo in its order; of one, the longest part of the name that it knows.
    """
    host = name.partition("/")[0]
    for path in filter(lambda path: os.access(path, os.R_OK), _files()):
        file = check(LoginFile, read_json(path), str(path))
        if login := _asked(file, host) or _stored(file, name, path):
            return login
    return None


def _files() -> list[Path]:
    home = Path(os.environ.get("HOME") or "/")
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    first = os.environ.get("REGISTRY_AUTH_FILE") or runtime / "containers/auth.json"
    return [Path(first), config / "containers/auth.json", docker / "config.json"]


def _stored(file: LoginFile, name: str, path: Path) -> Login | None:
    """Look for the name, then for each shorter one; addresses count as their host."""
    known = {_plain(key): stored for key, stored in file.auths.items()} | file.auths
    while name not in known and "/" in name:
        name = name.rpartition("/")[0]
    stored = known.get(name, Stored())
    if stored.identitytoken:
        return Login(IDENTITY, stored.identitytoken)
    if not stored.auth:
        return None
    try:
        user, colon, secret = base64.b64decode(stored.auth).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise DeliveryError(f"{path}: `auth` of {name} is not base64 of a name and a password")
    return Login(user, secret.strip("\0"))


def _plain(key: str) -> str:
    host = re.sub("^https?://([^/]*).*", r"\1", key)
    return HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def _asked(file: LoginFile, host: str) -> Login | None:
    """Ask the program that keeps the host's password, if there is one and it knows it."""
    helper = file.credHelpers.get(host) or file.credsStore
    if not helper:
        return None
    program = f"docker-credential-{helper}"
    if not re.fullmatch(r"[\w.-]+", program):
        raise DeliveryError(f"{program!r} is not the name of a program that keeps passwords")
    question = HUB_KEY if host == HUB else host
    try:
        answer = subprocess.run(
            [program, "get"], input=question.encode(), capture_output=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeliveryError(
            f"{program}, which keeps the password of {host}, gives no answer ({error}): "
            "install it, or remove it from the file that `docker login` wrote"
        ) from None
    if answer.returncode:  # it does not know the host
        return None
    kept = check(Answer, parse_json(answer.stdout, program), program)
    return Login(kept.Username, kept.Secret)
