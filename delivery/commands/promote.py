"""Promote: propose for production exactly what staging has, and serves."""

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.cluster import Standing, UnknownError, standing
from delivery.manifests.preview_status import read_status
from delivery.model.contest import meet_again
from delivery.parameters import committed_parameters
from delivery.proposals.gate import Champion
from delivery.proposals.health import hours_since, status_name, told_health
from delivery.proposals.proposal import propose, propose_once
from delivery.proposals.release_file import Release, parse_release
from delivery.proposals.releases import (
    all_releases,
    check_image,
    release_path,
    released,
    released_content,
)
from delivery.proposals.signing import read_trust
from delivery.proposals.texts import release_proposal
from workspace.errors import said

SOURCE, TARGET = "staging", "production"
ARGUMENTS = {
    "--context": {"help": "kubectl's context of the cluster; default: its current one"},
    "--soaked": {
        "action": "store_true",
        "help": "once, and only when staging is told to have served it well for release.soak",
    },
}


def run(repository: Repository, context: str | None = None, soaked: bool = False) -> None:
    """Propose staging's release file for production, as it is. Raises DeliveryError."""
    base = repository.fetch()
    if soaked and (why := too_early(repository, base)):
        print(f"nothing to promote: {why}")
        return
    content = released_content(repository, base, SOURCE)
    if content is None:
        raise DeliveryError(f"{SOURCE} has no release: `make release`, and merge it first")
    if content == released_content(repository, base, TARGET):
        raise DeliveryError(f"{TARGET} already has what {SOURCE} has: nothing to promote")
    candidate = parse_release(content, release_path(SOURCE))
    past = all_releases(repository, base)
    check_image(candidate.version, candidate.digest, past)
    current = released(repository, base, TARGET)
    if current and candidate.version < current.version:
        had = any(
            each.environment == TARGET and each.release.version == candidate.version
            for each in past
        )
        back = f"`make rollback ENV={TARGET} TO={candidate.version}` goes back"
        raise DeliveryError(
            f"{SOURCE} has model {candidate.version}, {TARGET} the newer {current.version}: "
            f"{back if had else 'the older one was never there to go back to'}"
        )
    read_trust(repository, base).judge(candidate)
    doubt = check_served(repository, base, candidate, context)
    text = content.decode()
    rival = meet_again(candidate.image, current.image) if current else None
    champion = Champion(current, rival) if current and rival else None
    command = "make promote"
    proposal = release_proposal(TARGET, text, candidate, champion, past, command, doubt)
    (propose_once if soaked else propose)(repository, base, proposal)


def too_early(repository: Repository, base: str) -> str:
    """Say why nothing is promoted by itself yet; nothing if something is. Raises DeliveryError."""
    candidate, current = (released(repository, base, each) for each in (SOURCE, TARGET))
    if candidate is None or (current and candidate.version < current.version):
        return f"{SOURCE} has nothing newer than {TARGET}"
    past = all_releases(repository, base)
    if any(each.environment == TARGET and each.release.is_same_as(candidate) for each in past):
        return f"{TARGET} has or had model {candidate.version}"
    health = told_health(repository, base, SOURCE)
    if health is None or not health.healthy:
        return f"no status `{status_name(SOURCE)}` says that model {candidate.version} is well"
    hours, soak = hours_since(health.since), committed_parameters(repository, base).release.soak
    served = f"{SOURCE} has served model {candidate.version} for {hours:.1f} of {soak:g} hours"
    return served if hours < soak else ""


def check_served(repository: Repository, base: str, candidate: Release, context: str | None) -> str:
    """Raise DeliveryError unless staging serves a release well; say that nobody could tell.

    Who can't look into the cluster, as in CI, believes the commit status of who can.
    """
    try:
        stands = seen(repository, base, candidate, context)
    except UnknownError as error:
        if (health := told_health(repository, base, SOURCE)) is None:
            return doubtful(repository, base, candidate, error)
        stands = Standing(
            (str(candidate.version),),
            "" if health.healthy else f"its status says {said(health.says)}",
        )
    if stands.trouble:
        raise DeliveryError(
            f"{SOURCE} does not serve model {candidate.version}: {stands.trouble}: `make rollback "
            f"ENV={SOURCE}` if it never will, otherwise promote it once `make status` says agree"
        )
    return ""


def doubtful(repository: Repository, base: str, candidate: Release, error: UnknownError) -> str:
    """Say that nobody could tell: projects without a cluster promote, too, as the approver judges.

    Raises DeliveryError where the project wants to know.
    """
    doubt = f"whether {SOURCE} serves model {candidate.version} is not known here ({error})"
    if committed_parameters(repository, base).release.require_healthy:
        raise DeliveryError(
            f"{doubt}, nor by a commit status `{status_name(SOURCE)}`: wait for the status, or set "
            "`require_healthy: false` below `release:` in params.yaml"
        )
    print(doubt)
    return f"**{doubt[0].upper()}{doubt[1:]}.**\n\n"


def seen(repository: Repository, base: str, release: Release, context: str | None) -> Standing:
    """Say how staging stands: in its preview where one runs, otherwise on the cluster.

    Raises UnknownError.
    """
    preview = read_status(repository.folder, SOURCE)
    if not preview or not preview.address:
        return standing(repository, base, SOURCE, release, context)
    well = (preview.version, preview.health) == (release.version, "Healthy")
    return Standing((str(preview.version),), "" if well else f"its preview says {preview.message}")
