"""The gate: whether a candidate may replace what is released."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.contest import Rival, meet
from delivery.model.new_pictures import learnt
from delivery.model.pipeline_outputs import Export, ModelAccount, leaves
from delivery.parameters import Limits, Parameters
from delivery.proposals.release_file import Release
from workspace.errors import SHOWN, said, shown

GATED = ["accuracy", "macro_f1"]


class GateError(DeliveryError):
    """A candidate breaks rules of the gate; the message lists all of them."""


@dataclass(frozen=True)
class Champion:
    """What is released now, and what came of it beside the candidate."""

    release: Release
    rival: Rival


def challenge(
    repository: Repository, release: Release, parameters: Parameters, network: bool
) -> Champion:
    """Let the pipeline's model meet what is released; without `network` if that is here."""
    confidence, seen = parameters.gate.confidence, learnt(repository, release.commit)
    root, version, image = repository.folder, release.version, release.image
    return Champion(release, meet(root, version, image, confidence, network, seen))


def check_gate(
    account: ModelAccount,
    parameters: Parameters,
    champion: Champion | None,
    accept_test_data: bool = False,
) -> None:
    """Raise GateError unless the candidate may be released.

    `champion` is what is released now, if anything. Where the two cannot be compared on the same
    pictures it needs a person's word, `accept_test_data`; where the interface changes, it needs
    params.yaml to say so. All else holds all the same.
    """
    limits, accepted = parameters.gate, parameters.release.accept_interface_change
    found = [*not_finite(account), *failed_checks(account)]
    if not found:  # what is not a number can't be compared
        found = [*below_floor(account, limits)]
        if champion:
            released, rival = champion.release, champion.rival
            found += interface_kept(rival, released, accepted)
            found += against_champion(limits, released, rival, accept_test_data)
    if found:
        raise GateError("the gate refuses this model:", *(f"  - {each}" for each in found))


def not_finite(account: ModelAccount) -> Iterator[str]:
    """Name every figure that is NaN or infinite, and every gated one that is no number."""
    for place, value in leaves(account.model_dump()):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"finite: {place[:SHOWN]} is {value}; a figure must be a number: train again"
    for figure in GATED:
        value = getattr(account.metrics, figure)
        if isinstance(value, bool) or not isinstance(value, float | int):
            what = f"metrics.{figure} is {shown(value)}"
            yield f"finite: {what} instead of a number: run `make pipeline`"


def failed_checks(account: ModelAccount) -> Iterator[str]:
    """Repeat what the pipeline's own checks of data and export found."""
    report, export = account.report, account.export
    if report.passed is not True:
        failed = [check for check in report.checks if check.get("passed") is not True]
        what = "; ".join(
            f"{said(str(check.get('name')))} ({said(str(check.get('detail')))})" for check in failed
        )
        yield f"data: checks failed: {what or 'the report has no verdict'}; repair the data"
    if export.against_fp32 and export.against_fp32.passed is not True:
        limit = shown(export.against_fp32.max_accuracy_loss)
        yield (
            f"export precision: {lowered(export)}, and export.max_accuracy_loss is {limit}; set "
            "export.precision to fp32 in params.yaml and run `make pipeline`"
        )
    elif export.passed is not True:
        difference, tolerance = shown(export.max_abs_difference), shown(export.tolerance)
        yield (
            f"export parity: ONNX Runtime and torch differ by {difference}, tolerance {tolerance}, "
            f"and agree on {shown(export.argmax_equal)} of {shown(export.images)} pictures; look "
            "for an operator that exports badly"
        )


def lowered(export: Export) -> str:
    """Say what fewer bits changed on the test set; nothing of a graph in 32."""
    found = export.against_fp32
    if not found:
        return ""
    low, high = map(digits, found.interval)
    return (
        f"{said(export.precision)} gives another class to {shown(found.flips)} of "
        f"{shown(export.images)} test pictures than fp32, accuracy {digits(found.accuracy)} "
        f"instead of {digits(found.accuracy_fp32)} (difference {low} to {high})"
    )


def digits(value: object) -> str:
    """Write a figure; what stands there instead is shown."""
    return f"{value:.4f}" if isinstance(value, int | float) else shown(value)


def below_floor(account: ModelAccount, limits: Limits) -> Iterator[str]:
    """Compare with the floors."""
    for figure in GATED:
        value, floor = getattr(account.metrics, figure), getattr(limits, f"min_{figure}")
        if value < floor:
            yield (
                f"min_{figure}: {figure} {value:.6g} is below the floor {floor:.6g}; train a "
                f"better model, or lower gate.min_{figure} in params.yaml and say why in its commit"
            )


def interface_kept(rival: Rival, champion: Release, accepted: str | None) -> Iterator[str]:
    """Refuse what would break clients, unless params.yaml accepts this very change."""
    if not rival.change or rival.change == accepted:
        return
    line = f"accept_interface_change: {json.dumps(rival.change, ensure_ascii=False)}"
    other = f" instead of {shown(accepted)}, which is another change" if accepted else ""
    yield (
        f"interface: what clients of the released model {champion.version} rely on changes, "
        f"{rival.change}; when all of them are ready for it, write `{line}` below `release:` in "
        f"params.yaml{other}, and say why in its commit"
    )


def against_champion(
    limits: Limits, champion: Release, rival: Rival, accept_test_data: bool
) -> Iterator[str]:
    """Compare with the released model on the same pictures, as far as there are such."""
    if not rival.contests and not accept_test_data:
        both = "answers" if rival.change is not None else "answers and interfaces"
        yield (
            f"not compared: this model's and the released model {champion.version}'s {both} on the "
            f"same pictures cannot be compared ({rival.silence}); compare the two by hand, then "
            "`make release ACCEPT_TEST_DATA=1`"
        )
    for contest in rival.contests[:1]:
        for figure in GATED:
            pair = getattr(contest.result, figure)
            if pair.is_loss(limits.tolerance, limits.confidence):
                yield (
                    f"not worse than released: {figure} {pair.candidate:.6g} is below "
                    f"{pair.served:.6g} of the released model {champion.version} on the same "
                    f"{contest.result.pictures} pictures, by more than the tolerance "
                    f"{limits.tolerance:g}, and equal models would lose so much in "
                    f"{pair.chance:.2g} of all cases, less than {1 - limits.confidence:.2g}; "
                    "train a better model"
                )
