"""Pictures that are kept for labelling: which, how many, and at nobody's cost."""

import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import monitored
from delivery.model.drift import FEWEST
from delivery.triton.client import connect
from delivery.triton.server import Server, ready_path, start
from test_monitor import until
from tiny import SHAPE
from workspace import behaviour
from workspace.settings import parse_json


def load() -> ModuleType:
    """The program, as Triton's process has it."""
    spec = importlib.util.spec_from_file_location("capture", monitored.PROGRAM / "capture.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def capture() -> ModuleType:
    return load()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "captured"
    made.mkdir()
    return made


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.png"))


# -- behind the real Triton ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return monitored.write_model(tmp_path_factory.mktemp("model"), version=8)


@contextmanager
def running(models: Path, folder: Path, **texts: str) -> Iterator[Server]:
    """A server whose monitor keeps pictures in a folder, with other texts in its program."""
    target = folder.parent / "monitored"
    program = monitored.changed_program(folder.parent / "program", **texts)
    monitored.arrange(models, target, program, folder)
    server = start(target, folder.parent / "log")
    try:
        server.wait(ready_path(8), 300)
        yield server
    finally:
        server.kill()


def ask(server: Server, images: np.ndarray, protocol: str = "http", **parameters: object) -> None:
    """Send pictures with parameters of the request; they must be answered."""
    with connect(protocol, server.ports) as client:
        tensor = client.library.InferInput("image", list(images.shape), "UINT8")
        tensor.set_data_from_numpy(images)
        answer = client.call("infer", "classifier", [tensor], parameters=parameters or None)
    assert len(answer.as_numpy("probabilities")) == len(images)


def looked_at(server: Server, count: int) -> None:
    until(lambda: monitored.passed(server).get("judged") == count, server.log)


def test_what_is_unsure_or_odd_is_kept_as_it_came_by_the_class_that_was_answered(
    capture: ModuleType, models: Path, folder: Path
) -> None:
    images = np.concatenate([monitored.pictures(12, seed=6), np.full((2, *SHAPE), 9, np.uint8)])
    answers = monitored.answers(models, images)
    said = parse_json((models / "classifier/about/behaviour.json").read_bytes(), "it")
    wanted = capture.wanted(behaviour.figures(images, answers), said["features"])
    with running(models, folder) as server:
        for protocol in ("http", "grpc"):
            ask(server, images, protocol, **{"no-capture": True})
        looked_at(server, 2 * len(images))
        assert kept(folder) == []
        ask(server, images)
        looked_at(server, 3 * len(images))
        until(lambda: len(kept(folder)) == wanted.sum(), server.log)
    assert 2 <= wanted.sum() < len(images)
    found = {(path.parent.name, np.asarray(Image.open(path)).tobytes()) for path in kept(folder)}
    assert found == {
        (f"class {label}", image.tobytes())
        for image, label in zip(images[wanted], answers[wanted].argmax(axis=1), strict=True)
    }


def test_nothing_is_kept_unless_it_is_asked_for(models: Path, tmp_path: Path) -> None:
    monitored.arrange(models, tmp_path / "monitored")
    assert r"\"captured\": \"\"" in (tmp_path / "monitored/monitor/config.pbtxt").read_text()


HANGS = """

def png(image):
    import threading

    threading.Event().wait()
"""


def test_a_folder_that_is_gone_or_hangs_costs_no_answer(
    models: Path, folder: Path, tmp_path: Path
) -> None:
    odd = np.full((1, *SHAPE), 9, np.uint8)
    folder.rmdir()
    with running(models, folder) as server:
        ask(server, odd)
        until(lambda: "no picture is kept any more" in server.log.read_text(), server.log)
        ask(server, odd)
        looked_at(server, 2)
    other = tmp_path / "other/captured"
    other.mkdir(parents=True)
    with running(models, other, capture=HANGS) as server:
        ask(server, odd)
        for _ in range(FEWEST):  # more than may wait to be looked at
            ask(server, monitored.pictures(1, seed=8))
    assert kept(other) == []


# -- limits ----------------------------------------------------------------------------------------


def keep(made: object, count: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)
    made.keep(images, np.zeros(count))


def test_of_many_pictures_a_few_are_kept(
    capture: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = capture.Capture(folder, ["cat"])
    keep(made, 100)
    assert len(kept(folder)) == capture.HOURLY
    now = time.monotonic()
    monkeypatch.setattr(capture.time, "monotonic", lambda: now + 600)  # ten minutes later
    keep(made, 100)
    assert len(kept(folder)) == capture.HOURLY + 10


@pytest.mark.parametrize("limit", ["MOST", "BYTES"])
def test_a_full_folder_takes_no_more_until_what_is_old_goes(
    capture: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    size = len(capture.png(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)))
    monkeypatch.setattr(capture, limit, 5 if limit == "MOST" else 5.5 * size)
    made = capture.Capture(folder, ["cat"])
    keep(made, 9)
    keep(made, 9)
    assert len(kept(folder)) == 5
    late = time.time() - (capture.DAYS * 24 + 1) * 3600
    for path in kept(folder)[:3]:
        os.utime(path, (late, late))
    keep(made, 1)
    assert len(kept(folder)) == 3


def test_a_class_that_is_no_folders_name_is_left_out(capture: ModuleType, folder: Path) -> None:
    made = capture.Capture(folder, ["../../outside", ".hidden", "a/b"])
    for label in range(3):
        made.keep(np.zeros((1, 8, 8, 1), np.uint8), np.full(1, label))
    assert [*folder.rglob("*")] == [] and [*folder.parent.iterdir()] == [folder]


def test_a_picture_of_many_channels_is_not_kept(capture: ModuleType) -> None:
    with pytest.raises(KeyError):
        capture.png(np.zeros((8, 8, 4), np.uint8))
