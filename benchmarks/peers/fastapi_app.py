"""FastAPI: a binary body in, a binary body out; a thread of the pool for each request."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
shape = [1, *session.get_inputs()[0].shape[1:]]
app = FastAPI()


@app.post("/infer")
async def infer(request: Request) -> Response:
    image = np.frombuffer(await request.body(), np.uint8).reshape(shape)
    (answer,) = await run_in_threadpool(session.run, None, {"image": image})
    return Response(answer.tobytes(), media_type="application/octet-stream")
