"""Load on servers, to compare their speed in one run on one machine."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from delivery.triton.client import connect
from delivery.triton.server import Ports

ROUNDS = 2  # each server gets its turn this often, so that a busy moment hits all of them
SECONDS = 0.5  # of one turn
WARM_UP = 3  # requests of each client that are not counted


@dataclass(frozen=True)
class Load:
    """Who calls and how: each of `clients` sends `batch` pictures at a time, one by one."""

    protocol: str
    clients: int
    batch: int


@dataclass
class Speed:
    """What a server did under a load: seconds of each request; pictures a second in each turn."""

    latencies: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return the latency in milliseconds that `share` per cent of the requests stay under."""
        return float(np.percentile(self.latencies, share)) * 1000

    @property
    def throughput(self) -> float:
        """Pictures in a second."""
        return float(np.mean(self.turns))


LOADS = [
    Load(protocol, clients, batch)
    for clients, batch in ((1, 1), (8, 1), (1, 32))
    for protocol in ("http", "grpc")
]


def measure(
    servers: Iterable[tuple[Ports, np.ndarray]], load: Load, rounds: int = ROUNDS
) -> list[Speed]:
    """Put a load on each server in turn, several times; return what each did.

    Args:
        servers: where they listen, and pictures, uint8 (n, H, W, C), that each gets over and over.
        load: who calls and how.
        rounds: turns of each.
    """
    turns = [(*each, Speed()) for each in servers]
    for _ in range(rounds):
        for ports, pictures, speed in turns:
            take_turn(ports, pictures, load, speed)
    return [speed for *_, speed in turns]


def take_turn(ports: Ports, pictures: np.ndarray, load: Load, speed: Speed) -> None:
    """Let all clients call one server for a while; add what it did."""
    batch = np.resize(pictures, (load.batch, *pictures.shape[1:]))

    def work(_: int) -> list[float]:
        with connect(load.protocol, ports, again=True) as client:
            for _ in range(WARM_UP):
                client.infer(batch)
            latencies, end = [], time.perf_counter() + SECONDS
            while (begun := time.perf_counter()) < end:
                client.infer(batch)
                latencies.append(time.perf_counter() - begun)
        return latencies

    with ThreadPoolExecutor(load.clients) as pool:
        latencies = [each for client in pool.map(work, range(load.clients)) for each in client]
    speed.latencies += latencies
    speed.turns.append(len(latencies) * load.batch / SECONDS)
