"""Each augmentation does what its line of params.yaml says, to pictures that are not square too."""

import re
import runpy
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_project import change, fixed, prepared_project
from torchvision.transforms.v2 import functional as tv

from classifier import params, training
from classifier.augmentation import Augmentation, augment, mix, recolour
from classifier.data import Split
from classifier.networks import Shape
from classifier.params import Params
from conftest import TEMPLATE, UNBAKED

COUNT, HEIGHT, WIDTH = 40, 12, 30


@pytest.fixture
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())


@pytest.fixture
def images() -> torch.Tensor:
    """Normalised pictures (N, 3, H, W), all of them the same."""
    torch.manual_seed(0)
    return torch.randn(1, 3, HEIGHT, WIDTH).repeat(COUNT, 1, 1, 1)


def test_colour_changes_the_light_of_each_picture_and_nothing_in_its_place() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(60, 180, (1, HEIGHT, WIDTH, 3), dtype=torch.uint8)
    before = pixels.repeat(COUNT, 1, 1, 1)
    after = recolour(before, Augmentation(colour=0.3))
    assert after.dtype == torch.uint8 and after.shape == before.shape
    shares = after.float().mean((1, 2, 3)) / pixels.float().mean()
    assert 0.65 < shares.min() < 0.85 and 1.15 < shares.max() < 1.35
    assert len({tuple(each.flatten().tolist()) for each in after}) == COUNT
    flat = torch.full((4, HEIGHT, WIDTH, 1), 100, dtype=torch.uint8)  # grey has brightness only
    assert all(len(each.unique()) == 1 for each in recolour(flat, Augmentation(colour=0.3)))
    assert recolour(before, Augmentation()) is before


def test_blur_is_a_gaussian_of_at_most_that_many_pixels(
    images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = tv.gaussian_blur(images[0], [7, 7], [1.5, 1.5])
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda self, low, high: self.fill_(high))
    blurred = augment(images, Augmentation(blur=1.5))
    torch.testing.assert_close(blurred, most.expand_as(images))
    monkeypatch.undo()
    varied = augment(images, Augmentation(blur=1.5)).std((1, 2, 3))
    assert most.std() <= varied.min() < varied.max() <= images[0].std()


def test_a_blur_wider_than_the_picture_is_as_wide_as_can_be() -> None:
    narrow = torch.randn(2, 1, 2, 9)
    assert augment(narrow, Augmentation(blur=5)).shape == narrow.shape


def test_erase_takes_one_rectangle_from_as_many_pictures_as_it_says(images: torch.Tensor) -> None:
    erased = augment(images, Augmentation(erase=0.5))
    changed = erased != images
    of = changed.flatten(1).any(1)
    assert 10 <= of.sum() <= 30
    for picture, gone in zip(erased[of], changed[of], strict=True):
        rows, columns = gone.any(0).any(1).nonzero(), gone.any(0).any(0).nonzero()
        rectangle = picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (rectangle == 0).all() and gone.sum() == rectangle.numel()
        assert 0.01 < gone.float().mean() < 0.4


def test_mixup_lays_pictures_and_their_labels_together_in_the_same_shares() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(6, 1, HEIGHT, WIDTH), torch.arange(6) % 3
    mixed, shares = mix(images, labels, 3, Augmentation(mixup=1.0))
    share = shares[0, 0]
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * images + (1 - share) * images.roll(1, 0))
    hot = torch.nn.functional.one_hot(labels).float()
    torch.testing.assert_close(shares, share * hot + (1 - share) * hot.roll(1, 0))
    assert mix(images, labels, 3, Augmentation()) == (images, labels)


def test_cutmix_puts_a_rectangle_of_another_picture_and_its_share_of_the_label() -> None:
    torch.manual_seed(2)
    images, labels = torch.randn(6, 1, HEIGHT, WIDTH), torch.arange(6)
    mixed, shares = mix(images, labels, 6, Augmentation(cutmix=1.0))
    other = mixed[1] == images[0]
    assert ((mixed[1] == images[1]) | other).all() and 0 < other.sum() < other.numel()
    assert shares[1, 0].item() == pytest.approx(other.float().mean().item())
    assert shares.sum(1).tolist() == pytest.approx([1.0] * 6)


