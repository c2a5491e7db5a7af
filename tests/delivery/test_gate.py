import math
from typing import Any

import pytest

import fake_pipeline
from delivery.model.contest import Contest, Rival
from delivery.model.paired import Difference, Paired
from delivery.model.pipeline_outputs import ModelAccount
from delivery.parameters import Limits, Parameters, Target
from delivery.proposals.gate import Champion, GateError, check_gate
from example_release import RELEASE

LIMITS = Limits(min_accuracy=0.95, min_macro_f1=0.94, tolerance=0.01, confidence=0.95)
TARGET = Target(registry="oci:r")


def account(accuracy: float = 0.97, macro_f1: float = 0.96, **changes: Any) -> ModelAccount:
    documents = {
        "metrics": fake_pipeline.metrics(accuracy, macro_f1),
        "lineage": fake_pipeline.lineage(),
        "export": {
            "onnx_sha256": "0" * 64,
            "images": 36,
            "max_abs_difference": 3e-7,
            "tolerance": 1e-4,
            "passed": True,
        },
        "report": fake_pipeline.report(),
    }
    return ModelAccount(
        **{name: document | changes.get(name, {}) for name, document in documents.items()}
    )


def pair(change: float, chance: float) -> Difference:
    return Difference(0.97, 0.97 - change, change - 0.02, change + 0.02, chance)


def champion(
    accuracy: tuple[float, float] = (0, 0.5), macro_f1: tuple[float, float] = (0, 0.5), **known: Any
) -> Champion:
    """What is released, with the change of both figures and the chance of such a loss."""
    result = Paired(360, 3, 3, pair(*accuracy), pair(*macro_f1))
    release = RELEASE.model_copy(update={"version": 7})
    return Champion(release, Rival(**{"change": "", "contests": (Contest("all", result),)} | known))


def gate(
    candidate: ModelAccount,
    released: Champion | None = None,
    accept: bool = False,
    change: str | None = None,
) -> None:
    target = TARGET.model_copy(update={"accept_interface_change": change})
    check_gate(candidate, Parameters(gate=LIMITS, release=target), released, accept)


def refusal(candidate: ModelAccount, *known: Any) -> str:
    with pytest.raises(GateError, match=r"^the gate refuses this model:\n  - ") as error:
        gate(candidate, *known)
    return str(error.value)


def test_a_good_first_model_passes() -> None:
    gate(account())


@pytest.mark.parametrize(
    ("change", "chance"),
    [(0, 0.5), (0.02, 0.99), (-0.01, 0.001), (-0.03, 0.06)],
    ids=["equal", "better", "at tolerance", "by chance"],
)
def test_a_model_not_worse_than_the_released_passes(change: float, chance: float) -> None:
    gate(account(), champion((change, chance), (change, chance)))


def test_failed_floor() -> None:
    assert refusal(account(0.94, 0.93)) == (
        "the gate refuses this model:\n"
        "  - min_accuracy: accuracy 0.94 is below the floor 0.95; train a better model, or lower "
        "gate.min_accuracy in params.yaml and say why in its commit\n"
        "  - min_macro_f1: macro_f1 0.93 is below the floor 0.94; train a better model, or lower "
        "gate.min_macro_f1 in params.yaml and say why in its commit"
    )


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1"])
def test_worse_than_released(figure: str) -> None:
    assert refusal(account(), champion(**{figure: (-0.015, 0.02)})) == (
        "the gate refuses this model:\n"
        f"  - not worse than released: {figure} 0.97 is below 0.985 of the released model 7 on the "
        "same 360 pictures, by more than the tolerance 0.01, and equal models would lose so much "
        "in 0.02 of all cases, less than 0.05; train a better model"
    )


SILENT = {"contests": (), "silence": "its image cannot be had: no route"}


def test_what_cannot_be_compared_needs_a_word() -> None:
    assert (
        "not compared: this model's and the released model 7's answers on the same pictures cannot "
        "be compared (its image cannot be had: no route)"
    ) in refusal(account(), champion(**SILENT))
    assert "answers and interfaces on" in refusal(account(), champion(**SILENT, change=None))
    gate(account(), champion(**SILENT, change=None), True)


def test_the_word_does_not_lift_the_floor() -> None:
    assert "min_accuracy" in refusal(account(0.5), champion(**SILENT), True)


def test_the_word_does_not_excuse_a_worse_model() -> None:
    assert "not worse than released" in refusal(account(), champion((-0.1, 0)), True)


def test_only_the_change_that_is_named_is_accepted() -> None:
    changed = champion(change='labels: + "otter"')
    said = refusal(account(), changed, True)
    assert r'write `accept_interface_change: "labels: + \"otter\""` below `release:`' in said
    assert "instead of 'labels: + cat', which is another change" in (
        refusal(account(), changed, False, "labels: + cat")
    )
    gate(account(), changed, False, 'labels: + "otter"')
    gate(account(), champion(), False, 'labels: + "otter"')  # once released it changes no more


def test_failed_export_parity() -> None:
    message = refusal(
        account(export={"passed": False, "max_abs_difference": 0.2, "argmax_equal": 30})
    )
    assert "export parity: ONNX Runtime and torch differ by 0.2, tolerance 0.0001" in message
    assert "agree on 30 of 36 pictures" in message


def test_failed_data_checks_are_repeated() -> None:
    checks = [{"name": "no leaks", "passed": False, "detail": "3 test images in training"}]
    message = refusal(account(report={"passed": False, "checks": checks}))
    assert "data: checks failed: no leaks (3 test images in training)" in message


def test_a_data_report_without_a_verdict() -> None:
    assert "the report has no verdict" in refusal(account(report={"passed": None, "checks": []}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=["NaN", "inf", "-inf"])
@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"metrics": {"accuracy": 0}}, "metrics.accuracy"),
        ({"metrics": {"loss": 0}}, "metrics.loss"),
        ({"metrics": {"intervals": {"accuracy": [0, 1.0]}}}, "metrics.intervals.accuracy.0"),
        ({"metrics": {"per_class": {"one": {"f1": 0}}}}, "metrics.per_class.one.f1"),
        ({"export": {"max_abs_difference": 0}}, "export.max_abs_difference"),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_figures_that_are_no_numbers(changes: dict[str, Any], place: str, value: float) -> None:
    def fill(document: Any) -> Any:
        if isinstance(document, dict):
            return {key: fill(item) for key, item in document.items()}
        if isinstance(document, list):
            return [fill(item) for item in document]
        return value if document == 0 else document

    assert f"finite: {place} is {value}" in refusal(account(**fill(changes)), champion())


@pytest.mark.parametrize("value", [None, "0.97", True])
def test_a_gated_figure_of_another_type(value: Any) -> None:
    message = refusal(account(metrics={"accuracy": value}))
    assert f"metrics.accuracy is {value!r} instead of a number" in message


@pytest.mark.parametrize("figure", ["accuracy", "macro_f1"])
def test_what_a_floor_or_a_champion_demands_helps(figure: str) -> None:
    """A better model, or a lower floor."""
    better = account(0.99, 0.98)
    lost, kept = champion(**{figure: (-0.02, 0.01)}), champion(**{figure: (-0.005, 0.01)})
    for worse, before, after in (
        (account(**{figure: 0.93}), None, None),
        (account(), lost, kept),
    ):
        assert "train a better model" in refusal(worse, before)
        gate(better, after)
    lower = LIMITS.model_copy(update={f"min_{figure}": 0.9})
    parameters = Parameters(gate=lower, release=TARGET)
    check_gate(account(**{figure: 0.93}), parameters, None)
