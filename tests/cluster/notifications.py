"""What a cluster has where Argo CD tells GitHub of environments, of a GitHub that is elsewhere."""

from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import github_api
from conftest import TEMPLATE

SETTINGS = TEMPLATE / "argocd/components/notifications/settings.yaml"
PLACE = {"namespace": "argocd"}


def settings(address: str) -> dict[str, Any]:
    """Our settings, with a GitHub that is elsewhere."""
    ours = yaml.safe_load(SETTINGS.read_text())
    ours["metadata"] |= PLACE
    ours["data"]["service.github"] += f"enterpriseBaseURL: {address}\n"
    return ours


def secret() -> dict[str, Any]:
    """The Secret of an App."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    values = {"appID": str(github_api.APP), "installationID": str(github_api.INSTALLATION)}
    values |= {"privateKey": pem.decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "argocd-notifications-secret"} | PLACE,
        "stringData": {f"github-{name}": value for name, value in values.items()},
    }
