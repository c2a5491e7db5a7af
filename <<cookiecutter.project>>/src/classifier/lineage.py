"""Where a model comes from: the data, the code, the parameters and the machine that made it."""

import hashlib
import json
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classifier import data
from classifier.params import Params

FILE = Path("lineage.json")

# The files that make the model what it is; parameters are recorded by value.
CODE = ("src/classifier/**/*.py", "serving/classifier/config.pbtxt")
LIBRARIES = (
    "matplotlib",
    "numpy",
    "onnx",
    "onnxscript",
    "pillow",
    "pytorch-lightning",
    "scikit-learn",
    "scipy",
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
        "params": asdict(params),
        "seed": params.seed,
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "trained": trained,
    }


def write(params: Params, trained: dict[str, Any], root: Path) -> None:
    """Write lineage.json."""
    content = json.dumps(lineage(params, trained, root), indent=2, sort_keys=True)
    (root / FILE).write_text(content + "\n")
