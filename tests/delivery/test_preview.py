"""The preview: what Git says is served, and whatever goes wrong the last good version goes on."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from delivery.commands.preview import Preview, Voice
from delivery.manifests.preparation import Pulled, Rendered
from delivery.manifests.preview_status import read_status
from delivery.signals import ENDS, heed_signals
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports
from faults import DEGRADED, HANGING, UNKNOWN, Fault, broken_registry, layer, unknown_digest
from previews import IMAGE, Asker, Running, end, lasting_ports, serving, start
from tiny_project import TinyProject, make_project
from waiting import PATIENCE, wait_until
from workspace import files
from workspace.files import is_held, only_one


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make_project(tmp_path)


@pytest.fixture
def preview(project: TinyProject) -> Iterator[Running]:
    """A preview of a project that has released version 1."""
    with serving(project) as running:
        yield running


def test_a_project_without_a_release_waits_for_the_first(project: TinyProject) -> None:
    running = start(project, "--watch")
    try:
        status = running.until(sync="Synced", health="Missing")
        assert status["message"] == "nothing is released yet"
        project.bump(1)
        status = running.until(version=1, health="Healthy")
        assert running.versions() == {1}
    finally:
        end(running)


def test_bump_and_rollback_under_load(preview: Running) -> None:
    stop, seen = threading.Event(), []

    def call(protocol: str) -> None:
        answered = []
        with connect(protocol, preview.ports) as client:
            last = False
            while not last:
                last = stop.is_set()  # one more request after the end is called
                answered.append(client.infer(IMAGE).version)
        seen.append(answered)

    threads = [threading.Thread(target=call, args=[protocol]) for protocol in PROTOCOLS * 2]
    for thread in threads:
        thread.start()
    bump = preview.project.bump(2)
    status = preview.until(commit=bump, version=2, health="Healthy")
    rollback = preview.project.revert()
    preview.until(commit=rollback, version=1, health="Healthy")
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 4  # no client met an error
    for answered in seen:
        changes = [new for old, new in pairwise(answered) if new != old]
        assert answered[0] == 1 and changes == [2, 1]
    steps = ["seen", "rendered", "pulled", "started", "ready", "switched"]
    assert list(status["timeline"]) == steps
    assert sorted(status["timeline"].values()) == list(status["timeline"].values())
    assert status["received"] > 0


def test_the_former_server_ends(preview: Running) -> None:
    preview.project.bump(2)
    preview.until(version=2, health="Healthy")
    wait_until(lambda: len(preview.servers()) < 2 and preview.attempts() < 2)
    (kept,) = preview.state.glob("attempts/*/model/classifier")
    assert preview.versions() == {2} and (kept / "golden.npz").exists()


def test_a_commit_that_changes_nothing_here_starts_nothing(preview: Running) -> None:
    before = preview.servers()
    (preview.project.folder / "README.md").write_text("Hello\n")
    commit = preview.project.merge("Write a README")
    preview.until(commit=commit, sync="Synced", health="Healthy", version=1)
    assert preview.servers() == before


# -- releases that cannot be served ----------------------------------------------------------------


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A preview that lives through all faults, while somebody asks it all the time."""
    project = make_project(tmp_path_factory.mktemp("faults"))
    commit = project.bump(1)
    running = start(project, "--watch")
    try:
        running.until(commit=commit, version=1, sync="Synced", health="Healthy")
        asker = Asker(running.ports)
        yield running
        asker.stop()
        assert set(asker.answered) == {1} and asker.errors == []
    finally:
        end(running)


@pytest.mark.parametrize(
    ("fault", "sentence", "state"),
    [
        pytest.param(*fault, state, id=name)
        for faults, state in (
            (DEGRADED, {"sync": "Synced", "health": "Degraded"}),
            (UNKNOWN, {"sync": "Unknown", "health": "Healthy"}),
        )
        for name, fault in faults.items()
    ],
)
def test_fault_is_told_and_not_served_and_a_revert_heals(
    patient: Running, fault: Fault, sentence: str, state: dict[str, str]
) -> None:
    fault(patient.project)
    commit = patient.project.merge("Cause a fault")
    try:
        status = patient.until(commit=commit, version=1, **state)
        assert re.search(sentence, status["message"]) and "\n" not in status["message"]
        assert patient.versions() == {1}
    finally:
        commit = patient.project.revert()
    patient.until(commit=commit, version=1, sync="Synced", health="Healthy")


