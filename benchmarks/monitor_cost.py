"""What a monitor costs in the path of requests, and beside it.

    python benchmarks/monitor_cost.py [--seconds 1.5] [--rounds 2] [--gateway <traefik>]

One picture a request over HTTP, the shipped settings. Beside the path a real Traefik, without TLS,
copies a tenth of the requests to a second server; it is the one that `make test-cluster` builds.
Rounds follow each other, so that a busy minute hits all.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
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
from delivery.triton.server import Ports, Server, choose, ready_path, start

ROOT = PROJECT.parent
PROGRAM = ROOT / "argocd/components/monitor/program"
CONCURRENCY = (1, 8, 32)
SHARE = 10  # percent of the requests that are copied, as in the component
PLACES = ("no monitor", "in the path", "a gateway, no monitor", "beside the path")


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
    server = start(repository, repository.with_suffix(".log"))
    try:
        server.wait(ready_path(1), PATIENCE)
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def gateway(program: Path, to: Server, copies: Server | None) -> Iterator[tuple[int, int]]:
    """A Traefik before a server, which copies requests to another if there is one; pid, port."""
    services: dict[str, Any] = {
        "triton": {"weighted": {"services": [{"name": "stable", "weight": 100}]}},
        "stable": balanced(to),
    }
    if copies:
        mirrors = [{"name": "monitor", "percent": SHARE}]
        services["watched"] = {"mirroring": {"service": "triton", "mirrors": mirrors}}
        services["monitor"] = balanced(copies)
    router = {"rule": "PathPrefix(`/v2`)", "service": "watched" if copies else "triton"}
    port = choose(Ports()).http
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "routes.yaml")
        file.write_text(json.dumps({"http": {"routers": {"model": router}, "services": services}}))
        options = [
            f"--entrypoints.web.address=127.0.0.1:{port}",
            f"--providers.file.filename={file}",
        ]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            await_answer(port)
            yield process.pid, port
        finally:
            process.kill()
            process.wait()


def balanced(server: Server) -> dict[str, Any]:
    """A service of the gateway."""
    return {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{server.ports.http}"}]}}


def await_answer(port: int) -> None:
    """Wait until what is behind a gateway answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}")
        with contextlib.suppress(Exception), contextlib.closing(client):
            if client.is_server_ready():
                return
        time.sleep(0.1)
    sys.exit(f"nothing answers at port {port}")


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
def placed(
    place: str, name: str, folder: Path, program: Path | None
) -> Iterator[tuple[Asked, dict[str, psutil.Process]]]:
    """Servers with a monitor at a place: how to ask, and whose processor time counts."""
    with contextlib.ExitStack() as held:
        first = "monitored" if place == "in the path" else "models"
        server = held.enter_context(running(folder / first))
        way, counted = asked(server, name), {"server": psutil.Process(server.process.pid)}
        if place in PLACES[2:]:
            assert program
            copies = None
            if place == "beside the path":
                copies = held.enter_context(running(folder / "monitored"))
                counted["monitor"] = psutil.Process(copies.process.pid)
            pid, port = held.enter_context(gateway(program, server, copies))
            counted["gateway"] = psutil.Process(pid)
            way = replace(way, address=f"127.0.0.1:{port}")
            if copies:
                load(way, 8, 0.5)
                await_copies(copies)
        yield way, counted


def answered(server: Server) -> int:
    """How many requests a server has answered."""
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{server.ports.http}")
    with contextlib.closing(client):
        told = client.get_inference_statistics("classifier")["model_stats"][0]
    return int(told["inference_stats"]["success"]["count"])


def await_copies(server: Server) -> None:
    """Wait until a copy has been answered, which comes after the caller's answer."""
    end = time.monotonic() + PATIENCE
    while not answered(server):
        if time.monotonic() > end:
            sys.exit("no request was copied")
        time.sleep(0.1)


def measure(
    name: str, folder: Path, program: Path | None, rounds: int, seconds: float
) -> dict[str, dict[int, list[Any]]]:
    """Figures by place and concurrency, one for each round."""
    found: dict[str, dict[int, list[Any]]] = {}
    places = PLACES if program else PLACES[:2]
    turns = [place for _ in range(rounds) for place in places]
    for place in tqdm(turns, desc=name, unit="server", disable=None):
        into = found.setdefault(place, {number: [] for number in CONCURRENCY})
        with placed(place, name, folder, program) as (way, counted):
            load(way, 8, 0.5)  # warm
            for number in CONCURRENCY:
                before = {who: processor_time(each) for who, each in counted.items()}
                made = load(way, number, seconds)
                made["each"] = {
                    who: (processor_time(each) - before[who]) / max(made["answers"], 1)
                    for who, each in counted.items()
                }
                into[number].append(made | {"busy": os.getloadavg()[0]})
    return found


def row(place: str, figures: dict[int, list[Any]]) -> list[str]:
    """A line of the table: medians over the rounds."""
    cells = [place]
    for number in CONCURRENCY:
        turns = figures[number]
        rate = median(each["answers"] / each["seconds"] for each in turns)
        late = [median(each[name] for each in turns) for name in ("p50", "p99")]
        cells.append(f"{rate:,.0f}, {late[0]:.2f}, {late[1]:.2f}")
    for who in ("server", "gateway", "monitor"):
        used = [each["each"].get(who) for each in figures[8]]
        cells.append("–" if None in used else f"{median(used) * 1e6:,.0f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    built = sorted((ROOT / ".cache/cluster/programs").glob("traefik-*"))
    parser.add_argument("--gateway", type=Path, default=built[-1] if built else None)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    head = ["", *(f"{n} at a time: requests/s, median ms, p99 ms" for n in CONCURRENCY)]
    head += [f"{who}'s processor, µs a request" for who in ("server", "gateway", "monitor")]
    figures = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in MODELS:
            place = Path(folder, name)
            write_repository(name, place / "models")
            arrange(place / "models", place / "monitored")
            program = arguments.gateway and arguments.gateway.resolve()
            figures[name] = measure(name, place, program, arguments.rounds, arguments.seconds)
    busy = [
        one["busy"]
        for found in figures.values()
        for each in found.values()
        for turns in each.values()
        for one in turns
    ]
    tables = [
        f"{name}:\n\n{table(head, [row(place, each) for place, each in found.items()])}"
        for name, found in figures.items()
    ]
    note = f"Load average of the machine meanwhile {min(busy):.1f} to {max(busy):.1f}.\n"
    write("monitor_cost", "What a monitor costs", "\n".join([*tables, note]), figures)


if __name__ == "__main__":
    main()
