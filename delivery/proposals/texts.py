"""What a release file and its pull request say of a model."""

from delivery.model.pipeline_outputs import Outputs
from delivery.proposals.release_file import FIGURES, Release, parse_release


def describe(outputs: Outputs, version: int, image: str, commit: str) -> Release:
    """Gather what the release file says. Raises ReleaseFileError for figures out of range."""
    metrics, data = outputs.metrics, outputs.lineage["data"]
    candidate = Release(
        version=version,
        image=image,
        **{figure: metrics[figure] for figure in FIGURES},
        data=data["sha256"],
        test_data=data["test_sha256"],
        code=outputs.lineage["code"]["sha256"],
        commit=commit,
    )
    return parse_release(candidate.to_yaml(), "the new release file")


def describe_change(candidate: Release, champion: Release | None) -> str:
    """Write the Markdown that a reviewer reads: figures and revisions against what is released."""
    was = f"model {champion.version} (released)" if champion else "nothing released"
    lines = [f"| | model {candidate.version} | {was} | change |", "| --- | ---: | ---: | ---: |"]
    lines += [_figure_row(figure, candidate, champion) for figure in FIGURES]
    lines += ["", f"- image: `{candidate.image}`"]
    for name in ("data", "test_data", "code", "commit"):
        lines.append(_revision_line(name, candidate, champion))
    if champion and champion.test_data != candidate.test_data:
        lines += ["", "**The test data differ, so the figures above cannot be compared.**"]
    return "\n".join([*lines, ""])


def _figure_row(figure: str, candidate: Release, champion: Release | None) -> str:
    value = getattr(candidate, figure)
    if champion is None:
        return f"| {figure} | {value:.4g} | | |"
    was = getattr(champion, figure)
    return f"| {figure} | {value:.4g} | {was:.4g} | {value - was:+.4g} |"


def _revision_line(name: str, candidate: Release, champion: Release | None) -> str:
    value = getattr(candidate, name)
    same = "" if champion is None else f", was `{getattr(champion, name)[:12]}`"
    if champion and getattr(champion, name) == value:
        same = ", unchanged"
    return f"- {name.replace('_', ' ')}: `{value[:12]}`{same}"
