"""The monitor behind the real Triton: it sees what is asked and answered, and costs no answer."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

import monitored
from conftest import TEMPLATE
from delivery.commands import drift
from delivery.errors import DeliveryError
from delivery.model.interface import change_between, read_interface
from delivery.triton.client import connect
from delivery.triton.server import Server, ready_path, start
from tiny import CLASSES, processes
from workspace import behaviour


@contextmanager
def running(repository: Path) -> Iterator[Server]:
    """A server that answers, and tells its figures, which it does last."""
    server = start(repository, repository.parent / f"{repository.name}.log")
    try:
        server.wait(ready_path(8), 300)
        until(lambda: tells(server), server.log)
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return monitored.write_model(tmp_path_factory.mktemp("model"), version=8)


@pytest.fixture(scope="module")
def plain(models: Path) -> Iterator[Server]:
    with running(models) as server:
        yield server


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    target = models.parent / "monitored"
    assert "the monitor sees what is asked" in monitored.arrange(models, target)
    with running(target) as server:
        yield server


def tells(server: Server) -> bool:
    """Whether a server answers who asks for its figures, be there none of a monitor."""
    with suppress(DeliveryError):
        monitored.metrics(server)
        return True
    return False


def until(met: Callable[[], object], log: Path) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_both_sides_count_with_the_same_file() -> None:
    copies = (TEMPLATE / "workspace/behaviour.py", monitored.PROGRAM / "behaviour.py")
    assert len({each.read_bytes() for each in copies}) == 1, "copy the first to the second"


# -- in the path -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_callers_get_the_same_answers_bit_for_bit(
    plain: Server, server: Server, protocol: str
) -> None:
    images = monitored.pictures(32, seed=5)
    with connect(protocol, plain.ports) as one, connect(protocol, server.ports) as other:
        for batch in (images, images[:1], images[3:10]):
            before, after = one.infer(batch), other.infer(batch)
            assert before.probabilities.tobytes() == after.probabilities.tobytes()
            assert before.version == after.version == 8
        named = [each.infer(images, top=2).probabilities.tolist() for each in (one, other)]
        assert named[0] == named[1] and b":class " in named[0][0][0]
        assert one.input_shape() == other.input_shape()
        wrong = np.zeros((1, 3, 3, 1), np.uint8)
        for each in (one, other):
            with pytest.raises(DeliveryError, match="shape"):
                each.infer(wrong)


def test_callers_see_the_same_interface(models: Path, server: Server) -> None:
    interfaces = [read_interface(each) for each in (models, models.parent / "monitored")]
    assert change_between(*interfaces) == ""


def test_what_is_asked_and_answered_is_counted_by_the_same_bins(models: Path) -> None:
    target = models.parent / "counted"
    monitored.arrange(models, target)
    images = np.concatenate([monitored.pictures(30, seed=6), np.full((2, 8, 6, 1), 9, np.uint8)])
    with running(target) as server:
        with connect("http", server.ports) as client:
            probabilities = client.infer(images).probabilities
        until(lambda: monitored.passed(server).get("judged") == len(images), server.log)
        found = drift.nested(monitored.metrics(server)["behaviour_pictures_total"])["8"]
        said = drift.read(monitored.metrics(server))["8"]
    expected = drift.parse_json((models / "classifier/about/behaviour.json").read_bytes(), "it")
    seen = behaviour.counts(behaviour.figures(images, probabilities), expected["features"])
    for name, feature in expected["features"].items():
        counted = [found[name][label] for label in feature["bins"]]
        assert counted == seen[name].tolist(), name
        shares = np.array(feature["counts"]) + 0.5
        told = [said.features[name].reference[label] for label in feature["bins"]]
        assert told == pytest.approx((shares / shares.sum()).tolist())
    assert found["constant"] == {"yes": 2, "no": 30}
    assert str(expected["threshold"]) in found["confidence"]
    assert (said.pictures, said.labelled, said.accuracy) == (600, 300, 0.9)


def test_of_many_pictures_some_are_looked_at(server: Server) -> None:
    before, begun = monitored.passed(server), time.monotonic()
    expected, images = sum(before.values()), monitored.pictures(32, seed=7)
    with connect("http", server.ports) as client:
        while monitored.passed(server).get("left out", 0) <= 1000:
            assert time.monotonic() < begun + 60, monitored.passed(server)
            client.infer(images)
            expected += len(images)
    seconds = time.monotonic() - begun
    until(lambda: sum(monitored.passed(server).values()) >= expected, server.log)
    outcomes = monitored.passed(server)
    assert outcomes["failed"] == 0 and sum(outcomes.values()) == expected
    assert 0 < outcomes["judged"] - before.get("judged", 0) <= 50 * (seconds + 1)


# -- a monitor that is broken ----------------------------------------------------------------------

# What becomes of a picture that begins with one of these numbers.
FAULTS = """

