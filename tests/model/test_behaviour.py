"""Figures of pictures and answers, and their bins."""

import os
import subprocess
import sys

import numpy as np
import pytest
from small_project import PROJECT

from classifier.evaluation import behave
from workspace import behaviour

ANSWERS = np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [0, 0, 1]], np.float32)


def images(*colours: tuple[int, int, int], side: int = 4) -> np.ndarray:
    """Pictures of one colour each."""
    return np.array([np.full((side, side, 3), colour) for colour in colours], np.uint8)


def test_figures_say_how_a_picture_and_its_answer_look() -> None:
    grey, red, striped = images((51, 51, 51), (255, 0, 0), (0, 0, 0))
    striped[:, ::2] = 255
    seen = behaviour.figures(np.stack([grey, red, striped]), ANSWERS)
    assert seen["brightness"] == pytest.approx([0.2, 1 / 3, 0.5], abs=1e-6)
    assert seen["contrast"] == pytest.approx([0, 0, 0.5], abs=1e-6)
    assert seen["saturation"] == pytest.approx([0, 1, 0], abs=1e-6)
    assert seen["class"].tolist() == [0, 0, 2]
    assert seen["confidence"] == pytest.approx([0.7, 1 / 3, 1], abs=1e-6)
    assert seen["entropy"] == pytest.approx([0.729847, 1, 0], abs=1e-5)


def test_grey_and_large_pictures_and_answers_that_are_no_numbers_have_figures_too() -> None:
    large = np.zeros((1, 200, 130, 1), np.uint8)
    seen = behaviour.figures(large, np.full((1, 3), np.nan, np.float32))
    assert {name: values.tolist() for name, values in seen.items()} == {
        name: [0.0] for name in seen
    }


def test_bins_hold_about_as_many_pictures_each_and_no_edge_is_a_figure() -> None:
    values = np.random.default_rng(0).normal(size=1000).round(2)
    edges = behaviour.edges_of(values)
    assert len(edges) == behaviour.BINS - 1 and not set(edges) & set(values)
    counted = np.bincount(np.searchsorted(edges, values))
    assert counted.min() > 70 and counted.sum() == 1000


@pytest.mark.parametrize(
    ("values", "edges"),
    [([0.0, 0.0], [0.01]), ([0.5], [0.49, 0.51]), ([0.0, 1.0], [0.5]), ([1.0] * 99 + [0.0], [0.5])],
)
def test_figures_that_hardly_differ_have_bins_too(values: list[float], edges: list[float]) -> None:
    assert behaviour.edges_of(np.array(values)) == edges


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_above_the_threshold_are_as_many_answers_as_are_right(share: float) -> None:
    confidence = np.linspace(0.3, 0.999, 200).round(6)
    right = np.arange(200) < share * 200
    above = confidence > behaviour.threshold_of(confidence, right)
    assert above.mean() == pytest.approx(share, abs=0.006)


MANY = """
import resource
import numpy as np
from classifier.evaluation import intervals
from classifier.params import EvaluateParams
from workspace.behaviour import threshold_of
generator = np.random.default_rng(0)
confidence = generator.random(100_000)
confusion = generator.multinomial(100_000, np.full(700 * 700, 1 / 700 / 700)).reshape(700, 700)
params = EvaluateParams(bootstrap_samples=500, confidence=0.95, calibration_bins=15)
resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))
threshold_of(confidence, confidence > 0.3)
print(intervals(confusion, params, seed=0))
"""


def test_many_pictures_of_many_classes_are_judged_in_little_memory() -> None:
    """Of all pairs of two pictures, or of all samples of pairs of classes, each would need more."""
    script = MANY.format(limit=3 * 2**29)
    source = {"PYTHONPATH": f"{PROJECT / 'src'}"}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=os.environ | source, capture_output=True, text=True)
    assert result.returncode == 0 and "macro_f1" in result.stdout, result.stderr


def test_what_is_held_out_is_counted_and_only_validation_decides_who_is_sure() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (80, 6, 6, 1), np.uint8)
    answers = rng.dirichlet(np.ones(3), 80).astype(np.float32)
    found = [
        behaviour.figures(pictures[part], answers[part]) for part in (slice(50), slice(50, 80))
    ]
    labels = found[0]["class"].astype(np.int64)
    labels[:10] = (labels[:10] + 1) % 3
    said = behave(*found, labels, ["cat", "dog", "owl"])
    assert (said["pictures"], said["labelled"], said["accuracy"]) == (80, 50, 0.8)
    assert said["threshold"] in said["features"]["confidence"]["edges"]
    sure = found[0]["confidence"] > said["threshold"]
    assert sure.mean() == pytest.approx(0.8)
    for name, feature in said["features"].items():
        assert sum(feature["counts"]) == 80 and len(feature["bins"]) == len(feature["counts"]), name
    assert said["features"]["class"]["bins"] == ["cat", "dog", "owl"]
