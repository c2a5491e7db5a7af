"""The large networks for photographs, which a project's own tests leave out: they take long."""

import json
from pathlib import Path

import pytest
import torch
from small_project import OWN_NETWORKS, change, fixed, prepared_project

from classifier import evaluation, export, params, training
from classifier.augmentation import Augmentation
from classifier.networks import NETWORKS, Photographic, Shape, build

LARGE = sorted(NETWORKS.keys() - set(OWN_NETWORKS))


def test_all_of_them_are_for_photographs() -> None:
    assert LARGE and all(issubclass(NETWORKS[name], Photographic) for name in LARGE)


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("shape", [Shape(9, 7, 3, 4), Shape(33, 32, 1, 2)], ids=str)
def test_scores_and_gradients_for_images_of_any_shape(name: str, shape: Shape) -> None:
    images = torch.randn(4, shape.channels, shape.height, shape.width)
    labels = torch.arange(4) % shape.classes
    network = build(name, shape)
    scores = network(images)
    assert scores.shape == (4, shape.classes)
    network.loss(scores, labels).backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("name", LARGE)
def test_every_network_learns_and_exports(name: str, tmp_path: Path) -> None:
    root = prepared_project(tmp_path / "project")
    fast = {"epochs": 1, "learning_rate": 0.003, "augmentation": Augmentation()}
    values = change(params.parse(fixed()), network=name, options={}, **fast)
    training.train(values, root)
    evaluation.evaluate(values, root)
    export.export(values, root)
    report = json.loads((root / "artifacts/export.json").read_text())
    assert report["passed"] is True and report["images"] == report["argmax_equal"] == 33
