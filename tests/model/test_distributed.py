"""Several workers do what one does, start again when one dies, and refuse what can't be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from classifier import distributed, training
from classifier.batches import Batches
from classifier.data import Split
from classifier.distributed import Workers, WorkersError, workers_from
from classifier.params import Params
from classifier.training import CHECKPOINT, HISTORY, Classifier
from conftest import PROJECT, change, prepared_project, small

TWO = Workers(devices=2)


def start(root: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start `python -m classifier train` with several workers."""
    return subprocess.Popen(
        [sys.executable, "-m", "classifier", "train"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    return printed


def workers_of(process: "subprocess.Popen[str]", named: str) -> list[psutil.Process]:
    """The processes below this one that do the training."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if named in " ".join(child.cmdline())]


def shrink(root: Path, **values: Any) -> None:
    content = small(yaml.safe_load((root / "params.yaml").read_text()))
    content["train"] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content))


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / CHECKPOINT, weights_only=False)["state_dict"]


def test_workers_share_every_batch() -> None:
    split = Split(np.zeros((65, 2, 2, 1), np.uint8), np.arange(65))
    alone = Batches(split, 16, seed=3)
    parts = [Batches(split, 16, seed=3, part=part, workers=3) for part in range(3)]
    for index, batches in enumerate(zip(alone, *parts, strict=True)):
        (_, whole), *shares = batches
        assert torch.equal(torch.cat([labels for _, labels in shares]), whole)
        assert alone.size(index) == len(whole)


ALIKE = {  # no augmentation: workers draw it from seeds of their own
    "network": "logistic_regression",
    "options": {},
    "optimizer": "sgd",
    "batch_size": 16,
    "epochs": 3,
    "augmentation": {},
}


def test_two_workers_take_the_steps_of_one(root: Path) -> None:
    """No batch has an even share for both, so this also shows that shares are weighed."""
    shrink(root, **ALIKE)
    finish(start(root))
    one = weights(root)
    finish(start(root, DEVICES="2"))
    two = weights(root)
    for name in ("network.head.weight", "network.head.bias"):
        assert not torch.equal(one[name], torch.zeros_like(one[name]))
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    model = Classifier.load_from_checkpoint(root / CHECKPOINT, map_location="cpu")
    assert model.trained["devices"] == 2 and model.trained["nodes"] == 1


EPOCHS = 40  # enough to be interrupted


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after training with two workers that nothing happened to."""
    root = prepared_project(tmp_path_factory.mktemp("undisturbed"))
    shrink(root, epochs=EPOCHS)
    finish(start(root, DEVICES="2"))
    return root


def assert_same_result(one: Path, other: Path) -> None:
    assert (one / HISTORY).read_text() == (other / HISTORY).read_text()
    assert len((one / HISTORY).read_text().splitlines()) == 1 + EPOCHS
    theirs = weights(other)
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights(one).items())


def test_a_worker_that_dies_is_started_again_from_the_last_epoch(
    root: Path, undisturbed: Path
) -> None:
    shrink(root, epochs=EPOCHS)
    process = start(root, DEVICES="2")
    wait_for(root, "runs/*/last.ckpt", process)
    workers_of(process, "spawn_main")[0].send_signal(signal.SIGKILL)  # the one that has the files
    printed = finish(process)
    assert "a worker died (1 of 3 times): starting again" in printed
    assert "taking up the run" in printed
    assert_same_result(root, undisturbed)


def test_ray_trains_on_several_machines_and_outlives_a_worker(
    root: Path, undisturbed: Path
) -> None:
    shrink(root, epochs=EPOCHS)
    process = start(root, NODES="2")
    wait_for(root, "runs/ray/*/checkpoint_manager_snapshot.json", process)
    workers_of(process, "ray::RayTrainWorker")[0].send_signal(signal.SIGKILL)
    printed = finish(process)
    assert "taking up the run" in printed
    assert not list(root.glob("runs/ray/*")) and not list(root.glob("runs/*/*.ckpt"))
    assert_same_result(root, undisturbed)


def wait_for(root: Path, pattern: str, process: "subprocess.Popen[str]") -> None:
    while not list(root.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(WorkersError, match=f"DEVICES is '{value}': give a whole number from 1"):
        workers_from({"DEVICES": value})


def test_an_absent_number_of_workers_is_one() -> None:
    assert workers_from({"NODES": ""}) == Workers(1, 1, by_ray=False)


def test_ray_places_the_workers_of_several_machines_and_of_a_cluster() -> None:
    assert workers_from({"NODES": "2"}).by_ray
    assert workers_from({"NODES": "1", "RAY_ADDRESS": "10.0.0.1:6379"}).by_ray


def splits(train: int, validation: int = 20) -> tuple[Split, Split]:
    one, two = (
        Split(np.zeros((n, 2, 2, 1), np.uint8), np.zeros(n, int)) for n in (train, validation)
    )
    return one, two


def test_what_several_workers_cannot_train_is_refused(settings: Params) -> None:
    with pytest.raises(WorkersError, match=r"train.optimizer is 'lbfgs'.*instead of 2"):
        training.check(change(settings, optimizer="lbfgs").train, TWO, *splits(64))
    small = change(settings, batch_size=64).train
    training.check(small, Workers(devices=16), *splits(65))
    with pytest.raises(WorkersError, match=r"a batch has 32 images .* too few for 17 workers"):
        training.check(small, Workers(devices=17), *splits(65))
    with pytest.raises(WorkersError, match=r"the validation split 1, too few for 2 workers"):
        training.check(small, TWO, *splits(65, 1))


def test_compiling_without_a_compiler_is_refused(
    settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(training.TrainingError, match=r"train.compile is true, but .* no C\+\+"):
        training.check(change(settings, compile=True).train, Workers(), *splits(64))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This machine without a GPU, with two cores, and no cluster beside it."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed, "cores", lambda: 2)
    return monkeypatch


def test_more_workers_than_cores_are_refused(machine: pytest.MonkeyPatch) -> None:
    distributed.check_devices(TWO, threads=1)
    with pytest.raises(WorkersError, match=r"is 3, but this machine has 2 cores: give fewer"):
        distributed.check_devices(Workers(nodes=3), threads=1)
    with pytest.raises(WorkersError, match=r"is 2 with 2 of `train.threads` each, but .* 2 cores"):
        distributed.check_devices(TWO, threads=2)


def test_more_workers_than_gpus_are_refused(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(WorkersError, match="is 2, but this machine has 1 GPUs"):
        distributed.check_devices(TWO, threads=8)


def test_a_cluster_may_have_what_this_machine_has_not(machine: pytest.MonkeyPatch) -> None:
    machine.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    distributed.check_devices(Workers(devices=8, nodes=1000), threads=8)


def test_a_storage_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE", "checkpoints")
    with pytest.raises(WorkersError, match="STORAGE is 'checkpoints': give a folder from /"):
        distributed.storage_for(Path("/project/runs/1"))


def test_a_failure_that_another_start_does_not_cure_is_reported_once(root: Path) -> None:
    shrink(root, **ALIKE | {"learning_rate": 1e30})
    process = start(root, DEVICES="2")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert printed.count("error: the training loss became") == 1 and "Traceback" not in printed
    assert "starting again" not in printed and not (root / CHECKPOINT).exists()
    assert not list(root.glob("runs/*/*.ckpt"))
