"""Requests a second and processor time of each: raw ONNX Runtime, Triton, and three peers.

    python benchmarks/serving.py [--seconds 2] [--rounds 2] [--only digits]

All serve the same two graphs, one picture a request, one thread an inference, and are asked from
another process of the same machine at concurrency 1, 8 and 32. One server runs at a time; rounds
follow each other, so that a busy minute hits all. The peers get an environment of their own.
"""

import argparse
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import psutil
import torch
import yaml
from tqdm import tqdm

from results import PROJECT, RESULTS, table, write

sys.path.insert(0, str(PROJECT.parent))
sys.path.insert(0, str(PROJECT / "src"))

import tritonclient.grpc
import tritonclient.http

from classifier import export
from classifier.model import Classifier
from classifier.networks import Shape
from classifier.params import TrainParams
from delivery.triton.config_text import Settings, changed
from delivery.triton.server import Ports, choose, ready_path, start
from workspace.machine import cores

HERE = Path(__file__).parent
PEERS = HERE / "peers"
PEERS_VENV = PROJECT.parent / ".cache/bench-venv-peers"
PACKAGES = ["fastapi", "uvicorn[standard]", "litserve", "bentoml", "onnxruntime", "numpy"]
CONCURRENCY = (1, 8, 32)
PATIENCE = 90.0  # seconds until a server answers
MODELS: dict[str, tuple[dict[str, int], dict[str, Any]]] = {
    "digits": (
        {"height": 8, "width": 8, "channels": 1, "classes": 10},
        {"network": "cnn", "options": {"width": 32}},
    ),
    "ResNet-18": (
        {"height": 32, "width": 32, "channels": 3, "classes": 10},
        {"network": "resnet18", "options": {}},
    ),
}


@dataclass(frozen=True)
class Asked:
    """A server that answers: how to ask it, and whose processor time counts."""

    process: psutil.Process
    way: str
    address: str
    request: bytes


def graph(name: str) -> bytes:
    """An untrained graph: weights change no time."""
    shape, network = MODELS[name]
    usual = yaml.safe_load((PROJECT / "params.yaml").read_text())["train"]
    torch.manual_seed(0)
    model = Classifier(Shape(**shape), TrainParams(**usual | network)).eval()
    return export.to_onnx(export.Served(model), model.shape)


