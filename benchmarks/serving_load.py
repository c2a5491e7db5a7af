"""One request over and over, on so many connections at a time, for some seconds.

    python serving_load.py http 127.0.0.1:8000 request.bin 32 2.0

For http the file holds the whole request, for grpc the message. Prints JSON: how many good answers
came in how many seconds, how many others, and the good ones' percentiles in milliseconds.
"""

import json
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

GOOD = b"HTTP/1.1 200"
GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


def over_http(address: str, request: bytes, connections: int, seconds: float) -> list[float]:
    """Ask on keep-alive connections from one thread; return seconds of each answer."""
    host, _, port = address.rpartition(":")
    selector, latencies = selectors.DefaultSelector(), []
    end = time.perf_counter() + seconds
    for _ in range(connections):
        made = socket.create_connection((host, int(port)))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(made, selectors.EVENT_READ, [b"", time.perf_counter()])
        made.sendall(request)
    while time.perf_counter() < end or len(latencies) < connections:  # one for each, at least
        for key, _ in selector.select(1):
            made, state = key.fileobj, key.data
            state[0] += made.recv(65536)
            if not whole(state[0]):
                continue
            now = time.perf_counter()
            latencies.append(now - state[1] if state[0].startswith(GOOD) else float("inf"))
            state[:] = b"", now
            made.sendall(request)
    return latencies


def whole(answer: bytes) -> bool:
    """Whether an answer has arrived to its end."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lowered = head.lower()
    if b"content-length: " in lowered:
        size = lowered.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return len(body) >= int(size)
    return body.endswith(b"0\r\n\r\n")


def over_grpc(address: str, message: bytes, connections: int, seconds: float) -> list[float]:
    """Keep so many calls in flight; return seconds of each answer."""
    import grpc

    latencies: list[float] = []
    end, idle = time.perf_counter() + seconds, threading.Semaphore(0)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(GRPC_METHOD)

        def ask() -> None:
            begun = time.perf_counter()
            call.future(message).add_done_callback(lambda answer: noted(answer, begun))

        def noted(answer: "grpc.Future", begun: float) -> None:
            answer.result()
            now = time.perf_counter()
            latencies.append(now - begun)
            ask() if now < end else idle.release()

        for _ in range(connections):
            ask()
        for _ in range(connections):
            assert idle.acquire(timeout=60 + seconds)
    return latencies


WAYS: dict[str, Callable[[str, bytes, int, float], list[float]]] = {
    "http": over_http,
    "grpc": over_grpc,
}


def main() -> None:
    way, address, file, connections, seconds = sys.argv[1:]
    begun = time.perf_counter()
    found = WAYS[way](address, Path(file).read_bytes(), int(connections), float(seconds))
    took, order = time.perf_counter() - begun, sorted(each for each in found if each < float("inf"))
    if not order:
        sys.exit(f"none of {len(found)} answers was a good one")
    shares = {share: order[int((len(order) - 1) * share / 100)] * 1000 for share in (50, 99)}
    refused = len(found) - len(order)
    figures = {
        "answers": len(order),
        "refused": refused,
        "seconds": took,
        "p50": shares[50],
        "p99": shares[99],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
