"""`make preview`: a stand-in for Argo CD and the kubelet, for one environment on one machine.

It follows the branch that is deployed, renders the environment, starts the server that the
manifests describe beside the one that serves, and moves the traffic once the new one is ready. A
release that never gets ready changes nothing for callers. It does not play the Rollout's steps:
on a cluster those, and everything else here, are the work of Argo CD, Argo Rollouts and Kubernetes.

A release is *prepared* (rendered and pulled, in a process of its own), *starting*, *serving* and
then *retiring*. What may hang, Git and the registry, is beside the loop, and whatever fails while a
release is taken up ends that attempt alone: it is told, and tried again.
"""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Full, Queue
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import BRANCH, GitError, Repository
from delivery.manifests.deployment import Deployment
from delivery.manifests.preparation import Preparation, Rendered, Wanted
from delivery.manifests.preview_status import HISTORY, LOCK, PREVIEWS, PreviewStatus
from delivery.manifests.server_pod import ServerPod
from delivery.proposals.releases import check_environment, release_path
from delivery.signals import held_signals
from delivery.triton.backend import Backend
from delivery.triton.loopback import HOST
from delivery.triton.proxy import Proxy
from delivery.triton.server import PORTS
from workspace.errors import sentence
from workspace.files import discard, only_one

LOGS = Path(".local/logs")
LOOK = 0.5  # seconds between two looks at the branch
GIT = 120.0  # seconds that a command of Git may take
STEP = 0.05  # seconds between two looks at what goes on here
WAITING = 1000  # lines that nobody reads
LAST = 2.0  # seconds for the last of them
NEVER = float("inf")


ARGUMENTS = {
    "environment": {},
    "--watch": {"action": "store_true", "help": "follow new commits"},
    **{name: PORTS[name] for name in ("--http-port", "--grpc-port")},
}


def run(repository: Repository, environment: str, watch: bool, http: int, grpc: int) -> None:
    """Serve an environment until Ctrl-C."""
    check_environment(repository, repository.head(), environment)
    state = (PREVIEWS / environment).absolute()
    busy = f"a preview of {environment} runs already: stop it first"
    try:
        with only_one(state / LOCK, busy):
            clear(state)
            branch = Branch(repository, state / "objects")
            with (
                Voice() as voice,
                Proxy(http, grpc) as proxy,
                Preview(environment, branch, state, proxy, voice) as preview,
            ):
                preview.follow(watch)
    except KeyboardInterrupt:
        pass


def clear(state: Path) -> None:
    """Remove what a preview before left, in whatever condition, but for its history."""
    for path in state.iterdir():
        if path.name not in (LOCK, HISTORY):
            discard(path)


class Voice:
    """What is told on standard output, by a thread: whoever reads there may stop to read.

    Lines for which there is no room then are left out; the status is in a file as well.
    """

    def __init__(self) -> None:
        """Prepare; nothing is told before the `with` block."""
        self.lines: Queue[str] = Queue(WAITING)
        self.thread = threading.Thread(target=self.speak, name="voice", daemon=True)

    def __enter__(self) -> "Voice":
        """Begin to tell."""
        self.thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Tell what is left, to somebody who reads."""
        if kind is KeyboardInterrupt:
            self.say("stopped")
        self.say("")
        self.thread.join(LAST)

    def say(self, line: str) -> None:
        """Have a line told."""
        with suppress(Full):
            self.lines.put_nowait(line)

    def speak(self) -> None:
        """Tell line by line until an empty one, past Python's buffer, whose lock might be held."""
        with suppress(OSError):
            while line := self.lines.get():
                os.write(1, f"{line}\n".encode(errors="backslashreplace"))


class Branch:
    """The deployed branch of the project's remote, looked at in a thread that Git may hold up.

    Attributes:
        commit: the newest that is here, read through `mirror`.
        error: why Git did not answer when it was asked last; empty if it did.
        doubted: objects are lost, of what was fetched or of the user's repository.
    """

    def __init__(self, project: Repository, objects: Path) -> None:
        """Fetch the branch beside the user's repository, which stays as it is. Raises GitError."""
        self.project, self.objects = project, objects
        self.begin()
        self.error, self.doubted = "", False

    def begin(self) -> None:
        """Fetch the branch into an empty folder. Raises GitError."""
        self.mirror = replace(self.project.beside(self.objects), patience=GIT)
        self.commit = self.mirror.fetch()

    def follow(self) -> None:
        """Look at the branch for ever; after a failure, whose remains may be in Git's way, anew."""
        while True:
            time.sleep(LOOK)
            try:
                if self.error or self.doubted:
                    self.doubted = False
                    self.begin()
                elif self.mirror.remote_branch(BRANCH) != self.commit:
                    self.commit = self.mirror.fetch()
                self.error = ""
            except Exception as error:
                self.error = sentence(error)


