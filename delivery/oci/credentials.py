"""Credentials of registries, where `docker login` and credential helpers keep them."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic.alias_generators import to_camel

from delivery.errors import DeliveryError
from workspace.settings import Settings, SettingsError, check, read_json


class DockerConfig(Settings, extra="ignore", alias_generator=to_camel):
    """The part of docker's `config.json` that says where credentials are."""

    auths: dict[str, dict[str, Any]] = Field(default_factory=dict)
    cred_helpers: dict[str, str] = Field(default_factory=dict)
    creds_store: str = ""


def credentials(host: str) -> tuple[str, str] | None:
    """Return user name and password for a registry, or None where docker knows none.

    Looks into `config.json` in $DOCKER_CONFIG or ~/.docker, in docker's order: the helper for
    this host, what is written in the file, the helper for all hosts. Raises DeliveryError.
    """
    config = _config()
    if helper := config.cred_helpers.get(host):
        return _ask(helper, host)
    for name in (host, f"https://{host}"):
        if auth := config.auths.get(name, {}).get("auth"):
            return _decode(auth, host)
    return _ask(config.creds_store, host) if config.creds_store else None


def _config() -> DockerConfig:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    if not path.is_file():
        return DockerConfig()
    try:
        return check(DockerConfig, read_json(path), str(path))
    except SettingsError as error:
        raise DeliveryError(f"{error}: repair it or log in again") from None


def _decode(auth: str, host: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(auth).decode().partition(":")
    except ValueError as error:
        raise DeliveryError(
            f"the credentials of {host} in docker's config.json are damaged: "
            f"run `docker login {host}`"
        ) from error
    return user, password


def _ask(helper: str, host: str) -> tuple[str, str] | None:
    """Ask a helper as docker does: the host on its standard input, JSON on its output."""
    command = f"docker-credential-{helper}"
    try:
        answer = subprocess.run([command, "get"], input=host, text=True, capture_output=True)
    except FileNotFoundError as error:
        raise DeliveryError(
            f"docker's config.json names {command} for {host}, but it is not installed"
        ) from error
    if "credentials not found" in answer.stdout:
        return None
    if answer.returncode:
        reason = (answer.stderr or answer.stdout).strip()
        raise DeliveryError(f"{command} has no credentials for {host}: {reason}")
    found = json.loads(answer.stdout)
    return found["Username"], found["Secret"]
