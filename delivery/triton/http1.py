"""The HTTP half of the stable address: each request goes to the server that is current.

aiohttp parses and writes; a chunk of a body is read when the one before has been sent on. What
could mean one thing here and another to the server is refused, by aiohttp or below.
"""

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import LineTooLong
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from delivery.triton import backend as limits
from delivery.triton.backend import NOTHING, Backend, Current
from delivery.triton.loopback import HOST

LARGEST = 2**26  # bytes of a request's body, which is Triton's own limit
# Headers that belong to one connection, not to the message (RFC 9110, section 7.6.1), and `Expect`,
# which is answered here.
HOP_BY_HOP = {
    *("connection", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
}
TARGET = re.compile(r"/[!\"$-~]*")  # a path and a query: nothing that names another host
CLOSING = 0.1  # seconds for requests that are under way at the end


class RefusedBodyError(Exception):
    """A request's body is not passed on to its end."""


def refusal(status: int, reason: str) -> web.Response:
    """Answer that a request is not passed on; the connection ends, whatever is still to come."""
    response = web.json_response({"error": reason}, status=status)
    response.force_close()
    return response


class Connection(web.RequestHandler):
    """A caller's connection: the head of a request must arrive in time, and refusals are JSON."""

    def __init__(self, requests: web.Server) -> None:
        """Prepare; `requests` counts the connections."""
        super().__init__(
            requests,
            loop=asyncio.get_running_loop(),
            auto_decompress=False,
            keepalive_timeout=limits.IDLE,
            lingering_time=limits.LINGERING,
        )
        self.requests = requests
        self.head_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let `drain` wait for the last byte, so that a caller who reads nothing is noticed."""
        super().connection_made(transport)
        assert self.transport
        self.transport.set_write_buffer_limits(0)
        if len(self.requests.connections) > limits.CALLERS:
            self.cut_off(503, "Service Unavailable")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the head that does not come any more."""
        self.head_arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Give the head that begins here its time."""
        waiting = self._waiter is not None and not self._waiter.done()
        if data and waiting and self.head_due is None:
            self.head_due = self._loop.call_later(
                limits.ARRIVING, self.cut_off, 408, "Request Timeout"
            )
        super().data_received(data)

    def head_arrived(self) -> None:
        """Stop the clock."""
        if self.head_due:
            self.head_due.cancel()
            self.head_due = None

    def cut_off(self, status: int, reason: str) -> None:
        """End a connection on which there is no request to answer."""
        if self.transport:
            head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(head.encode())
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be parsed."""
        self.head_arrived()
        if request.writer.output_size:
            raise ConnectionError("an answer has begun already")
        lines = (message or f"the proxy failed: {exc!r}").splitlines()
        too_large = isinstance(exc, LineTooLong) or "Too many headers" in lines[0]
        return refusal(431 if too_large else status, lines[0][:200].rstrip(":"))


class Http1:
    """What answers HTTP requests for the current server."""

    def __init__(self, current: Current) -> None:
        """Prepare; to be called in the proxy's loop."""
        self.current = current
        self.requests = web.Server(self.forward)
        self.server: asyncio.Server | None = None

    async def listen(self, port: int) -> int:
        """Listen; return the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self.requests), HOST, port)
        address: tuple[str, int] = self.server.sockets[0].getsockname()
        return address[1]

    async def close(self) -> None:
        """Close the port and all connections."""
        if self.server:
            self.server.close()
        await self.requests.shutdown(CLOSING)

    async def forward(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on, and its answer back as it comes."""
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.head_arrived()
        if refused := objection(request):
            return refused
        backend = self.current()
        if backend is None:
            return refusal(503, NOTHING)
        if "Expect" in request.headers:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # of the answer itself
        backend.begin()
        try:
            return await exchange(request, backend)
        finally:
            backend.end()


def objection(request: web.BaseRequest) -> web.Response | None:
    """Return the answer to a request that no server may get."""
    if request.method == "CONNECT" or not TARGET.fullmatch(request.raw_path):
        return refusal(400, f"the target is {request.raw_path[:80]!r}: ask for a path, such as /v2")
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        return refusal(400, "HTTP/1.0 has no Transfer-Encoding: send Content-Length")
    if (request.content_length or 0) > LARGEST:
        return refusal(413, f"the body has {request.content_length} bytes: send at most {LARGEST}")
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        return refusal(417, "only 100-continue can be expected")
    return None


async def exchange(request: web.BaseRequest, backend: Backend) -> web.StreamResponse:
    """Send a request to a server, and the answer, chunk by chunk, to who asked."""
    body = Body(request)
    try:
        answer = await backend.session.request(
            request.method,
            URL(f"http://{HOST}:{backend.ports.http}{request.raw_path}", encoded=True),
            headers=passed(request.headers),
            data=body.chunks() if request.body_exists else None,
            allow_redirects=False,
        )
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = f"the server did not answer: {str(error)[:200]!r}"
        return body.refused or refusal(502, reason)
    async with answer:
        return await relay(request, answer)


class Body:
    """The body of a request on its way, held to its limits of size and time."""

    def __init__(self, request: web.BaseRequest) -> None:
        """Prepare; nothing is read yet."""
        self.content = request.content
        self.refused: web.Response | None = None  # what is answered when a limit is reached

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes. Raises RefusedBodyError."""
        loop = asyncio.get_running_loop()
        size, deadline = 0, loop.time() + limits.ARRIVING
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await self.content.readany()
            except TimeoutError:
                reason = f"the body did not arrive within {limits.ARRIVING:.0f} s"
                self.refused = refusal(408, reason)
                raise RefusedBodyError from None
            if not chunk:
                return
            size += len(chunk)
            if size > LARGEST:
                self.refused = refusal(413, f"the body is too large: send at most {LARGEST} bytes")
                raise RefusedBodyError
            yield chunk


def passed(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of a message without those of the connection that it came by."""
    named = ",".join(headers.getall("Connection", [])).split(",")
    own = HOP_BY_HOP | {name.strip().lower() for name in named} - {"content-length"}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in own)


async def relay(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send an answer on, chunk by chunk. Raises ConnectionError when it is not read."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=passed(answer.headers)
    )
    try:
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            async with asyncio.timeout(limits.STUCK):
                await response.write(chunk)
        async with asyncio.timeout(limits.STUCK):
            await response.write_eof()
            await request.writer.drain()
    except (TimeoutError, aiohttp.ClientError) as error:
        if request.transport:
            request.transport.abort()  # a whole answer is what must not seem to have arrived
        raise ConnectionError("the answer could not be sent") from error
    return response
