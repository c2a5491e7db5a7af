"""One way to call a server over HTTP and over gRPC, on NVIDIA's client."""

import importlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException

from delivery.errors import DeliveryError
from delivery.triton.loopback import DIRECT, HOST
from delivery.triton.server import MODEL, Ports
from workspace.errors import sentence

PROTOCOLS = ("http", "grpc")
TIMEOUT = 30.0  # seconds of one request
# For servers that send connections away: one may be gone as a call begins.
ASKS_AGAIN = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
RETRIES = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": ASKS_AGAIN}]})
UNLIMITED = -1  # bytes of a message


class RefusalError(DeliveryError):
    """A server answers, and refuses."""


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

    def __init__(
        self,
        protocol: str,
        address: str,
        timeout: float = TIMEOUT,
        again: bool = False,
        largest: int = UNLIMITED,
    ) -> None:
        """Prepare a connection by "http" or "grpc" to `<host>:<port>`; nothing is sent yet.

        It goes there directly, whatever the environment says of proxies. "https://" may precede an
        address of HTTP. An answer may take `timeout` seconds. With `again` a call over gRPC is made
        anew, twice at most, when its connection is gone. An answer of more than `largest` bytes is
        refused unread.
        """
        self.protocol = protocol
        scheme, _, self.address = address.rpartition("://")
        self.patience = {"client_timeout": timeout} if protocol == "grpc" else {}  # of each call
        self.library: Any = importlib.import_module(f"tritonclient.{protocol}")
        retries = [("grpc.service_config", RETRIES)] if again else []
        most = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", largest)]
        options: dict[str, Any] = {"channel_args": [DIRECT, *most, *retries]}
        if protocol == "http":
            options = {"network_timeout": timeout, "connection_timeout": timeout}
            options["ssl"] = scheme == "https"
        self.connection = self.library.InferenceServerClient(self.address, **options)
        if protocol == "http" and largest != UNLIMITED:
            limit(self.connection, largest)

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

    def ready_versions(self) -> list[int]:
        """Ask, over HTTP, which versions of the model can be called. Raises DeliveryError."""
        described = self.call("get_model_metadata", MODEL)
        try:
            versions = [int(each) for each in described["versions"]]
        except Exception as error:
            raise self.stranger(error) from None
        return [each for each in versions if self.call("is_model_ready", MODEL, str(each))]

    def infer(
        self,
        pictures: np.ndarray,
        top: int = 0,
        names: tuple[str, str] = ("image", "probabilities"),
    ) -> Answer:
        """Classify pictures.

        Args:
            pictures: uint8 (n, H, W, C).
            top: ask for that many classes with their labels instead of all probabilities.
            names: of input and output.

        Raises DeliveryError when nothing listens at the address or the server refuses.
        """
        datatype = "UINT8" if pictures.dtype == np.uint8 else "FP32"
        tensor = self.library.InferInput(names[0], list(pictures.shape), datatype)
        tensor.set_data_from_numpy(pictures)
        wanted = self.library.InferRequestedOutput(names[1], class_count=top)
        result = self.call("infer", MODEL, [tensor], outputs=[wanted])
        try:
            said = result.get_response()
            version = said.model_version if self.protocol == "grpc" else said["model_version"]
            return Answer(result.as_numpy(names[1]), int(version))
        except Exception as error:
            raise self.stranger(error) from None

    def call(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Call the library; of its many exceptions make one sentence. Raises DeliveryError."""
        try:
            return getattr(self.connection, method)(*arguments, **named, **self.patience)
        except InferenceServerException as error:
            status, reason = str(error.status()), error.message()
            is_away = "UNAVAILABLE" in status and "failed to connect" in reason
            if not is_away and "DEADLINE_EXCEEDED" not in status:
                raise RefusalError(f"the server refused ({status}): {reason}") from None
        except (OSError, HTTPConnectionClosed):
            pass
        except DeliveryError:
            raise
        except Exception as error:  # any program may answer anything
            raise self.stranger(error) from None
        raise DeliveryError(f"no server answers at {self.address}: start one with `make serve`")

    def stranger(self, error: Exception) -> DeliveryError:
        """Return the error that another program than Triton answers."""
        return DeliveryError(
            f"what answers at {self.address} is not Triton ({sentence(error)}): give another port"
        )


def limit(connection: Any, largest: int) -> None:
    """Have NVIDIA's client over HTTP, which reads whatever comes, refuse what is larger unread."""
    stub = connection._client_stub
    send = stub.request

    def request(*arguments: Any, **named: Any) -> Any:
        answer = send(*arguments, **named)
        size = answer.content_length
        if size is not None and size <= largest:
            return answer
        answer.release()
        told = "an unknown number of" if size is None else size
        raise DeliveryError(f"an answer has {told} bytes and at most {largest} are read")

    stub.request = request


def connect(protocol: str, ports: Ports, again: bool = False) -> Client:
    """Connect to a server on this machine; `again` as a client has it."""
    return Client(protocol, f"{HOST}:{getattr(ports, protocol)}", again=again)
