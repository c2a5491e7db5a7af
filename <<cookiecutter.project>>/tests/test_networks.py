"""Networks: shapes, losses against their formulas, exact kernels, and wrong names."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from small_project import OWN_NETWORKS

from classifier.networks import KernelSVM, LinearRegression, LinearSVM, Shape, build
from workspace.settings import SettingsError

SHAPE = Shape(height=9, width=7, channels=3, classes=4)


@pytest.mark.parametrize("name", OWN_NETWORKS)
@pytest.mark.parametrize("shape", [SHAPE, Shape(8, 8, 1, 10), Shape(33, 32, 1, 2)], ids=str)
def test_scores_and_gradients_for_images_of_any_shape(name: str, shape: Shape) -> None:
    images = torch.randn(6, shape.channels, shape.height, shape.width)
    labels = torch.arange(6) % shape.classes
    network = build(name, shape)
    network.fit_to(images, torch.Generator().manual_seed(0))
    scores = network(images)
    assert scores.shape == (6, shape.classes)
    (network.loss(scores, labels) + network.penalty(6)).backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


def test_least_squares_loss_is_the_squared_distance_to_one_hot() -> None:
    scores, labels = torch.tensor([[0.5, 0.0], [2.0, 1.0]]), torch.tensor([0, 1])
    loss = LinearRegression(Shape(1, 1, 1, 2)).loss(scores, labels)
    assert loss.item() == pytest.approx((0.25 + 0.0 + 4.0 + 0.0) / 2)


def test_hinge_is_the_distance_to_the_best_rival_within_the_margin() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 2.0]])
    loss = LinearSVM(Shape(1, 1, 1, 3)).loss(scores, torch.tensor([0, 0, 1]))
    assert loss.item() == pytest.approx((0 + 1.5 + 3) / 3)


def test_the_penalty_shrinks_with_the_number_of_examples() -> None:
    network = LinearSVM(SHAPE, c=2.0)
    torch.nn.init.ones_(network.head.weight)
    penalty = torch.as_tensor(network.penalty(10)).item()
    assert penalty == pytest.approx(network.head.weight.numel() / (2 * 2.0 * 10))


@pytest.mark.parametrize("kernel", ["rbf", "polynomial"])
def test_with_every_image_as_landmark_the_feature_map_is_the_exact_kernel(kernel: str) -> None:
    images = torch.randn(20, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    options = {"kernel": kernel, "gamma": 0.1, "degree": 2, "landmarks": 32}
    network = build("kernel_svm", Shape(3, 3, 1, 2), options)
    assert isinstance(network, KernelSVM)
    network.fit_to(images, torch.Generator().manual_seed(0))
    features = network.features(images)
    points = images.flatten(1).numpy()
    expected = (
        rbf_kernel(points, gamma=0.1)
        if kernel == "rbf"
        else polynomial_kernel(points, degree=2, gamma=0.1, coef0=1)
    )
    np.testing.assert_allclose((features @ features.T).numpy(), expected, atol=1e-3)


def test_gamma_defaults_to_scikit_learns_scale() -> None:
    images = 3 * torch.randn(50, 1, 2, 2)
    network = KernelSVM(Shape(2, 2, 1, 2), landmarks=8)
    network.fit_to(images, torch.Generator().manual_seed(0))
    assert network.gamma.item() == pytest.approx(1 / (4 * images.var().item()), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, "params.yaml: train.network is 'vgg': give one of .*linear_regression"),
        ("cnn", {"layers": 3}, "no 'train.options.layers': known are width, dropout"),
        ("resnet18", {"width": 3}, "no 'train.options.width': there are none here"),
        ("mlp", {"depth": "two"}, "train.options.depth is 'two': input should be a valid integer"),
        (
            "kernel_svm",
            {"kernel": "cosine"},
            "kernel is 'cosine': input should be 'rbf'",
        ),
    ],
    ids=["unknown name", "unknown option", "no options", "no number", "unknown kernel"],
)
def test_a_wrong_name_is_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(name, SHAPE, options)
