"""A server as the manifests describe its pod: started on a model, watched, ended in order."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.manifests.server_pod import ServerPod
from delivery.model import golden
from delivery.triton.client import Client
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, check_version, start
from workspace.errors import sentence
from workspace.files import discard

PERIOD = 3.0  # seconds between two golden requests
TIMEOUT = 10.0  # seconds that one may take; a machine under load is slow
LARGEST = 2**24  # bytes of an answer, 4 for each class: it is read beside the server that serves
FAILURES = 3  # in a row, after which a server has to be started again
STEADY = 60.0  # seconds after whose start a server that ends was no failed start
FIRST = 8  # golden requests, of one picture each, before a server is ready; later it is one


def begin(pod: ServerPod, model: Path, log: Path) -> Server:
    """Start a pod's server on the model in a folder, without waiting. Raises DeliveryError."""
    check_version(model, pod.version)
    return start(model, log, arguments=pod.expanded())


class WrongAnswerError(DeliveryError):
    """A server answers, but not as the model does that it is to serve."""


class Deployment:
    """A pod's server, which `folder / "model"` is for: starting, then ready, as long as it answers.

    A process that runs may answer nothing, so golden requests are what is watched.
    """

    def __init__(self, pod: ServerPod, folder: Path, log: Path) -> None:
        """Start the server. Raises DeliveryError."""
        self.pod, self.folder, self.log = pod, folder, log
        self.asking = ThreadPoolExecutor(1, "golden")
        self.start()
        try:
            recorded = golden.load(folder / "model" / "classifier" / "golden.npz")
            self.first = recorded.some(FIRST)
        except BaseException:
            self.kill()
            raise

    def start(self) -> None:
        """Start the server, after the one before has been killed. Raises DeliveryError."""
        self.server = begin(self.pod, self.folder / "model", self.log)
        self.ready = False
        self.late = time.monotonic() + self.pod.starting
        self.failures = 0
        self.asked: Future[None] | None = None
        self.next = 0.0

    def check(self) -> bool:
        """Tell whether the server is ready to get requests.

        Raises DeliveryError, with the reason, when it has to be started again. It is to be called
        again and again, and does not wait.
        """
        self.server.check()
        if self.asked and self.asked.done():
            self.hear(self.asked.exception())
        elif not self.asked and self.ready and time.monotonic() > self.next:
            self.asked = self.asking.submit(self.ask, 1)
        elif not self.asked and not self.ready:
            self.await_start()
        return self.ready

    def await_start(self) -> None:
        """Ask for the first answers once the start-up probe is answered. Raises DeliveryError."""
        if time.monotonic() > self.late:
            raise DeliveryError(
                f"{self.pod.ready_path} did not answer within {self.pod.starting:.0f} s "
                f"(log: {self.log})"
            )
        if time.monotonic() > self.next and self.server.answers(self.pod.ready_path):
            self.asked = self.asking.submit(self.ask, FIRST)

    def ask(self, count: int) -> None:
        """Send that many golden requests. Raises an error unless the answers are the recorded."""
        address = f"{HOST}:{self.server.ports.http}"
        with Client("http", address, TIMEOUT, largest=LARGEST) as client:
            result = golden.compare(client, self.first.some(count), batch=1)
        if not result.passed or result.versions != {self.pod.version}:
            raise WrongAnswerError(str(result))

    def hear(self, error: BaseException | None) -> None:
        """Count failures in a row. Raises DeliveryError when there are too many."""
        self.asked, self.next = None, time.monotonic() + PERIOD
        self.failures = self.failures + 1 if error else 0
        if error and (self.failures == FAILURES or isinstance(error, WrongAnswerError)):
            raise DeliveryError(
                f"Triton does not answer as model {self.pod.version} should: {sentence(error)} "
                f"(log: {self.log})"
            )
        self.ready = self.ready or not error

    def steady(self) -> bool:
        """Tell whether the server has been of use for a while."""
        return self.ready and time.monotonic() - self.server.started > STEADY

    def kill(self) -> None:
        """End the server at once; it may be started again."""
        self.ready = False
        self.server.kill()

    def remove(self) -> None:
        """End the server at once, and remove its model."""
        self.kill()
        self.asking.shutdown()
        discard(self.folder)

    def retire(self, drain: Callable[[float], object]) -> None:
        """Let a server that gets no more requests finish and end, as the kubelet does.

        `drain` waits for the requests in flight, for at most the seconds that it is given.
        """
        deadline = time.monotonic() + self.pod.grace
        try:
            drain(self.pod.grace)
            self.server.stop(max(1.0, deadline - time.monotonic()))
        finally:
            self.remove()
