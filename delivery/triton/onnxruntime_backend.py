"""The `onnxruntime` backend of this machine's Triton, written as one of its Python-based backends.

Production images carry NVIDIA's own backend of this name; this one loads the same `config.pbtxt`
and the same `model.onnx` on a CPU, and refuses what that one refuses, in the same words (its rules
are ValidateInputs, ValidateOutputs and CompareDimsSupported in its onnxruntime.cc).
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

# Names that Triton has for types; of the others it is ONNX Runtime's in capitals.
TYPES = {"float16": "FP16", "bfloat16": "BF16", "float": "FP32", "double": "FP64"}


class TritonPythonModel:
    """One ONNX Runtime session per model instance; Triton creates, calls and removes it."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        check_device(args["model_name"], args["model_instance_kind"])
        folder = Path(args["model_repository"]) / args["model_version"]
        file = folder / (config.get("default_model_filename") or "model.onnx")
        self.inputs = [entry["name"] for entry in config["input"]]
        self.outputs = [entry["name"] for entry in config["output"]]
        self.session = onnxruntime.InferenceSession(
            file, options(config.get("parameters", {})), providers=["CPUExecutionProvider"]
        )
        check_inputs(config, self.session.get_inputs())
        check_outputs(config, self.session.get_outputs())

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
        alone = len(requests) == 1
        joined = (
            arrays[0] if alone else [np.concatenate(rows) for rows in zip(*arrays, strict=True)]
        )
        results = self.session.run(self.outputs, dict(zip(self.inputs, joined, strict=True)))
        if alone:
            return [self.answer(requests[0], results)]
        answers, start = [], 0
        for request, (first, *_) in zip(requests, arrays, strict=True):
            end = start + len(first)  # slices: np.split took a third of the time outside of the run
            answers.append(self.answer(request, [result[start:end] for result in results]))
            start = end
        return answers

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


# -- what is refused -------------------------------------------------------------------------------


def check_device(model, kind):
    """Refuse an instance on a GPU, as the core of a Triton that knows GPUs does without one."""
    if kind == "GPU":
        refuse(f"instance group of model '{model}' has kind KIND_GPU but no GPUs are available")


def check_inputs(config, tensors):
    """Refuse a configuration whose inputs are not those of the graph."""
    entries = config["input"]
    if len(entries) != len(tensors):
        expected = f"configuration expects {len(entries)} inputs, model provides {len(tensors)}"
        refuse(f"unable to load model '{config['name']}', {expected}")
    for entry in entries:
        check_tensor(config, "input", entry, tensors)


def check_outputs(config, tensors):
    """Refuse a configuration with outputs that the graph does not have so."""
    for entry in config["output"]:
        check_tensor(config, "output", entry, tensors)


def check_tensor(config, kind, entry, tensors):
    """Refuse an entry of the configuration unless the graph has one of its name, type and shape."""
    model, name = config["name"], entry["name"]
    by_name = {each.name: each for each in tensors}
    if name not in by_name:
        allowed = ", ".join(sorted(by_name))
        refuse(f"unexpected inference {kind} '{name}', allowed {kind}s are: {allowed}")
    provided = triton_type(by_name[name].type)
    if entry["data_type"].replace("STRING", "BYTES") != provided:
        refuse(
            f"unable to load model '{model}', configuration expects datatype {entry['data_type']} "
            f"for {kind} '{name}', model provides {provided}"
        )
    check_shape(config, kind, entry, sizes(by_name[name].shape))


def check_shape(config, kind, entry, provided):
    """Refuse other dimensions; only those of an input may be open in the graph."""
    place = f"model '{config['name']}', tensor '{entry['name']}':"
    batches = config["max_batch_size"] > 0
    if batches and provided[:1] != [-1]:
        refuse(
            f"{place} for the model to support batching the shape should have at least 1 dimension "
            f"and the first dimension must be -1; but shape expected by the model is {provided}"
        )
    wanted = [int(size) for size in entry.get("reshape", {}).get("shape", entry["dims"])]
    wanted = [-1, *wanted] if batches else wanted
    pairs = zip(provided, wanted, strict=False)
    free = {-1} if kind == "input" else set()
    if len(provided) != len(wanted) or any(p != w and p not in free for p, w in pairs):
        refuse(
            f"{place} the model expects {len(provided)} dimensions (shape {provided}) but the "
            f"model configuration specifies {len(wanted)} dimensions (shape {wanted})"
        )


def triton_type(name):
    """Return Triton's name of a type, such as TYPE_FP32 of `tensor(float)`."""
    inner = name.removeprefix("tensor(").removesuffix(")")
    return "TYPE_" + TYPES.get(inner, inner.replace("string", "bytes").upper())


def sizes(shape):
    """Return the dimensions of a tensor; open ones, which ONNX Runtime gives names, are -1."""
    return [size if isinstance(size, int) else -1 for size in shape]


def refuse(reason):
    raise triton.TritonModelException(reason)
