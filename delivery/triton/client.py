"""One way to call a server over HTTP and over gRPC, on NVIDIA's client."""

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException

from delivery.errors import DeliveryError
from delivery.triton.server import HOST, MODEL, Ports

PROTOCOLS = ("http", "grpc")
TIMEOUT = 30.0  # seconds of one request


@dataclass(frozen=True)
class Answer:
    """What a server said to one request.

    Attributes:
        probabilities: float32 (n, K); with `top`, byte strings (n, top) of the form
            "probability:index:label".
        version: the model version that answered.
    """

    probabilities: np.ndarray
    version: int


class Client:
    """A connection to one server, closed at the end of its `with` block."""

    def __init__(self, protocol: str, port: int) -> None:
        """Prepare a connection by "http" or "grpc" to a port on loopback; nothing is sent yet."""
        self.protocol = protocol
        self.address = f"{HOST}:{port}"
        self.library: Any = importlib.import_module(f"tritonclient.{protocol}")
        limits = {"network_timeout": TIMEOUT} if protocol == "http" else {}
        self.connection = self.library.InferenceServerClient(self.address, **limits)

    def __enter__(self) -> "Client":
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.connection.close()

    def input_shape(self) -> tuple[int, int, int]:
        """Return height, width and channels of the pictures that the model takes."""
        described = self.call("get_model_metadata", MODEL)
        if self.protocol == "grpc":
            shape = described.inputs[0].shape
        else:
            shape = described["inputs"][0]["shape"]
        _, height, width, channels = (int(size) for size in shape)
        return height, width, channels

    def infer(self, pictures: np.ndarray, top: int = 0) -> Answer:
        """Classify pictures.

        Args:
            pictures: uint8 (n, H, W, C).
            top: ask for that many classes with their labels instead of all probabilities.

        Raises DeliveryError when nothing listens at the address or the server refuses.
        """
        datatype = "UINT8" if pictures.dtype == np.uint8 else "FP32"
        tensor = self.library.InferInput("image", list(pictures.shape), datatype)
        tensor.set_data_from_numpy(pictures)
        wanted = self.library.InferRequestedOutput("probabilities", class_count=top)
        result = self.call("infer", MODEL, [tensor], outputs=[wanted])
        response = result.get_response()
        version = response.model_version if self.protocol == "grpc" else response["model_version"]
        return Answer(result.as_numpy("probabilities"), int(version))

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call the library; of its many exceptions make one sentence. Raises DeliveryError."""
        try:
            return getattr(self.connection, method)(*arguments, **named)
        except InferenceServerException as error:
            status, reason = str(error.status()), error.message()
            if "UNAVAILABLE" not in status or "failed to connect" not in reason:
                raise DeliveryError(f"the server refused ({status}): {reason}") from None
        except (OSError, HTTPConnectionClosed):
            pass
        raise DeliveryError(f"no server answers at {self.address}: start one with `make serve`")


def connect(protocol: str, ports: Ports) -> Client:
    """Connect to a server on this machine."""
    return Client(protocol, getattr(ports, protocol))
