"""A tiny classifier with the interface of the real one, made without training."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from conftest import UNBAKED

SHAPE = (8, 6, 1)  # height, width, channels: not square, so that a mix-up shows
CLASSES = 5

INTERFACE = """
input [ { name: "image" data_type: TYPE_UINT8 dims: [ 8, 6, 1 ] } ]
output [
  { name: "probabilities" data_type: TYPE_FP32 dims: [ 5 ] label_filename: "labels.txt" }
]
"""


def graph(seed: int, shape: tuple[int, ...] = SHAPE) -> onnx.ModelProto:
    """Raw pixels to probabilities: cast, flatten, linear, softmax."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(int(np.prod(shape)), CLASSES)).astype(np.float32) / 500
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["rows"]),
        helper.make_node("Gemm", ["rows", "weights"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *shape])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(made, opset_imports=opset, ir_version=9)


def processes(text: str) -> list[int]:
    """List the processes whose command line holds a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if text in (folder / "cmdline").read_bytes().decode(errors="replace"):
                found.append(int(folder.name))
    return found


def write_repository(
    folder: Path, version: int = 1, seed: int = 0, shape: tuple[int, ...] = SHAPE
) -> Path:
    """Write a model repository as the export does, golden requests included; return `folder`."""
    model = folder / "classifier"
    (model / str(version)).mkdir(parents=True)
    onnx.save(graph(seed, shape), model / str(version) / "model.onnx")
    tuned = (UNBAKED / "serving/classifier/config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(
        tuned + INTERFACE.replace("8, 6, 1", ", ".join(map(str, shape)))
    )
    (model / "labels.txt").write_text("".join(f"class {index}\n" for index in range(CLASSES)))
    images = np.random.default_rng(1).integers(0, 256, (70, *shape), dtype=np.uint8)
    session = onnxruntime.InferenceSession(graph(seed, shape).SerializeToString())
    (probabilities,) = session.run(None, {"image": images})
    labels = probabilities.argmax(axis=1)
    np.savez(model / "golden.npz", images=images, probabilities=probabilities, labels=labels)
    return folder
