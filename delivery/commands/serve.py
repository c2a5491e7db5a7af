"""`make serve`: the exported model on this machine's Triton, until Ctrl-C."""

from pathlib import Path

from delivery.git import Repository
from delivery.model.pipeline_outputs import MODEL
from delivery.triton.loopback import HOST
from delivery.triton.server import (
    PORTS,
    STRICT,
    Ports,
    Server,
    latest_version,
    ready_path,
    start,
)

LOG = Path(".local/logs/serve.log")
LOADING = 300.0  # seconds that a model may take to load
FINISHING = 10  # seconds that running requests get at the end


ARGUMENTS = {
    "--models": {
        "type": Path,
        "default": MODEL,
        "help": "default: the exported model's",
    },
    **PORTS,
}


def run(repository: Repository, models: Path, **ports: int) -> None:
    """Start, announce, wait for the end."""
    limit = f"--exit-timeout-secs={FINISHING}"
    try:
        with start(models, LOG, Ports(**ports), [*STRICT, limit]) as server:
            version = latest_version(models)
            print(f"loading version {version} of the model …", flush=True)
            server.wait(ready_path(version), LOADING)
            announce(server, version)
            server.process.wait()
            server.check()
    except KeyboardInterrupt:
        print("stopped")


def announce(server: Server, version: int) -> None:
    """Tell where the server listens and how to use it."""
    ports = server.ports
    print(
        f"serving version {version}: http://{HOST}:{ports.http}, grpc://{HOST}:{ports.grpc}, "
        f"metrics http://{HOST}:{ports.metrics}/metrics (log: {LOG})\n"
        "classify with `make predict IMAGE=<file>`; Ctrl-C stops",
        flush=True,
    )
