"""The stable address: every request passes unchanged, to one server, also while servers change."""

import queue
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, ThreadingTCPServer

import grpc
import h2.config
import h2.connection
import h2.events
import hyperframe.frame
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from delivery.errors import DeliveryError
from delivery.model import golden
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.loopback import HOST
from delivery.triton.proxy import Proxy
from delivery.triton.server import Ports, Server, ready_path, start
from tiny import SHAPE, write_repository
from waiting import wait_until

IMAGE = np.zeros((1, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Versions 1 and 2 of a model, served side by side."""
    folder = tmp_path_factory.mktemp("models")
    started = []
    try:
        for version in (1, 2):
            repository = write_repository(folder / str(version), version, seed=version)
            started.append(start(repository, folder / f"{version}.log"))
        for version, server in enumerate(started, 1):
            server.wait(ready_path(version), 300)
        yield started
    finally:
        for server in started:
            server.kill()


@pytest.fixture
def recorded(servers: list[Server]) -> golden.Golden:
    return golden.load(servers[0].log.parent / "1" / "classifier" / "golden.npz")


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(0, 0) as running:
        yield running


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_before_the_first_version(proxy: Proxy, protocol: str) -> None:
    status = {"http": "503", "grpc": "UNAVAILABLE"}[protocol]
    with (
        connect(protocol, proxy.ports) as client,
        pytest.raises(DeliveryError, match=f"{status}.*no version is being served yet"),
    ):
        client.infer(IMAGE)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_pass_unchanged(
    proxy: Proxy, servers: list[Server], recorded: golden.Golden, protocol: str
) -> None:
    proxy.switch(servers[0].ports)
    with connect(protocol, proxy.ports) as client:
        assert golden.compare(client, recorded, 7).passed


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refusals_pass_unchanged(proxy: Proxy, servers: list[Server], protocol: str) -> None:
    proxy.switch(servers[0].ports)
    wrong = np.zeros((1, 3, 3, 1), np.uint8)
    said = []
    for ports in (servers[0].ports, proxy.ports):
        with (
            connect(protocol, ports) as client,
            pytest.raises(DeliveryError, match="the server refused") as refusal,
        ):
            client.infer(wrong)
        said.append(str(refusal.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_requests_of_nvidias_client_pass(
    proxy: Proxy, servers: list[Server], algorithm: str
) -> None:
    proxy.switch(servers[0].ports)
    tensor = tritonclient.http.InferInput("image", [1, *SHAPE], "UINT8")
    tensor.set_data_from_numpy(IMAGE)
    with tritonclient.http.InferenceServerClient(f"{HOST}:{proxy.ports.http}") as client:
        result = client.infer(
            "classifier",
            [tensor],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
    assert result.as_numpy("probabilities").shape == (1, 5)


def test_streams_pass(proxy: Proxy, servers: list[Server]) -> None:
    proxy.switch(servers[0].ports)
    answers: queue.Queue = queue.Queue()
    address = f"{HOST}:{proxy.ports.grpc}"
    with tritonclient.grpc.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        tensor = tritonclient.grpc.InferInput("image", [1, *SHAPE], "UINT8")
        tensor.set_data_from_numpy(IMAGE)
        for _ in range(3):
            client.async_stream_infer("classifier", [tensor])
        for _ in range(3):
            result, error = answers.get(timeout=20)
            assert error is None and result.as_numpy("probabilities").shape == (1, 5)


def test_no_request_fails_and_none_goes_back_while_versions_change(
    proxy: Proxy, servers: list[Server]
) -> None:
    proxy.switch(servers[0].ports)
    switched, stop = threading.Event(), threading.Event()

    def call(protocol: str, before: list[int], after: list[int]) -> None:
        with connect(protocol, proxy.ports) as client:
            while not stop.is_set():
                asked_after = switched.is_set()
                version = client.infer(IMAGE).version
                (after if asked_after else before).append(version)

    def wait_for_ten(answers: list[list[int]]) -> None:
        deadline = time.monotonic() + 60
        while min(map(len, answers)) < 10 and time.monotonic() < deadline:
            time.sleep(0.01)

    befores: list[list[int]] = [[] for _ in range(8)]
    afters: list[list[int]] = [[] for _ in range(8)]
    with futures.ThreadPoolExecutor(8) as pool:
        clients = zip(PROTOCOLS * 4, befores, afters, strict=True)
        calls = [pool.submit(call, *each) for each in clients]
        wait_for_ten(befores)
        former = proxy.switch(servers[1].ports)
        switched.set()
        left = former and proxy.drain(former, 20)
        wait_for_ten(afters)
        stop.set()
    assert left == 0
    for each in calls:
        each.result()
    for before, after in zip(befores, afters, strict=True):
        assert before == sorted(before) and before[0] == 1
        assert set(after) == {2}


# -- against a server that shows what arrives ------------------------------------------------------


class Mirror(BaseHTTPRequestHandler):
    """Answers with what it got, as late as the request asks."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(self.headers.get("Wait", 0)))
        self.send_response(200)
        for name in ("Inference-Header-Content-Length", "Content-Type"):
            self.send_header(name, self.headers.get(name, "none"))
        self.send_header("Got", f"{self.path} {self.headers.get('Connection', 'nothing')}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(proxy: Proxy) -> Iterator[Ports]:
    web = ThreadingHTTPServer((HOST, 0), Mirror)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    calls = grpc.server(futures.ThreadPoolExecutor(1))
    ports = Ports(web.server_port, calls.add_insecure_port(f"{HOST}:0"))
    calls.start()
    proxy.switch(ports)
    yield ports
    calls.stop(None)
    web.shutdown()


def post(proxy: Proxy, path: str, body: bytes, **headers: str) -> tuple[dict[str, str], bytes]:
    url = f"http://{HOST}:{proxy.ports.http}{path}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=30) as answer:
        return dict(answer.headers), answer.read()


def test_bodies_headers_and_paths_arrive_as_they_were_sent(proxy: Proxy, mirror: Ports) -> None:
    body = np.random.default_rng(0).bytes(20_000_000)
    path = "/v2/models/a%2Fb/infer?x=%20y&z=1"
    headers, answer = post(proxy, path, body, Inference_Header_Content_Length="123")
    assert answer == body
    assert headers["Inference-Header-Content-Length"] == "123"
    assert headers["Got"].split()[0] == path


def test_a_running_request_is_waited_for(proxy: Proxy, mirror: Ports) -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, proxy, "/slow", b"late", Wait="1")
        wait_until(lambda: proxy.current is not None and proxy.current.running == 1)
        former = proxy.switch(None)
        assert former is not None and proxy.drain(former, 20) == 0
        assert answer.result()[1] == b"late"


def test_a_request_without_end_is_not_waited_for(proxy: Proxy, mirror: Ports) -> None:
    with futures.ThreadPoolExecutor(1) as pool:
        pool.submit(post, proxy, "/slow", b"late", Wait="5")
        wait_until(lambda: proxy.current is not None and proxy.current.running == 1)
        former = proxy.switch(None)
        assert former is not None and proxy.drain(former, 0.1) == 1


def test_a_server_that_is_gone(proxy: Proxy, mirror: Ports) -> None:
    with ThreadingHTTPServer((HOST, 0), Mirror) as closed:
        port = closed.server_port
    proxy.switch(Ports(port, mirror.grpc))
    with pytest.raises(urllib.error.HTTPError, match="502"):
        post(proxy, "/any", b"")


class Leaver(BaseRequestHandler):
    """Says at each call that it is the connection's last, and then answers with the connection."""

    def handle(self) -> None:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        while True:
            self.request.sendall(peer.data_to_send())
            data = self.request.recv(2**16)
            if not data:
                return
            for event in peer.receive_data(data):
                if isinstance(event, h2.events.StreamEnded):
                    self.answer(peer, event.stream_id)

    def answer(self, peer: h2.connection.H2Connection, stream: int) -> None:
        leaving = hyperframe.frame.GoAwayFrame(0, last_stream_id=2**31 - 1)
        self.request.sendall(leaving.serialize())
        head = {":status": "200", "content-type": "application/grpc"}
        peer.send_headers(stream, head.items())
        name = str(self.client_address[1]).encode()
        peer.send_data(stream, b"\0" + len(name).to_bytes(4, "big") + name)
        peer.send_headers(stream, {"grpc-status": "0"}.items(), end_stream=True)


def test_a_server_sends_a_connection_away_after_it_has_answered(
    proxy: Proxy, mirror: Ports
) -> None:
    with ThreadingTCPServer((HOST, 0), Leaver) as leaver:
        leaver.daemon_threads = True
        threading.Thread(target=leaver.serve_forever, daemon=True).start()
        proxy.switch(Ports(mirror.http, leaver.server_address[1]))
        with grpc.insecure_channel(f"{HOST}:{proxy.ports.grpc}") as channel:
            call = channel.unary_unary("/any/call")
            connections = [call(b"", timeout=20) for _ in range(3)]
        leaver.shutdown()
    assert len(set(connections)) == 3, "no call begins on a connection that is to end"


@pytest.mark.parametrize("place", [0, 1], ids=["http", "grpc"])
def test_busy_port(place: int) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        ports = [0, 0]
        ports[place] = taken.getsockname()[1]
        with (
            pytest.raises(DeliveryError, match=f"stable address.*{ports[place]}"),
            Proxy(*ports),
        ):
            pass
        ports[place] = 0  # another one, as the sentence says
        with Proxy(*ports) as running:
            assert running.ports.http and running.ports.grpc
