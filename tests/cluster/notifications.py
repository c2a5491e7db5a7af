"""What a cluster has where Argo CD and Argo Rollouts tell a GitHub that is elsewhere."""

from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

import github_api
import network
from conftest import TEMPLATE
from local_cluster import LocalCluster

SETTINGS = TEMPLATE / "argocd/components/notifications/settings.yaml"
FIGURES = TEMPLATE / "argocd/components/figures/settings.yaml"
PLACE = {"namespace": "argocd"}
PORT = 9080  # of the GitHub that is told


def listen(here: LocalCluster, folder: Path) -> tuple[Path, str]:
    """Start a GitHub that pods reach; the file with what it is told, and its address."""
    file, host = folder / "told", network.address(1)
    program = str(Path(github_api.__file__))
    here.start("github", 1, ["python3", program, host, str(PORT), str(file)])
    here.wait_for_port(host, PORT, "github")
    return file, f"http://{host}:{PORT}"


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


def figures(address: str) -> list[dict[str, Any]]:
    """Our settings of Argo Rollouts, and their Secret with a GitHub that is elsewhere."""
    ours = yaml.safe_load(FIGURES.read_text())
    url = f"{address}/api/v3/repos/acme/digits/deployments"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": ours["metadata"] | {"name": "argo-rollouts-notification-secret"},
        "stringData": {"github-url": url, "github-token": github_api.TOKEN},
    }
    return [ours, secret]
