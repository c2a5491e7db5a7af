"""Status: what Git wants in each environment, what runs there, and whether they agree."""

from dataclasses import dataclass

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.cluster import UnknownError, standing
from delivery.manifests.preview_status import read_status
from delivery.proposals.release_file import Release
from delivery.proposals.releases import check_environment, environments, released

ARGUMENTS = {
    "--address": {
        "dest": "addresses",
        "action": "append",
        "default": [],
        "metavar": "ENVIRONMENT=HOST:PORT",
        "help": "where Triton's HTTP port of an environment is; default: its local preview, or "
        "what the cluster says",
    },
    "--context": {"help": "kubectl's context of the cluster; default: its current one"},
}


@dataclass(frozen=True)
class Found:
    """What was found of an environment: what runs, whether it is wanted if known, and why not."""

    running: str
    agrees: bool | None
    why: str = ""


def run(repository: Repository, addresses: list[str], context: str | None = None) -> None:
    """Print a line for each environment, and why it is not well.

    Raises DeliveryError when one runs something else.
    """
    given = dict(_pair(text) for text in addresses)
    commit = repository.fetch()
    for environment in given:
        check_environment(repository, commit, environment)
    disagreeing = []
    for environment in environments(repository, commit):
        release = released(repository, commit, environment)
        preview = read_status(repository.folder, environment)
        wanted = f"model {release.version}" if release else "nothing"
        if address := given.get(environment) or (preview and preview.address):
            from delivery.manifests.answers import serving  # which brings Triton's client

            running = serving(address, release)
            found = Found(running, running == wanted)
        else:
            found = on_cluster(repository, commit, environment, release, context)
        disagreeing += [environment] if found.agrees is False else []
        image = f" ({release.image.rpartition('@')[2][:19]})" if release else ""
        verdict = {True: "agree", False: "DISAGREE", None: "-"}[found.agrees]
        print(f"{environment:<12}Git: {wanted}{image}   running: {found.running}   {verdict}")
        if found.why:
            print(f"{'':<12}{found.why}")
    if disagreeing:
        raise DeliveryError(
            f"{' and '.join(disagreeing)} does not run what Git wants: if a merge was a moment ago "
            "wait for the sync, otherwise look at the environment's Health"
        )


def on_cluster(
    repository: Repository,
    commit: str,
    environment: str,
    release: Release | None,
    context: str | None,
) -> Found:
    """Say what a cluster tells of an environment, where there is one to ask."""
    if release is None:
        return Found("unknown, no address", None)
    try:
        stands = standing(repository, commit, environment, release, context)
    except UnknownError as error:
        return Found("unknown, no address", None, str(error))
    running = f"model {' and '.join(stands.versions)}" if stands.versions else "nothing"
    why = f"model {release.version}: {stands.trouble}" if stands.trouble else ""
    return Found(running, not stands.trouble, why)


def _pair(text: str) -> tuple[str, str]:
    environment, _, address = text.partition("=")
    if not address:
        raise DeliveryError(f"{text!r} is not an address: give ENVIRONMENT=HOST:PORT")
    return environment, address
