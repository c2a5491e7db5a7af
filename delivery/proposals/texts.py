"""What a release file and its pull request say of a model."""

from delivery.errors import DeliveryError
from delivery.model.contest import Rival
from delivery.model.paired import Paired, smallest_loss
from delivery.model.pipeline_outputs import ModelAccount
from delivery.proposals.gate import Champion
from delivery.proposals.history import history
from delivery.proposals.proposal import Proposal
from delivery.proposals.release_file import FIGURES, Release
from delivery.proposals.releases import Past, release_path
from workspace.markdown import cell, code, table
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
    environment: str,
    text: str,
    release: Release,
    current: Champion | None,
    past: list[Past],
    command: str,
    note: str = "",
) -> Proposal:
    """Return the pull request that puts the file of a release in place of the current one."""
    served, rival = (current.release, current.rival) if current else (None, None)
    change = describe_change(release, served, rival, note)
    return Proposal(
        branch=f"release/{environment}-v{release.version}",
        path=release_path(environment),
        content=text,
        title=f"Release model {release.version} to {environment}",
        description=f"{change}\n{history(past, release)}",
        command=command,
    )


def rollback_proposal(
    environment: str, text: str, release: Release, current: Release, rival: Rival | None, note: str
) -> Proposal:
    """Return the pull request that restores the file of an earlier release."""
    return Proposal(
        branch=f"rollback/{environment}-v{current.version}-to-v{release.version}",
        path=release_path(environment),
        content=text,
        title=f"Roll {environment} back from model {current.version} to model {release.version}",
        description=describe_change(release, current, rival, note),
        command=f"make rollback ENV={environment} TO={release.version}",
    )


def describe_change(
    candidate: Release, champion: Release | None, rival: Rival | None = None, note: str = ""
) -> str:
    """Write the Markdown that a reviewer reads: what breaks first, then figures and revisions."""
    was = f"model {champion.version} (released)" if champion else "nothing released"
    head = ["figure", f"model {candidate.version}", was, "change"]
    rows = [_figure_row(figure, candidate, champion) for figure in FIGURES]
    lines = [table(head, rows, right=(1, 2, 3)), f"- image: {code(candidate.image)}"]
    lines += [_revision_line(name, candidate, champion) for name in REVISIONS]
    lines.append(f"- signature: {'in the file' if candidate.signature else '**none**'}")
    if champion and champion.test_data != candidate.test_data:
        lines += ["", "**The test data differ, so the figures above cannot be compared.**"]
    if champion and rival:
        lines += ["", describe_contests(f"model {candidate.version}", champion, rival)]
    breaks = describe_interface(champion, rival) if champion and rival else ""
    return breaks + note + "\n".join([*lines, ""])


def describe_interface(champion: Release, rival: Rival) -> str:
    """Say what changes for the clients, before all else; nothing if nothing does."""
    if rival.change is None:
        return (
            f"**Whether clients of model {champion.version} must change is not known:** "
            f"{cell(rival.silence)}\n\n"
        )
    if not rival.change:
        return ""
    return f"**Clients of model {champion.version} must change:** {code(rival.change)}\n\n"


def describe_contests(name: str, champion: Release, rival: Rival) -> str:
    """Write both models' figures on the same pictures, with paired intervals of the change."""
    if not rival.contests:
        return f"**Not compared on the same pictures:** {cell(rival.silence)}"
    head = [
        "on the same pictures",
        name,
        f"model {champion.version}",
        "change",
        f"its {rival.confidence:.0%} interval",
        f"right in {name} only",
        f"in model {champion.version} only",
    ]
    rows = [
        [f"{figure}, {each.pictures} ({each.result.pictures})", *_pair(each.result, figure)]
        for each in rival.contests
        for figure in ("accuracy", "macro_f1")
    ]
    unknown = sorted({label for each in rival.contests for label in each.unknown})
    left_out = (
        f" Left out is what model {champion.version} has no class for: {cell(', '.join(unknown))}."
    )
    least = smallest_loss(rival.confidence)
    return (
        f"{table(head, rows, right=range(1, len(head)))}\n"
        f"The smallest loss that chance does not explain is {least} of "
        f"{rival.contests[0].result.pictures} pictures.{left_out if unknown else ''}"
    )


def _pair(result: Paired, figure: str) -> list[str]:
    pair = getattr(result, figure)
    shares = [f"{pair.candidate:.4f}", f"{pair.served:.4f}", f"{pair.change:+.4f}"]
    interval = f"{pair.low:+.4f} to {pair.high:+.4f}"
    counts = [str(result.gained), str(result.lost)] if figure == "accuracy" else ["", ""]
    return [*shares, interval, *counts]


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
