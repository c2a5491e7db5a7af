"""Training: repeatable, resumable after a kill, calibrated, and clear when it fails."""

import csv
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from small_project import PROJECT, change

from classifier import networks, params, training
from classifier.augmentation import Augmentation, augment
from classifier.batches import Batches
from classifier.data import Split
from classifier.distributed import TrainingError
from classifier.params import Params
from classifier.training import CHECKPOINT, HISTORY, fit_temperature
from workspace.errors import UserError
from workspace.history import kept_epoch


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / CHECKPOINT, weights_only=True)["state_dict"]


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def history(root: Path) -> list[dict[str, str]]:
    with (root / HISTORY).open() as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_weights(root: Path, settings: Params) -> None:
    training.train(settings, root)
    first = weights(root)
    training.train(settings, root)
    assert_same_weights(first, weights(root))


def test_a_finished_run_leaves_logs_but_nothing_to_take_up(root: Path, settings: Params) -> None:
    training.train(settings, root)
    assert not list(root.glob("runs/*/*.ckpt"))
    (logs,) = root.glob("runs/*/events*")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}-\w+-\d+\.\d", logs.parent.name)
    assert [row["epoch"] for row in history(root)] == ["1", "2", "3"]


KILLED_AFTER = """
import os, signal, sys
from pathlib import Path
from classifier import params, training
def kill(callback, trainer, module, batch, index):
    if trainer.current_epoch == 2 and index == 1:
        os.kill(os.getpid(), signal.SIGKILL)
training.History.on_train_batch_start = kill
training.train(params.load(Path()), Path())
"""


def test_a_killed_run_is_taken_up_and_ends_as_an_uninterrupted_one(
    root: Path, settings: Params
) -> None:
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["train"] |= {"epochs": 5, "patience": 4}
    (root / "params.yaml").write_text(yaml.safe_dump(content))
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    command = [sys.executable, "-c", KILLED_AFTER]
    killed = subprocess.run(command, cwd=root, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / CHECKPOINT).exists()

    values = params.load(root)
    training.train(values, root)
    resumed, resumed_history = weights(root), history(root)
    assert len(resumed_history) == 5
    training.train(values, root)
    assert_same_weights(resumed, weights(root))
    assert resumed_history == history(root)


def test_training_stops_early_when_nothing_improves(root: Path, settings: Params) -> None:
    still = {"learning_rate": 1e-12, "schedule": "constant", "epochs": 20, "patience": 2}
    training.train(change(settings, network="mlp", options={}, **still), root)
    assert len(history(root)) == 3


def test_a_run_taken_up_after_it_had_stopped_early_trains_no_further(
    root: Path, settings: Params, tmp_path: Path
) -> None:
    still = {"learning_rate": 1e-12, "schedule": "constant", "epochs": 20, "patience": 2}
    stopping = change(settings, network="mlp", options={}, **still)
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], ["a", "b", "c"])
    lengths = []
    for _ in range(2):  # the second finds the checkpoints of the first
        _, history, _ = training.fit(stopping, shape, *splits, tmp_path / "run")
        lengths.append(len(history.epochs))
    assert lengths == [3, 3]


@pytest.mark.parametrize(
    "losses",
    [(0.5, 0.2, 0.3), (0.2, 0.1, 0.1), (math.nan, 0.5, 0.4), (math.nan, math.nan)],
    ids=str,
)
def test_the_epoch_that_is_kept_is_that_of_the_best_checkpoint(
    losses: tuple[float, ...],
    root: Path,
    settings: Params,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told(module: training.Training) -> None:
        loss = torch.tensor(losses[module.current_epoch])
        module.log_dict({"validation_loss": loss, "validation_accuracy": 0.5, "train_loss": 0.5})

    monkeypatch.setattr(training.Training, "on_validation_epoch_end", told)
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], ["a", "b", "c"])
    run = tmp_path / "run"
    settings = change(settings, epochs=len(losses))
    _, epochs, _ = training.fit(settings, shape, *splits, run)
    best = torch.load(run / "best.ckpt", weights_only=True)["epoch"] + 1
    assert kept_epoch(epochs.epochs)["epoch"] == best
    epochs.write(tmp_path / "history.csv")  # texts
    with (tmp_path / "history.csv").open() as file:
        assert kept_epoch(csv.DictReader(file))["epoch"] == str(best)


