"""What a release file and its pull request say of a model."""

from delivery.errors import DeliveryError
from delivery.model.pipeline_outputs import ModelAccount
from delivery.proposals.proposal import Proposal
from delivery.proposals.release_file import FIGURES, Release
from delivery.proposals.releases import release_path
from workspace.markdown import code, table
from workspace.settings import SettingsError, check

REVISIONS = ("data", "test_data", "code", "commit")


def describe(account: ModelAccount, version: int, image: str, commit: str) -> Release:
    """Gather what the release file says. Raises DeliveryError for figures out of range."""
    values = {
        "version": version,
        "image": image,
        **{figure: getattr(account.metrics, figure) for figure in FIGURES},
        "data": account.lineage.data.sha256,
        "test_data": account.lineage.data.test_sha256,
        "code": account.lineage.code.sha256,
        "commit": commit,
    }
    try:
        return check(Release, values, "the new release file")
    except SettingsError as error:
        raise DeliveryError(str(error)) from None


def release_proposal(
    environment: str, text: str, release: Release, current: Release | None, command: str
) -> Proposal:
    """Return the pull request that puts the file of a release in place of the current one."""
    return Proposal(
        branch=f"release/{environment}-v{release.version}",
        path=release_path(environment),
        content=text,
        title=f"Release model {release.version} to {environment}",
        description=describe_change(release, current),
        command=command,
    )


def rollback_proposal(
    environment: str, text: str, release: Release, current: Release, note: str
) -> Proposal:
    """Return the pull request that restores the file of an earlier release."""
    return Proposal(
        branch=f"rollback/{environment}-v{current.version}-to-v{release.version}",
        path=release_path(environment),
        content=text,
        title=f"Roll {environment} back from model {current.version} to model {release.version}",
        description=note + describe_change(release, current),
        command=f"make rollback ENV={environment} TO={release.version}",
    )


def describe_change(candidate: Release, champion: Release | None) -> str:
    """Write the Markdown that a reviewer reads: figures and revisions against what is released."""
    was = f"model {champion.version} (released)" if champion else "nothing released"
    head = ["figure", f"model {candidate.version}", was, "change"]
    rows = [_figure_row(figure, candidate, champion) for figure in FIGURES]
    lines = [table(head, rows, right=(1, 2, 3)), f"- image: {code(candidate.image)}"]
    lines += [_revision_line(name, candidate, champion) for name in REVISIONS]
    if champion and champion.test_data != candidate.test_data:
        lines += ["", "**The test data differ, so the figures above cannot be compared.**"]
    return "\n".join([*lines, ""])


def _figure_row(figure: str, candidate: Release, champion: Release | None) -> list[str]:
    value = getattr(candidate, figure)
    if champion is None:
        return [figure, f"{value:.4g}", "", ""]
    was = getattr(champion, figure)
    return [figure, f"{value:.4g}", f"{was:.4g}", f"{value - was:+.4g}"]


def _revision_line(name: str, candidate: Release, champion: Release | None) -> str:
    value = getattr(candidate, name)
    same = "" if champion is None else f", was `{getattr(champion, name)[:12]}`"
    if champion and getattr(champion, name) == value:
        same = ", unchanged"
    return f"- {name.replace('_', ' ')}: `{value[:12]}`{same}"
