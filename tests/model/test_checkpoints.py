"""Checkpoints hold weights and numbers: what somebody else put into one is never run."""

import json
import pickle
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_project import change, fixed, prepared_project

from classifier import data, evaluation, export, params, training
from classifier.distributed import take_up
from classifier.model import CHECKPOINT, load_model, read_checkpoint
from classifier.params import Params
from curation.label_doubts import trained_model
from workspace.errors import UserError

pytestmark = pytest.mark.usefixtures("ray_with_its_settings")


class Code:
    """What writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


def zipped(path: Path, content: dict[str, Any]) -> None:
    torch.save(content, path)


def plain(path: Path, content: dict[str, Any]) -> None:
    path.write_bytes(pickle.dumps(content))


def old(path: Path, content: dict[str, Any]) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


WAYS = [zipped, plain, old]


@pytest.fixture(scope="module")
def settings() -> Params:
    """Parameters of a training that takes a second."""
    return change(params.parse(fixed()), network="mlp", options={"width": 4}, epochs=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, settings: Params) -> Path:
    """A project with a model."""
    folder = prepared_project(tmp_path_factory.mktemp("trained"))
    training.train(settings, folder)
    return folder


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "project", symlinks=True)


def plant(path: Path, way: Callable[[Path, dict[str, Any]], None] = zipped) -> Path:
    """Put code into a checkpoint; return the file that it writes for a careless reader."""
    content = read_checkpoint(path)
    target = path.parent / "written by the checkpoint"
    way(path, content | {"trained": Code(target)})
    pickle.loads(path.read_bytes()) if way is plain else torch.load(path, weights_only=False)
    assert target.exists()
    target.unlink()
    return target


def refused(path: Path, reads: Callable[[], object], target: Path) -> None:
    """The reader says a sentence, and nothing was run."""
    with pytest.raises(UserError, match=r"is no checkpoint of weights and numbers only, so noth"):
        reads()
    assert not target.exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stage", [evaluation.evaluate, export.export])
def test_a_stage_runs_no_code_of_the_model(
    stage: Callable[[Params, Path], None],
    way: Callable[[Path, dict[str, Any]], None],
    root: Path,
    settings: Params,
) -> None:
    target = plant(root / CHECKPOINT, way)
    refused(root / CHECKPOINT, lambda: stage(settings, root), target)


def test_the_cure_makes_another_model(root: Path, settings: Params) -> None:
    before = read_checkpoint(root / CHECKPOINT)
    refused(root / CHECKPOINT, lambda: load_model(root / CHECKPOINT), plant(root / CHECKPOINT))
    (root / CHECKPOINT).unlink()
    with pytest.raises(UserError, match=r"cannot be read .*: run `make pipeline`"):
        load_model(root / CHECKPOINT)
    training.train(settings, root)  # what `make pipeline` does for an output that is gone
    after = load_model(root / CHECKPOINT).state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before["state_dict"].items())


def fit(run: Path, settings: Params, root: Path) -> training.History:
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], data.class_names(root))
    return training.fit(settings, shape, *splits, run)[1]


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_taken_up_runs_no_code(
    name: str,
    way: Callable[[Path, dict[str, Any]], None],
    root: Path,
    settings: Params,
    tmp_path: Path,
) -> None:
    """So do the trials of a search and the workers on a cluster, which call the same."""
    run = tmp_path / "run"
    whole = fit(run, settings, root).epochs
    target = plant(run / name, way)
    refused(run / name, lambda: fit(run, settings, root), target)
    (run / name).unlink()
    if name == "best.ckpt":  # which is written in an epoch
        (run / "last.ckpt").unlink()
    assert fit(run, settings, root).epochs == whole


def test_a_trial_with_code_is_tried_again(
    root: Path, settings: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [tmp_path / "tune/run"]
    fit(runs[0], settings, root)
    from tuning import halving

    target = plant(runs[0] / "last.ckpt")
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(halving.tune, "report", reports.append)
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], data.class_names(root))
    halving.run_trial({"number": 0}, [settings], runs, "validation_loss", shape, splits, None)
    assert reports[-1]["ended"] == "broken" and not target.exists()
    assert "last.ckpt is no checkpoint of weights" in reports[-1]["reason"]


def test_a_checkpoint_from_the_clusters_storage_runs_no_code(
    root: Path, settings: Params, tmp_path: Path
) -> None:
    fit(tmp_path / "storage", settings, root)
    target = plant(tmp_path / "storage/last.ckpt")

    class Reported:
        def as_directory(self) -> Any:
            return nullcontext(str(tmp_path / "storage"))

    run = tmp_path / "run"
    take_up(Reported(), run)
    refused(run / "last.ckpt", lambda: fit(run, settings, root), target)
    assert not (run / target.name).exists()


def test_the_review_of_new_pictures_runs_no_code(root: Path) -> None:
    report = root / "data/prepared/report.json"
    report.write_text(json.dumps(json.loads(report.read_text()) | {"source": "folder"}))
    target = plant(root / CHECKPOINT)
    comparison: Any = SimpleNamespace(classes=data.class_names(root))
    assert trained_model(comparison, root) == "artifacts/model.ckpt can't be read"
    assert not target.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"hyper_parameters": {"_instantiator": "os.system"}},  # Lightning imports and calls it
        {"hyper_parameters": {"shape": {}}},
        {"hyper_parameters": 3},
        {"state_dict": {}},
    ],
    ids=["a caller", "parameters of another network", "a number", "no weights"],
)
def test_a_checkpoint_of_another_program_is_refused(changes: dict[str, Any], root: Path) -> None:
    path = root / CHECKPOINT
    torch.save(read_checkpoint(path) | changes, path)
    with pytest.raises(UserError, match=r"model.ckpt is no checkpoint of weights and numbers"):
        load_model(path)


@pytest.mark.parametrize("content", [b"", b"PK of an earlier version", b"\x80\x02]q\x00."])
def test_a_damaged_checkpoint_is_refused(content: bytes, root: Path) -> None:
    (root / CHECKPOINT).write_bytes(content)
    with pytest.raises(UserError, match=r"remove it and run the same command again, or `make pipe"):
        load_model(root / CHECKPOINT)


def test_a_checkpoint_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.ckpt cannot be read \(No such file"):
        load_model(tmp_path / "model.ckpt")
