"""Whether a call over gRPC is made anew when its connection is gone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest
from tritonclient.grpc import service_pb2

from delivery.errors import DeliveryError
from delivery.triton.client import connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports


@dataclass
class Fickle:
    """A server whose first answers are that it is not there."""

    away: int
    calls: int = 0
    port: int = 0

    def live(
        self, request: object, context: grpc.ServicerContext
    ) -> service_pb2.ServerLiveResponse:
        self.calls += 1
        if self.calls <= self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "sent away")
        return service_pb2.ServerLiveResponse(live=True)


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    server, made = grpc.server(ThreadPoolExecutor(1)), Fickle(away=2)
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
    server.stop(None)


def test_a_call_is_made_anew_twice_and_no_more(fickle: Fickle) -> None:
    with connect("grpc", Ports(0, fickle.port), again=True) as client:
        assert client.call("is_server_live")
        assert fickle.calls == 3
        fickle.away = 10
        with pytest.raises(DeliveryError, match="sent away"):
            client.call("is_server_live")
        assert fickle.calls == 6


def test_others_hear_of_the_first_failure(fickle: Fickle) -> None:
    with (
        connect("grpc", Ports(0, fickle.port)) as client,
        pytest.raises(DeliveryError, match="sent away"),
    ):
        client.call("is_server_live")
    assert fickle.calls == 1
