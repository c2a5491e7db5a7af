"""Several workers do what one does, start again when one dies, and refuse what can't be."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from small_project import PROJECT, change, fixed, prepared_project

from classifier import distributed, params, training
from classifier.batches import Batches
from classifier.data import Split
from classifier.distributed import Workers, workers_of
from classifier.model import CHECKPOINT, HISTORY, load_model
from classifier.params import Params
from workspace.errors import UserError
from workspace.machine import Machine

TWO = Workers(devices=2, by_ray=True)
PATIENCE = 900  # seconds: generous, because nothing here is a measurement


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A prepared project of the test's own."""
    return prepared_project(tmp_path / "own folder")


@pytest.fixture
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())


def start(root: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start `python -m classifier train`, of an environment in the project's folder."""
    venv = root / ".venv"
    if not venv.exists():
        venv.symlink_to(sys.prefix)
    return subprocess.Popen(
        [venv / "bin/python", "-m", "classifier", "train"],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed
    return printed


EPOCHS = 10  # enough to be interrupted


def train_with_a_death(root: Path, **environment: str) -> None:
    """Train to the end, though a worker is killed when an epoch has been kept."""
    process = start(root, **environment)
    workers: list[psutil.Process] = []
    while len(workers) < 2 or not list(root.glob("runs/ray/*/checkpoint_manager_snapshot.json")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(process.pid).children(recursive=True)
            workers = [each for each in found if "ray::RayTrainWorker" in " ".join(each.cmdline())]
    workers[0].send_signal(signal.SIGKILL)
    printed = finish(process)
    assert "a worker died (1 of 3 times): starting again" in printed
    assert "taking up the run" in printed
    assert not list(root.glob("runs/ray/*")) and not list(root.glob("runs/*/*.ckpt"))
    assert len((root / HISTORY).read_text().splitlines()) == 1 + EPOCHS


def shrink(root: Path, **values: Any) -> None:
    content = yaml.safe_load((root / "params.yaml").read_text())
    content["train"] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(content))


def weights(root: Path) -> dict[str, torch.Tensor]:
    return torch.load(root / CHECKPOINT, weights_only=True)["state_dict"]


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
    "augmentation": {},
}


def test_two_workers_take_the_steps_of_one_though_one_of_them_dies(root: Path) -> None:
    """No batch has an even share for both, so this also shows that shares are weighed."""
    shrink(root, **ALIKE, epochs=EPOCHS)
    finish(start(root))
    one = weights(root)
    train_with_a_death(root, DEVICES="2")
    two = weights(root)
    for name in ("network.head.weight", "network.head.bias"):
        assert not torch.equal(one[name], torch.zeros_like(one[name]))
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    model = load_model(root / CHECKPOINT)
    assert model.trained["devices"] == 2 and model.trained["nodes"] == 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after training with two workers that nothing happened to."""
    root = prepared_project(tmp_path_factory.mktemp("undisturbed"))
    shrink(root, epochs=EPOCHS)
    finish(start(root, DEVICES="2"))
    return root


def test_a_worker_that_dies_is_started_again_from_the_last_epoch(
    root: Path, undisturbed: Path
) -> None:
    """Two machines that are one give what two devices of one machine gave, to the bit."""
    shrink(root, epochs=EPOCHS)
    train_with_a_death(root, NODES="2")
    assert (root / HISTORY).read_text() == (undisturbed / HISTORY).read_text()
    theirs = weights(undisturbed)
    assert all(torch.equal(weight, theirs[name]) for name, weight in weights(root).items())


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=f"DEVICES is '{value}': give a whole number from 1"):
        Machine.from_environment({"DEVICES": value})
    assert Machine.from_environment({"DEVICES": "1"}).devices == 1


def workers(**environment: str) -> Workers:
    return workers_of(Machine.from_environment(environment))


def test_an_absent_number_of_workers_is_one() -> None:
    assert workers(NODES="") == Workers(1, 1, by_ray=False)


def test_ray_starts_several_workers_and_those_of_a_cluster() -> None:
    assert workers(DEVICES="2") == Workers(2, 1, by_ray=True)
    assert workers(NODES="2").by_ray
    assert workers(NODES="1", RAY_ADDRESS="10.0.0.1:6379").by_ray


def test_an_unknown_accelerator_is_refused() -> None:
    with pytest.raises(UserError, match="ACCELERATOR is 'tpu': give gpu, or leave it out"):
        Machine.from_environment({"ACCELERATOR": "tpu"})
    assert Machine.from_environment({"ACCELERATOR": "gpu"}) != Machine.from_environment({})


def splits(train: int, validation: int = 20) -> tuple[Split, Split]:
    one, two = (
        Split(np.zeros((n, 2, 2, 1), np.uint8), np.zeros(n, int)) for n in (train, validation)
    )
    return one, two


def test_what_several_workers_cannot_train_is_refused(settings: Params) -> None:
    with pytest.raises(UserError, match=r"train.optimizer is 'lbfgs'.*instead of 2"):
        training.check(change(settings, optimizer="lbfgs").train, TWO, *splits(64))
    alone = change(settings, optimizer="lbfgs", batch_size=64).train
    training.check(alone, Workers(), *splits(64))
    small = change(settings, batch_size=64).train
    training.check(small, Workers(devices=16), *splits(65))
    with pytest.raises(UserError, match=r"a batch has 32 pictures .* too few for 17 workers"):
        training.check(small, Workers(devices=17), *splits(65))
    training.check(change(settings, batch_size=65).train, Workers(devices=17), *splits(65))
    with pytest.raises(UserError, match=r"the validation split 1, too few for 2 workers"):
        training.check(small, TWO, *splits(65, 1))


def test_compiling_without_a_compiler_is_refused(
    settings: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    compiling = change(settings, compile=True).train
    with pytest.raises(UserError, match=r"train.compile is True, but .* no C\+\+"):
        training.check_compiler(compiling, ALONE)
    training.check_compiler(compiling, Machine.from_environment({"CXX": sys.executable}))
    training.check_compiler(change(settings, compile=False).train, ALONE)


ALONE = Machine.from_environment({})


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """This machine without a GPU and with two cores."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(distributed, "cores", lambda: 2)
    return monkeypatch


def test_more_workers_than_cores_are_refused(two_cores: pytest.MonkeyPatch) -> None:
    distributed.check_devices(TWO, 1, ALONE)
    with pytest.raises(UserError, match=r"is 3, but this machine has 2 cores: give fewer"):
        distributed.check_devices(Workers(nodes=3), 1, ALONE)
    with pytest.raises(UserError, match=r"is 2 with 2 of `train.threads` each, but .* 2 cores"):
        distributed.check_devices(TWO, 2, ALONE)


def test_more_workers_than_gpus_are_refused(two_cores: pytest.MonkeyPatch) -> None:
    two_cores.setattr(torch.cuda, "is_available", lambda: True)
    two_cores.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="is 2, but this machine has 1 GPUs"):
        distributed.check_devices(TWO, 8, ALONE)