def test_of_mixup_and_cutmix_each_batch_gets_one() -> None:
    images, labels = torch.randn(4, 1, HEIGHT, WIDTH), torch.arange(4)
    kinds = set()
    for seed in range(12):
        torch.manual_seed(seed)
        mixed, _ = mix(images, labels, 4, Augmentation(mixup=1.0, cutmix=1.0))
        kinds.add(bool((mixed == images).any()))  # whole pixels of it are left
    assert kinds == {True, False}


def test_an_own_augmentation_is_made_as_contributing_says(
    images: torch.Tensor, tmp_path: Path
) -> None:
    steps = (TEMPLATE / "CONTRIBUTING.md").read_text().partition("### An own augmentation\n")[2]
    field = re.search(r"`(noise: .*)`\.\n", steps)
    lines = re.search(r"(?s)   ```python\n(.*?)   ```\n", steps)
    assert field and lines
    text = (UNBAKED / "src/classifier/augmentation.py").read_text()
    last, moves = "    cutmix: From0 = 0.0", "    if how.shift or how.rotate"
    assert text.count(last) == text.count(moves) == 1
    text = text.replace(last, f"    {field[1]}\n{last}")
    text = text.replace(moves, f"{textwrap.indent(textwrap.dedent(lines[1]), '    ')}{moves}")
    file = tmp_path / "augmentation.py"
    file.write_text(text)
    made = runpy.run_path(str(file))
    noise = made["augment"](images, made["Augmentation"](noise=0.1)) - images
    assert noise.mean().abs() < 0.01 and 0.09 < noise.std() < 0.11
    state = torch.get_rng_state()
    assert made["augment"](images, made["Augmentation"]()) is images
    assert torch.get_rng_state().equal(state), "earlier trainings draw what they drew"


# -- targets and weights ---------------------------------------------------------------------------


def learner(settings: Params, classes: int = 3) -> training.Training:
    model = training.Classifier(Shape(12, 10, 3, classes), settings.train)
    return training.Training(model, 1, 60)


def test_class_weights_make_every_class_count_alike(settings: Params) -> None:
    labels = np.repeat([0, 1, 2], [8, 3, 1])
    split = Split(np.zeros((12, 12, 10, 3), np.uint8), labels)
    model = learner(change(settings, class_weights=True))
    model.balance(split.labels)
    assert model.class_weights.tolist() == pytest.approx([12 / 24, 12 / 9, 12 / 3])
    scores, targets = torch.randn(12, 3), torch.from_numpy(labels)
    by_class = [
        torch.nn.functional.cross_entropy(scores[targets == k], targets[targets == k])
        for k in range(3)
    ]
    torch.testing.assert_close(model.loss(scores, targets), torch.stack(by_class).mean())
    assert "class_weights" not in model.state_dict()


def test_label_smoothing_gives_every_class_a_share(settings: Params) -> None:
    model = learner(change(settings, label_smoothing=0.3))
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    shares = 0.7 * torch.nn.functional.one_hot(labels) + 0.1
    expected = -(shares * scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(model.loss(scores, labels), expected)


def test_neutral_parameters_leave_the_loss_of_the_network(settings: Params) -> None:
    model = learner(settings)
    scores, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    assert torch.equal(model.loss(scores, labels), model.network.loss(scores, labels))


def test_ema_keeps_the_mean_of_the_weights_of_the_steps(tmp_path: Path, settings: Params) -> None:
    root = prepared_project(tmp_path)
    steps: list[torch.Tensor] = []

    class Watch(training.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            steps.append(next(module.network.parameters()).detach().clone())

    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], ["a", "b", "c"])
    asked = change(settings, ema=0.75, epochs=1)
    model, _, _ = training.fit(asked, shape, *splits, tmp_path / "run", [Watch()])
    mean = steps[0]
    for step in steps[1:]:
        mean = 0.75 * mean + 0.25 * step
    assert len(steps) == 4
    torch.testing.assert_close(next(model.network.parameters()).detach(), mean)
