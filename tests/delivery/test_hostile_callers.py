"""Callers of the stable address who mean harm, hang or send too much: answered, or cut off."""

import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import closing, suppress

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from delivery.triton import backend, http1, http2
from delivery.triton.loopback import HOST
from delivery.triton.proxy import Proxy
from delivery.triton.server import Ports
from waiting import wait_until

MEGABYTE = 2**20
# At most, on the way: the proxy's own, and what Linux gives two connections where nobody reads for
# long, each up to 32 + 4 MiB.
HELD = 96 * MEGABYTE


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy(0, 0) as running:
        yield running


class Recorder:
    """A server of HTTP that keeps what it gets, and says `answer` to each request's head."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.reading = threading.Event()
        self.reading.set()
        self.sent = 0
        self.listener = socket.create_server((HOST, 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):
            while self.reading.wait() and (data := connection.recv(MEGABYTE)):
                self.got += data
                if b"\r\n\r\n" in data and self.answer:
                    for start in range(0, len(self.answer), 2**16):
                        self.sent += connection.send(self.answer[start : start + 2**16])


@pytest.fixture
def calls() -> Iterator[grpc.Server]:
    with futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, options=http2_options())
        server.add_generic_rpc_handlers((Echo(),))
        yield server
        server.stop(0).wait()


def http2_options() -> list[tuple[str, int]]:
    return [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Echo(grpc.GenericRpcHandler):
    """Sends back every message; or refuses, or never ends."""

    began, ended = threading.Event(), threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(getattr(self, details.method.strip("/")))

    def echo(self, messages, context):  # type: ignore[no-untyped-def]
        said = dict(context.invocation_metadata())
        context.send_initial_metadata([("first", said.get("greeting", ""))])
        context.set_trailing_metadata([("last-bin", b"\0\xff")])
        yield from messages

    def fail(self, messages, context):  # type: ignore[no-untyped-def]
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not so: ä, %")
        yield b""

    def flood(self, messages, context):  # type: ignore[no-untyped-def]
        self.ended.clear()
        context.add_callback(self.ended.set)
        while context.is_active():
            yield b"x" * MEGABYTE

    def wait(self, messages, context):  # type: ignore[no-untyped-def]
        self.ended.clear()
        context.add_callback(self.ended.set)
        self.began.set()
        self.ended.wait(20)
        yield b""


@pytest.fixture
def recorder(proxy: Proxy, calls: grpc.Server) -> Iterator[Recorder]:
    made = Recorder()
    port = calls.add_insecure_port(f"{HOST}:0")
    calls.start()
    proxy.switch(Ports(made.port, port))
    yield made
    made.reading.set()
    made.listener.close()


def call(proxy: Proxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.ports.http), timeout=20)


def answer(proxy: Proxy, request: bytes) -> bytearray:
    """Send bytes; return all that comes until the proxy closes the connection."""
    with call(proxy) as caller:
        caller.sendall(request)
        return rest(caller)


def rest(caller: socket.socket) -> bytearray:
    got = bytearray()
    with suppress(ConnectionResetError):
        while data := caller.recv(MEGABYTE):
            got += data
    return got


def status(got: bytes | bytearray) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", got)
    assert found, got
    return int(found[1])


# -- HTTP: what has two meanings -------------------------------------------------------------------

HEAD = b"POST /v2 HTTP/1.1\r\nHost: x\r\n"
AMBIGUOUS = {
    "a length and chunks": HEAD
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
    "a signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "another coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks within chunks": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": HEAD.replace(b"\r", b"") + b"Content-Length: 0\n\n",
    "a bare line feed": HEAD + b"A: b\nContent-Length: 0\r\n\r\n",
    "a folded header": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a NUL": HEAD + b"A: b\0c\r\nContent-Length: 0\r\n\r\n",
    "a space before the colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "no host": b"GET /v2 HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\n\r\n",
    "a version that is none": b"GET /v2 HTTP/1.x\r\nHost: x\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /v2 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_a_request_with_two_meanings_is_refused(
    proxy: Proxy, recorder: Recorder, form: str
) -> None:
    got = answer(proxy, AMBIGUOUS[form])
    assert status(got) == 400 and b'"error"' in got
    assert recorder.got == b""


def test_an_old_request_with_a_length_passes(proxy: Proxy, recorder: Recorder) -> None:
    old = b"POST /v2 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello"  # as the refusal asks for
    assert status(answer(proxy, old)) == 200 and recorder.got.endswith(b"hello")


@pytest.mark.parametrize("size", [b"g", b"-1", b"5;\n", b"ffffffffffffffffff"])
def test_a_body_in_broken_chunks_does_not_become_a_request(
    proxy: Proxy, recorder: Recorder, size: bytes
) -> None:
    recorder.answer = b""
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"
    answer(proxy, chunked + b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"hello" not in recorder.got and b"/second" not in recorder.got


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("CONNECT", "@{other}"),
        ("CONNECT", "{other}"),
        ("GET", "@{other}/v2"),
        ("GET", "http://{other}/v2"),
        ("GET", "v2"),
        ("OPTIONS", "*"),
        ("GET", ":80@{other}/"),
        ("GET", "?@{other}"),
        ("GET", "/v2#part"),
        ("GET", "/v2\x7f"),
    ],
)
def test_a_target_that_is_no_path_is_refused(
    proxy: Proxy, recorder: Recorder, method: str, target: str
) -> None:
    with closing(socket.create_server((HOST, 0))) as other:
        other.setblocking(False)
        named = target.format(other=f"{HOST}:{other.getsockname()[1]}")
        got = answer(proxy, f"{method} {named} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert status(got) == 400
        with pytest.raises(BlockingIOError):
            other.accept()
    assert recorder.got == b""


def test_a_path_that_looks_like_another_host_goes_to_the_server(
    proxy: Proxy, recorder: Recorder
) -> None:
    got = answer(proxy, b"GET //other/@x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status(got) == 200
    assert recorder.got.startswith(b"GET //other/@x HTTP/1.1\r\n")


def test_headers_of_one_connection_end_there(proxy: Proxy, recorder: Recorder) -> None:
    mine = b"Connection: close, X-Mine, Content-Length\r\nConnection: X-Too\r\nX-Mine: 1\r\n"
    mine += b"X-Too: 2\r\nKeep-Alive: 5\r\nTE: trailers\r\nProxy-Connection: x\r\nX-Kept: 3\r\n"
    answer(proxy, HEAD + mine + b"Content-Length: 5\r\n\r\nhello")
    wait_until(lambda: recorder.got.endswith(b"hello"))
    head = bytes(recorder.got).partition(b"\r\n\r\n")[0]
    names = {line.partition(b":")[0].lower() for line in head.splitlines()[1:]}
    assert names == {b"host", b"x-kept", b"content-length"}


def test_a_compressed_body_arrives_as_it_was_sent(proxy: Proxy, recorder: Recorder) -> None:
    body = gzip.compress(b"pictures" * 1000)
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert status(answer(proxy, HEAD + head.encode() + body)) == 200
    assert recorder.got.endswith(b"\r\n\r\n" + body)
    assert b"Content-Encoding: gzip\r\n" in recorder.got


def test_who_waits_for_permission_gets_it(proxy: Proxy, recorder: Recorder) -> None:
    with call(proxy) as caller:
        caller.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert caller.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"hello")
        assert status(caller.recv(1000)) == 200
    assert b"Expect" not in recorder.got


def test_another_expectation_is_refused(proxy: Proxy, recorder: Recorder) -> None:
    got = answer(proxy, HEAD + b"Expect: tea\r\nContent-Length: 5\r\n\r\nhello")
    assert (status(got), recorder.got) == (417, b"")


# -- HTTP: too much --------------------------------------------------------------------------------


def test_a_body_above_the_limit_is_refused_before_it_is_read(
    hasty: None, proxy: Proxy, recorder: Recorder
) -> None:
    got = answer(proxy, HEAD + f"Content-Length: {2**40}\r\n\r\n".encode() + b"x" * 100)
    assert status(got) == 413 and str(http1.LARGEST).encode() in got
    assert recorder.got == b""


def test_a_body_whose_chunks_add_up_to_too_much_is_refused(
    proxy: Proxy, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "LARGEST", MEGABYTE)
    recorder.answer = b""
    chunks = (b"10000\r\n" + b"x" * 2**16 + b"\r\n") * 20
    got = answer(proxy, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    assert status(got) == 413
    assert proxy.current and proxy.current.running == 0
    body = b"Content-Length: 5\r\nConnection: close\r\n\r\nhello"  # what the sentence asks for
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    assert status(answer(proxy, HEAD + body)) == 200


@pytest.mark.parametrize(
    "head",
    [b"A: " + b"x" * 20_000 + b"\r\n", b"A: b\r\n" * 1000],
    ids=["a long header", "many headers"],
)
def test_a_head_above_the_limit_is_refused(proxy: Proxy, recorder: Recorder, head: bytes) -> None:
    assert status(answer(proxy, HEAD + head + b"\r\n")) == 431
    assert recorder.got == b""


def sent_until_blocked(caller: socket.socket, data: bytes) -> int:
    caller.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < 2 * HELD:
            sent += caller.send(data)
    return sent


def test_a_body_waits_for_the_server(
    proxy: Proxy, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "LARGEST", 2**40)
    recorder.reading.clear()
    with call(proxy) as caller:
        caller.sendall(HEAD + f"Content-Length: {2**39}\r\n\r\n".encode())
        assert sent_until_blocked(caller, b"x" * MEGABYTE) < HELD


def test_an_answer_waits_for_the_caller(proxy: Proxy, recorder: Recorder) -> None:
    size = 3 * HELD
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    with call(proxy) as caller:
        caller.sendall(HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        wait_until(lambda: recorder.sent)
        before = -1
        while before != recorder.sent:  # until it stands still
            before = recorder.sent
            time.sleep(0.3)
        assert before < HELD
        assert len(rest(caller)) > size


def test_more_callers_than_there_is_room_for(
    proxy: Proxy, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "CALLERS", 2)
    request = HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    with call(proxy) as first, call(proxy) as second:
        assert status(answer(proxy, b"")) == 503
        for caller in (first, second):
            caller.sendall(request)
            assert status(rest(caller)) == 200
    assert status(answer(proxy, request)) == 200
    callers = [Caller(proxy) for _ in range(2)]
    for caller in callers:
        assert next(caller.events())
    with socket.create_connection((HOST, proxy.ports.grpc), timeout=20) as late:
        assert rest(late) == b""
    callers[0].socket.close()
    wait_until(lambda: len(proxy.grpc.callers) == 1)
    assert next(Caller(proxy).events())


# -- HTTP: too slow --------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARRIVING", "LINGERING", "STUCK"):
        monkeypatch.setattr(backend, name, 1.5)
    monkeypatch.setattr(http2, "LOOK", 0.05)


@pytest.fixture
def busy(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "IDLE", 1.5)


def test_a_head_that_does_not_arrive(hasty: None, proxy: Proxy, recorder: Recorder) -> None:
    assert status(answer(proxy, b"GET /v2 HTTP/1.1\r\nHost:")) == 408


def test_a_head_that_drips(hasty: None, proxy: Proxy, recorder: Recorder) -> None:
    with call(proxy) as caller:
        with suppress(ConnectionError):
            for byte in b"POST /v2 HTTP/1.1\r\nX: " + b"x" * 5000:
                caller.send(bytes([byte]))
                time.sleep(0.02)
        assert status(rest(caller)) == 408


def test_a_second_head_that_drips(hasty: None, proxy: Proxy, recorder: Recorder) -> None:
    with call(proxy) as caller:
        caller.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        got = bytearray()
        while not got.endswith(b"\r\n\r\nok"):
            came = caller.recv(1000)
            assert came, got
            got += came
        caller.sendall(HEAD)
        assert status(rest(caller)) == 408


def test_a_body_that_does_not_arrive(hasty: None, proxy: Proxy, recorder: Recorder) -> None:
    recorder.answer = b""
    got = answer(proxy, HEAD + b"Content-Length: 5\r\n\r\nhel")
    assert status(got) == 408 and b"within" in got


def test_a_caller_who_asks_for_nothing(busy: None, proxy: Proxy, recorder: Recorder) -> None:
    assert answer(proxy, b"") == b""


def test_a_request_that_takes_the_server_long_is_not_cut_off(
    busy: None, proxy: Proxy, recorder: Recorder
) -> None:
    late, recorder.answer = recorder.answer, b""
    with call(proxy) as caller:
        caller.sendall(HEAD + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")
        wait_until(lambda: recorder.got.endswith(b"hello"))
        time.sleep(4)
        assert proxy.current and proxy.current.running == 1
    assert late


def test_a_caller_who_reads_nothing(hasty: None, proxy: Proxy, recorder: Recorder) -> None:
    size = 3 * HELD
    recorder.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    with call(proxy) as caller:
        caller.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        assert proxy.current
        wait_until(lambda: recorder.sent)
        wait_until(lambda: proxy.current and proxy.current.running == 0)
        assert len(rest(caller)) < size


# -- gRPC ------------------------------------------------------------------------------------------


@pytest.fixture
def channel(proxy: Proxy, recorder: Recorder) -> Iterator[grpc.Channel]:
    address = f"{HOST}:{proxy.ports.grpc}"
    with grpc.insecure_channel(address, options=http2_options()) as channel:
        yield channel


def test_messages_of_any_size_pass(channel: grpc.Channel) -> None:
    echo = channel.stream_stream("/echo")
    messages = [b"x" * size for size in (0, 1, 2**16, 20_000_000, 5)]
    assert list(echo(iter(messages), timeout=300)) == messages


def test_metadata_and_status_pass(channel: grpc.Channel) -> None:
    answered = channel.stream_stream("/echo")(iter([b"1"]), metadata=[("greeting", "hello")])
    assert dict(answered.initial_metadata())["first"] == "hello"
    assert list(answered) == [b"1"]
    assert dict(answered.trailing_metadata())["last-bin"] == b"\0\xff"
    with pytest.raises(grpc.RpcError) as refusal:
        list(channel.stream_stream("/fail")(iter([b"1"])))
    assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.details() == "not so: ä, %"


def test_a_call_that_is_cancelled_ends_at_the_server(proxy: Proxy, channel: grpc.Channel) -> None:
    Echo.began.clear()
    waiting = channel.stream_stream("/wait")(iter([b"1"]))
    wait_until(lambda: proxy.current and proxy.current.running == 1)
    assert Echo.began.wait(20)
    waiting.cancel()
    assert Echo.ended.wait(10)
    wait_until(lambda: proxy.current and proxy.current.running == 0)


def test_a_server_that_dies_is_told(
    proxy: Proxy, channel: grpc.Channel, calls: grpc.Server
) -> None:
    Echo.began.clear()
    waiting = channel.stream_stream("/wait")(iter([b"1"]))
    wait_until(lambda: proxy.current and proxy.current.running == 1)
    assert Echo.began.wait(20)
    calls.stop(0)
    with pytest.raises(grpc.RpcError) as failure:
        list(waiting)
    assert failure.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    wait_until(lambda: proxy.current and proxy.current.running == 0)


class Caller:
    """A caller in HTTP/2 who does only what it is told to."""

    def __init__(self, proxy: Proxy) -> None:
        self.socket = socket.create_connection((HOST, proxy.ports.grpc), timeout=20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration())
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def ask(self, path: str, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", path)]
        head += [("content-type", "application/grpc"), ("te", "trailers")]
        self.h2.send_headers(stream, head, end_stream=end)
        self.flush()
        return stream

    def events(self) -> Iterator[h2.events.Event]:
        while data := self.socket.recv(MEGABYTE):
            yield from self.h2.receive_data(data)
            self.flush()


def test_an_unread_answer_waits_at_the_server_and_is_cut_off(
    hasty: None, proxy: Proxy, recorder: Recorder
) -> None:
    caller = Caller(proxy)
    stream = caller.ask("/flood")
    got = 0
    for event in caller.events():
        if isinstance(event, h2.events.DataReceived):
            got += event.flow_controlled_length  # and never says that it has read it
        if isinstance(event, h2.events.StreamReset | h2.events.TrailersReceived):
            assert event.stream_id == stream
            break
    assert got <= 2**16
    assert Echo.ended.wait(10)
    wait_until(lambda: proxy.current and proxy.current.running == 0)


def test_an_unread_answer_holds_up_no_other_call(proxy: Proxy, recorder: Recorder) -> None:
    caller = Caller(proxy)
    caller.ask("/flood")
    second = caller.ask("/fail")
    for event in caller.events():
        if isinstance(event, h2.events.StreamEnded):
            assert event.stream_id == second
            break
    caller.socket.close()
    wait_until(lambda: proxy.current and proxy.current.running == 0)


def test_a_message_waits_for_the_server(proxy: Proxy, recorder: Recorder) -> None:
    caller = Caller(proxy)
    stream = caller.ask("/wait", end=False)
    caller.h2.send_data(stream, b"\0" + (2**31 - 1).to_bytes(4, "big"))
    caller.flush()
    caller.socket.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < HELD:
            while window := caller.h2.local_flow_control_window(stream):
                size = min(window, caller.h2.max_outbound_frame_size)
                caller.h2.send_data(stream, b"x" * size)
                caller.flush()
                sent += size
            caller.h2.receive_data(caller.socket.recv(MEGABYTE))
            caller.flush()
    assert sent < HELD


def test_a_call_that_is_never_finished_is_cut_off(
    busy: None, proxy: Proxy, recorder: Recorder
) -> None:
    caller = Caller(proxy)
    caller.ask("/echo", end=False)
    heads = [
        dict(event.headers)
        for event in caller.events()
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived)
    ]
    assert heads[-1][b"grpc-status"] == b"14" and b"neither" in heads[-1][b"grpc-message"]
    assert proxy.current and proxy.current.running == 0


def test_a_call_that_takes_long_does_not_end_its_connection(
    busy: None, proxy: Proxy, recorder: Recorder
) -> None:
    caller = Caller(proxy)
    events = caller.events()
    caller.ask("/wait")
    wait_until(lambda: proxy.current and proxy.current.running == 1)
    time.sleep(4)
    Echo.ended.set()
    first = next(event for event in events if isinstance(event, h2.events.StreamEnded))
    second = caller.ask("/fail")
    last = next(event for event in events if isinstance(event, h2.events.StreamEnded))
    assert last.stream_id == second != first.stream_id


@pytest.mark.parametrize(
    "said",
    [b"", b"PRI * HT", b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100],
    ids=["nothing", "half a greeting", "HTTP/1.1", "no protocol"],
)
def test_who_does_not_speak_http2_is_cut_off(
    busy: None, proxy: Proxy, recorder: Recorder, said: bytes
) -> None:
    with socket.create_connection((HOST, proxy.ports.grpc), timeout=20) as caller:
        caller.sendall(said)
        assert rest(caller)  # settings, and at the end that it is over


def test_a_caller_who_only_pings_and_reads_nothing_is_cut_off(
    hasty: None, proxy: Proxy, recorder: Recorder
) -> None:
    caller = Caller(proxy)
    caller.socket.settimeout(5)
    caller.h2.ping(b"12345678")
    ping = caller.h2.data_to_send()
    with pytest.raises(ConnectionError):
        for _ in range(1000):
            caller.socket.sendall(ping * 1000)
