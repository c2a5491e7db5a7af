"""The accuracy of all releases as a picture that a pull request draws of its text, by Mermaid."""

import math
from itertools import pairwise

from delivery.proposals.release_file import Release
from delivery.proposals.releases import Past
from reporting.answers import wilson
from workspace.markdown import chart

MOST = 30  # releases that are readable side by side
CONFIDENCE = 0.95  # of the intervals
COLOURS = "#bcd3f2, #1f5fbf, #8a8a8a, #8a8a8a"


def history(past: list[Past], candidate: Release) -> str:
    """Draw the accuracy of every version ever released, with intervals, and of the candidate."""
    versions = {each.release.version: each.release for each in past}
    shown = [each for _, each in sorted((versions | {candidate.version: candidate}).items())]
    shown = shown[-MOST:]
    bounds = [interval(each.accuracy, each.support) for each in shown]
    low = math.floor(20 * min(low for low, _ in bounds)) / 20
    series = [[each.accuracy for each in shown], *zip(*bounds, strict=True)]
    models = f"model [{', '.join(str(each.version) for each in shown)}]"
    marks = [("bar", series[0]), *(("line", each) for each in series)]
    picture = chart(models, f"accuracy {low:.2f} --> 1.00", marks, COLOURS)
    return f"{picture}\n{caption(shown, candidate)}"


def caption(shown: list[Release], candidate: Release) -> str:
    """Say what is drawn, and where accuracies next to each other are of other pictures."""
    low, high = interval(candidate.accuracy, candidate.support)
    pairs = pairwise(shown)
    changed = [str(now.version) for was, now in pairs if was.test_data != now.test_data]
    other = f" The test data changed with model {', '.join(changed)}." if changed else ""
    return (
        "Accuracy of each release on its own test set; grey: its 95 % interval (Wilson), of model "
        f"{candidate.version} {low:.4f} to {high:.4f}.{behind(shown, candidate)}{other}\n"
    )


def behind(shown: list[Release], candidate: Release) -> str:
    """Say how far the candidate is behind the best: small losses in a row pass one by one."""
    best = max(shown, key=lambda each: each.accuracy)
    lost = round(best.accuracy - candidate.accuracy, 4)
    above = f"{lost:.4f} above model {candidate.version}'s"
    return f" The highest is model {best.version}'s, {above}." if lost > 0 else ""


def interval(accuracy: float, support: int) -> tuple[float, float]:
    """Return the 95 % score interval of the accuracy on `support` pictures."""
    return wilson(round(accuracy * support), support, CONFIDENCE)
