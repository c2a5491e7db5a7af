"""By which address a cluster reads the remote of this checkout."""

import re
import socket
from pathlib import Path
from urllib.parse import unquote, urlsplit

from delivery.cluster.programs import Kubectl
from delivery.errors import DeliveryError
from delivery.git import REMOTE, Repository
from delivery.proposals.github import github_repository


def local_remote(repository: Repository) -> Path | None:
    """Return the folder of the remote if it is on this machine."""
    address = repository.ask("remote", "get-url", REMOTE)
    if address.startswith("file://"):
        return Path(unquote(urlsplit(address).path))
    if re.match(r"[^/]*:", address):  # a scheme, or the host of ssh's short form
        return None
    return (repository.folder / address).resolve()


def public_address(repository: Repository) -> str:
    """Return the remote's address for a cluster, which has nobody's keys. Raises DeliveryError."""
    address = repository.ask("remote", "get-url", REMOTE)
    if address.startswith(("http://", "https://")):
        return re.sub(r"//[^@/]*@", "//", address)  # somebody's name and password stay here
    if found := github_repository(repository):
        return f"https://{found}.git"
    raise DeliveryError(
        f"a cluster cannot read {address}, which asks for a key: give the remote an address that "
        f"begins with https, `git remote set-url {REMOTE} https://<host>/<path>`"
    )


def this_machine(kubectl: Kubectl) -> str:
    """Return the address of this machine towards a cluster. Raises DeliveryError."""
    listed = "jsonpath={.clusters[0].cluster.server}"
    server = urlsplit(kubectl.ask("config", "view", "--minify", "--output", listed)).hostname
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((server, 9))  # sends nothing: it only finds the way
        own = probe.getsockname()[0]
    if not own.startswith("127."):
        return own
    node = '{.items[0].status.addresses[?(@.type=="InternalIP")].address}'
    return kubectl.ask("get", "nodes", "--output", f"jsonpath={node}")
