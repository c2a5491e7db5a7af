"""The gate: whether a candidate may replace what is released."""

import math
from collections.abc import Iterator

from delivery.errors import DeliveryError
from delivery.model.pipeline_outputs import Export, ModelAccount, leaves
from delivery.parameters import Limits
from delivery.proposals.release_file import Release
from workspace.errors import SHOWN, said, shown

GATED = ["accuracy", "macro_f1"]


class GateError(DeliveryError):
    """A candidate breaks rules of the gate; the message lists all of them."""


def check_gate(
    account: ModelAccount, limits: Limits, champion: Release | None, accept_test_data: bool
) -> None:
    """Raise GateError unless the candidate may be released.

    `champion` is what is released now, if anything. Figures on different test data say nothing
    about each other, so another test set needs a person's word, `accept_test_data`; the floors
    hold all the same.
    """
    found = [*not_finite(account), *failed_checks(account)]
    if not found:  # what is not a number can't be compared
        found = [*below_floor(account, limits)]
        if champion:
            found += against_champion(account, limits, champion, accept_test_data)
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


def against_champion(
    account: ModelAccount, limits: Limits, champion: Release, accept_test_data: bool
) -> Iterator[str]:
    """Compare with the released model, where the test data allow it."""
    test_data = account.lineage.data.test_sha256
    if test_data != champion.test_data:
        if not accept_test_data:
            yield (
                f"test data: this model was tested on {test_data[:12]}, the released model "
                f"{champion.version} on {champion.test_data[:12]}, so their figures cannot be "
                "compared; compare the two by hand, then `make release ACCEPT_TEST_DATA=1`"
            )
        return
    for figure in GATED:
        value, best = getattr(account.metrics, figure), getattr(champion, figure)
        if value < best - limits.tolerance:
            yield (
                f"not worse than released: {figure} {value:.6g} is below {best:.6g} of the "
                f"released model {champion.version} by more than the tolerance "
                f"{limits.tolerance:g}; train a better model"
            )
