"""BentoML with batches, a worker for each core; it takes arrays as JSON."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=len(os.sched_getaffinity(0)))
class Classifier:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=60000, route="/infer")
    def infer(self, image: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"image": image.astype(np.uint8)})[0]
