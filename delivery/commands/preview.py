"""`make preview`: a stand-in for Argo CD and the kubelet, for one environment on one machine.

It follows the branch that is deployed, renders the environment, starts the server that the
manifests describe beside the one that serves, and moves the traffic once the new one is ready. A
release that never gets ready changes nothing for callers. It does not play the Rollout's steps:
on a cluster those, and everything else here, are the work of Argo CD, Argo Rollouts and Kubernetes.
"""

import argparse
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, GitError, Repository
from delivery.manifests.deployment import Deployment, deploy
from delivery.manifests.preview_status import PREVIEWS, PreviewStatus
from delivery.manifests.rendering import render
from delivery.manifests.server_pod import ServerPod, read_server_pod
from delivery.manifests.snapshot import snapshot
from delivery.oci.registry import pull
from delivery.proposals.releases import check_environment, release_path
from delivery.triton.backend import Backend
from delivery.triton.proxy import Proxy
from delivery.triton.server import HOST
from workspace.errors import UserError
from workspace.files import only_one

LOGS = Path(".local/logs")
INTERVAL = 0.5  # seconds between two looks at the branch
NEVER = float("inf")
# Seconds before a failed release is tried again: at first, then twice as many each time, at most.
SHORTEST_PAUSE, LONGEST_PAUSE = 10.0, 300.0


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
    state = PREVIEWS / arguments.environment
    busy = f"a preview of {arguments.environment} runs already: stop it first"
    try:
        with (
            only_one(state / "lock", busy),
            Proxy(arguments.http_port, arguments.grpc_port) as proxy,
            Preview(arguments.environment, mirror(project, state), state, proxy) as preview,
        ):
            preview.follow(arguments.watch)
    except KeyboardInterrupt:
        print("stopped")


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


