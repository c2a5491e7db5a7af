"""Graphs in fewer bits: half precision for GPUs, 8 bits for CPUs, judged on the whole test set."""

import tempfile
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from classifier.data import Split
from reporting.answers import wilson
from workspace.errors import UserError

# How far apart two machines' probabilities may be that run the same graph: they round otherwise.
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}
# What is worth 8 bits, named one by one: the library's own list is a set, whose order changes.
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "AveragePool", "GlobalAveragePool"]
CALIBRATION_BATCH = 32  # pictures whose intermediate values are in memory at once


def lower(graph: onnx.ModelProto, precision: str, train: Split, pictures: int) -> onnx.ModelProto:
    """Return the graph in "fp16" or "int8"; pixels stay UINT8 and probabilities FP32.

    The ranges of 8 bits are those that `pictures` of the training split, evenly spread, need.
    """
    lowered = to_fp16(graph) if precision == "fp16" else to_int8(graph, train, pictures)
    used = {node.domain for node in lowered.graph.node}
    kept = [each for each in lowered.opset_import if each.domain in used]
    del lowered.opset_import[:]  # the library adds all that it knows
    lowered.opset_import.extend(kept)
    return lowered


def to_fp16(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in half precision but for the softmax, whose sum is to be 1."""
    blocked = [*DEFAULT_OP_BLOCK_LIST, "Softmax"]
    return convert_float_to_float16(graph, keep_io_types=True, op_block_list=blocked)


def to_int8(graph: onnx.ModelProto, train: Split, pictures: int) -> onnx.ModelProto:
    """Return the graph with activations of 8 bits without and weights of 8 bits with a sign.

    Weights have a scale for each channel.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(graph, prepared)
        quantize_static(
            prepared,
            quantized,
            Calibration(train, pictures),
            op_types_to_quantize=OPERATORS,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


class Calibration(CalibrationDataReader):
    """Pictures of a split, evenly spread, as the library asks for them: batch by batch."""

    def __init__(self, split: Split, count: int) -> None:
        chosen = np.unique(np.linspace(0, len(split.labels) - 1, count).astype(int))
        parts = np.array_split(chosen, -(-len(chosen) // CALIBRATION_BATCH))
        self.batches: Iterator[dict[str, Any]] = ({"image": split.images[p]} for p in parts)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, as long as there is one."""
        return next(self.batches, None)


# -- judged ----------------------------------------------------------------------------------------


def compare(
    full: NDArray[np.float32],
    lowered: NDArray[np.float32],
    labels: NDArray[np.int64],
    confidence: float,
    max_loss: float,
) -> dict[str, Any]:
    """Compare probabilities (N, K) in fewer bits with those in 32, on the same pictures.

    It passes when the paired interval of the difference of accuracies is above −`max_loss`.
    """
    before, after = full.argmax(1) == labels, lowered.argmax(1) == labels
    low, high = paired_interval(before, after, confidence)
    return {
        "flips": int((full.argmax(1) != lowered.argmax(1)).sum()),
        "newly_wrong": int((before & ~after).sum()),
        "newly_right": int((after & ~before).sum()),
        "accuracy_fp32": float(before.mean()),
        "accuracy": float(after.mean()),
        "interval": [low, high],
        "confidence": confidence,
        "max_accuracy_loss": max_loss,
        "max_abs_difference": float(np.abs(full - lowered).max()),
        "passed": bool(low >= -max_loss and np.isfinite(lowered).all()),
    }


def paired_interval(
    before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float
) -> tuple[float, float]:
    """Interval of how much more often `after` is right than `before` on the same pictures (N,).

    Source: Newcombe, Improved confidence intervals for the difference between binomial proportions
    based on paired data, Statistics in Medicine 17 (1998), method 10.
    """
    total = len(before)
    p1, p2 = after.mean(), before.mean()
    (l1, u1), (l2, u2) = (wilson(int(each.sum()), total, confidence) for each in (after, before))
    phi = correlation(before, after)
    low = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    high = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    return float(p1 - p2 - sqrt(max(low, 0))), float(p1 - p2 + sqrt(max(high, 0)))


def correlation(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> float:
    """The correlation of two answers being right, with Newcombe's correction for continuity."""
    total, a, d = len(before), int((before & after).sum()), int((~before & ~after).sum())
    b, c = int((after & ~before).sum()), int((before & ~after).sum())
    spread = sqrt((a + b) * (c + d) * (a + c) * (b + d))
    surplus = float(a * d - b * c)
    if surplus > 0:
        surplus = max(surplus - total / 2, 0)
    return surplus / spread if spread else 0.0


def refuse_unless_passed(precision: str, images: int, compared: dict[str, Any]) -> None:
    """Raise UserError with the figures of a comparison that did not pass."""
    if not compared["passed"]:
        raise UserError(
            f"{told(precision, images, compared)}, and export.max_accuracy_loss is "
            f"{compared['max_accuracy_loss']:g}; set export.precision to fp32"
        )


def told(precision: str, images: int, compared: dict[str, Any]) -> str:
    """The figures of a comparison on that many pictures, in words."""
    low, high = compared["interval"]
    return (
        f"{precision} gives another class to {compared['flips']} of {images} test pictures than "
        f"fp32, accuracy {compared['accuracy']:.4f} instead of {compared['accuracy_fp32']:.4f} "
        f"({compared['confidence']:.0%} interval of the difference {low:+.4f} to {high:+.4f})"
    )
