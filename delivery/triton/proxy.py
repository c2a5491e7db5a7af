"""A stable address over HTTP and gRPC in front of servers that come and go.

It stands for the Service of a cluster on one machine. Every request goes to the one current
server, requests in flight are counted for each server, and bodies pass through unread.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from delivery.errors import DeliveryError
from delivery.triton.backend import Backend
from delivery.triton.http1 import Http1
from delivery.triton.http2 import Http2, check
from delivery.triton.server import Ports

Result = TypeVar("Result")


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
        if ports:
            try:
                await check(ports.grpc)
            except OSError as error:
                raise DeliveryError(
                    "Triton is ready over HTTP but does not answer on its gRPC port "
                    f"{ports.grpc}: {error}"
                ) from None
        before, self.current = self.current, Backend(ports) if ports else None
        return before

    async def listen(self) -> None:
        """Open both ports."""
        self.http, self.grpc = Http1(lambda: self.current), Http2(lambda: self.current)
        try:
            http_port = await self.http.listen(self.ports.http)
            self.ports = Ports(http_port, await self.grpc.listen(self.ports.grpc))
        except OSError as error:
            await self.close()
            raise DeliveryError(
                f"the stable address http {self.ports.http}, grpc {self.ports.grpc} cannot be "
                f"used ({error}): choose other ports with HTTP_PORT=<number> GRPC_PORT=<number>"
            ) from None

    async def close(self) -> None:
        """Close both ports and the connections to the current server."""
        await self.grpc.close()
        await self.http.close()
        if self.current:
            await self.current.drain(0)
