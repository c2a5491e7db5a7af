"""Where a model comes from: the data, the code, the parameters and the machine that made it."""

import hashlib
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from classifier import data
from classifier.params import Params

FILE = Path("lineage.json")

# The files that make the model what it is; parameters are recorded by value.
CODE = ("src/classifier/**/*.py", "serving/classifier/config.pbtxt")
LIBRARIES = (
    "numpy",
    "onnx",
    "onnxscript",
    "pytorch-lightning",
    "scikit-learn",
    "torch",
    "torchvision",
)


def code_sha256(root: Path) -> str:
    """SHA-256 over "path NUL sha256-of-content newline" of the CODE files, sorted by path.

    A hash of the content, not a commit: code is the same before and after it is committed.
    """
    total = hashlib.sha256()
    for path in sorted(path for pattern in CODE for path in root.glob(pattern)):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def lineage(params: Params, root: Path) -> dict[str, Any]:
    """All that is needed to make the model again; without times, so that it compares equal."""
    report = data.report(root)
    return {
        "data": {
            "source": params.prepare.source,
            "sha256": report["sha256"],
            "test_sha256": report["splits"]["test"]["sha256"],
        },
        "code": {"sha256": code_sha256(root)},
        "params": asdict(params),
        "seed": params.seed,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "hardware": hardware(),
    }


def hardware() -> str:
    """Name of the device that trains."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU {platform.machine()}"


def write(params: Params, root: Path) -> None:
    """Write lineage.json."""
    (root / FILE).write_text(json.dumps(lineage(params, root), indent=2, sort_keys=True) + "\n")
