"""Status: what Git wants in each environment, what runs there, and whether they agree."""

import argparse
from pathlib import Path

import requests

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.preview_status import read_status
from delivery.proposals.releases import check_environment, environments, released

TIMEOUT = 5  # seconds


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `status`."""
    parser = subparsers.add_parser("status", help="compare what Git wants with what runs")
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ENVIRONMENT=HOST:PORT",
        help="where Triton's HTTP port of an environment is; default: its local preview",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Report on the current folder's environments."""
    status(Repository(Path.cwd()), dict(_pair(text) for text in arguments.address))


def status(repository: Repository, addresses: dict[str, str]) -> None:
    """Print a line for each environment. Raises DeliveryError when one runs something else."""
    commit = repository.fetch()
    for environment in addresses:
        check_environment(repository, commit, environment)
    disagreeing = []
    for environment in environments(repository, commit):
        release = released(repository, commit, environment)
        preview = read_status(repository.folder, environment)
        address = addresses.get(environment) or (preview and preview.address)
        wanted = f"model {release.version}" if release else "nothing"
        running = serving(address) if address else "unknown, no address"
        agrees = not address or running == wanted
        disagreeing += [] if agrees else [environment]
        image = f" ({release.image.rpartition('@')[2][:19]})" if release else ""
        verdict = ("agree" if agrees else "DISAGREE") if address else "-"
        print(f"{environment:<12}Git: {wanted}{image}   running: {running}   {verdict}")
    if disagreeing:
        raise DeliveryError(
            f"{' and '.join(disagreeing)} does not run what Git wants: if a merge was a moment ago "
            "wait for the sync, otherwise look at the environment's Health"
        )


def _pair(text: str) -> tuple[str, str]:
    environment, _, address = text.partition("=")
    if not address:
        raise DeliveryError(f"{text!r} is not an address: give ENVIRONMENT=HOST:PORT")
    return environment, address


def serving(address: str) -> str:
    """Ask Triton which versions of the model are ready."""
    url = f"{address if '://' in address else f'http://{address}'}/v2/models/classifier"
    try:
        answer = requests.get(url, timeout=TIMEOUT)
        versions = answer.json().get("versions", []) if answer.ok else []
        ready = [each for each in versions if _ready(f"{url}/versions/{each}/ready")]
    except (requests.RequestException, ValueError):
        return f"no answer from {address}"
    return f"model {' and '.join(ready)}" if ready else "nothing"


def _ready(url: str) -> bool:
    return requests.get(url, timeout=TIMEOUT).ok
