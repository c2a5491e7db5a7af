"""Version bumps and rollbacks under constant load: one command, one table.

    make bench BENCHMARKS=version_bumps

It runs with the Python of a generated project and TRITON_VENV set to its Triton environment. The
manifests and the delivery are the project's own, the models are tiny, so that what is measured is
the way from merge to answer. The same load on a server that is stopped and started again is the
comparison. Exits with 1 when a request failed or an answer came from a version that it must not
come from.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "<<cookiecutter.project>>" / "src"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "delivery"))

import numpy as np
from tqdm import tqdm

import results
from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports, ready_path, start
from tiny import SHAPE, write_repository
from tiny_project import TinyProject, make_project

CLIENTS = 8  # of each protocol
PAUSE = 0.04  # seconds between two requests of a client: constant load, not as much as possible
SETTLE = 1.0  # seconds of load before and after each change
PATIENCE = 60.0  # seconds until a change must be served
RESTARTS = 2
IMAGES = np.random.default_rng(0).integers(0, 256, (1, *SHAPE), dtype=np.uint8)
STEPS = ["seen", "rendered", "pulled", "started", "ready", "switched"]


@dataclass(frozen=True)
class Call:
    """One request: when it was sent and answered (seconds since 1970), by which version, or not."""

    sent: float
    answered: float
    version: int | None


@dataclass
class Load:
    """Clients that call all the time, and what they met."""

    ports: Ports
    calls: list[Call] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def client(self, protocol: str) -> None:
        """Call until the end; connect again after a failure."""
        while not self.stop.is_set():
            with connect(protocol, self.ports) as client:
                while not self.stop.wait(PAUSE):
                    sent = time.time()
                    try:
                        version = client.infer(IMAGES).version
                    except DeliveryError as error:
                        self.calls.append(Call(sent, time.time(), None))
                        self.errors.append(str(error))
                        break
                    self.calls.append(Call(sent, time.time(), version))

    def first(self, version: int, after: float) -> float | None:
        """Return when a version was first heard after a moment."""
        heard = [call.answered for call in self.calls if call.version == version]
        return min((moment for moment in heard if moment > after), default=None)

    @property
    def failed(self) -> int:
        """Count the requests without an answer."""
        return sum(call.version is None for call in self.calls)

    @property
    def longest_gap(self) -> float:
        """Return the longest time in seconds in which no client got an answer."""
        moments = sorted(call.answered for call in self.calls if call.version is not None)
        return float(np.diff(moments).max())

    @property
    def slowest(self) -> float:
        """Return the longest time in seconds that an answer took."""
        return max(call.answered - call.sent for call in self.calls if call.version is not None)


@contextmanager
def constant_load(ports: Ports) -> Iterator[Load]:
    """Let all clients call an address."""
    load = Load(ports)
    threads = [
        threading.Thread(target=load.client, args=[protocol])
        for protocol in PROTOCOLS
        for _ in range(CLIENTS)
    ]
    for thread in threads:
        thread.start()
    try:
        time.sleep(SETTLE)
        yield load
        time.sleep(SETTLE)
    finally:
        load.stop.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class Change:
    """One merge: from the push to the first answer of the version that it asks for."""

    version: int
    merged: float
    answered: float
    timeline: dict[str, float]

    def steps(self) -> dict[str, float]:
        """Return the seconds of each step."""
        moments = [self.merged, *(self.timeline[name] for name in STEPS), self.answered]
        names = [*STEPS, "first answer"]
        return dict(zip(names, np.diff(moments).tolist(), strict=True))

    @property
    def total(self) -> float:
        """Seconds from the merge to the first answer."""
        return self.answered - self.merged

    @property
    def loading(self) -> float:
        """Seconds of the server's own start and the model's load."""
        return self.timeline["ready"] - self.timeline["started"]


def status(project: TinyProject) -> dict[str, Any]:
    """Read what the preview says."""
    path = project.folder / ".local" / "preview" / "staging" / "status.json"
    return json.loads(path.read_text()) if path.exists() else {}


def until(condition: Callable[[], Any]) -> Any:
    """Wait for something; return it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            sys.exit("error: a change was not served in time")
        time.sleep(0.01)
    return found


def healthy(project: TinyProject, commit: str) -> dict[str, Any] | None:
    """Return the status once a commit is served."""
    found = status(project)
    served = found.get("commit") == commit and found["health"] == "Healthy"
    return found if served and found["sync"] == "Synced" else None


def serve_change(
    project: TinyProject, load: Load, merge: Callable[[], str], version: int
) -> Change:
    """Merge a change; return how long each step took until its version answered."""
    begun = time.time()
    commit = merge()
    merged = time.time()
    served = until(lambda: healthy(project, commit))
    answered = until(lambda: load.first(version, begun))
    time.sleep(SETTLE)
    return Change(version, merged, answered, served["timeline"])


