"""The process that serves a repository of this machine to a cluster: started, found again, ended.

It goes on when the command that started it has ended: a cluster asks for as long as it is there.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from delivery.errors import DeliveryError
from workspace.errors import said
from workspace.files import write
from workspace.settings import Settings, check, read_json

MODULE = "delivery.cluster.git_http"
PATIENCE = 5.0  # seconds to end in before it is killed


class Running(Settings):
    """A server that was started: its process, and the address of what it serves."""

    process: int
    folder: str
    address: str


def serve(folder: Path, host: str, state: Path, log: Path) -> str:
    """Have a bare repository or a clone served at an address of this machine; return its URL.

    `state` remembers the server; one that runs is left alone, another one gets the same port.
    Raises DeliveryError.
    """
    before = remembered(state)
    address = urlsplit(before.address) if before else None
    if before and address and alive(before):
        if (before.folder, address.hostname) == (str(folder), host):
            return before.address
        stop(state)
    port = address.port if address and address.hostname == host else 0
    process, port = start(folder, host, port or 0, log)
    name = folder.name.removesuffix(".git")
    url = f"http://{host}:{port}/{name}.git"
    write(state, Running(process=process, folder=str(folder), address=url).model_dump_json())
    return url


def start(folder: Path, host: str, port: int, log: Path) -> tuple[int, int]:
    """Start a server; return its process and port. Raises DeliveryError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(folder), host, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
            start_new_session=True,  # Ctrl-C ends the command, not what it started
        )
    assert process.stdout
    with process.stdout as told:  # the port, or why there is none
        line = told.readline().strip()
    if line.isdecimal():
        return process.pid, int(line)
    process.wait()
    raise DeliveryError(
        f"{folder} cannot be served at {host} ({said(line) or f'see {log}'}): give an address of "
        "this machine that the cluster reaches with HOST=<address>"
    )


def remembered(state: Path) -> Running | None:
    """Return the server that was started last."""
    return check(Running, read_json(state), str(state)) if state.exists() else None


def alive(server: Running) -> bool:
    """Tell whether a server runs: its number may have gone to another program."""
    with suppress(OSError):
        return MODULE.encode() in Path(f"/proc/{server.process}/cmdline").read_bytes().split(b"\0")
    return False


def stop(state: Path) -> None:
    """End the server that was started, if it runs; its port is free when this returns."""
    server, end = remembered(state), time.monotonic() + PATIENCE
    with suppress(ProcessLookupError):
        while server and alive(server):
            late = time.monotonic() > end
            os.kill(server.process, signal.SIGKILL if late else signal.SIGTERM)
            time.sleep(0.02)
    state.unlink(missing_ok=True)
