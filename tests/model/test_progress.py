"""How long a training takes: estimated from its first batches, told in lines; threads that fit."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_project import change, fixed, prepared_project

from classifier import distributed, params, training
from classifier.model import load_model
from classifier.networks import CNN, Shape
from classifier.params import Params
from classifier.progress import LONG, Bar, Progress, advice, in_words
from workspace.machine import Machine

PHOTOS = Shape(96, 96, 3, 10)


@pytest.fixture(scope="session")
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())


class Clock:
    """Each batch takes so many seconds, the first ten times as many."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.time = seconds, 0.0

    def __call__(self) -> float:
        return self.time


def trainer(**values: Any) -> Any:
    usual = {"num_training_batches": 10, "max_epochs": 20, "current_epoch": 0}
    here = {"is_global_zero": True, "strategy": SimpleNamespace(root_device=torch.device("cpu"))}
    names = ("train_loss", "validation_loss", "validation_accuracy")
    figures = {"callback_metrics": dict.fromkeys(names, 0.5)}
    return SimpleNamespace(**usual | here | figures | values)


def run(progress: Progress, clock: Clock, batches: int, trainer: Any) -> None:
    progress.on_train_start(trainer, None)  # type: ignore[arg-type]
    for batch in range(batches):
        clock.time += clock.seconds * (10 if batch == 0 else 1)
        progress.on_train_batch_end(trainer)


def test_the_first_batches_tell_how_long_it_takes_but_for_the_one_that_warms_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock(3.0)
    run(Progress(["less"], validation=0.3, now=clock), clock, 3, trainer())
    said = capsys.readouterr().err.splitlines()
    assert said == ["20 epochs take 11 min here", "faster, in params.yaml: less"]  # 3 · 10 · 20 s


def test_a_run_that_is_taken_up_is_told_what_is_left_and_short_ones_get_no_advice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock(0.1)
    run(Progress(["less"], 0.0, clock), clock, 10, trainer(current_epoch=15))
    assert capsys.readouterr().err == "5 epochs take 5 s here\n"


def test_an_epoch_is_a_line_of_what_is_past_and_what_is_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock(1.0)
    progress, here = Progress([], 0.0, clock), trainer()
    run(progress, clock, 2, here)
    for epoch in range(2):
        clock.time = 30.0 * (epoch + 1)
        here.current_epoch = epoch
        progress.on_train_epoch_end(here, None)  # type: ignore[arg-type]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("epoch 2/20, 60 s, 9 min left: train_loss 0.5000, validation_loss")
    here.current_epoch = 2  # the bar of the next one
    assert progress.left(here) == pytest.approx(30 * 17)


def test_a_log_holds_one_line_for_each_epoch_and_no_bar(
    tmp_path: Path, settings: Params, capfd: pytest.CaptureFixture[str]
) -> None:
    root = prepared_project(tmp_path)
    training.train(change(settings, threads=None), root)
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if not line.startswith(("GPU", "TPU", "💡"))]
    assert re.fullmatch(r"3 epochs take \d+ s here", lines[0])
    assert [line.split(",")[0] for line in lines[1:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "\r" not in said and "%" not in said
    model = load_model(root / training.CHECKPOINT)
    assert model.trained["threads"] == 1  # small pictures


def test_the_bar_of_a_terminal_says_what_is_left_of_all(
    tmp_path: Path, settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    bar = Bar.get_metrics

    def seen(self: Bar, *arguments: Any) -> dict[str, Any]:
        shown.append(bar(self, *arguments))
        return shown[-1]

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(Bar, "get_metrics", seen)
    training.train(settings, prepared_project(tmp_path))
    assert "left" not in shown[0] and "v_num" not in shown[0]
    assert shown[-1]["left"] == "0 s" and "validation_loss" in shown[-1]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (99, "99 s"), (LONG, "2 min"), (5970, "1 h 40 min"), (7500, "2 h 5 min")],
)
def test_a_time_is_said_as_a_person_says_it(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_advice_names_what_would_be_faster_here(
    settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classifier.progress.cores", lambda: 4)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    wide = Shape(64, 256, 3, 10)
    said = "; ".join(advice(settings.train, wide, threads=1))
    assert "train.threads 4 instead of 1" in said and "bf16-mixed" in said
    assert "prepare.image_size [32, 128] instead of [64, 256], about 25%" in said
    assert "train.patience 10" in said
    exact = change(settings, optimizer="lbfgs").train  # refused with less than all digits
    assert "bf16-mixed" not in "; ".join(advice(exact, wide, threads=1))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert advice(change(settings, patience=3).train, Shape(40, 40, 3, 10), threads=4) == []


def test_threads_follow_the_pictures_and_the_machine(
    settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "cores", lambda: 6)
    asked = change(settings, threads=None).train
    one, two = distributed.Workers(), distributed.Workers(devices=2, by_ray=True)
    digits = Shape(8, 8, 1, 10)
    assert training.threads_of(asked, digits, one) == 1
    assert training.threads_of(asked, PHOTOS, one) == 6
    assert training.threads_of(asked, PHOTOS, two) == 3
    assert training.threads_of(change(settings, threads=2).train, PHOTOS, one) == 2
    monkeypatch.setattr(distributed, "cores", lambda: 64)
    assert training.threads_of(asked, PHOTOS, one) == distributed.MOST_THREADS


def test_threads_that_are_asked_for_train_and_are_noted(tmp_path: Path, settings: Params) -> None:
    root = prepared_project(tmp_path)
    training.train(settings, root, Machine(threads=2))
    assert load_model(root / training.CHECKPOINT).trained["threads"] == 2


@pytest.mark.parametrize(
    ("side", "stride"), [(8, 1), (32, 1), (59, 1), (96, 2), (128, 3), (224, 4), (600, 4)]
)
def test_the_first_stride_follows_the_pictures_and_steps_over_no_pixel(
    side: int, stride: int
) -> None:
    with torch.device("meta"):
        first: Any = CNN(Shape(side, side, 3, 10)).stages[0][0][0]
        seen = first(torch.zeros(1, 3, side, side))
    assert first.stride == (stride, stride) and first.kernel_size[0] >= 2 * stride - 1
    assert seen.shape[-1] == -(-side // stride)