@dataclass
class Tries:
    """When something that failed is tried again: after ever longer pauses, in seconds."""

    shortest: float
    longest: float
    at: float = NEVER
    pause: float = 0.0

    def due(self) -> bool:
        """Tell whether it is time."""
        return time.monotonic() > self.at

    def failed(self) -> None:
        """Wait, twice as long as the last time."""
        self.at = time.monotonic() + self.pause
        self.pause = min(max(self.shortest, 2 * self.pause), self.longest)

    def begun(self) -> None:
        """Wait for nothing."""
        self.at = NEVER

    def done(self) -> None:
        """Begin with the shortest pause again."""
        self.at, self.pause = NEVER, 0.0


class Preview:
    """One environment, kept as Git says until the end of its `with` block."""

    def __init__(
        self, environment: str, branch: Branch, state: Path, proxy: Proxy, voice: Voice
    ) -> None:
        """Prepare; nothing is started yet."""
        self.environment = environment
        self.branch = branch
        self.state = state
        self.proxy = proxy
        self.voice = voice
        self.preparing: Preparation | None = None
        self.starting: Deployment | None = None
        self.serving: Deployment | None = None
        self.wanted: ServerPod | None = None  # what is prepared or starting
        self.trouble = ""  # why the newest commit is not served
        self.silent = ""  # why Git does not answer
        self.saved: dict[str, Any] = {}  # the status that is written
        self.releases = Tries(10, 300)  # of the newest commit
        self.revivals = Tries(1, 60)  # of the server that serves
        self.retiring = ThreadPoolExecutor(thread_name_prefix="retire")
        addresses = (f"{HOST}:{proxy.ports.http}", f"{HOST}:{proxy.ports.grpc}")
        self.status = PreviewStatus(environment, *addresses)

    def __enter__(self) -> "Preview":
        """Tell the addresses."""
        addresses = f"http {self.status.address}, grpc {self.status.grpc_address}"
        self.voice.say(f"{self.environment}: {addresses}")
        self.report()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server, and wait for those that are about to end."""
        gone = {"version": None, "address": "", "grpc_address": ""}
        self.report(health="Missing", message="the preview was stopped", **gone)
        self.drop()
        self.retire(self.serving, self.proxy.switch(None))
        self.retiring.shutdown()

    def follow(self, watch: bool) -> None:
        """Serve the branch's commit, and with `watch` every later one. It never returns.

        Raises DeliveryError, without `watch`, when that failed. A signal ends it between two steps.
        """
        if watch:
            threading.Thread(target=self.branch.follow, name="branch", daemon=True).start()
        with held_signals() as held:
            while not held:
                self.step()
                if self.trouble and not watch and self.serving is None:
                    raise DeliveryError(self.trouble)
                time.sleep(STEP)

    def step(self) -> None:
        """Do what has to be done now: for the newest commit, and for the server that serves.

        Where not even a process or a thread can be started, the next step does it.
        """
        try:
            try:
                self.take_up()
            except Exception as error:
                self.branch.doubted |= isinstance(error, GitError)
                self.fail(sentence(error))
            try:
                self.tend()
            except Exception as error:
                self.lose(sentence(error))
        except Exception as error:
            self.report(health="Degraded", message=sentence(error))
        self.save()

    # -- the newest commit -------------------------------------------------------------------------

    def heed_git(self) -> None:
        """Begin with a newer commit, or again with one that failed; tell when Git is silent."""
        if error := self.branch.error:
            if error != self.silent:
                self.report(sync="Unknown", message=error)
            self.silent = error
        elif self.branch.commit != self.status.commit or self.silent:
            self.silent = ""
            self.releases.done()
            self.begin(self.branch.commit)
        elif self.releases.due():
            self.begin(self.branch.commit)

    def begin(self, commit: str) -> None:
        """Prepare what a commit asks for, in place of what is taken up."""
        self.drop()
        self.releases.begun()
        self.status.timeline, self.status.received, self.trouble = {"seen": time.time()}, 0, ""
        self.report(commit=commit, sync="OutOfSync", message=f"commit {commit[:12]}")
        folder = self.state / "attempts" / str(time.monotonic_ns())
        folder.mkdir(parents=True)
        serving = self.serving.pod if self.serving and self.serving.ready else None
        self.preparing = Preparation(
            Wanted(self.branch.mirror, commit, self.environment, folder, serving)
        )

    def take_up(self) -> None:
        """Go on with what is prepared or starting, as far as it is. Raises what it failed with."""
        self.heed_git()
        if self.preparing and (news := self.preparing.poll()):
            if isinstance(news, Rendered):
                self.settle(news.pod)
            else:
                self.status.received = news.received
                self.start(self.preparing)
        elif self.starting and self.starting.check():
            self.note("ready")
            self.replace(self.starting)

    def settle(self, pod: ServerPod | None) -> None:
        """Go on with what the manifests ask for, unless it is there."""
        self.note("rendered")
        self.wanted = pod
        if pod is None and self.serving:
            raise DeliveryError(f"{release_path(self.environment)} is missing: put it back")
        if pod is None:
            self.drop()
            self.report(sync="Synced", health="Missing", message="nothing is released yet")
        elif self.serving and self.serving.ready and self.serving.pod == pod:
            self.drop()
            self.report(sync="Synced", health="Healthy", message=serves(pod))
        else:
            starting = f"starting model {pod.version}"
            self.report(sync="Synced", health="Progressing", message=starting)

    def start(self, prepared: Preparation) -> None:
        """Start the server of a release that is rendered and pulled."""
        self.note("pulled")
        assert self.wanted
        log = LOGS / f"preview-{self.environment}-{self.wanted.version}.log"
        prepared.end()
        self.starting = Deployment(self.wanted, prepared.folder, log)
        self.preparing = None
        self.note("started")

    def replace(self, deployment: Deployment) -> None:
        """Send the traffic to a server that is ready, then end the one before."""
        backend = self.proxy.switch(deployment.server.ports)
        self.note("switched")
        before, self.serving, self.starting = self.serving, deployment, None
        self.releases.done()
        self.revivals.done()
        self.trouble = ""
        self.tell_who_serves(deployment.pod)
        self.retire(before, backend)

    def fail(self, reason: str) -> None:
        """Tell why the newest commit is not served; what serves goes on; try again later."""
        self.drop()
        self.trouble = reason
        read = self.status.sync == "Synced"  # the manifests could be read, but not be served
        self.report(message=reason, **({"health": "Degraded"} if read else {"sync": "Unknown"}))
        self.record()
        self.releases.failed()

    def drop(self) -> None:
        """Give up what is prepared or starting."""
        if self.preparing:
            self.preparing.abandon()
        if self.starting:
            self.starting.remove()
        self.preparing = self.starting = None

    # -- the server that serves --------------------------------------------------------------------

    def tend(self) -> None:
        """Start what serves again, as the kubelet does. Raises why it has to be."""
        if self.serving is None:
            return
        if self.revivals.due():
            self.revivals.begun()
            self.serving.start()
        if self.revivals.at == NEVER and self.serving.check() and self.status.version is None:
            self.proxy.switch(self.serving.server.ports)
            self.tell_who_serves(self.serving.pod)

    def lose(self, reason: str) -> None:
        """Give up a server that ended or does not answer, and plan its next start.

        If it is lost again and again the newest commit is taken up anew: its files may be damaged.
        """
        assert self.serving
        if self.serving.steady():
            self.revivals.done()
        self.revivals.failed()
        idle = not self.preparing and not self.starting
        if idle and self.revivals.pause > self.revivals.shortest:
            self.releases.at = min(self.releases.at, self.revivals.at)
        message = f"{reason}; starting it again"
        self.report(health="Degraded", version=None, message=message)
        self.serving.kill()
        if backend := self.proxy.switch(None):  # connections that are left of it
            self.retiring.submit(self.proxy.drain, backend, 0)

    def retire(self, deployment: Deployment | None, backend: Backend | None) -> None:
        """Let a server that gets no more requests end, in a thread of its own."""
        if deployment:
            drain = partial(self.proxy.drain, backend) if backend else lambda seconds: 0
            try:
                self.retiring.submit(deployment.retire, drain)
            except RuntimeError:  # no thread can be started
                deployment.remove()

    # -- what is told ------------------------------------------------------------------------------

    def note(self, step: str) -> None:
        """Note when a step was done."""
        self.status.timeline[step] = time.time()

    def tell_who_serves(self, pod: ServerPod) -> None:
        """Report what answers now, and whether it is what the newest commit asks for."""
        trouble = {"health": "Degraded", "message": self.trouble}
        well = {"health": "Healthy", "message": serves(pod)}
        self.report(version=pod.version, **(trouble if self.trouble else well))
        self.record()

    def report(self, **changes: Any) -> None:
        """Change the status, print it if it is another one, and save it where others read it."""
        before = asdict(self.status)
        for name, value in changes.items():
            setattr(self.status, name, value)
        if asdict(self.status) != before or not changes:
            self.voice.say(
                f"{time.strftime('%H:%M:%S')} {self.environment} "
                f"{self.status.sync}, {self.status.health}: {self.status.message}"
            )
        self.save()

    def save(self) -> None:
        """Write the status unless it is written; on a full disk that is tried again later."""
        if (status := asdict(self.status)) != self.saved:
            with suppress(OSError):
                self.status.write(self.state)
                self.saved = status

    def record(self) -> None:
        """Add the status to the history."""
        with suppress(OSError):
            self.status.record(self.state)


def serves(pod: ServerPod) -> str:
    """Say what is served."""
    return f"model {pod.version} serves"