class Preview:
    """One environment, kept as Git says until the end of its `with` block."""

    def __init__(self, environment: str, mirror: Repository, state: Path, proxy: Proxy) -> None:
        """Prepare; models that a killed preview left are removed."""
        self.environment = environment
        self.mirror = mirror
        self.state = state
        self.proxy = proxy
        self.watch = False
        self.live: Deployment | None = None  # what gets the requests
        self.retiring = ThreadPoolExecutor(thread_name_prefix="retire")
        self.looked = 0.0  # when the branch was last looked at
        self.silent = False  # Git did not answer since the last sync
        self.pause, self.retry_at = SHORTEST_PAUSE, NEVER
        addresses = (f"{HOST}:{proxy.ports.http}", f"{HOST}:{proxy.ports.grpc}")
        self.status = PreviewStatus(environment, *addresses)
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
        self.retire(self.live, self.proxy.switch(None))
        self.retiring.shutdown()

    # -- the loop ----------------------------------------------------------------------------------

    def follow(self, watch: bool) -> None:
        """Sync, and again whenever the branch moves; without `watch` only once. It never returns.

        Raises UserError, without `watch`, when the sync failed.
        """
        self.watch = watch
        check_environment(self.mirror, self.mirror.fetch(), self.environment)
        while True:
            try:
                self.look()
            except SupersededError:
                continue
            except (UserError, OSError) as error:
                self.fail(error)
                if not watch and self.live is None:
                    raise
            time.sleep(INTERVAL)

    def look(self) -> None:
        """Do the first thing that has to be done now, if anything."""
        tip = self.tip() if self.watch or not self.status.commit else None
        if tip and (tip != self.status.commit or self.silent):
            self.pause = SHORTEST_PAUSE
            self.sync()
        elif self.live and not self.live.alive():
            self.revive(self.live)
        elif time.monotonic() > self.retry_at:
            self.sync()

    def tip(self) -> str | None:
        """Return the branch's commit on the remote; None, with a report, when Git fails."""
        self.looked = time.monotonic()
        try:
            return self.mirror.remote_branch(BRANCH)
        except GitError as error:
            self.silent = True
            self.report(sync="Unknown", message=str(error))
            return None

    def stop_if_superseded(self) -> None:
        """Raise SupersededError when the branch moved on, so that a revert need not wait."""
        is_time = self.watch and time.monotonic() - self.looked > INTERVAL
        if is_time and self.tip() not in (None, self.status.commit):
            raise SupersededError("a newer commit is there")

    def fail(self, error: UserError | OSError) -> None:
        """Report a failure; what serves goes on, and the same commit is tried again later."""
        if self.status.sync == "Synced":  # the manifests could be read, but not be served
            self.report(health="Degraded", message=str(error))
        else:
            self.report(sync="Unknown", message=str(error))
        self.status.record(self.state)
        self.retry_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    # -- what has to be done -----------------------------------------------------------------------

    def sync(self) -> None:
        """Serve what the newest commit says."""
        status, self.retry_at = self.status, NEVER
        status.timeline, status.received, status.sync = {"seen": time.time()}, 0, "OutOfSync"
        commit = self.mirror.fetch()
        self.silent = False
        if self.mirror.read(commit, release_path(self.environment)) is None and not self.live:
            nothing = "nothing is released yet"
            return self.report(commit=commit, sync="Synced", health="Missing", message=nothing)
        self.report(commit=commit, sync="OutOfSync", message=f"commit {commit[:12]}")
        wanted = self.read_pod(commit)
        if self.live and self.live.pod == wanted and self.live.alive():
            return self.report(sync="Synced", health="Healthy", message=serves(wanted))
        starting = f"starting model {wanted.version}"
        self.report(sync="Synced", health="Progressing", message=starting)
        self.replace(self.launch(wanted))

    def revive(self, dead: Deployment) -> None:
        """Start again what ended by itself, as the kubelet does."""
        message = f"Triton ended: {dead.server.reason()}; starting it again"
        self.report(health="Degraded", version=None, message=message)
        self.replace(self.launch(dead.pod))

    def read_pod(self, commit: str) -> ServerPod:
        """Return what the environment's manifests ask for at a commit."""
        files = snapshot(self.mirror, commit, self.state / "manifests")
        wanted = read_server_pod(render((files / release_path(self.environment)).parent))
        self.note("rendered")
        return wanted

    def launch(self, wanted: ServerPod) -> Deployment:
        """Pull a model, start a server on it and wait until it is ready; or leave nothing."""
        folder = self.state / "models" / f"{wanted.version}-{time.monotonic_ns()}"
        log = LOGS / f"preview-{self.environment}-{wanted.version}.log"
        try:
            self.status.received = pull(wanted.image, folder)
            self.note("pulled")
            return deploy(wanted, folder, log, self.note, self.stop_if_superseded)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def replace(self, deployment: Deployment) -> None:
        """Send the traffic to a ready server, then end the one before."""
        try:
            backend = self.proxy.switch(deployment.server.ports)
        except BaseException:
            deployment.remove()
            raise
        self.note("switched")
        before, self.live = self.live, deployment
        pod = deployment.pod
        self.report(version=pod.version, health="Healthy", message=serves(pod))
        self.status.record(self.state)
        self.retire(before, backend)

    def retire(self, deployment: Deployment | None, backend: Backend | None) -> None:
        """Let a server that gets no more requests end, in a thread of its own."""
        if deployment and backend:
            drain = partial(self.proxy.drain, backend)
            self.retiring.submit(deployment.retire, drain)

    # -- what is told ------------------------------------------------------------------------------

    def note(self, step: str) -> None:
        """Note when a step was done."""
        self.status.timeline[step] = time.time()

    def report(self, **changes: Any) -> None:
        """Change the status, print it if it is another one, and write it where others read it."""
        status, before = self.status, asdict(self.status)
        for name, value in changes.items():
            setattr(status, name, value)
        if asdict(status) != before or not changes:
            line = f"{status.sync}, {status.health}: {status.message}"
            print(f"{time.strftime('%H:%M:%S')} {self.environment} {line}", flush=True)
        status.write(self.state)


def serves(pod: ServerPod) -> str:
    """Say what is served."""
    return f"model {pod.version} serves"
