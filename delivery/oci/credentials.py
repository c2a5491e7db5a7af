"""Credentials of registries, where `docker login` and credential helpers keep them."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError


def credentials(host: str) -> tuple[str, str] | None:
    """Return user name and password for a registry, or None where docker knows none.

    Looks into `config.json` in $DOCKER_CONFIG or ~/.docker, in docker's order: the helper for
    this host, what is written in the file, the helper for all hosts. Raises DeliveryError.
    """
    config = _config()
    if helper := config.get("credHelpers", {}).get(host):
        return _ask(helper, host)
    for name in (host, f"https://{host}"):
        if auth := config.get("auths", {}).get(name, {}).get("auth"):
            return _decode(auth, host)
    if helper := config.get("credsStore"):
        return _ask(helper, host)
    return None


def _config() -> dict[str, Any]:
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise DeliveryError(f"{path} is not JSON ({error}): repair it or log in again") from error


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
