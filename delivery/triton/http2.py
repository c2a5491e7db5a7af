"""The gRPC half of the stable address: HTTP/2, passed on frame by frame.

Every call of a caller's connection is a stream there, tied to a stream to the server that is
current when the call begins. Bytes are acknowledged to their sender once they are sent on, so of a
message, however large it is, at most one window is held. h2 is the protocol; gRPC itself is not
looked into.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame

from delivery.triton import backend as limits
from delivery.triton.backend import NOTHING, Backend, Current
from delivery.triton.loopback import HOST

CHUNK = 2**16  # bytes that are read at a time
WINDOW = 2**20  # bytes of all streams of a connection that may wait to be sent on
LOOK = 1.0  # seconds between two looks for calls that are stuck
CONNECTING = 5.0  # seconds for a connection to a server that is ready
UNAVAILABLE = b"14"  # the status of gRPC that callers may try again after

Headers = list[tuple[bytes, bytes]]
Arrived = DataReceived | ResponseReceived | TrailersReceived | StreamReset


class Connection(H2Connection):
    """The protocol of one connection, whose calls go on after the other side has said GOAWAY.

    That asks for no new calls, as a server does whose connections may only grow so old; h2 takes it
    for the end.
    """

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        return [], [ConnectionTerminated()]


class Peer:
    """One connection of HTTP/2: to a caller, or to a server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: bool
    ) -> None:
        """Prepare the first frames of a connection that is open; `client`: it is to a server."""
        self.reader, self.writer = reader, writer
        self.h2 = Connection(
            H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(WINDOW)
        self.ends: dict[int, End] = {}
        self.heard = time.monotonic()
        self.leaving = False  # takes no new calls

    async def events(self) -> AsyncIterator[list[Event]]:
        """Yield what arrives, until the connection ends or breaks the protocol."""
        with suppress(OSError, ProtocolError):
            while data := await self.reader.read(CHUNK):
                if events := self.h2.receive_data(data):
                    self.heard = time.monotonic()
                self.leaving |= any(isinstance(event, ConnectionTerminated) for event in events)
                yield events
                if self.leaving and not self.ends:
                    return

    async def flush(self) -> None:
        """Send what is ready; cut the connection off when it does not take that in time."""
        try:
            self.writer.write(self.h2.data_to_send())
            async with asyncio.timeout(limits.STUCK):
                await self.writer.drain()
        except (OSError, TimeoutError):
            self.writer.transport.abort()

    async def close(self) -> None:
        """Send the last frames and close; who does not take them is cut off."""
        with suppress(ProtocolError):
            self.h2.close_connection()
        await self.flush()
        self.writer.close()
        try:
            async with asyncio.timeout(limits.STUCK):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()


class End:
    """One end of a call: a stream of a connection, and what waits to be sent on it."""

    def __init__(self, call: "Call", peer: Peer, stream: int) -> None:
        """Register with the connection."""
        self.call, self.peer, self.stream = call, peer, stream
        self.head: Headers | None = None
        self.waiting = bytearray()
        self.trailers: Headers | None = None
        self.ending = self.ended = False  # the other end sends no more; so it was said here
        peer.ends[stream] = self

    @property
    def other(self) -> "End":
        """The end that what waits here came from."""
        return self.call.server if self is self.call.caller else self.call.caller

    def send(self) -> None:
        """Send as much as the receiver's window takes. Raises ProtocolError for a closed stream."""
        h2 = self.peer.h2
        if self.head:
            self.ended = self.ending and not self.waiting
            h2.send_headers(self.stream, self.head, end_stream=self.ended)
            self.head, self.call.answered = None, True
        while self.waiting and not self.ended:
            window = h2.local_flow_control_window(self.stream)
            size = min(len(self.waiting), window, h2.max_outbound_frame_size)
            if size <= 0:
                return
            last = self.ending and not self.trailers and size == len(self.waiting)
            h2.send_data(self.stream, bytes(self.waiting[:size]), end_stream=last)
            del self.waiting[:size]
            self.ended = last
            self.other.acknowledge(size)
        if self.ending and not self.ended:
            self.ended = True
            if self.trailers:
                h2.send_headers(self.stream, self.trailers, end_stream=True)
            else:
                h2.end_stream(self.stream)

    def acknowledge(self, size: int) -> None:
        """Let the sender on this stream send as many bytes more."""
        self.call.moved = time.monotonic()
        with suppress(ProtocolError):
            self.peer.h2.acknowledge_received_data(size, self.stream)

    def leave(self, code: int) -> None:
        """Forget the stream; reset it where it is not over."""
        del self.peer.ends[self.stream]
        with suppress(ProtocolError):
            self.peer.h2.reset_stream(self.stream, code)
        self.other.acknowledge(len(self.waiting))


class Call:
    """A call: a stream of a caller tied to a stream of a server."""

    caller: End
    server: End

    def __init__(self, backend: Backend) -> None:
        """Count the call; the ends are yet to be set."""
        self.backend = backend
        backend.begin()
        self.answered = False  # the head of the answer is sent
        self.moved = time.monotonic()

    def fail(self, reason: str) -> None:
        """End the call with a sentence for the caller."""
        refuse(self.caller.peer.h2, self.caller.stream, reason, self.answered)
        self.finish(ErrorCodes.CANCEL)

    def finish(self, code: int = ErrorCodes.NO_ERROR) -> None:
        """Untie the ends: the answer is complete, or nobody waits for it."""
        for end in (self.caller, self.server):
            end.leave(code)
        self.caller.peer.heard = time.monotonic()  # it asks for nothing from now on
        self.backend.end()

    def stuck(self) -> bool:
        """Tell whether the caller has stopped asking, or either side reading."""
        waiting = self.caller.waiting or self.server.waiting
        still = time.monotonic() - self.moved
        return still > limits.STUCK if waiting else still > limits.IDLE and not self.server.ending


class Http2:
    """What answers gRPC calls for the current server."""

    def __init__(self, current: Current) -> None:
        """Prepare."""
        self.current = current
        self.callers: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listen; return the port. Raises OSError."""
        self.server = await asyncio.start_server(self.serve, HOST, port, limit=CHUNK)
        address: tuple[str, int] = self.server.sockets[0].getsockname()
        return address[1]

    async def close(self) -> None:
        """Close the port and all connections."""
        if self.server:
            self.server.close()
        for task in self.callers:
            task.cancel()
        await asyncio.gather(*self.callers, return_exceptions=True)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one caller until its connection ends; close it where there is no room."""
        if len(self.callers) >= limits.CALLERS:
            return writer.close()
        caller = Caller(self.current, Peer(reader, writer, client=False))
        task = asyncio.create_task(caller.serve())
        self.callers.add(task)
        task.add_done_callback(self.callers.discard)
        return None


class Caller:
    """One caller's connection and its own connections to servers, so that it can block no other."""

    def __init__(self, current: Current, peer: Peer) -> None:
        """Prepare."""
        self.current, self.peer = current, peer
        self.servers: dict[Backend, Peer] = {}  # for the next call
        self.connections = {peer}
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Pass calls on until the caller leaves or is cut off."""
        self.start(self.watch())
        try:
            await self.follow(self.peer)
        finally:
            for end in list(self.peer.ends.values()):
                end.call.finish(ErrorCodes.CANCEL)
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*(each.close() for each in self.connections))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something meanwhile, until the caller leaves."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def flush(self) -> None:
        """Send what is ready on all connections."""
        for peer in tuple(self.connections):
            await peer.flush()

    async def follow(self, peer: Peer) -> None:
        """Pass on what arrives on a connection, until it ends."""
        await self.flush()
        async for events in peer.events():
            for event in events:
                if isinstance(event, RequestReceived):
                    await self.open(event)
                else:
                    handle(peer, event)
            await self.flush()

    async def follow_server(self, backend: Backend, server: Peer) -> None:
        """Pass on what a server answers; when its connection ends, say so to who still waits."""
        backend.connections.add(server.writer)
        try:
            await self.follow(server)
        finally:
            backend.connections.discard(server.writer)
            self.connections.discard(server)
            if self.servers.get(backend) is server:
                del self.servers[backend]
            for end in list(server.ends.values()):
                end.call.fail("the server ended before its answer")
            await self.flush()
            await server.close()

    async def watch(self) -> None:
        """Cut off calls that are stuck, and in the end a caller who asks for nothing."""
        while self.peer.ends or time.monotonic() - self.peer.heard < limits.IDLE:
            await asyncio.sleep(LOOK)
            for end in list(self.peer.ends.values()):
                if end.call.stuck():
                    end.call.fail("the caller neither sends nor reads")
            await self.flush()
        await self.peer.close()

    async def open(self, event: RequestReceived) -> None:
        """Tie a new call to a stream of the server that is current."""
        backend = self.current()
        if backend is None:
            return refuse(self.peer.h2, event.stream_id, NOTHING)
        call, last = Call(backend), event.stream_ended is not None
        try:
            server = self.servers.get(backend)
            if server is None or server.leaving:
                server = await self.connect(backend)
            stream = server.h2.get_next_available_stream_id()
            server.h2.send_headers(stream, event.headers, end_stream=last)
        except (OSError, ProtocolError) as error:
            backend.end()
            return refuse(self.peer.h2, event.stream_id, f"the server did not answer: {error}")
        call.caller = End(call, self.peer, event.stream_id)
        call.server = End(call, server, stream)
        call.server.ending = call.server.ended = last
        return None

    async def connect(self, backend: Backend) -> Peer:
        """Open this caller's own connection to a server. Raises OSError."""
        server = self.servers[backend] = await connect(backend.ports.grpc)
        self.connections.add(server)
        self.start(self.follow_server(backend, server))
        return server


async def connect(port: int) -> Peer:
    """Open a connection to a server. Raises OSError, also when that takes too long."""
    async with asyncio.timeout(CONNECTING):
        reader, writer = await asyncio.open_connection(HOST, port, limit=CHUNK)
    return Peer(reader, writer, client=True)


async def check(port: int) -> None:
    """Raise OSError unless a server answers in HTTP/2."""
    server = await connect(port)
    try:
        await server.flush()
        async with asyncio.timeout(CONNECTING):
            async for _ in server.events():
                return
        raise ConnectionError("it does not speak HTTP/2")
    finally:
        server.writer.close()


def refuse(h2: H2Connection, stream: int, reason: str, answered: bool = False) -> None:
    """End a call with a status of gRPC, in its first head or after what was sent already."""
    head = [] if answered else [(b":status", b"200"), (b"content-type", b"application/grpc")]
    status = [(b"grpc-status", UNAVAILABLE), (b"grpc-message", quote(reason, " :").encode())]
    with suppress(ProtocolError):
        h2.send_headers(stream, [*head, *status], end_stream=True)
        h2.reset_stream(stream, ErrorCodes.NO_ERROR)  # so that nothing more is sent on it


def handle(peer: Peer, event: Event) -> None:
    """Pass on what happened on a connection to the other ends of its calls."""
    if isinstance(event, WindowUpdated | RemoteSettingsChanged):
        for end in list(peer.ends.values()):
            advance(end.call, end)
    elif isinstance(event, Arrived):
        if end_here := peer.ends.get(event.stream_id):
            pass_on(end_here, event)
        elif isinstance(event, DataReceived):  # of a call that is over
            with suppress(ProtocolError):
                peer.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


def pass_on(end: End, event: Arrived) -> None:
    """Let what arrived at one end of a call wait at the other, and send it as far as that goes."""
    call, target = end.call, end.other
    if isinstance(event, StreamReset):
        if end is call.caller or not call.caller.ending:  # else the answer is complete already
            call.finish(event.error_code)
        return
    if isinstance(event, DataReceived):
        target.waiting += event.data
        end.acknowledge(event.flow_controlled_length - len(event.data))  # padding
    elif isinstance(event, ResponseReceived):
        target.head = event.headers
    else:
        target.trailers = event.headers
    target.ending = event.stream_ended is not None
    advance(call, target)


def advance(call: Call, end: End) -> None:
    """Send what waits at an end; finish the call when its answer is complete."""
    try:
        end.send()
    except ProtocolError:  # the stream was closed meanwhile
        call.finish(ErrorCodes.CANCEL)
        return
    if call.caller.ended:
        call.finish()
