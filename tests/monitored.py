"""A tiny model with a monitor behind it, laid out as the init container does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from classifier import evaluation
from conftest import TEMPLATE
from delivery.commands import drift
from delivery.triton.loopback import HOST
from delivery.triton.server import Server
from tiny import CLASSES, SHAPE, write_repository
from workspace import behaviour

PROGRAM = TEMPLATE / "argocd/components/monitor/program"
NAMES = [f"class {index}" for index in range(CLASSES)]


def pictures(count: int, seed: int) -> np.ndarray:
    """Pictures as they were held out: uint8 (count, *SHAPE), each of its own brightness."""
    random = np.random.default_rng(seed)
    bright = random.uniform(0.3, 1, (count, 1, 1, 1))
    return (random.integers(0, 256, (count, *SHAPE)) * bright).astype(np.uint8)


def answers(models: Path, images: np.ndarray) -> np.ndarray:
    """What the model answers, without a server."""
    (graph,) = models.glob("classifier/*/model.onnx")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def write_model(folder: Path, version: int = 1) -> Path:
    """Write a model repository as an image has it, what it says of held-out pictures included."""
    models = write_repository(folder / "models", version)
    validation, test = (
        behaviour.figures(images, answers(models, images))
        for images in (pictures(300, 1), pictures(300, 2))
    )
    labels = validation["class"].astype(np.int64)
    labels[:30] = (labels[:30] + 1) % CLASSES
    about = models / "classifier/about"
    about.mkdir()
    said = evaluation.behave(validation, test, labels, NAMES)
    (about / "behaviour.json").write_text(json.dumps(said))
    return models


def arrange(
    models: Path, target: Path, program: Path = PROGRAM, captured: Path | None = None
) -> str:
    """Run the init container's program; return what it said."""
    target.mkdir()
    places = {"MODELS": models, "PROGRAM": program, "TARGET": target}
    places |= {"CAPTURED": captured} if captured else {}
    done = subprocess.run(
        [sys.executable, "-I", program / "arrange.py"],
        env=os.environ | {name: str(path.resolve()) for name, path in places.items()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def changed_program(folder: Path, **texts: str) -> Path:
    """Copy the program, with other texts at the end of its files."""
    shutil.copytree(PROGRAM, folder)
    for name, text in texts.items():
        with (folder / f"{name}.py").open("a") as file:
            file.write(text)
    return folder


def metrics(server: Server) -> drift.Series:
    """What the server's metrics say of the monitor's."""
    return drift.parse(drift.get(f"http://{HOST}:{server.ports.metrics}/metrics"))


def passed(server: Server) -> dict[str, float]:
    """How many pictures the monitor judged, left out and failed with."""
    found = metrics(server).get("behaviour_seen_total", [])
    return {labels["outcome"]: value for labels, value in found}
