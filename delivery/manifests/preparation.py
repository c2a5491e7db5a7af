"""A commit's release made ready to be started: rendered and pulled, in a process of its own.

What others wrote may hang, fill the memory or end a process. Here it ends this one, with all that
it started, and whoever waits for it goes on.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from delivery.manifests.rendering import render
from delivery.manifests.server_pod import ServerPod, read_server_pod
from delivery.manifests.snapshot import snapshot
from delivery.oci.registry import pull
from delivery.proposals.release_file import parse_release
from delivery.proposals.releases import release_path, released_content
from delivery.proposals.signing import read_trust
from delivery.triton.server import killed
from workspace.errors import sentence
from workspace.files import discard

DEADLINE = 1800.0  # seconds for all of it
# Forks from a process that has this module already, and none of the threads of ours.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Rendered:
    """What the manifests ask for; None without a release."""

    pod: ServerPod | None


@dataclass(frozen=True)
class Pulled:
    """The model lies in the folder; so many bytes were received."""

    received: int


@dataclass(frozen=True)
class Failed:
    """Why there is nothing to start, in a sentence; `lost`: Git lacks what it is to have."""

    reason: str
    lost: bool


News = Rendered | Pulled | Failed


@dataclass(frozen=True)
class Wanted:
    """A release to prepare: an environment at a commit, unless that is what serves already.

    The model comes to lie in `folder / "model"`, the manifests beside it.
    """

    repository: Repository
    commit: str
    environment: str
    folder: Path
    serving: ServerPod | None


class Preparation:
    """The preparation of a release; it goes on by itself, and is asked what is new."""

    def __init__(self, wanted: Wanted) -> None:
        """Begin it. Raises OSError when that is impossible."""
        self.folder = wanted.folder
        self.ends = time.monotonic() + DEADLINE
        self.news, theirs = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=work, args=[wanted, theirs], daemon=True)
        self.process.start()
        theirs.close()

    def poll(self) -> Rendered | Pulled | None:
        """Return the next step that is done, if there is one. Raises DeliveryError if it failed."""
        if time.monotonic() > self.ends:
            raise DeliveryError(f"to render and to pull took more than {DEADLINE:.0f} s")
        if not self.news.poll():
            return None
        try:
            news: News = self.news.recv()
        except EOFError:
            self.process.join()
            reason = killed(self.process.exitcode) or f"ended with {self.process.exitcode}"
            raise DeliveryError(f"the process that renders and pulls {reason}") from None
        if isinstance(news, Failed):
            raise (GitError if news.lost else DeliveryError)(news.reason)
        return news

    def end(self) -> None:
        """End it with all that it started, wherever it is; what it wrote stays."""
        if self.news.closed:
            return
        for end in (lambda: os.killpg(self.process.pid or 0, signal.SIGKILL), self.process.kill):
            with suppress(ProcessLookupError):
                end()
        self.process.join()
        self.news.close()

    def abandon(self) -> None:
        """End it and remove what it wrote."""
        self.end()
        discard(self.folder)


def work(wanted: Wanted, pipe: Connection) -> None:
    """Prepare a release and send what is new; never raises."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # without memory, this goes first
    try:
        for news in prepare(wanted):
            pipe.send(news)
    except Exception as error:
        pipe.send(Failed(sentence(error), isinstance(error, GitError)))


def end_with_parent() -> None:
    """Kill this process and what it started once whoever waits for it is gone."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)


def prepare(wanted: Wanted) -> Iterator[News]:
    """Render, and pull unless there is nothing or nothing new."""
    path = release_path(wanted.environment)
    release = released_content(wanted.repository, wanted.commit, wanted.environment)
    if release is None:
        yield Rendered(None)
        return
    files = snapshot(wanted.repository, wanted.commit, wanted.folder / "manifests")
    pod = read_server_pod(render((files / path).parent))
    yield Rendered(pod)
    if pod != wanted.serving:
        trust = read_trust(wanted.repository, wanted.commit)
        if trust.key:
            trust.judge(parse_release(release, path))
        yield Pulled(pull(pod.image, wanted.folder / "model"))