whole = figures


def figures(images, probabilities):
    if images[0, 0, 0, 0] == 1:
        raise ValueError("a picture that it cannot take")
    if images[0, 0, 0, 0] == 2:
        import threading

        threading.Event().wait()
    if images[0, 0, 0, 0] == 3:
        raise SystemExit
    return whole(images, probabilities)
"""


@pytest.fixture
def broken(models: Path, tmp_path: Path) -> Iterator[Server]:
    program = monitored.changed_program(tmp_path / "program", behaviour=FAULTS)
    monitored.arrange(models, tmp_path / "monitored", program)
    with running(tmp_path / "monitored") as server:
        yield server


def ask(server: Server, first: int) -> None:
    """Send a picture that begins with a number; what is answered must be right."""
    image = monitored.pictures(1, seed=8)
    image[0, 0, 0, 0] = first
    with connect("http", server.ports) as client:
        answer = client.infer(image)
    assert answer.probabilities.shape == (1, CLASSES) and answer.probabilities.sum() > 0.99


def test_a_picture_that_it_fails_with_is_counted_and_answered(broken: Server) -> None:
    ask(broken, 0)
    until(lambda: monitored.passed(broken).get("judged") == 1, broken.log)
    ask(broken, 1)
    until(lambda: monitored.passed(broken) == {"judged": 1, "failed": 1, "left out": 0}, broken.log)


@pytest.mark.parametrize("fault", [2, 3])
def test_a_thread_that_hangs_or_dies_costs_no_answer(broken: Server, fault: int) -> None:
    ask(broken, fault)
    for _ in range(200):  # more than may wait to be looked at
        ask(broken, 0)


def stub(server: Server) -> int:
    """The process of the monitor."""
    (found,) = [
        each for each in processes("triton_python_backend_stub") if is_of(each, server, "monitor")
    ]
    return found


def is_of(process: int, server: Server, model: str) -> bool:
    """Whether a process is a server's and runs a model."""
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()
        return os.getpgid(process) == server.process.pid and f"/{model}/".encode() in command
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_that_dies_is_what_the_path_pays_for(broken: Server) -> None:
    ask(broken, 0)
    os.kill(stub(broken), signal.SIGKILL)
    for _ in range(2):  # Triton 2.51 does not start it anew, and says that all is well
        with pytest.raises(DeliveryError, match="Stub process 'monitor_0_0' is not healthy"):
            ask(broken, 0)


@pytest.mark.parametrize(
    ("content", "told"), [(None, True), ("{}", False), ("no JSON", False)], ids=str
)
def test_a_model_serves_whatever_it_says_of_held_out_pictures(
    models: Path, tmp_path: Path, content: str | None, told: bool
) -> None:
    older = tmp_path / "models"
    older.mkdir()
    (older / "classifier").mkdir()
    for part in (models / "classifier").iterdir():
        if part.name != "about":
            (older / "classifier" / part.name).symlink_to(part)
    if content is not None:
        (older / "classifier/about").mkdir()
        (older / "classifier/about/behaviour.json").write_text(content)
    monitored.arrange(older, tmp_path / "monitored")
    with running(tmp_path / "monitored") as server:
        ask(server, 0)
        if told:
            until(lambda: monitored.passed(server).get("judged") == 1, server.log)
            assert drift.read(monitored.metrics(server)) == {"8": None}
        else:
            until(lambda: "the monitor sees nothing" in server.log.read_text(), server.log)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("max_batch_size: 32", "max_batch_size: 0", "it takes no batches"),
        ('name: "image"', 'name: "picture"', "its input is not named image"),
        ("output [", "outputs [", "config.pbtxt says nothing of its output"),
        ('name: "classifier"', 'name: "other"', "its name is not classifier"),
    ],
)
def test_a_model_of_another_kind_is_served_without_a_monitor(
    models: Path, tmp_path: Path, before: str, after: str, why: str
) -> None:
    other = tmp_path / "models/classifier"
    other.mkdir(parents=True)
    (other / "8").symlink_to(models / "classifier/8")
    (other / "labels.txt").symlink_to(models / "classifier/labels.txt")
    text = (models / "classifier/config.pbtxt").read_text()
    assert before in text
    (other / "config.pbtxt").write_text(text.replace(before, after, 1))
    told = monitored.arrange(tmp_path / "models", tmp_path / "monitored")
    assert told == f"the model serves without its monitor: {why}\n"
    assert [each.name for each in (tmp_path / "monitored").iterdir()] == ["classifier"]
    assert (tmp_path / "monitored/classifier/8/model.onnx").is_file()
