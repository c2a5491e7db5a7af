"""Whether a call over gRPC is made anew when its connection is gone."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from delivery.errors import DeliveryError
from delivery.triton.client import PROTOCOLS, Client, connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports


@dataclass
class Fickle:
    """A server whose first answers are that it is not there, and that may hold up all of them."""

    away: int
    calls: int = 0
    port: int = 0
    ends: threading.Event = field(default_factory=threading.Event)

    def live(
        self, request: object, context: grpc.ServicerContext
    ) -> service_pb2.ServerLiveResponse:
        self.calls += 1
        self.ends.wait(20)
        if self.calls <= self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sent away")
        return service_pb2.ServerLiveResponse(live=True)


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    server, made = grpc.server(ThreadPoolExecutor(1)), Fickle(away=2)
    made.ends.set()
    handler = grpc.unary_unary_rpc_method_handler(
        made.live,
        service_pb2.ServerLiveRequest.FromString,
        service_pb2.ServerLiveResponse.SerializeToString,
    )
    service = {"ServerLive": handler}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("inference.GRPCInferenceService", service)]
    )
    made.port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    yield made
    made.ends.set()
    server.stop(None)


def test_a_call_is_made_anew_twice_and_no_more(fickle: Fickle) -> None:
    with connect("grpc", Ports(0, fickle.port), again=True) as client:
        assert client.call("is_server_live")
        assert fickle.calls == 3
        fickle.away = 10
        with pytest.raises(DeliveryError, match="sent away"):
            client.call("is_server_live")
        assert fickle.calls == 6


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_accepts_and_says_nothing_is_waited_for_so_long_and_no_longer(protocol: str) -> None:
    image = np.zeros((1, 2, 2, 1), np.uint8)
    silent = socket.create_server((HOST, 0))
    address = f"{HOST}:{silent.getsockname()[1]}"
    with (
        Client(protocol, address, timeout=60) as patient,
        Client(protocol, address, timeout=0.5) as hasty,
        ThreadPoolExecutor(1) as pool,
        silent,
    ):
        waits = pool.submit(patient.infer, image)
        for ask in (hasty.input_shape, partial(hasty.infer, image)):
            with pytest.raises(DeliveryError, match=f"no server answers at {address}: "):
                ask()
        assert not waits.done()
        silent.close()
        with pytest.raises(DeliveryError):
            waits.result()


def test_a_call_that_begins_and_never_ends_is_given_up(fickle: Fickle) -> None:
    fickle.away = 0
    fickle.ends.clear()
    with (
        Client("grpc", f"{HOST}:{fickle.port}", timeout=5) as client,
        pytest.raises(DeliveryError, match="no server answers at"),
    ):
        client.call("is_server_live")
    assert fickle.calls == 1


def test_others_hear_of_the_first_failure(fickle: Fickle) -> None:
    with (
        connect("grpc", Ports(0, fickle.port)) as client,
        pytest.raises(DeliveryError, match="sent away"),
    ):
        client.call("is_server_live")
    assert fickle.calls == 1
