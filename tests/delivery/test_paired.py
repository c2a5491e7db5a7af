"""Two models on the same pictures, against figures that are known."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score

from delivery.model.paired import chance_of_loss, compare, smallest_loss

RNG = np.random.default_rng(3)
NAMES = np.array(["bird", "cat", "dog"])
LABELS = NAMES[RNG.integers(0, 3, 120)]


def mistaken(count: int, first: int = 0) -> np.ndarray:
    """Right answers but for some, from one on."""
    answers = LABELS.copy()
    for place in range(first, first + count):
        answers[place] = "dog" if answers[place] == "cat" else "cat"
    return answers


def test_figures_are_those_of_scikit_learn() -> None:
    candidate, served = RNG.permutation(LABELS), mistaken(20)
    found = compare(LABELS, candidate, served)
    for figure, function in (
        ("accuracy", accuracy_score),
        ("macro_f1", lambda *each: f1_score(*each, average="macro")),
    ):
        pair = getattr(found, figure)
        assert pair.candidate == pytest.approx(function(LABELS, candidate))
        assert pair.served == pytest.approx(function(LABELS, served))
        assert pair.low < pair.change < pair.high < 0


def test_the_chance_of_a_loss_is_mcnemars_mid_p() -> None:
    exact = binomtest(3, 14, alternative="less").pvalue
    smaller = binomtest(2, 14, alternative="less").pvalue
    assert chance_of_loss(3, 11) == pytest.approx((exact + smaller) / 2)
    assert chance_of_loss(0, 0) == 0.5
    assert (
        chance_of_loss(0, smallest_loss(0.95)) < 0.05 < chance_of_loss(0, smallest_loss(0.95) - 1)
    )


def test_equal_models_are_no_loss_and_a_clear_one_is() -> None:
    equal = compare(LABELS, mistaken(9), mistaken(9, first=50))
    assert (equal.gained, equal.lost, equal.accuracy.change) == (9, 9, 0)
    assert 0.4 < equal.macro_f1.chance < 0.6
    assert not equal.accuracy.is_loss(0, 0.95) and not equal.macro_f1.is_loss(0, 0.95)
    worse = compare(LABELS, mistaken(9), mistaken(1))
    assert worse.accuracy.is_loss(0.005, 0.95) and worse.macro_f1.is_loss(0.005, 0.95)
    assert not worse.accuracy.is_loss(0.1, 0.95), "it is within the tolerance"
    few = compare(LABELS, mistaken(3), mistaken(0))
    assert not few.accuracy.is_loss(0.005, 0.95), "chance explains three pictures"


def test_macro_f1_finds_a_rare_class_that_is_lost() -> None:
    """Accuracy hardly moves when the rarest class is never answered any more."""
    labels = np.array(["common"] * 990 + ["rare"] * 10)
    found = compare(labels, np.array(["common"] * 1000), labels)
    assert not found.accuracy.is_loss(0.02, 0.95) and found.macro_f1.is_loss(0.02, 0.95)


def test_an_answer_that_is_no_class_of_the_pictures_is_wrong() -> None:
    found = compare(["cat", "dog"], ["otter", "dog"], ["cat", "aardvark"])
    assert (found.gained, found.lost) == (1, 1)
    assert found.accuracy.candidate == 0.5 and found.macro_f1.candidate == 0.5


def test_the_same_answers_give_the_same_result() -> None:
    assert compare(LABELS, mistaken(5), mistaken(7)) == compare(LABELS, mistaken(5), mistaken(7))
