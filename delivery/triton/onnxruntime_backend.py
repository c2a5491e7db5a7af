"""The `onnxruntime` backend of this machine's Triton, written as one of its Python-based backends.

Production images carry NVIDIA's own backend of this name; this one loads the same `config.pbtxt`
and the same `model.onnx` on a CPU.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """One ONNX Runtime session per model instance; Triton creates, calls and removes it."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        file = folder / (config.get("default_model_filename") or "model.onnx")
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        self.session = onnxruntime.InferenceSession(
            file, options(config.get("parameters", {})), providers=["CPUExecutionProvider"]
        )

    def execute(self, requests):
        """Answer all requests of a batch with one run; alone, if together they fail."""
        try:
            return self.run(requests)
        except Exception as error:
            if len(requests) > 1:
                return [response for request in requests for response in self.execute([request])]
            return [triton.InferenceResponse(error=triton.TritonError(str(error)))]

    def run(self, requests):
        arrays = [[tensor(request, name) for name in self.inputs] for request in requests]
        joined = [np.concatenate(column) for column in zip(*arrays, strict=True)]
        results = self.session.run(self.outputs, dict(zip(self.inputs, joined, strict=True)))
        if len(requests) == 1:
            return [self.answer(requests[0], results)]
        ends = np.cumsum([row[0].shape[0] for row in arrays])[:-1]
        parts = zip(*(np.split(result, ends) for result in results), strict=True)
        return [self.answer(*pair) for pair in zip(requests, parts, strict=True)]

    def answer(self, request, results):
        wanted = request.requested_output_names()
        pairs = zip(self.outputs, results, strict=True)
        return triton.InferenceResponse(
            [triton.Tensor(name, value) for name, value in pairs if name in wanted]
        )


def tensor(request, name):
    return triton.get_input_tensor_by_name(request, name).as_numpy()


def options(parameters):
    """Thread counts, under the names that NVIDIA's backend gives them."""
    chosen = onnxruntime.SessionOptions()
    if "intra_op_thread_count" in parameters:
        chosen.intra_op_num_threads = int(parameters["intra_op_thread_count"]["string_value"])
    if "inter_op_thread_count" in parameters:
        chosen.inter_op_num_threads = int(parameters["inter_op_thread_count"]["string_value"])
    return chosen
