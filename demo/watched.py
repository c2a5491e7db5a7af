"""A server whose monitor sees held-out pictures, then one that sees them inverted.

`python watched.py ENVIRONMENT IMAGE FOLDER` runs in a project's environment and prints what
`make drift` says of each, and whether a Prometheus raises the alert, where one is installed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import prometheus

from delivery.commands import drift
from delivery.oci.registry import pull
from delivery.triton.client import connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start

PROGRAM = Path("argocd/base/components/monitor/program")
ENOUGH = 400  # pictures that are looked at, of which a report needs 200
PATIENCE = 60  # seconds
LASTING = 12  # seconds in which the alert fires or does not; it waits for five


def lay_out(models: Path, target: Path) -> None:
    """Put the monitor behind the model, as the pod's init container does."""
    target.mkdir()
    places = {"MODELS": models, "PROGRAM": PROGRAM, "TARGET": target}
    environment = os.environ | {name: str(path.resolve()) for name, path in places.items()}
    subprocess.run([sys.executable, "-I", PROGRAM / "arrange.py"], env=environment, check=True)


def looked_at(address: str) -> float:
    """How many pictures a server's monitor has judged."""
    series = drift.parse(drift.get(f"http://{address}/metrics"))
    seen = series.get("behaviour_seen_total", [])
    return sum(value for labels, value in seen if labels["outcome"] == "judged")


def call(server: Server, images: np.ndarray, done: Callable[[], bool], seconds: float) -> None:
    """Send pictures one by one until something is done, or for so long."""
    deadline = time.monotonic() + seconds
    with connect("grpc", server.ports) as client:
        while not done() and time.monotonic() < deadline:
            for image in images[:ENOUGH]:
                client.infer(image[np.newaxis])


def watch(folder: Path, environment: str, metrics: str) -> AbstractContextManager[str]:
    """A Prometheus that reads a server's metrics as an environment's; where it is."""
    folder.mkdir()
    target = {"targets": [metrics], "labels": {"namespace": environment}}
    jobs = [{"job_name": "triton", "static_configs": [target]}]
    rules, repository = prometheus.quick_rules(), "https://github.com/acme/digit-classifier"
    return prometheus.started(folder, rules, jobs, prometheus.EVERY, repository)


def show(server: Server, images: np.ndarray, environment: str, folder: Path) -> None:
    """Send pictures to a server, and print what is said of them."""
    metrics, begun = f"{HOST}:{server.ports.metrics}", time.monotonic()
    with ExitStack() as stack:
        watching = ""
        if shutil.which("prometheus"):
            watching = stack.enter_context(watch(folder, environment, metrics))
        call(server, images, lambda: looked_at(metrics) >= ENOUGH, PATIENCE)
        command = [sys.executable, "-m", "delivery", "drift", environment, "--metrics", metrics]
        subprocess.run(command, check=True)
        if watching:
            call(server, images, lambda: bool(prometheus.raised(watching)), LASTING)
            for told in prometheus.raised(watching):
                print(f"{prometheus.ALERT} after {time.monotonic() - begun:.0f} s: {told}")
            print(f"{prometheus.ALERT} was watched for", flush=True)


def main(environment: str, image: str, place: str) -> None:
    """Show both streams of pictures to the model of an image, each to a server of its own."""
    folder = Path(place)
    pull(image, folder / "models")
    (version,) = (
        each for each in (folder / "models/classifier").iterdir() if each.name.isdecimal()
    )
    lay_out(folder / "models", folder / "watched")
    images = np.load(Path("data/prepared/test/images.npy"))
    for name, shown in (("as held out", images), ("inverted", 255 - images)):
        server = start(folder / "watched", folder / "server.log")
        try:
            server.wait(ready_path(int(version.name)), PATIENCE)
            print(f"# {name}", flush=True)
            show(server, shown, environment, folder / f"prometheus of {name}")
        finally:
            server.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
