"""What a monitor costs: Triton without, with one in the path, and with a copy beside it.

    python benchmarks/monitor_cost.py [--seconds 2] [--rounds 3]

Turns follow each other, so that a busy minute hits all. Beside the path a second server answers a
tenth as many requests of its own, as the gateway's copies are; its processor time counts, too.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from tqdm import tqdm

from results import PROJECT, table, write
from serving import MODELS, PATIENCE, Asked, graph, load, picture, post, processor_time

sys.path.insert(0, str(PROJECT.parent))

import tritonclient.http

from classifier import export
from delivery.triton.server import Server, ready_path, start

PROGRAM = PROJECT.parent / "argocd/components/monitor/program"
CONCURRENCY = (1, 8, 32)
SHARE = 10  # every how many-th request is copied
PLACES = ("no monitor", "in the path", "beside the path")


def write_repository(name: str, models: Path) -> None:
    """Write a model as the export does, with the shipped settings."""
    folder = models / "classifier"
    (folder / "1").mkdir(parents=True)
    (folder / "1/model.onnx").write_bytes(graph(name))
    (folder / "labels.txt").write_text("".join(f"{k}\n" for k in range(10)))
    shipped = (PROJECT / "serving/classifier/config.pbtxt").read_text()
    shape = export.Shape(**MODELS[name][0])
    (folder / "config.pbtxt").write_text(shipped + export.interface(shape))


def arrange(models: Path, target: Path) -> None:
    """Lay out the same model with a monitor, as a pod's init container does."""
    target.mkdir()
    places = {"MODELS": models, "PROGRAM": PROGRAM, "TARGET": target}
    subprocess.run(
        [sys.executable, "-I", PROGRAM / "arrange.py"],
        env=os.environ | {name: str(path.resolve()) for name, path in places.items()},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextlib.contextmanager
def running(repository: Path) -> Iterator[Server]:
    """A server that answers."""
    server = start(repository, repository.parent / "triton.log")
    try:
        server.wait(ready_path(1), PATIENCE)
        yield server
    finally:
        server.kill()


def asked(server: Server, name: str) -> Asked:
    """How to ask a server for one picture over HTTP."""
    image = picture(name)
    tensor = tritonclient.http.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    wanted = [tritonclient.http.InferRequestedOutput("probabilities")]
    body, size = tritonclient.http.InferenceServerClient.generate_request_body([tensor], wanted)
    kind, path = "application/octet-stream", "/v2/models/classifier/infer"
    request = post(path, body, kind, Inference_Header_Content_Length=size)
    address = f"127.0.0.1:{server.ports.http}"
    return Asked(psutil.Process(server.process.pid), "http", address, request)


@contextlib.contextmanager
def copies(server: Server, name: str, main: Server) -> Iterator[None]:
    """A tenth as many requests of a monitor's own, sent while the block runs."""
    over, client = threading.Event(), tritonclient.http.InferenceServerClient(
        f"127.0.0.1:{server.ports.http}"
    )
    image = picture(name)
    tensor = tritonclient.http.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)

    def send() -> None:
        sent, before = 0, answered(main)
        while not over.wait(0.002):
            while sent < (answered(main) - before) / SHARE and not over.is_set():
                client.infer("classifier", [tensor])
                sent += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def answered(server: Server) -> int:
    """How many requests a server has answered."""
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.ports.http}")
    with contextlib.closing(client):
        told = client.get_inference_statistics("classifier")["model_stats"][0]
    return int(told["inference_stats"]["success"]["count"])
