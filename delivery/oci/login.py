"""What somebody logged in to a registry with, where `skopeo login` and `docker login` keep it."""

import base64
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from delivery.errors import DeliveryError
from workspace.settings import Settings, SettingsError, check, parse_json, read_json, shown

HUB = "docker.io"  # is called otherwise in files and by helpers
HUB_KEY = "https://index.docker.io/v1/"
IDENTITY = "<token>"  # in the place of a user: the secret is a token that buys others
# Of each user a folder for what lasts until the machine stops, where the session has named none.
USERS = Path("/run/containers")


@dataclass(frozen=True)
class Login:
    """A user and a secret, which is never printed."""

    user: str
    secret: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The header `Authorization` that sends both."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


class Written(Settings, extra="ignore"):
    """What a program in Go wrote, and reads: null is to it as if nothing were there."""

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, content: Any) -> Any:
        """Leave out what is null."""
        if isinstance(content, dict):
            return {key: value for key, value in content.items() if value is not None}
        return {} if content is None else content


class Stored(Written):
    """One login in a file."""

    auth: str = Field(default="", description="base64 of <user>:<password>")
    identitytoken: str = ""


class LoginFile(Written):
    """A file of logins, or of the programs that keep them."""

    auths: dict[str, Stored] = Field(default={}, description="an object of logins")
    credHelpers: dict[str, str | None] = Field(  # noqa: N815
        default={}, description="an object of names"
    )
    credsStore: str = ""  # noqa: N815


class Answer(Settings, extra="ignore"):
    """What a program that keeps passwords prints."""

    Username: str
    Secret: str


def find_login(name: str) -> Login | None:
    """Return the login for `<host>/<name>`, or None. Raises UserError.

    The files are those of skopeo in its order; of one, the longest part of the name that it knows.
    """
    home = Path(os.environ.get("HOME") or "/")
    session = os.environ.get("XDG_RUNTIME_DIR")
    runtime = Path(session, "containers") if session else USERS / str(os.getuid())
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    docker = Path(os.environ.get("DOCKER_CONFIG") or home / ".docker")
    first = Path(os.environ.get("REGISTRY_AUTH_FILE") or runtime / "auth.json")
    for path in (first, config / "containers/auth.json", docker / "config.json"):
        if os.access(path, os.R_OK):
            file = check(LoginFile, read_json(path), str(path))
            if login := _asked(file, name.partition("/")[0], path) or _stored(file, name, path):
                return login
    return None


def _stored(file: LoginFile, name: str, path: Path) -> Login | None:
    """Look for the name, then for each shorter one; addresses count as their host."""
    known = {_host(key): stored for key, stored in file.auths.items()} | file.auths
    while name not in known and "/" in name:
        name = name.rpartition("/")[0]
    stored = known.get(name, Stored())
    if stored.identitytoken:
        return Login(IDENTITY, stored.identitytoken)
    if not stored.auth:
        return None
    try:
        user, secret = base64.b64decode(stored.auth).decode().split(":", 1)
    except ValueError:
        raise DeliveryError(
            f"{path}: `auth` of {shown(name)} is not base64 of <user>:<password>: log in again"
        ) from None
    return Login(user, secret.strip("\0"))


def _host(key: str) -> str:
    return HUB if key == HUB_KEY else re.sub("^https?://([^/]*).*", r"\1", key)


def _asked(file: LoginFile, host: str, path: Path) -> Login | None:
    """Ask the program that keeps the host's password, if there is one and it knows it."""
    helper = file.credHelpers.get(host) or file.credsStore
    if not re.fullmatch(r"[\w.-]+", helper):
        return None
    program = f"docker-credential-{helper}"
    name = f"{program}, which {path} names for passwords,"
    question = (HUB_KEY if host == HUB else host).encode()
    try:
        answer = subprocess.run([program, "get"], input=question, capture_output=True, timeout=60)
        if answer.returncode:  # it does not know the host
            return None
        kept = check(Answer, parse_json(answer.stdout, "what it says"), "what it says")
    except (OSError, subprocess.TimeoutExpired, SettingsError) as error:
        raise DeliveryError(
            f"{name} fails ({error}): repair it, or remove it there and log in"
        ) from None
    return Login(kept.Username, kept.Secret)
