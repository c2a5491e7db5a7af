"""A stable address over HTTP and gRPC in front of servers that come and go.

It stands for the Service of a cluster on one machine. Every request goes to the one current
server, requests in flight are counted for each server, and bodies pass through unread.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import aiohttp
import grpc
import grpc.aio
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from delivery.errors import DeliveryError
from delivery.triton.loopback import DIRECT, HOST
from delivery.triton.server import Ports

# Headers that belong to one connection, not to the message (RFC 9110, section 7.6.1).
HOP_BY_HOP = {
    *("connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
}
# Metadata that gRPC's library writes itself.
RESERVED = ("grpc-", ":", "content-type", "te", "user-agent")
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)  # a port may have been another server's
CONNECTING = 5.0  # seconds for the first connection to a server that is ready
NOTHING = "no version is being served yet"

Result = TypeVar("Result")


class Backend:
    """One server behind the address: connections to it and a count of what it is answering."""

    def __init__(self, ports: Ports) -> None:
        """Prepare connections; nothing is sent yet. To be called in the proxy's loop."""
        self.ports = ports
        self.address = f"http://{HOST}:{ports.http}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        self.channel = grpc.aio.insecure_channel(
            f"{HOST}:{ports.grpc}", options=[*UNLIMITED, OWN_CONNECTION, DIRECT]
        )
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def connect(self) -> None:
        """Open the connection for gRPC. Raises DeliveryError when that is impossible."""
        try:
            await asyncio.wait_for(self.channel.channel_ready(), CONNECTING)
        except TimeoutError:
            await self.drain(0)
            raise DeliveryError(
                f"Triton is ready over HTTP but does not answer on its gRPC port {self.ports.grpc}"
            ) from None

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request from its arrival to the last byte of its answer."""
        self.running += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.running -= 1
            if not self.running:
                self.idle.set()

    async def drain(self, seconds: float) -> int:
        """Wait until nothing is in flight, at most `seconds`; close; return what was cut off."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.idle.wait(), seconds)
        left = self.running
        await self.session.close()  # Triton does not end before its idle connections do
        await self.channel.close()
        return left


class Proxy:
    """The stable address, served by a thread of its own until the end of its `with` block."""

    def __init__(self, http_port: int, grpc_port: int) -> None:
        """Choose the ports; 0 picks a free one."""
        self.ports = Ports(http_port, grpc_port)
        self.current: Backend | None = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "Proxy":
        """Listen. Raises DeliveryError."""
        self.thread.start()
        try:
            self.ask(self.listen())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening and close all connections."""
        self.ask(self.close())
        self.stop()

    def stop(self) -> None:
        """End the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def ask(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the proxy's thread; return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def switch(self, ports: Ports | None) -> Backend | None:
        """Send every request from now on to another server, or none; return the one before."""
        return self.ask(self.exchange(ports))

    def drain(self, backend: Backend, seconds: float) -> int:
        """Wait until a former server has answered; return how many requests `seconds` cut off."""
        return self.ask(backend.drain(seconds))

    async def exchange(self, ports: Ports | None) -> Backend | None:
        """Make another server the current one."""
        backend = Backend(ports) if ports else None
        if backend:
            await backend.connect()
        before, self.current = self.current, backend
        return before

    async def listen(self) -> None:
        """Open both ports."""
        self.runner = web.ServerRunner(web.Server(self.forward_http, access_log=None))
        await self.runner.setup()
        site = web.TCPSite(self.runner, HOST, self.ports.http)
        self.server = grpc.aio.server(options=[*UNLIMITED, ("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((Calls(self),))
        try:
            await site.start()
            grpc_port = self.server.add_insecure_port(f"{HOST}:{self.ports.grpc}")
        except (OSError, RuntimeError) as error:
            await self.runner.cleanup()
            raise DeliveryError(
                f"the stable address http {self.ports.http}, grpc {self.ports.grpc} cannot be "
                f"used ({error}): choose other ports with HTTP_PORT=<number> GRPC_PORT=<number>"
            ) from None
        await self.server.start()
        self.ports = Ports(self.runner.addresses[0][1], grpc_port)

    async def close(self) -> None:
        """Close both ports and the connections to the current server."""
        await self.server.stop(grace=None)
        await self.runner.cleanup()
        if self.current:
            await self.current.drain(0)

    async def forward_http(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass a request on, and its answer back as it comes."""
        backend = self.current
        if backend is None:
            return web.json_response({"error": NOTHING}, status=503)
        with backend.request():
            try:
                answer = await backend.session.request(
                    request.method,
                    URL(backend.address + request.raw_path, encoded=True),
                    headers=passed(request.headers),
                    data=request.content if request.body_exists else None,
                    allow_redirects=False,
                )
            except aiohttp.ClientError as error:
                reason = f"the server did not answer: {error}"
                return web.json_response({"error": reason}, status=502)
            async with answer:
                return await relay(request, answer)

    async def forward_grpc(
        self, method: str, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> None:
        """Pass a call on, message by message both ways at once; bytes are not looked into."""
        backend = self.current
        if backend is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, NOTHING)
            return
        with backend.request():
            call = backend.channel.stream_stream(method)(
                messages,
                metadata=kept(context.invocation_metadata()),
                timeout=context.time_remaining(),
            )
            try:
                async for message in call:
                    await context.write(message)
            except grpc.aio.AioRpcError as error:
                trailing = tuple(error.trailing_metadata() or ())
                await context.abort(error.code(), error.details() or "", trailing)


class Calls(grpc.GenericRpcHandler):
    """Accept every gRPC method for a proxy, also those of one message: a stream carries them."""

    def __init__(self, proxy: Proxy) -> None:
        """Remember where to pass the calls to."""
        self.proxy = proxy

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Return what handles a call; without serializers it gets bytes."""
        forward = partial(self.proxy.forward_grpc, details.method)
        return grpc.stream_stream_rpc_method_handler(forward)


def passed(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of a message without those of the connection that it came by."""
    own = HOP_BY_HOP | {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in own)


async def relay(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send an answer on, chunk by chunk."""
    response = web.StreamResponse(
        status=answer.status, reason=answer.reason, headers=passed(answer.headers)
    )
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def kept(metadata: Any) -> list[tuple[str, str | bytes]]:
    """Return the metadata that a caller set, without what gRPC sets itself."""
    return [(key, value) for key, value in metadata or () if not key.startswith(RESERVED)]
