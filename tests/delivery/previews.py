"""A preview in a process of its own, what it says, and a client that asks it all the time."""

import json
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports, choose
from tiny import SHAPE, processes
from tiny_project import TinyProject
from waiting import PATIENCE

IMAGE = np.zeros((1, *SHAPE), np.uint8)


@dataclass
class Running:
    """A preview in a process of its own, and what it says."""

    project: TinyProject
    process: subprocess.Popen[str]
    options: list[str] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.project.folder / ".local" / "preview" / "staging"

    def status(self) -> dict[str, Any]:
        path = self.state / "status.json"
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, ValueError):  # not yet, or what was left before
            return {}

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Wait until the status has these values; return it."""
        return self.waited_for(self.status, wanted)

    def until_recorded(self, **wanted: Any) -> dict[str, Any]:
        """Wait until the history's last status has these values, if for a moment; return it."""
        return self.waited_for(self.recorded, wanted)

    def recorded(self) -> dict[str, Any]:
        """The history's last status; nothing without one."""
        path = self.state / "history.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1]) if lines else {}

    def waited_for(
        self, look: Callable[[], dict[str, Any]], wanted: dict[str, Any]
    ) -> dict[str, Any]:
        """Look until what is seen has these values; return it."""
        deadline = time.monotonic() + PATIENCE
        while not wanted.items() <= (status := look()).items():
            assert time.monotonic() < deadline, f"{status} never became {wanted}"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        return status

    @property
    def ports(self) -> Ports:
        status = self.status()
        return Ports(
            *(int(status[name].rpartition(":")[2]) for name in ("address", "grpc_address"))
        )

    def versions(self) -> set[int]:
        """Ask over both protocols which version answers."""
        found = set()
        for protocol in PROTOCOLS:
            with connect(protocol, self.ports) as client:
                found.add(client.infer(IMAGE).version)
        return found

    def servers(self) -> list[int]:
        """List the processes of Triton that this preview started and that still run."""
        return processes(f"--model-repository=delivery-{self.process.pid}-")

    def attempts(self) -> int:
        """Count the folders of releases that were taken up."""
        return len(list(self.state.glob("attempts/*")))

    def worker(self) -> int:
        """Return the process that renders and pulls."""
        (server,) = children(self.process.pid, "forkserver")
        (found,) = children(server)
        return found

    def stub(self) -> int:
        """Return the process in which Triton runs the model."""
        (found,) = set(processes(f"delivery-{self.process.pid}-")) - set(self.servers())
        return found

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE)


def children(parent: int, text: str = "") -> list[int]:
    """List the processes that a process started and whose command line holds a text."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [child for child in map(int, listed) if child in processes(text)]


def start(project: TinyProject, *options: str) -> Running:
    ports = (
        [] if any("port" in option for option in options) else ["--http-port=0", "--grpc-port=0"]
    )
    return Running(project, project.delivery("preview", "staging", *ports, *options))


def end(running: Running) -> None:
    running.process.kill()
    running.process.communicate()


def lasting_ports() -> list[str]:
    """Choose ports for a preview that is started again: none that somebody gets in between."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        http, grpc = random.sample(range(10_000, first_given), 2)
        with suppress(DeliveryError):
            choose(Ports(http, grpc))
            return [f"--http-port={http}", f"--grpc-port={grpc}"]


@contextmanager
def serving(project: TinyProject, *ports: str) -> Iterator[Running]:
    """Give a preview of a new project that serves its version 1."""
    commit = project.bump(1)
    running = start(project, "--watch", *ports)
    try:
        running.until(commit=commit, version=1, sync="Synced", health="Healthy")
        yield running
    finally:
        end(running)


@dataclass
class Asker:
    """A client that asks from `start` to `stop`, and what it met."""

    ports: Ports
    answered: list[int] = field(default_factory=list)  # the version of each answer
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()

    def ask(self) -> None:
        while not self.end.wait(0.02):
            try:
                with connect("http", self.ports) as client:
                    self.answered.append(client.infer(IMAGE).version)
            except DeliveryError as error:
                self.errors.append(str(error))

    def stop(self) -> None:
        self.end.set()
        self.thread.join()
