"""LitServe with batches, a worker for each core; it takes JSON, so pixels are in base64."""

import base64
import os
import sys

import litserve
import numpy as np
import onnxruntime


class Classifier(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self.shape = self.session.get_inputs()[0].shape[1:]

    def decode_request(self, request):
        return np.frombuffer(base64.b64decode(request["image"]), np.uint8).reshape(self.shape)

    def batch(self, images):
        return np.stack(images)

    def predict(self, images):
        return self.session.run(None, {"image": images})[0]

    def unbatch(self, answers):
        return list(answers)

    def encode_response(self, answer):
        return {"probabilities": answer.tolist()}


if __name__ == "__main__":
    api = Classifier(max_batch_size=32, batch_timeout=0.001, api_path="/infer")
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=len(os.sched_getaffinity(0))
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
