"""`make preview`: a stand-in for Argo CD and the kubelet, for one environment on one machine.

It follows the branch that is deployed, renders the environment, starts the server that the
manifests describe beside the one that serves, and moves the traffic once the new one is ready. A
release that never gets ready changes nothing for callers. It does not play the Rollout's steps:
on a cluster those, and everything else here, are the work of Argo CD, Argo Rollouts and Kubernetes.
"""

import argparse
import fcntl
import json
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.manifests.rendering import render
from delivery.manifests.server_pod import Workload, workload
from delivery.manifests.snapshot import snapshot
from delivery.oci.registry import pull
from delivery.proposals.git import BRANCH, REMOTE, GitError, Repository
from delivery.proposals.releases import check_environment, release_path
from delivery.triton import server as triton
from delivery.triton.proxy import Backend, Proxy
from delivery.triton.server import HOST, Server, check_version
from workspace.errors import UserError

STATE = Path(".local/preview")
LOGS = Path(".local/logs")
INTERVAL = 0.5  # seconds between two looks at the branch
NEVER = float("inf")
BACK_OFF = (10.0, 300.0)  # seconds before a failed release is tried again: first, at most


class SupersededError(DeliveryError):
    """A newer commit arrived while a server was starting."""


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `preview`."""
    parser = subparsers.add_parser("preview", help="play Argo CD for one environment, here")
    parser.add_argument("environment")
    parser.add_argument("--watch", action="store_true", help="follow new commits")
    parser.add_argument("--http-port", type=int, default=8000, help="0: any free port")
    parser.add_argument("--grpc-port", type=int, default=8001, help="0: any free port")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Serve an environment until Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    project = Repository(Path.cwd())
    check_environment(project, project.head(), arguments.environment)
    state = STATE / arguments.environment
    try:
        with (
            locked(state),
            Proxy(arguments.http_port, arguments.grpc_port) as proxy,
            Preview(arguments.environment, mirror(project, state), state, proxy) as preview,
        ):
            preview.follow(arguments.watch)
    except KeyboardInterrupt:
        print("stopped")


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold an environment's state folder; the lock goes with the process, however it ends."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DeliveryError(f"a preview of {state.name} runs already: stop it first") from None
        yield


def mirror(project: Repository, state: Path) -> Repository:
    """Make an empty repository that fetches from the project's remote.

    The user's own repository stays untouched, and nothing that a killed preview left in the way
    of Git survives.
    """
    url = project.ask("remote", "get-url", REMOTE)
    local = project.folder / url
    folder = (state / "repository.git").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made = Repository(folder)
    made.run("init", "--quiet", "--bare")
    made.run("remote", "add", REMOTE, str(local) if local.exists() else url)
    return made


@dataclass
class Status:
    """What the preview knows, in Argo CD's words.

    Attributes:
        commit: the newest commit that was looked at.
        version: the model version that answers.
        sync: Synced, OutOfSync, or Unknown when the manifests cannot be read.
        health: Healthy, Progressing, Degraded, or Missing before the first release.
        message: the reason, in a sentence.
        address: the stable address of HTTP, host and port.
        grpc_address: the stable address of gRPC.
        received: bytes that the last release cost to pull.
        timeline: when each step of the last release was done, in seconds since 1970.
    """

    environment: str
    address: str
    grpc_address: str
    commit: str = ""
    version: int | None = None
    sync: str = "Unknown"
    health: str = "Missing"
    message: str = "starting"
    received: int = 0
    timeline: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """A running server and what it was started for."""

    workload: Workload
    folder: Path
    server: Server


class Preview:
    """One environment, kept as Git says until the end of its `with` block."""

    def __init__(self, environment: str, mirror: Repository, state: Path, proxy: Proxy) -> None:
        """Prepare; models that a killed preview left are removed."""
        self.environment = environment
        self.mirror = mirror
        self.state = state
        self.proxy = proxy
        self.watch = False
        self.live: Deployment | None = None
        self.retiring: list[threading.Thread] = []
        self.looked = 0.0  # when the branch was last looked at
        self.pause, self.retry_at = BACK_OFF[0], NEVER
        addresses = (f"{HOST}:{proxy.ports.http}", f"{HOST}:{proxy.ports.grpc}")
        self.status = Status(environment, *addresses)
        shutil.rmtree(state / "models", ignore_errors=True)

    def __enter__(self) -> "Preview":
        """Tell the addresses."""
        print(f"{self.environment}: http {self.status.address}, grpc {self.status.grpc_address}")
        self.report()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, and wait for those that are about to end."""
        gone = {"version": None, "address": "", "grpc_address": ""}
        self.report(health="Missing", message="the preview was stopped", **gone)
        backend = self.proxy.switch(None)
        if self.live and backend:
            self.retire(self.live, backend)
        for thread in self.retiring:
            thread.join()

    def follow(self, watch: bool) -> None:
        """Sync, and again whenever the branch moves; without `watch` only once. It never returns.

        Raises:
            DeliveryError: without `watch`, when the sync failed.
        """
        self.watch = watch
        check_environment(self.mirror, self.mirror.fetch(), self.environment)
        while True:
            try:
                self.look()
            except SupersededError:
                continue
            except UserError as error:
                self.fail(error)
                if not watch and self.live is None:
                    raise
            time.sleep(INTERVAL)

    def look(self) -> None:
        """Do what has to be done now, if anything."""
        if self.live and not self.live.server.alive():
            self.revive(self.live)
        moved = self.moved() if self.watch or not self.status.commit else False
        if moved:
            self.pause = BACK_OFF[0]
        if moved or time.monotonic() > self.retry_at:
            self.sync()

    def moved(self) -> bool:
        """Tell whether the branch has another commit than the one that was looked at last."""
        self.looked = time.monotonic()
        try:
            tip = self.mirror.remote_branch(BRANCH)
        except GitError as error:
            self.report(sync="Unknown", message=str(error))
            self.retry_at = 0.0
            return False
        return tip not in (None, self.status.commit)

    def sync(self) -> None:
        """Serve what the newest commit says."""
        self.retry_at = NEVER
        self.status.timeline, self.status.received = {"seen": time.time()}, 0
        self.status.sync = "OutOfSync"
        commit = self.mirror.fetch()
        if self.mirror.read(commit, release_path(self.environment)) is None and not self.live:
            nothing = "nothing is released yet"
            return self.report(commit=commit, sync="Synced", health="Missing", message=nothing)
        self.report(commit=commit, sync="OutOfSync", message=f"commit {commit[:12]}")
        wanted = self.render(commit)
        if self.live and self.live.workload == wanted:
            return self.report(sync="Synced", health="Healthy", message=serves(self.live))
        starting = f"starting model {wanted.version}"
        self.report(sync="Synced", health="Progressing", message=starting)
        self.replace(self.launch(wanted))

    def render(self, commit: str) -> Workload:
        """Return what the environment's manifests ask for at a commit."""
        files = snapshot(self.mirror, commit, self.state / "manifests")
        wanted = workload(render((files / release_path(self.environment)).parent))
        self.step("rendered")
        return wanted

    def launch(self, wanted: Workload) -> Deployment:
        """Pull a model, start a server on it and wait until it is ready; or leave nothing."""
        folder = self.state / "models" / f"{wanted.version}-{time.monotonic_ns()}"
        log = LOGS / f"preview-{self.environment}-{wanted.version}.log"
        server = None
        try:
            self.status.received = pull(wanted.image, folder)
            check_version(folder, wanted.version)
            self.step("pulled")
            server = triton.start(folder, log, arguments=wanted.arguments)
            self.step("started")
            server.wait(wanted.ready_path, wanted.starting, self.stop_if_superseded)
            self.step("ready")
        except BaseException:
            if server:
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Deployment(wanted, folder, server)

    def stop_if_superseded(self) -> None:
        """Raise SupersededError when the branch moved on, so that a revert need not wait."""
        if self.watch and time.monotonic() - self.looked > INTERVAL and self.moved():
            raise SupersededError("a newer commit is there")

    def replace(self, deployment: Deployment) -> None:
        """Send the traffic to a ready server, then end the one before."""
        try:
            backend = self.proxy.switch(deployment.server.ports)
        except UserError:
            deployment.server.kill()
            shutil.rmtree(deployment.folder, ignore_errors=True)
            raise
        self.step("switched")
        before, self.live = self.live, deployment
        version = deployment.workload.version
        self.report(version=version, health="Healthy", message=serves(deployment))
        self.record()
        if before and backend:
            self.retire(before, backend)

    def revive(self, dead: Deployment) -> None:
        """Start again what ended by itself, as the kubelet does."""
        message = f"Triton ended: {dead.server.reason()}; starting it again"
        self.report(health="Degraded", version=None, message=message)
        self.replace(self.launch(dead.workload))

    def retire(self, deployment: Deployment, backend: Backend) -> None:
        """Let a server that gets no more requests finish and end, in a thread of its own."""

        def end() -> None:
            deadline = time.monotonic() + deployment.workload.grace
            self.proxy.drain(backend, deployment.workload.grace)
            deployment.server.stop(max(1.0, deadline - time.monotonic()))
            shutil.rmtree(deployment.folder, ignore_errors=True)

        thread = threading.Thread(target=end, name="retire")
        thread.start()
        self.retiring = [*(each for each in self.retiring if each.is_alive()), thread]

    def fail(self, error: UserError) -> None:
        """Report a failure; what serves goes on, and the same commit is tried again later."""
        if self.status.sync == "Synced":  # the manifests could be read, but not be served
            self.report(health="Degraded", message=str(error))
        else:
            self.report(sync="Unknown", message=str(error))
        self.record()
        self.retry_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, BACK_OFF[1])

    def step(self, name: str) -> None:
        """Note when a step was done."""
        self.status.timeline[name] = time.time()

    def report(self, **changes: Any) -> None:
        """Change the status, print it if it is another one, and write it where others read it."""
        before = asdict(self.status)
        for name, value in changes.items():
            setattr(self.status, name, value)
        status = self.status
        if asdict(status) != before or not changes:
            line = f"{status.sync}, {status.health}: {status.message}"
            print(f"{time.strftime('%H:%M:%S')} {self.environment} {line}", flush=True)
        draft = self.state / "status.json.draft"
        draft.write_text(json.dumps(asdict(status), indent=2) + "\n")
        draft.replace(self.state / "status.json")

    def record(self) -> None:
        """Add the status to the history, a line for each release that was tried."""
        with (self.state / "history.jsonl").open("a") as file:
            file.write(json.dumps(asdict(self.status)) + "\n")


def serves(deployment: Deployment) -> str:
    """Say what is served."""
    return f"model {deployment.workload.version} serves"