@pytest.mark.parametrize("network", ["linear_svm", "kernel_svm"])
def test_figures_have_all_digits_whatever_the_precision(
    network: str, root: Path, settings: Params, tmp_path: Path
) -> None:
    """With 16 bits, counts above 256 and losses would be rounded."""
    train, validation = training.load_splits(root)
    many = Split(np.repeat(validation.images, 20, axis=0), np.repeat(validation.labels, 20))
    mixed = change(settings, network=network, options={}, precision="bf16-mixed", epochs=1)
    shape = training.shape_of(train, ["a", "b", "c"])
    _, history, _ = training.fit(mixed, shape, train, many, tmp_path / "run")
    accuracy = history.epochs[-1]["validation_accuracy"] * len(many.labels)
    assert accuracy == pytest.approx(round(accuracy), abs=1e-3)


def test_mixed_precision_is_for_networks_that_bear_it(
    settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    precision = training.precision
    assert precision(change(settings, network="cnn").train) == "16-mixed"
    assert precision(change(settings, network="kernel_svm").train) == "32-true"
    assert precision(change(settings, optimizer="lbfgs").train) == "32-true"


def test_what_lbfgs_cannot_do_is_refused_and_as_told_it_trains(
    root: Path, settings: Params
) -> None:
    asked = change(settings, network="logistic_regression", options={}, optimizer="lbfgs")
    with pytest.raises(UserError) as caught:
        training.train(asked, root)
    assert str(caught.value) == (
        "params.yaml: train.optimizer is 'lbfgs', which cannot train with schedule one_cycle, "
        "weight_decay 0.01, augmentation.shift 0.08, augmentation.rotate 10.0, augmentation.scale "
        "0.1: set schedule to constant, weight_decay to 0.0, augmentation.shift to 0.0, "
        "augmentation.rotate to 0.0, augmentation.scale to 0.0, or give another train.optimizer"
    )
    still = Augmentation(shift=0.0, rotate=0.0, scale=0.0)
    told = change(asked, schedule="constant", weight_decay=0.0, augmentation=still)
    with pytest.raises(UserError, match=r"train.batch_size is 16, but .*: give 60 or more"):
        training.train(told, root)
    training.train(change(told, batch_size=60), root)
    training.train(change(asked, optimizer="sgd"), root)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "bf16-mixed"}, "with precision bf16-mixed: set precision to 32-true, or"),
        ({"augmentation": Augmentation(flip=True)}, "augmentation.flip to false, or give another"),
        ({"augmentation": Augmentation(mixup=0.2)}, "with augmentation.mixup 0.2: set"),
    ],
)
def test_lbfgs_needs_the_same_pictures_and_all_digits(
    values: dict[str, Any], message: str, settings: Params
) -> None:
    plain = {"schedule": "constant", "weight_decay": 0.0, "augmentation": Augmentation()}
    asked = change(settings, optimizer="lbfgs", **plain)
    networks.check_together(asked.train)
    networks.check_together(change(asked, precision="32-true").train)
    networks.check_together(change(asked, **values, optimizer="adamw").train)
    with pytest.raises(UserError, match=message):
        networks.check_together(change(asked, **values).train)


def test_a_loss_that_explodes_is_an_error(root: Path, settings: Params) -> None:
    wild = change(
        settings, network="linear_regression", options={}, optimizer="sgd", learning_rate=1e30
    )
    with pytest.raises(TrainingError, match=r"train.learning_rate, which is 1e\+30"):
        training.train(wild, root)
    assert not (root / CHECKPOINT).exists()
    assert not list(root.glob("runs/*/*.ckpt"))


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11, 100])
def test_a_run_of_any_length_has_a_schedule(steps: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=training.warm_up(steps)
    )
    for _ in range(steps - 1):
        optimizer.step()
        schedule.step()
    assert training.warm_up(100) == training.WARM_UP


