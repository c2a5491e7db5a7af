"""The model: data, networks, training, evaluation and export. It never imports `delivery`."""

import workspace  # noqa: F401 - before ONNX Runtime, which it keeps quiet
