"""The picture of all releases: text that Mermaid draws, and GitHub with it."""

import re

import pytest

from delivery.proposals.history import history, interval
from delivery.proposals.releases import Past
from example_release import RELEASE

DRAWN = r"""```mermaid
%%\{init: \{[^\n]*\}\}%%
xychart-beta
    x-axis model \[(?P<models>\d+(?:, \d+)*)\]
    y-axis accuracy (?P<least>0\.\d\d) --> 1\.00
    bar \[(?P<bars>[\d., ]+)\]
    line \[(?P<accuracy>[\d., ]+)\]
    line \[(?P<low>[\d., ]+)\]
    line \[(?P<high>[\d., ]+)\]
```
(?P<caption>Accuracy of each release [^\n]*)
"""


@pytest.mark.parametrize("count", [1, 2, 30, 40])
def test_every_release_is_drawn_up_to_thirty(count: int) -> None:
    releases = [
        RELEASE.model_copy(update={"version": n + 1, "accuracy": 0.8 + n / 250, "support": 300})
        for n in range(count)
    ]
    text = history([Past("staging", each, b"") for each in reversed(releases[:-1])], releases[-1])
    found = re.fullmatch(DRAWN, text)
    assert found
    shown = releases[-30:]
    assert found["models"] == ", ".join(str(each.version) for each in shown)
    columns = [[float(each) for each in found[name].split(", ")] for name in ("low", "accuracy")]
    high = [float(each) for each in found["high"].split(", ")]
    assert columns[1] == [round(each.accuracy, 4) for each in shown]
    assert all(a < b < c for a, b, c in zip(*columns, high, strict=True))
    assert float(found["least"]) <= min(columns[0])
    assert "test data changed" not in found["caption"]


def test_a_version_is_drawn_once_and_other_test_data_are_named() -> None:
    first = RELEASE.model_copy(update={"version": 1, "test_data": "e" * 64})
    past = [Past(name, first, b"") for name in ("production", "staging")]
    text = history(past, RELEASE)
    assert "model [1, 8]" in text and "The test data changed with model 8." in text


def test_small_losses_in_a_row_are_added_up() -> None:
    accuracies = (0.96, 0.97, 0.966, 0.962)
    releases = [
        RELEASE.model_copy(update={"version": n + 1, "accuracy": accuracy})
        for n, accuracy in enumerate(accuracies)
    ]
    for count, said in ((2, ""), (4, " The highest is model 2's, 0.0080 above model 4's.")):
        *past, newest = releases[:count]
        text = history([Past("staging", each, b"") for each in past], newest)
        assert text.rstrip("\n").endswith(said) and ("highest" in text) == bool(said)


def test_an_older_version_that_is_promoted_after_a_rollback_is_the_one_told_of() -> None:
    older, newer = (
        RELEASE.model_copy(update={"version": version, "accuracy": accuracy})
        for version, accuracy in ((1, 0.9), (2, 0.95))
    )
    text = history([Past("staging", each, b"") for each in (newer, older)], older)
    low, high = interval(0.9, RELEASE.support)
    assert f"of model 1 {low:.4f} to {high:.4f}. The highest is model 2's, 0.0500 above" in text


def test_the_interval_is_wilsons() -> None:
    """Of 81 right of 263: an example that Newcombe gives, Statistics in Medicine 17 (1998)."""
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(1.0, 20)[1] == pytest.approx(1) and interval(0.0, 20)[0] == pytest.approx(0)
