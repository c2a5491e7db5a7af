"""Roll back: propose an earlier release file of an environment, as it was."""

from dataclasses import replace
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.analysis import Analysis, curves, ended, worse
from delivery.manifests.cluster import Standing, UnknownError, namespace_of, standing
from delivery.manifests.told_analysis import told_analyses
from delivery.model.contest import meet_again
from delivery.oci.registry import open_registry, parse_reference
from delivery.oci.remote import DeniedError
from delivery.proposals.failure import Failure, check_first_time, read_failure, settled
from delivery.proposals.github import GitHubError
from delivery.proposals.live_figures import Curve, draw
from delivery.proposals.proposal import Proposal, propose, propose_once
from delivery.proposals.release_file import Release
from delivery.proposals.releases import (
    Past,
    all_releases,
    check_environment,
    digests,
    is_genuine,
    released,
)
from delivery.proposals.texts import rollback_proposal
from workspace.markdown import cell

LABEL = "rollback"  # of what nobody asked for

ARGUMENTS = {
    "environment": {"nargs": "?"},
    "--to": {
        "type": int,
        "dest": "version",
        "help": "version; default: what the current one replaced",
    },
    "--event": {
        "type": Path,
        "help": "a file with GitHub's event of a deployment that failed, instead of an environment",
    },
    "--context": {"help": "kubectl's context of the cluster; default: its current one"},
}


def run(
    repository: Repository,
    environment: str | None = None,
    version: int | None = None,
    event: Path | None = None,
    context: str | None = None,
) -> None:
    """Propose an earlier release file of an environment, as it was. Raises UserError."""
    base = repository.fetch()
    if event:
        take_back(repository, base, read_failure(event))
        return
    environment = environment or ""
    check_environment(repository, base, environment)
    stands = ask_cluster(repository, base, environment, context)
    proposal = rollback(repository, base, environment, version, stands.trouble, stands.curves)
    propose(repository, base, proposal)


def take_back(repository: Repository, base: str, failure: Failure) -> None:
    """Propose once to go back from what failed, if Git still asks for it. Raises DeliveryError."""
    if why := settled(repository, base, failure):
        print(f"nothing to roll back: {why}")
        return
    environment = failure.environment
    check_first_time(repository, base, environment)
    seen = told(repository, base, environment)
    reason = f"{failure.says}: {worse(seen) or ended(seen)}".removesuffix(": ")
    proposal = rollback(repository, base, environment, None, reason, curves(seen), asked=False)
    same = f"{proposal.branch.partition('-to-')[0]}-to-*"  # to whatever version
    propose_once(repository, base, replace(proposal, label=LABEL), same)


def told(repository: Repository, base: str, environment: str) -> tuple[Analysis, ...]:
    """Return what the cluster told of the analyses of the current release, if it can be had."""
    release = released(repository, base, environment)
    try:
        namespace = namespace_of(repository, base, environment)
        return told_analyses(repository, namespace, release) if release else ()
    except (UnknownError, GitHubError) as error:
        print(f"what was measured is not known: {error}")
        return ()


def rollback(
    repository: Repository,
    base: str,
    environment: str,
    version: int | None,
    reason: str,
    curves: tuple[Curve, ...] = (),
    asked: bool = True,
) -> Proposal:
    """Return the proposal to go back, with the reason if one is known; nobody need have `asked`.

    Raises DeliveryError.
    """
    current = released(repository, base, environment)
    if current is None:
        raise DeliveryError(f"{environment} has no release: there is nothing to roll back")
    past = all_releases(repository, base)
    restored = earlier(past, current, version, environment)
    if doubt := doubtful_image(restored.release, asked):
        print(doubt)
    why = f"**Model {current.version} is not served well:** {cell(reason)}\n\n" if reason else ""
    rival = None if doubt else meet_again(restored.release.image, current.image)
    text = restored.content.decode()
    made = rollback_proposal(environment, text, restored.release, current, rival, why + doubt)
    pictures = draw(current.version, curves) if reason else ""
    return replace(made, description=made.description + pictures, renews=bool(reason))


def ask_cluster(
    repository: Repository, base: str, environment: str, context: str | None
) -> Standing:
    """Return what a cluster says against the current release, where there is one to ask."""
    release = released(repository, base, environment)
    try:
        if release:
            return standing(repository, base, environment, release, context)
    except UnknownError:
        pass
    return Standing((), "")


def earlier(past: list[Past], current: Release, version: int | None, environment: str) -> Past:
    """Find what an environment had, among the releases of the past, newest first.

    Without a version it is what the current model replaced when it was first released: after a
    rollback the next one goes further back instead of returning to what was rolled back. A file
    with another version's image was a slip, and is no release to go back to. Raises DeliveryError.
    """
    known = digests(past)
    own = [each for each in past if each.environment == environment]
    genuine = [each for each in own if is_genuine(each.release, known)]
    if version == current.version and is_genuine(current, known):
        raise DeliveryError(f"{environment} already serves model {version}")
    if version is None:
        when = max(place for place, each in enumerate(own) if each.release.is_same_as(current))
        found = [each for each in own[when + 1 :] if each in genuine]
    else:
        found = [each for each in genuine if each.release.version == version]
    if found:
        return found[0]
    wanted = "an earlier release" if version is None else f"model {version}"
    versions = {current.version, *(each.release.version for each in genuine)}
    raise DeliveryError(
        f"{environment} serves model {current.version} and never had {wanted} to go back to "
        f"(in its history: {', '.join(map(str, sorted(versions)))})"
    )


def doubtful_image(release: Release, asked: bool) -> str:
    """Say that nobody could serve a release, because its image is gone, or that this is not known.

    It is for the approver to judge: a merge would leave what serves in place, on a cluster. Where
    nobody `asked` to go back nobody is logged in either, so that a registry wants it is no alarm.
    """
    name, digest = parse_reference(release.image)
    try:
        open_registry(name).read_manifest(digest)
    except DeliveryError as error:
        if isinstance(error, DeniedError) and not asked:
            return (
                f"Whether {name} gives the image of model {release.version} is not known here, "
                "where nobody is logged in to it: the checks of this pull request ask for it.\n\n"
            )
        return (
            f"**{name} does not give the image of model {release.version} ({error}):** look for it "
            "before you merge this.\n\n"
        )
    return ""
