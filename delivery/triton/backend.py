"""A server behind the stable address, as long as it answers something."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import aiohttp

from delivery.triton.server import Ports

NOTHING = "no version is being served yet"
CALLERS = 200  # connections at a time over each protocol; each may take a second one, to a server
# Seconds after which a caller is cut off.
ARRIVING = 60.0  # while its request has not arrived in full
STUCK = 60.0  # while it does not read what it is sent
IDLE = 300.0  # while it asks for nothing
LINGERING = 10.0  # while it goes on sending what was refused


class Backend:
    """One server behind the address: connections to it and a count of what it is answering."""

    def __init__(self, ports: Ports) -> None:
        """Prepare connections; nothing is sent yet. To be called in the proxy's loop."""
        self.ports = ports
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        )
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.connections: set[asyncio.StreamWriter] = set()  # those of gRPC

    def begin(self) -> None:
        """Count a request that arrives."""
        self.running += 1
        self.idle.clear()

    def end(self) -> None:
        """Count a request off whose answer is sent to its last byte."""
        self.running -= 1
        if not self.running:
            self.idle.set()

    async def drain(self, seconds: float) -> int:
        """Wait until nothing is in flight, at most `seconds`; close; return what was cut off."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.idle.wait(), seconds)
        left = self.running
        for connection in self.connections:  # Triton does not end before its idle connections do
            connection.close()
        await self.session.close()
        return left


Current = Callable[[], Backend | None]  # which server gets the next request
