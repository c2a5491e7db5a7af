"""Export: one ONNX graph from raw pixels to probabilities, in Triton's layout, with its papers."""

import hashlib
import json
import platform
import shutil
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classifier import data, precision
from classifier.batches import Batches
from classifier.data import Split
from classifier.model import CHECKPOINT, METRICS, Classifier, load_model, scores_of
from classifier.networks import Shape
from classifier.params import Params
from reporting import model_card
from reporting.model_card import Account
from workspace import files, settings
from workspace.errors import UserError
from workspace.model_code import code_sha256

REPOSITORY = Path("artifacts/model")
REPORT = Path("artifacts/export.json")
CONFIG = Path("serving/classifier/config.pbtxt")
NAME = "classifier"
LINEAGE = Path("lineage.json")
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


class Served(nn.Module):
    """What is served: uint8 pixels (N, H, W, C) in, probabilities (N, K) out."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (N, K)."""
        return self.model.probabilities(self.model(image))


def export(params: Params, root: Path) -> None:
    """Write the Triton model repository, the parity report, lineage.json and MODEL_CARD.md.

    Raises UserError, and leaves no repository, when the graph's answers on the test split differ.
    """
    model = load_model(root / CHECKPOINT).eval()
    split, classes = data.load_split(root, "test"), data.class_names(root)
    shutil.rmtree(root / REPOSITORY, ignore_errors=True)
    (root / REPOSITORY).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=(root / REPOSITORY).parent) as temporary:
        folder = Path(temporary) / NAME
        graph = folder / "1/model.onnx"
        graph.parent.mkdir(parents=True)
        graph.write_bytes(to_onnx(Served(model), model.shape))
        scores, _ = scores_of(model, split)
        expected = model.probabilities(scores).numpy()
        report = parity(graph, split, expected, params.export.tolerance)
        if report["passed"] and params.export.precision != "fp32":
            lowered, expected = lower(graph, expected, split, params, root)
            report |= lowered
        files.write(root / REPORT, json.dumps(report, indent=2) + "\n")
        refuse_unless_passed(report)
        (folder / "config.pbtxt").write_text((root / CONFIG).read_text() + interface(model.shape))
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes))
        few, bits = params.export.golden_images, params.export.precision
        write_golden(folder / "golden.npz", split, expected, few, precision.TOLERANCE[bits])
        shutil.copytree(temporary, root / REPOSITORY)
    origin = json.dumps(lineage(params, model.trained, root), indent=2, sort_keys=True)
    files.write(root / LINEAGE, origin + "\n")
    model_card.write(account(params, report, root), root)


def lineage(params: Params, trained: dict[str, Any], root: Path) -> dict[str, Any]:
    """Where a model comes from: all that is needed to make it again, and no times.

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


def account(params: Params, exported: dict[str, Any], root: Path) -> Account:
    """What the model card is to tell."""
    lost = exported.get("against_fp32")
    return Account(
        "<<cookiecutter.project>>",
        params.model_dump(),
        settings.read_json(root / METRICS),
        data.report(root),
        code_sha256(root),
        precision.told(exported["precision"], exported["images"], lost) if lost else "",
    )


def to_onnx(served: Served, shape: Shape) -> bytes:
    """The graph as ONNX, with the batch size left open; the same model gives the same bytes."""
    example = torch.zeros(2, shape.height, shape.width, shape.channels, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            served,
            (example,),
            input_names=["image"],
            output_names=["probabilities"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # only the older exporter returns nothing
    graph = program.model_proto
    forget_origin(graph)
    onnx.checker.check_model(graph, full_check=True)
    return graph.SerializeToString(deterministic=True)


def forget_origin(graph: onnx.ModelProto) -> None:
    """Drop the notes on where in the source each node came from: they hold paths of the machine."""
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    for part in (*graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for part in (*graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]


def parity(
    graph: Path, split: Split, expected: NDArray[np.float32], tolerance: float
) -> dict[str, Any]:
    """Compare ONNX Runtime's answers on a whole split with torch's, expected (N, K)."""
    answers = answers_of(graph, split)
    difference = float(np.abs(answers - expected).max())
    equal = int((answers.argmax(1) == expected.argmax(1)).sum())
    return {
        "precision": "fp32",
        "images": len(expected),
        "max_abs_difference": difference,
        "argmax_equal": equal,
        "tolerance": tolerance,
        # A comparison that is false for NaN, too.
        "passed": difference <= tolerance and equal == len(expected),
        "onnx_sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
    }


def answers_of(graph: Path, split: Split) -> NDArray[np.float32]:
    """ONNX Runtime's probabilities (N, K) of a whole split."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    batches = [session.run(None, {"image": images.numpy()})[0] for images, _ in Batches(split, 256)]
    return np.concatenate(batches)


