"""A release prepared in a process of its own: whatever ends that ends nothing else."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests import preparation
from delivery.manifests.preparation import Preparation, Pulled, Rendered, Wanted
from faults import broken_registry
from tiny_project import TinyProject, make_project
from waiting import PATIENCE, wait_until


class Spoiled(Repository):
    """A repository in which reading does something else."""

    def read(self, commit: str, path: str, largest: int = 0) -> bytes | None:
        raise KINDS[commit]()


KINDS: dict[str, Callable[[], BaseException]] = {
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MemoryError": MemoryError,
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "No space left": lambda: OSError(28, "No space left on device"),
    "KeyError": lambda: KeyError("kind"),
    "YAMLError": lambda: yaml.YAMLError("two\nlines\x1b[31m"),
    "died by signal SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL) or SystemError(),
    "died by signal SIGSEGV": lambda: os.kill(os.getpid(), signal.SIGSEGV) or SystemError(),
    "ended with 3": lambda: os._exit(3),
    "ended with 1": lambda: SystemExit(1),
}


def news(running: Preparation) -> Any:
    """Wait for what is new."""
    deadline = time.monotonic() + PATIENCE
    while (found := running.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_end_is_one_sentence(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "attempt"
    running = Preparation(Wanted(Spoiled(tmp_path), kind, "staging", folder, None))
    with pytest.raises(DeliveryError, match=kind) as error:
        news(running)
    assert str(error.value).isprintable()
    running.abandon()
    assert not folder.exists()


def prepare(project: TinyProject) -> Preparation:
    commit = project.git("rev-parse", "HEAD")
    folder = project.folder.parent / "attempt"
    return Preparation(Wanted(Repository(project.folder), commit, "staging", folder, None))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    project = make_project(tmp_path)
    monkeypatch.chdir(project.folder)
    return project


def test_a_release_is_rendered_and_pulled(project: TinyProject) -> None:
    project.bump(1)
    running = prepare(project)
    rendered, pulled = news(running), news(running)
    running.end()
    assert isinstance(rendered, Rendered) and rendered.pod and rendered.pod.version == 1
    assert isinstance(pulled, Pulled) and pulled.received > 0
    assert (running.folder / "model/classifier/golden.npz").exists()
    running.abandon()  # it has ended already, so nothing is removed: a server may run on it


def test_what_takes_too_long_is_ended_with_all_that_it_started(project: TinyProject) -> None:
    broken_registry(None)(project)
    project.merge("Release from a registry that hangs")
    running = prepare(project)
    assert isinstance(news(running), Rendered)
    wait_until(lambda: len(group(running)) > 1)  # skopeo runs
    running.ends -= preparation.DEADLINE  # as if it had begun so long ago
    with pytest.raises(DeliveryError, match="to render and to pull took more than 1800 s"):
        news(running)
    for process in group(running):
        os.kill(process, signal.SIGSTOP)  # so that none ends because another has
    running.abandon()
    wait_until(lambda: not group(running))
    assert not running.folder.exists()


def group(running: Preparation) -> list[int]:
    """List the processes of a preparation that run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(number) == running.process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return found