@pytest.mark.parametrize("fault", HANGING.values(), ids=HANGING)
def test_neither_a_revert_nor_a_dead_server_waits_for_what_hangs(
    preview: Running, fault: Fault
) -> None:
    (server,) = preview.servers()
    fault(preview.project)
    commit = preview.project.merge("Cause something to hang")
    preview.until(commit=commit, sync="Synced", health="Progressing", version=1)
    os.kill(server, signal.SIGKILL)
    status = preview.until(health="Degraded", version=None)
    assert "Triton died by signal SIGKILL" in status["message"]
    preview.until(version=1)
    assert preview.versions() == {1}
    commit = preview.project.revert()
    preview.until(commit=commit, sync="Synced", health="Healthy", version=1)
    assert len(preview.servers()) == 1 and preview.attempts() == 1


# -- the process -----------------------------------------------------------------------------------


def test_server_that_dies_is_started_again(preview: Running) -> None:
    (server,) = preview.servers()
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: preview.servers() not in ([], [server]))
    preview.until(health="Healthy", version=1)
    assert preview.versions() == {1}


def test_new_release_replaces_a_server_that_cannot_be_started_again(preview: Running) -> None:
    release = preview.project.released()
    layer(preview.project, release.image.rpartition("@")[2]).unlink()
    shutil.rmtree(preview.state / "attempts")
    (server,) = preview.servers()
    os.kill(server, signal.SIGKILL)
    preview.until(health="Degraded", version=None)
    preview.project.bump(2)
    preview.until(health="Healthy", version=2)
    assert preview.versions() == {2}


def test_git_that_does_not_answer_is_told_and_changes_nothing(preview: Running) -> None:
    before, origin = preview.servers(), preview.project.origin
    away = origin.rename(origin.with_name("away.git"))
    assert "git" in preview.until(sync="Unknown", health="Healthy", version=1)["message"]
    assert preview.versions() == {1}
    away.rename(origin)
    preview.until(sync="Synced", health="Healthy", version=1)
    assert preview.servers() == before


def test_killed_preview_leaves_nothing_and_starts_again(project: TinyProject) -> None:
    ports = lasting_ports()
    with serving(project, *ports) as preview:
        before = preview.ports
        assert read_status(project.folder, "staging")
        preview.process.kill()
        preview.process.communicate()
        assert read_status(project.folder, "staging") is None
        wait_until(lambda: not preview.servers())
    commit = project.bump(2)
    again = start(project, "--watch", *ports)
    try:
        again.until(commit=commit, version=2, health="Healthy")
        assert again.ports == before and again.versions() == {2}
    finally:
        end(again)


def test_second_preview_of_the_same_environment_is_refused(preview: Running) -> None:
    second = start(preview.project)
    errors = second.process.communicate(timeout=PATIENCE)[1]
    assert (second.process.returncode, errors.strip()) == (
        1,
        "error: a preview of staging runs already: stop it first",
    )
    assert preview.versions() == {1}


def test_who_looks_whether_a_preview_runs_hinders_none_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOOK", 60)
    lock = tmp_path / "lock"
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        looked = threading.Timer(0.2, partial(fcntl.flock, file, fcntl.LOCK_UN))
        looked.start()
        with only_one(lock, "one runs already"):
            assert is_held(lock)
        looked.join()
    assert not is_held(lock)


def test_clean_end(preview: Running) -> None:
    printed, errors = preview.stop()
    assert (preview.process.returncode, errors) == (0, "")
    assert printed.splitlines()[-1] == "stopped"
    assert preview.servers() == []
    assert (preview.status()["version"], preview.status()["health"]) == (None, "Missing")


def test_unknown_environment(project: TinyProject) -> None:
    process = project.delivery("preview", "testing", "--http-port=0", "--grpc-port=0")
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    assert errors.startswith("error: there is no environment 'testing': give ENV=")


