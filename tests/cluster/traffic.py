"""Clients that ask an environment all the time, and what became of their requests."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http

from delivery.triton.server import MODEL
from kubernetes_api import PATIENCE

LIBRARIES = {"http": tritonclient.http, "grpc": tritonclient.grpc}
# Over HTTP, NVIDIA's client waits for 60 seconds by default; over gRPC it waits for ever.
LIMITS: dict[str, dict[str, Any]] = {"http": {}, "grpc": {"client_timeout": 60}}
PICTURES = np.full((1, 1, 1, 1), 100, np.uint8)  # none of a model's golden requests


def picture(library: Any) -> Any:
    """What clients ask about, for NVIDIA's client of a protocol."""
    tensor = library.InferInput("image", list(PICTURES.shape), "UINT8")
    tensor.set_data_from_numpy(PICTURES)
    return tensor


@dataclass
class Traffic:
    """Clients of an address, at work inside of a `with` block, with tritonclient's defaults.

    Only LIMITS are not: nobody waits for ever.

    Attributes:
        address: `<host>:<port>` by protocol.
        clients: how many there are, by protocol.
        keep: whether they keep their connections over all requests; a new one for each otherwise.
        rest: seconds from an answer to the next question; clients that never rest take the cores
            that new servers start on.
        connect: makes a client of a protocol for an address, in another way than plain.
        versions: how many requests each version of the model answered, by protocol.
        lost: what went wrong, by protocol, and how often.
    """

    address: dict[str, str]
    clients: dict[str, int]
    keep: bool = True
    rest: float = 0.05
    connect: Callable[[str, str], Any] = lambda name, at: LIBRARIES[name].InferenceServerClient(at)
    versions: dict[str, Counter[int]] = field(default_factory=dict)
    lost: dict[str, Counter[str]] = field(default_factory=dict)

    def __enter__(self) -> "Traffic":
        """Begin; each client has had an answer when this returns."""
        self._over = threading.Event()
        self._begun = threading.Barrier(sum(self.clients.values()) + 1)
        self._threads = []
        for protocol, number in self.clients.items():
            self.versions[protocol], self.lost[protocol] = Counter(), Counter()
            for _ in range(number):
                thread = threading.Thread(target=self._ask, args=(protocol,), daemon=True)
                self._threads.append(thread)
                thread.start()
        with suppress(threading.BrokenBarrierError):
            self._begun.wait(60)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End, when every request that was sent has come to an end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        """All requests that had an answer."""
        return sum(sum(counter.values()) for counter in self.versions.values())

    def until_answered(self, number: int) -> None:
        """Wait until more requests than a number had an answer."""
        end = time.monotonic() + PATIENCE
        while self.answered <= number:
            assert time.monotonic() < end, f"{self.answered} answers: {self.lost}"
            time.sleep(0.1)

    def _ask(self, protocol: str) -> None:
        library = LIBRARIES[protocol]
        tensor = picture(library)
        client, first = None, True
        while not self._over.is_set():
            try:
                client = client or self.connect(protocol, self.address[protocol])
                said = client.infer(MODEL, [tensor], **LIMITS[protocol]).get_response()
                version = said.model_version if protocol == "grpc" else said["model_version"]
                self.versions[protocol][int(version)] += 1
            except Exception as error:  # of Triton, of sockets, and of the library below
                self.lost[protocol][f"{type(error).__name__}: {error}"] += 1
            if client and not self.keep:
                client.close()
                client = None
            if first:
                first = False
                with suppress(threading.BrokenBarrierError):
                    self._begun.wait(60)
            self._over.wait(self.rest)
        if client:
            client.close()