def play(project: TinyProject, load: Load, bumps: int, rollbacks: int) -> list[Change]:
    """Merge all bumps, with rollbacks spread over them."""
    releases = {version: project.build(version) for version in range(2, bumps + 2)}
    every = max(1, bumps // rollbacks) if rollbacks else bumps + 1
    changes: list[Change] = []
    serving = 1
    for number, (version, release) in enumerate(tqdm(releases.items(), unit="bump"), 1):
        changes.append(serve_change(project, load, partial(project.release, release), version))
        if number % every == 0 and number // every <= rollbacks:
            changes.append(serve_change(project, load, project.revert, serving))
        else:
            serving = version
    return changes


def unreleased(load: Load, changes: list[Change]) -> int:
    """Count answers of a version that was not merged yet, or that was replaced before the call."""
    allowed: list[tuple[int, float, float]] = []
    following = [change.timeline["switched"] for change in changes] + [float("inf")]
    for version, begin, end in zip(
        [1, *(change.version for change in changes)],
        [0.0, *(change.merged for change in changes)],
        following,
        strict=True,
    ):
        allowed.append((version, begin, end))
    return sum(
        not any(
            call.version == version and call.answered >= begin and call.sent <= end
            for version, begin, end in allowed
        )
        for call in load.calls
        if call.version is not None
    )


def measure_preview(folder: Path, bumps: int, rollbacks: int) -> tuple[Load, list[Change]]:
    """Bump and roll back behind the stable address of a preview."""
    project = make_project(folder)
    commit = project.bump(1)
    preview = project.delivery(
        "preview",
        "staging",
        "--watch",
        "--http-port=0",
        "--grpc-port=0",
        printed=subprocess.DEVNULL,
    )
    try:
        found = until(lambda: healthy(project, commit))
        addresses = (found["address"], found["grpc_address"])
        ports = Ports(*(int(address.rpartition(":")[2]) for address in addresses))
        with constant_load(ports) as load:
            changes = play(project, load, bumps, rollbacks)
        return load, changes
    finally:
        preview.terminate()
        preview.wait()


def measure_restarts(folder: Path) -> tuple[Load, float]:
    """Stop a server and start the next version on its ports; return seconds of one restart too."""
    repositories = [
        write_repository(folder / str(version), version, seed=version)
        for version in range(1, RESTARTS + 2)
    ]
    server = start(repositories[0], folder / "1.log")
    server.wait(ready_path(1), PATIENCE)
    begun = 0.0
    try:
        with constant_load(server.ports) as load:
            begun = time.monotonic()
            for version, repository in enumerate(tqdm(repositories[1:], unit="restart"), 2):
                server.stop(grace=PATIENCE)
                server = start(repository, folder / f"{version}.log", server.ports)
                server.wait(ready_path(version), PATIENCE)
            seconds = (time.monotonic() - begun) / RESTARTS
    finally:
        server.kill()
    return load, seconds


def table(load: Load, changes: list[Change], plain: Load, seconds: float) -> str:
    """Write the figures as Markdown."""
    totals = [change.total for change in changes]
    rows = [
        ("changes", f"{len(changes)}", f"{RESTARTS}"),
        ("requests", f"{len(load.calls)}", f"{len(plain.calls)}"),
        ("failed", f"{load.failed}", f"{plain.failed}"),
        ("answers of a wrong version", f"{unreleased(load, changes)}", ""),
        ("longest time without an answer, ms", *milliseconds(load, plain, "longest_gap")),
        ("slowest answer, ms", *milliseconds(load, plain, "slowest")),
        ("one change, s (median)", f"{np.median(totals):.2f}", f"{seconds:.2f}"),
    ]
    steps = {name: [each.steps()[name] for each in changes] for name in changes[0].steps()}
    steps |= {"all": totals}
    steps |= {"all but start and load": [each.total - each.loading for each in changes]}
    spent = [(name, f"{np.median(each):.3f}", f"{max(each):.3f}") for name, each in steps.items()]
    return (
        results.table(("", "behind the stable address", "stop and start"), rows)
        + "\n"
        + results.table(("from merge to first answer, s", "median", "worst"), spent)
    )


def milliseconds(load: Load, plain: Load, figure: str) -> list[str]:
    """Write a figure in seconds of both loads."""
    return [f"{1000 * getattr(each, figure):.0f}" for each in (load, plain)]


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description="version bumps under constant load")
    parser.add_argument("--bumps", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bumps, rollbacks = arguments.bumps, arguments.rollbacks
        load, changes = measure_preview(Path(folder, "preview"), bumps, rollbacks)
        plain, seconds = measure_restarts(Path(folder, "restarts"))
    clients = f"{CLIENTS} HTTP and {CLIENTS} gRPC clients, {1 / PAUSE:.0f} requests a second each."
    body = f"{table(load, changes, plain, seconds)}\n{clients}\n"
    figures = {"requests": len(load.calls), "failed": load.failed, "changes": len(changes)}
    results.write("version_bumps", "Version bumps under constant load", body, figures)
    if load.failed or unreleased(load, changes):
        sys.exit(f"error: {load.failed} requests failed: {sorted(set(load.errors))[:3]}")


if __name__ == "__main__":
    main()