def test_without_watching_a_bad_release_ends_the_preview(project: TinyProject) -> None:
    unknown_digest(project)
    project.merge("Release what is not there")
    running = start(project)
    errors = running.process.communicate(timeout=PATIENCE)[1]
    assert running.process.returncode == 1
    assert errors.startswith("error: ") and "does not hold" in errors and errors.count("\n") == 1


# -- what may be on disk, and who may end it -------------------------------------------------------


NEST = "i=0; while [ $i -lt 1500 ]; do mkdir nested && cd -P nested || exit; i=$((i+1)); done"


def test_whatever_a_preview_left_does_not_end_the_next(project: TinyProject) -> None:
    state = project.folder / ".local/preview/staging"
    deep = state / "attempts/1/model"
    deep.mkdir(parents=True)
    for name in ("status.json", "history.jsonl", "repository.git", "manifests", "attempts/2"):
        (state / name).write_bytes(b"")  # half files, and files where folders were
    subprocess.run(["sh", "-c", f"cd '{deep}' && {NEST}"], check=True)
    commit = project.bump(1)
    running = start(project, "--watch")
    try:
        running.until(commit=commit, version=1, sync="Synced", health="Healthy")
        assert running.attempts() == 1
    finally:
        end(running)


def test_state_that_cannot_be_written_ends_nothing(preview: Running) -> None:
    ports = preview.ports
    status = preview.state / "status.json"
    status.unlink()
    status.mkdir()
    (status / "in the way").touch()
    preview.project.bump(2)
    deadline = time.monotonic() + PATIENCE
    with connect("http", ports) as client:
        while client.infer(IMAGE).version != 2:
            assert time.monotonic() < deadline and preview.process.poll() is None
            time.sleep(0.1)
    shutil.rmtree(status)
    preview.until(version=2, health="Healthy")


def test_a_server_whose_model_does_not_answer_is_started_again(preview: Running) -> None:
    (server,) = preview.servers()
    os.kill(preview.stub(), signal.SIGKILL)
    status = preview.until(health="Degraded", version=None)
    assert "Triton does not answer as model 1 should: " in status["message"]
    preview.until(health="Healthy", version=1)
    assert preview.versions() == {1} and server not in preview.servers()


def test_a_server_that_cannot_be_pulled_again_is_started_again(preview: Running) -> None:
    release = preview.project.released()
    layer(preview.project, release.image.rpartition("@")[2]).unlink()
    os.kill(preview.servers()[0], signal.SIGKILL)
    preview.until(health="Degraded", version=None)
    preview.until(health="Healthy", version=1)
    assert preview.versions() == {1}


def test_files_that_were_damaged_are_pulled_again(preview: Running) -> None:
    shutil.rmtree(preview.state / "attempts")
    os.kill(preview.servers()[0], signal.SIGKILL)
    preview.until(health="Degraded", version=None)
    preview.until(health="Healthy", version=1)
    assert preview.versions() == {1}


def test_objects_that_are_lost_are_fetched_again(preview: Running) -> None:
    commit = preview.project.bump(2)
    preview.until(commit=commit, version=2, health="Healthy")
    for path in (preview.state / "objects").glob("*/*"):
        if path.name != "alternates":
            path.unlink()
    git = preview.project.git
    git("reset", "--quiet", "--hard", "HEAD~1")
    git("update-ref", "-d", "refs/remotes/origin/main")
    git("reflog", "expire", "--expire=now", "--all")
    git("gc", "--quiet", "--prune=now")
    wait_until(lambda: len(preview.servers()) < 2 and preview.attempts() < 2)
    shutil.rmtree(preview.state / "attempts")
    os.kill(preview.servers()[0], signal.SIGKILL)
    preview.until(health="Degraded", version=None)
    preview.until(health="Healthy", version=2)
    assert preview.versions() == {2}


