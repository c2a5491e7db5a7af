import math
from typing import Any

import pytest

import fake_pipeline
from delivery.model.pipeline_outputs import ModelAccount
from delivery.parameters import Limits
from delivery.proposals.gate import GateError, check_gate
from delivery.proposals.release_file import Release

LIMITS = Limits(min_accuracy=0.95, min_macro_f1=0.94, tolerance=0.01)


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


def champion(accuracy: float = 0.97, macro_f1: float = 0.96, test_data: str = "b" * 64) -> Release:
    return Release(
        version=7,
        image="oci:r@sha256:" + "0" * 64,
        accuracy=accuracy,
        macro_f1=macro_f1,
        calibration_error=0.02,
        loss=0.1,
        support=36,
        data="a" * 64,
        test_data=test_data,
        code="c" * 64,
        commit="d" * 40,
    )


def refusal(candidate: ModelAccount, released: Release | None = None, accept: bool = False) -> str:
    with pytest.raises(GateError, match=r"^the gate refuses this model:\n  - ") as error:
        check_gate(candidate, LIMITS, released, accept)
    return str(error.value)


def test_a_good_first_model_passes() -> None:
    check_gate(account(), LIMITS, None, False)


@pytest.mark.parametrize("accuracy", [0.97, 0.99, 0.96], ids=["equal", "better", "at tolerance"])
def test_a_model_not_worse_than_the_released_passes(accuracy: float) -> None:
    check_gate(account(accuracy), LIMITS, champion(), False)


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
    best = champion(0.985) if figure == "accuracy" else champion(macro_f1=0.985)
    value = {"accuracy": 0.97, "macro_f1": 0.96}[figure]
    assert refusal(account(), best) == (
        "the gate refuses this model:\n"
        f"  - not worse than released: {figure} {value} is below 0.985 of the released model 7 by "
        "more than the tolerance 0.01; train a better model"
    )


def test_other_test_data_need_a_word() -> None:
    other = champion(accuracy=0.999, test_data="e" * 64)
    assert "this model was tested on bbbbbbbbbbbb, the released model 7 on eeeeeeeeeeee" in (
        refusal(account(), other)
    )
    check_gate(account(), LIMITS, other, accept_test_data=True)


def test_the_word_for_other_test_data_does_not_lift_the_floor() -> None:
    assert "min_accuracy" in refusal(account(0.5), champion(test_data="e" * 64), accept=True)


def test_the_word_for_other_test_data_does_not_excuse_a_worse_model_on_the_same() -> None:
    assert "not worse than released" in refusal(account(), champion(accuracy=0.99), accept=True)


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
    for limits, released in ((LIMITS, None), (LIMITS, champion(0.985, 0.98))):
        worse = account(**{figure: 0.93})
        with pytest.raises(GateError, match="train a better model"):
            check_gate(worse, limits, released, False)
        check_gate(better, limits, released, False)
    lower = LIMITS.model_copy(update={f"min_{figure}": 0.9})
    check_gate(account(**{figure: 0.93}), lower, None, False)