def test_a_cluster_may_have_what_this_machine_has_not(two_cores: pytest.MonkeyPatch) -> None:
    cluster = Machine.from_environment({"RAY_ADDRESS": "10.0.0.1:6379"})
    distributed.check_devices(Workers(devices=8, nodes=1000), 8, cluster)


def test_a_storage_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="STORAGE is 'checkpoints': give a folder from /"):
        distributed.storage_for(Path("/project/runs/1"), "checkpoints")
    assert distributed.storage_for(Path("/project/runs/1"), "/checkpoints") == "/checkpoints"


def test_a_lower_learning_rate_cures_a_loss_without_end(root: Path, settings: Params) -> None:
    with pytest.raises(UserError, match=r"training loss became .*: lower train\.learning_rate"):
        training.train(change(settings, learning_rate=1e30), root)
    training.train(settings, root)
    assert (root / CHECKPOINT).exists()


def test_a_failure_that_another_start_does_not_cure_is_reported_once(root: Path) -> None:
    shrink(root, **ALIKE | {"learning_rate": 1e30})
    process = start(root, DEVICES="2")
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert printed.count("error: the training loss became") == 1 and "Traceback" not in printed
    assert "starting again" not in printed and not (root / CHECKPOINT).exists()
    assert not list(root.glob("runs/*/*.ckpt"))