def test_a_preparation_that_is_killed_is_told_and_tried_again(project: TinyProject) -> None:
    broken_registry(None)(project)  # gives time to kill it
    commit = project.merge("Release from a registry that hangs")
    running = start(project, "--watch")
    try:
        running.until(commit=commit, sync="Synced", health="Progressing")
        os.kill(running.worker(), signal.SIGKILL)
        status = running.until_recorded(sync="Synced", health="Degraded")  # and at once anew
        assert status["message"] == "the process that renders and pulls died by signal SIGKILL"
        running.until(sync="Synced", health="Progressing")
    finally:
        end(running)


@pytest.mark.parametrize("kind", [resource.RLIMIT_AS, resource.RLIMIT_NOFILE], ids=["as", "files"])
def test_a_preview_that_can_start_nothing_goes_on_when_it_can_again(
    preview: Running, kind: int
) -> None:
    usual = resource.prlimit(
        preview.process.pid, kind, (12, resource.prlimit(preview.process.pid, kind)[1])
    )
    commit = preview.project.bump(2)
    os.kill(preview.servers()[0], signal.SIGKILL)
    preview.until(version=None, health="Degraded")
    time.sleep(3)  # some tries
    assert preview.process.poll() is None
    resource.prlimit(preview.process.pid, kind, usual)
    preview.until(commit=commit, version=2, sync="Synced", health="Healthy")
    assert preview.versions() == {2}


def test_a_reader_who_stops_to_read_holds_up_nothing(project: TinyProject) -> None:
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    os.write(writer, bytes(size))  # there is no room for a single line
    commit = project.bump(1)
    arguments = ("preview", "staging", "--http-port=0", "--grpc-port=0", "--watch")
    running = Running(project, project.delivery(*arguments, printed=writer))
    try:
        running.until(commit=commit, version=1, health="Healthy")
        commit = project.bump(2)
        running.until(commit=commit, version=2, health="Healthy")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(PATIENCE) == 0
    finally:
        end(running)
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGHUP])
def test_other_signals_end_it_in_order(preview: Running, sign: signal.Signals) -> None:
    preview.process.send_signal(sign)
    printed, errors = preview.process.communicate(timeout=PATIENCE)
    assert (preview.process.returncode, errors) == (0, "")
    assert printed.splitlines()[-1] == "stopped"
    assert preview.servers() == []


@pytest.mark.parametrize("sign", ENDS)
def test_the_end_is_heeded_between_two_steps(sign: signal.Signals) -> None:
    """Within one, the server that is replaced would be in nobody's hands any more."""

    class Steps(Preview):
        whole = 0

        def __init__(self) -> None:
            self.trouble = ""

        def step(self) -> None:
            for _ in range(2):
                signal.raise_signal(sign)
            self.whole += 1

    before = {each: signal.getsignal(each) for each in ENDS}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        heed_signals()
        steps = Steps()
        with pytest.raises(KeyboardInterrupt):
            steps.follow(watch=False)
        assert steps.whole == 1
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_settings_of_the_network_change_nothing(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    commit = project.bump(1)
    running = start(project, "--watch")
    try:
        running.until(commit=commit, version=1, health="Healthy")
        assert running.versions() == {1}
    finally:
        end(running)


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("maximum recursion depth exceeded"),
        MemoryError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        OSError(28, "No space left on device"),
        KeyError("kind"),
        AssertionError(),
        StopIteration(),
        EOFError("two\nlines"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("step", ["begin", "take_up", "settle", "start"])
def test_no_kind_of_failure_ends_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Preview, step, fail)
    branch = SimpleNamespace(commit="a" * 40, error="", doubted=False, mirror=None)
    proxy = SimpleNamespace(ports=Ports(8000, 8001), switch=lambda ports: None)
    preview = Preview("staging", cast(Any, branch), tmp_path, cast(Any, proxy), Voice())
    preview.watch = True
    prepared = SimpleNamespace(poll=lambda: Rendered(None), abandon=lambda: None)
    if step == "start":
        prepared.poll = lambda: Pulled(1)
    monkeypatch.setattr("delivery.commands.preview.Preparation", lambda wanted: prepared)
    preview.step()
    preview.step()
    assert preview.trouble.isprintable() and preview.trouble
    assert preview.preparing is None and preview.starting is None
    assert json.loads((tmp_path / "status.json").read_text())["message"] == preview.trouble