def lower(
    graph: Path, full: NDArray[np.float32], split: Split, params: Params, root: Path
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Put the graph in fewer bits into its place; return what the report says, and its answers.

    They are compared with those of 32 bits, full (N, K), on the whole test split.
    """
    chosen = params.export
    lowered = precision.lower(
        onnx.load(graph),
        chosen.precision,
        data.load_split(root, "train"),
        chosen.calibration_pictures,
    )
    forget_origin(lowered)
    graph.write_bytes(lowered.SerializeToString(deterministic=True))
    answers = answers_of(graph, split)
    limits = params.evaluate.confidence, chosen.max_accuracy_loss
    compared = precision.compare(full, answers, np.asarray(split.labels), *limits)
    report = {
        "precision": chosen.precision,
        "against_fp32": compared,
        "passed": compared["passed"],
        "onnx_sha256": hashlib.sha256(graph.read_bytes()).hexdigest(),
    }
    return report, answers


def refuse_unless_passed(report: dict[str, Any]) -> None:
    """Raise UserError with the figures of a report that did not pass."""
    if "against_fp32" in report:
        precision.refuse_unless_passed(
            report["precision"], report["images"], report["against_fp32"]
        )
    elif not report["passed"]:
        raise UserError(
            f"the exported graph answers differently: probabilities differ by up to "
            f"{report['max_abs_difference']:.2g} (export.tolerance is {report['tolerance']:.2g}) "
            f"and {report['images'] - report['argmax_equal']} of {report['images']} test pictures "
            "get another class; look for an operation that has another precision there."
        )


def interface(shape: Shape) -> str:
    """The part of config.pbtxt that follows from the model: input, output, warm-up."""
    dims = f"[ {shape.height}, {shape.width}, {shape.channels} ]"
    return f"""
# What follows is written by the export stage from the model itself.
input [ {{ name: "image" data_type: TYPE_UINT8 dims: {dims} }} ]
output [
  {{
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ {shape.classes} ]
    label_filename: "labels.txt"
  }}
]
model_warmup [
  {{
    name: "first request"
    batch_size: 1
    inputs {{
      key: "image"
      value: {{ data_type: TYPE_UINT8 dims: {dims} zero_data: true }}
    }}
  }}
]
"""


def write_golden(
    path: Path,
    split: Split,
    expected: NDArray[np.float32],
    count: int,
    tolerance: float = precision.TOLERANCE["fp32"],
) -> None:
    """Write requests and their right answers, spread evenly over the test split.

    Other machines round otherwise, by up to `tolerance`: pictures whose class that might change are
    left out, unless there are no others.
    """
    first, second = np.sort(expected)[:, ::-1][:, :2].T
    sure = np.flatnonzero(first - second > 2 * tolerance)
    sure = sure if len(sure) else np.arange(len(expected))
    chosen = sure[np.unique(np.linspace(0, len(sure) - 1, count).astype(int))]
    np.savez(
        path,
        images=split.images[chosen],
        probabilities=expected[chosen],
        labels=split.labels[chosen],
        tolerance=tolerance,
    )
