"""A server as the manifests describe its pod: started on a pulled model, ended in order."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from delivery.manifests.server_pod import ServerPod
from delivery.triton.server import Server, check_version, start


@dataclass(frozen=True)
class Deployment:
    """A server that is ready, the pod that it stands for and the folder of its model."""

    pod: ServerPod
    folder: Path
    server: Server

    def alive(self) -> bool:
        """Tell whether the server runs."""
        return self.server.alive()

    def remove(self) -> None:
        """End the server at once."""
        self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def retire(self, drain: Callable[[float], object]) -> None:
        """Let a server that gets no more requests finish and end, as the kubelet does.

        `drain` waits for the requests in flight, for at most the seconds that it is given.
        """
        deadline = time.monotonic() + self.pod.grace
        drain(self.pod.grace)
        self.server.stop(max(1.0, deadline - time.monotonic()))
        shutil.rmtree(self.folder, ignore_errors=True)


def deploy(
    pod: ServerPod,
    folder: Path,
    log: Path,
    note: Callable[[str], object] = lambda step: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Deployment:
    """Start a pod's server on the model in a folder; wait until the pod's own probe is answered.

    `note` is told each step that is done; `meanwhile` is called now and then and may give up by
    raising. A server that does not get ready is killed. Raises DeliveryError.
    """
    check_version(folder, pod.version)
    server = start(folder, log, arguments=pod.expanded())
    note("started")
    try:
        server.wait(pod.ready_path, pod.starting, meanwhile)
    except BaseException:
        server.kill()
        raise
    note("ready")
    return Deployment(pod, folder, server)