def picture(name: str) -> np.ndarray:
    """A picture (1, H, W, C) of noise."""
    shape = [1, *(MODELS[name][0][each] for each in ("height", "width", "channels"))]
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def post(path: str, body: bytes, kind: str, **headers: object) -> bytes:
    """A whole request of HTTP."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


# -- servers ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def triton(name: str, model: Path, way: str, instances: int) -> Iterator[Asked]:
    """The packaged Triton with the shipped settings but for the number of instances."""
    repository = model.parent / f"repository-{instances}"
    folder = repository / "classifier"
    if not folder.exists():
        (folder / "1").mkdir(parents=True)
        (folder / "1/model.onnx").write_bytes(model.read_bytes())
        (folder / "labels.txt").write_text("".join(f"{k}\n" for k in range(10)))
        shipped = (PROJECT / "serving/classifier/config.pbtxt").read_text()
        text = changed(shipped, Settings(instances, 1, 0))
        shape = export.Shape(**MODELS[name][0])
        (folder / "config.pbtxt").write_text(text + export.interface(shape))
    server = start(repository, model.parent / "triton.log")
    try:
        server.wait(ready_path(1), PATIENCE)
        library = getattr(tritonclient, way)
        image = picture(name)
        tensor = library.InferInput("image", list(image.shape), "UINT8")
        tensor.set_data_from_numpy(image)
        wanted = [library.InferRequestedOutput("probabilities")]
        if way == "http":
            body, size = library.InferenceServerClient.generate_request_body([tensor], wanted)
            kind, path = "application/octet-stream", "/v2/models/classifier/infer"
            request = post(path, body, kind, Inference_Header_Content_Length=size)
        else:
            message = library.service_pb2.ModelInferRequest(model_name="classifier")
            message.inputs.append(tensor._get_tensor())
            message.raw_input_contents.append(tensor._get_content())
            message.outputs.append(wanted[0]._get_tensor())
            request = message.SerializeToString()
        address = f"127.0.0.1:{getattr(server.ports, way)}"
        yield Asked(psutil.Process(server.process.pid), way, address, request)
    finally:
        server.kill()


def peer(command: str, body: Callable[[np.ndarray], tuple[bytes, str]]) -> Any:
    """A server of the peers' environment, whose command has a place for the port."""

    @contextlib.contextmanager
    def serve(name: str, model: Path) -> Iterator[Asked]:
        port = choose(Ports()).http
        running = subprocess.Popen(
            [str(PEERS_VENV / "bin/python"), "-m", *command.format(port=port).split()],
            cwd=PEERS,
            env=os.environ | {"MODEL": str(model), "BENTOML_DO_NOT_TRACK": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(model.parent / "peer.log").open("wb"),
            start_new_session=True,
        )
        try:
            request = post("/infer", *body(picture(name)))
            asked = Asked(psutil.Process(running.pid), "http", f"127.0.0.1:{port}", request)
            await_answer(asked)
            yield asked
        finally:
            end(running.pid)

    return serve


def await_answer(asked: Asked) -> None:
    """Ask until the server answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            load(asked, 1, 0.2)
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline or not asked.process.is_running():
                raise
            time.sleep(0.5)


def end(pid: int) -> None:
    """End a process with all its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for each in [*parent.children(recursive=True), parent]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        parent.wait(10)


def as_bytes(image: np.ndarray) -> tuple[bytes, str]:
    return image.tobytes(), "application/octet-stream"


def as_base64(image: np.ndarray) -> tuple[bytes, str]:
    text = base64.b64encode(image.tobytes()).decode()
    return json.dumps({"image": text}).encode(), "application/json"


def as_json(image: np.ndarray) -> tuple[bytes, str]:
    return json.dumps({"image": image.tolist()}).encode(), "application/json"


def servers() -> dict[str, Callable[[str, Path], Any]]:
    """Who is measured, by name."""
    found: dict[str, Callable[[str, Path], Any]] = {}
    for instances in sorted({1, cores()}):
        for way, spoken in (("http", "HTTP"), ("grpc", "gRPC")):
            title = f"Triton, {spoken}, {instances} instance(s)"
            found[title] = lambda name, model, way=way, instances=instances: triton(
                name, model, way, instances
            )
    quiet = "--no-access-log --log-level warning"
    fastapi = f"uvicorn fastapi_app:app --port {{port}} {quiet}"
    found["FastAPI, binary body"] = peer(fastapi, as_bytes)
    found["LitServe"] = peer("litserve_app {port}", as_base64)
    found["BentoML"] = peer("bentoml serve bentoml_app:Classifier --port {port}", as_json)
    return found


# -- measured --------------------------------------------------------------------------------------


def load(asked: Asked, concurrency: int, seconds: float) -> dict[str, float]:
    """Put a load on a server; return what the program of the load says, and processor time."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(asked.request)
        file.flush()
        command = [asked.way, asked.address, file.name, str(concurrency), str(seconds)]
        before = processor_time(asked.process)
        result = subprocess.run(
            [sys.executable, HERE / "serving_load.py", *command],
            capture_output=True,
            text=True,
            check=True,
        )
    figures = json.loads(result.stdout)
    figures["cpu"] = (processor_time(asked.process) - before) / max(figures["answers"], 1)
    return figures


def processor_time(process: psutil.Process) -> float:
    """Seconds of a process and those that it started."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def raw(name: str, model: Path, concurrency: int, seconds: float) -> dict[str, float]:
    """ONNX Runtime alone, called by so many threads of this process."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session, image = onnxruntime.InferenceSession(model, options), picture(name)
    latencies: list[list[float]] = [[] for _ in range(concurrency)]
    end_at = time.perf_counter() + seconds

    def work(mine: list[float]) -> None:
        while (begun := time.perf_counter()) < end_at:
            session.run(None, {"image": image})
            mine.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in latencies]
    begun, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took, used = time.perf_counter() - begun, time.process_time() - used
    every = [each for mine in latencies for each in mine]
    p50, p99 = np.percentile(every, (50, 99)) * 1000
    return {
        "answers": len(every),
        "seconds": took,
        "p50": p50,
        "p99": p99,
        "cpu": used / len(every),
    }


def measure(name: str, model: Path, rounds: int, seconds: float) -> dict[str, dict[int, list[Any]]]:
    """Figures of all, by name and concurrency, one for each round."""
    found: dict[str, dict[int, list[Any]]] = {}
    every = servers()
    turns = [
        (title, each)
        for _ in range(rounds)
        for title, each in [("ONNX Runtime alone", None), *every.items()]
    ]
    for title, each in tqdm(turns, desc=name, unit="server", disable=None):
        place = found.setdefault(title, {number: [] for number in CONCURRENCY})
        with each(name, model) if each else contextlib.nullcontext() as asked:
            if asked:
                load(asked, 8, 0.5)  # warm
            for number in CONCURRENCY:
                made = load(asked, number, seconds) if asked else raw(name, model, number, seconds)
                place[number].append(made | {"busy": os.getloadavg()[0]})
    return found


def row(title: str, figures: dict[int, list[Any]]) -> list[str]:
    """A line of the table: medians over the rounds."""
    rates = [
        f"{median(each['answers'] / each['seconds'] for each in figures[number]):,.0f}"
        for number in CONCURRENCY
    ]
    last = figures[CONCURRENCY[-1]]
    late = [f"{median(each['p99'] for each in figures[number]):.1f}" for number in CONCURRENCY]
    return [title, *rates, *late, f"{median(each['cpu'] for each in last) * 1e6:,.0f}"]


def make_peers() -> None:
    """Install the peers, unless they are there."""
    if not (PEERS_VENV / "ready").exists():
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", PEERS_VENV], check=True)
        python = PEERS_VENV / "bin/python"
        subprocess.run(
            [*uv, "pip", "install", "--quiet", "--python", python, *PACKAGES], check=True
        )
        (PEERS_VENV / "ready").touch()


def versions() -> str:
    """What the peers' environment holds."""
    script = "from importlib.metadata import version as v; print(', '.join(f'{n} {v(n)}' for n in "
    script += "('fastapi', 'uvicorn', 'litserve', 'bentoml', 'onnxruntime')))"
    command = [PEERS_VENV / "bin/python", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=MODELS, help="measure this model again")
    parser.add_argument("--date", default=time.strftime("%Y-%m-%d"))
    arguments = parser.parse_args()
    make_peers()
    names = [arguments.only] if arguments.only else list(MODELS)
    head = ["", *(f"{n} at a time, requests/s" for n in CONCURRENCY)]
    head += [
        *(f"p99 at {n}, ms" for n in CONCURRENCY),
        f"processor time a request at {CONCURRENCY[-1]}, µs",
    ]
    figures = earlier() if arguments.only else {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in names:
            model = Path(folder) / name / "model.onnx"
            model.parent.mkdir()
            model.write_bytes(graph(name))
            figures[name] = measure(name, model, arguments.rounds, arguments.seconds)
            write("serving", "Serving beside others", body(figures, head, arguments.date), figures)


def earlier() -> dict[str, Any]:
    """The figures of the run before, so that one model can be measured again."""
    file = RESULTS / "serving.json"
    found = json.loads(file.read_text())["figures"] if file.exists() else {}
    return {
        name: {title: {int(n): turns for n, turns in each.items()} for title, each in made.items()}
        for name, made in found.items()
    }


def body(figures: dict[str, Any], head: list[str], date: str) -> str:
    """The tables of what is measured, and what is to be known of them."""
    parts = [
        f"{name}:\n\n{table(head, [row(title, each) for title, each in found.items()])}"
        for name, found in figures.items()
    ]
    made = [
        one
        for found in figures.values()
        for each in found.values()
        for turns in each.values()
        for one in turns
    ]
    busy, refused = [each["busy"] for each in made], sum(each.get("refused", 0) for each in made)
    parts.append(
        f"{date}; {versions()}. Load average of the machine meanwhile {min(busy):.1f} to "
        f"{max(busy):.1f}, with the programs that asked; {refused} requests were refused.\n"
    )
    return "\n".join(parts)


if __name__ == "__main__":
    main()
