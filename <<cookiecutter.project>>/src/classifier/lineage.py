"""Where a model comes from: the data, the code, the parameters and the machine that made it."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classifier import data
from classifier.params import Params
from workspace import files
from workspace.model_code import code_sha256

FILE = Path("lineage.json")
LIBRARIES = (
    "matplotlib",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pillow",
    "pytorch-lightning",
    "scikit-learn",
    "scipy",
    "torch",
    "torchvision",
)


def lineage(params: Params, trained: dict[str, Any], root: Path) -> dict[str, Any]:
    """All that is needed to make the model again; without times, so that it compares equal.

    `trained` says on what the weights were trained, which may be another machine than this one.
    """
    report = data.report(root)
    return {
        "data": {
            "source": params.prepare.source,
            "sha256": report["sha256"],
            "test_sha256": report["splits"]["test"]["sha256"],
        },
        "code": {"sha256": code_sha256(root)},
        "params": params.model_dump(),
        "seed": params.seed,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "trained": trained,
    }


def write(params: Params, trained: dict[str, Any], root: Path) -> None:
    """Write lineage.json."""
    content = json.dumps(lineage(params, trained, root), indent=2, sort_keys=True)
    files.write(root / FILE, content + "\n")