def test_batches_cover_a_split_once_in_even_sizes() -> None:
    split = Split(np.zeros((65, 2, 2, 1), np.uint8), np.arange(65))
    batches = list(Batches(split, 16, seed=3))
    sizes = [len(labels) for _, labels in batches]
    assert len(batches) == len(Batches(split, 16)) == 5 and max(sizes) - min(sizes) <= 1
    order = torch.cat([labels for _, labels in batches])
    assert sorted(order.tolist()) == list(range(65)) != order.tolist()


def test_the_temperature_calibrates_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(torch.softmax(scores, 1), 1, generator=generator).squeeze(1)
    assert fit_temperature(10 * scores, labels) == pytest.approx(10, rel=0.1)


def test_certainty_stays_bounded_when_every_answer_is_right() -> None:
    labels = torch.arange(200) % 10
    scores = torch.nn.functional.one_hot(labels, 10).float()
    certainty = torch.softmax(scores / fit_temperature(scores, labels), 1).max().item()
    assert certainty == pytest.approx(1 - 1 / 202, abs=1e-3)


def test_augmentation_without_limits_changes_nothing() -> None:
    images = torch.rand(4, 1, 8, 8)
    assert torch.equal(augment(images, Augmentation()), images)


def test_augmentation_moves_every_image_in_its_own_way() -> None:
    images = torch.rand(1, 1, 8, 8).repeat(8, 1, 1, 1)
    moved = augment(images, Augmentation(shift=0.2, rotate=10, scale=0.1))
    assert moved.shape == images.shape and moved.min() >= 0 and moved.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in moved}) == 8


def strip() -> torch.Tensor:
    """A picture of 12 × 30 pixels that is grey all over but for a field of other values, 5 × 3."""
    image = torch.full((1, 1, 12, 30), 0.5)
    image[0, 0, 2:7, 14:17] = torch.arange(15.0).reshape(5, 3)
    return image


def drawn(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every number that is drawn be that share of its range."""
    monkeypatch.setattr(torch, "rand", lambda count, device: torch.full((count,), share))


def test_a_turn_keeps_the_shape_of_what_is_in_a_picture_that_is_not_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn(1.0, monkeypatch)
    turned = augment(strip(), Augmentation(rotate=90))
    expected = torch.full((1, 1, 12, 30), 0.5)
    expected[..., 9:21] = torch.rot90(strip()[..., 9:21], 1, (2, 3))  # about the centre
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_a_shift_is_a_share_of_each_side(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(1.0, monkeypatch)
    moved = augment(strip(), Augmentation(shift=1 / 6))  # 2 pixels down here, 5 to the side
    expected = torch.full((1, 1, 12, 30), 0.5)
    expected[..., :10, :25] = strip()[..., 2:, 5:]
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)


def test_a_zoom_is_the_same_along_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(1.0, monkeypatch)
    twice = Augmentation.model_construct(scale=1.0)  # more than a file may ask for
    away = augment(strip(), twice)  # each pixel is a mean of four
    wider = torch.nn.functional.pad(strip(), (1, 1), value=0.5)
    small = torch.nn.functional.avg_pool2d(wider, 2)
    expected = torch.full((1, 1, 12, 30), 0.5)
    expected[..., 3:9, 7:23] = small
    torch.testing.assert_close(away, expected, atol=1e-4, rtol=0)


def test_a_flip_mirrors_left_and_right_whatever_the_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(0.4, monkeypatch)
    flipped = augment(strip(), Augmentation(flip=True))
    torch.testing.assert_close(flipped, strip().flip(-1), atol=1e-4, rtol=0)


def test_a_flip_mirrors_left_and_right() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 4, 4)
    flipped = augment(image.repeat(50, 1, 1, 1), Augmentation(flip=True))
    mirrored = [torch.allclose(f, image[0].flip(-1), atol=1e-5) for f in flipped]
    same = [torch.allclose(f, image[0], atol=1e-5) for f in flipped]
    assert sum(mirrored) + sum(same) == 50 and 10 < sum(mirrored) < 40
