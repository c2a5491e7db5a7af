"""A server whose monitor sees held-out pictures, then one that sees them inverted.

`python watched.py ENVIRONMENT IMAGE FOLDER` runs in a project's environment and prints what
`make drift` says of each.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from delivery.commands import drift
from delivery.oci.registry import pull
from delivery.triton.client import connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start

PROGRAM = Path("argocd/base/components/monitor/program")
ENOUGH = 400  # pictures that are looked at, of which a report needs 200
PATIENCE = 60  # seconds


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


def call(server: Server, images: np.ndarray) -> str:
    """Send pictures one by one until enough were looked at; where the metrics are."""
    address, deadline = f"{HOST}:{server.ports.metrics}", time.monotonic() + PATIENCE
    with connect("grpc", server.ports) as client:
        while looked_at(address) < ENOUGH and time.monotonic() < deadline:
            for image in images[:ENOUGH]:
                client.infer(image[np.newaxis])
    return address


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
            address = call(server, shown)
            print(f"# {name}", flush=True)
            command = [sys.executable, "-m", "delivery", "drift", environment, "--metrics", address]
            subprocess.run(command, check=True)
        finally:
            server.kill()


if __name__ == "__main__":
    main(*sys.argv[1:])
