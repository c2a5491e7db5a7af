"""Clients that call the stable address until SIGTERM; runs in a project's environment.

`python callers.py HTTP_PORT GRPC_PORT OUTPUT [CLIENTS]` writes a line for each request: its end in
seconds since 1970, protocol, model version (0 for a failure), latency in seconds, why it failed.
"""

import csv
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports

PAUSE = 0.02  # seconds between two requests of a client: visible traffic, not a stress test

Row = tuple[float, str, int, float, str]


def call(protocol: str, ports: Ports, images: np.ndarray, stop: threading.Event, rows: list[Row]):
    """Send one image after another until `stop` is set."""
    with connect(protocol, ports) as client:
        while not stop.is_set():
            version, failure, begun = 0, "", time.time()
            try:
                version = client.infer(images[len(rows) % len(images)][np.newaxis]).version
            except DeliveryError as error:
                failure = str(error)
            rows.append((time.time(), protocol, version, time.time() - begun, failure))
            time.sleep(PAUSE)


def main(http: str, grpc: str, output: str, clients: str = "4") -> None:
    """Call until SIGTERM, then write what happened."""
    images = np.load(Path("data/prepared/test/images.npy"))
    stop, rows = threading.Event(), []
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [
        threading.Thread(
            target=call,
            args=(PROTOCOLS[number % 2], Ports(int(http), int(grpc)), images, stop, rows),
        )
        for number in range(int(clients))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Path(output).open("w", newline="") as file:
        csv.writer(file).writerows(sorted(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
