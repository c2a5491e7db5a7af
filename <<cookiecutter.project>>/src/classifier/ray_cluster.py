"""Ray, which the search and the training on several machines run on.

Ray reads its settings when it is imported, so they are made first, and nothing imports it before.
"""

import logging
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workspace.errors import UserError
from workspace.machine import Machine, cores

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 Tune says nothing: we do
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # an epoch's end waits for the next check
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it prints every line twice
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # several lines for every epoch
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # a worker that died is replaced
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our record is the only one
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the search at once: nothing would be lost
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # a worker is used again when its trial was stopped
}
THIS_MACHINE = {
    "RAY_AUTH_MODE": "token",
    # Whatever address it is given, Ray on Linux listens where other machines can reach it, but so.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one's own machine is not taken away
    "GLOO_SOCKET_IFNAME": "lo",  # no other machine takes part
    "NCCL_SOCKET_IFNAME": "lo",
}
SOURCE = Path(__file__).parents[1]
PACKAGES = ("classifier", "workspace")  # code that workers on other machines need


@contextmanager
def cluster(
    machine: Machine, session: Path, *packages: str, show_workers: bool = False
) -> Iterator[Any]:
    """Ray on this machine, reached from nowhere else, or on the cluster that it names; the module.

    `session` is where a link to Ray's own folder is kept while it runs; `packages` are those of
    `src/` that workers need beside PACKAGES. Raises UserError when the cluster can't be used.
    """
    os.environ.update(SETTINGS | ({} if machine.ray_address else THIS_MACHINE))
    import ray

    code: dict[str, Any] = {"py_modules": [str(SOURCE / name) for name in (*PACKAGES, *packages)]}
    options: dict[str, Any] = {
        "runtime_env": code,
        "log_to_driver": show_workers,
        "logging_level": logging.ERROR,
        "logging_config": ray.LoggingConfig(log_level="ERROR"),
    }
    if machine.ray_address:
        connect(machine.ray_address, options)
    else:
        # Or some of Ray's own workers would look for it, and not know it from another one here.
        os.environ["RAY_GCS_SERVER_PORT"] = port = free_port()
        code["env_vars"] = {"RAY_ADDRESS": f"127.0.0.1:{port}"}
        code["py_executable"] = shlex.quote(sys.executable)  # Ray has a shell read it
        ray.init(
            "local",
            num_cpus=cores(),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=temporary(session),
            **options,
        )
    try:
        yield ray
    finally:
        ray.shutdown()
        remove(session)


def connect(address: str, options: dict[str, Any]) -> None:
    """Connect to a cluster; raises UserError."""
    import ray

    try:
        if address != "auto":  # of this machine
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()  # Ray tries for minutes
        ray.init(address, **options)
    # of another version of Ray or Python, or without the token: the latter two
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        cause = (str(error.__cause__ or error).strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"no Ray cluster that takes us is at RAY_ADDRESS {address}: give its head, host:6379, "
            f"and the token that it may ask for ({cause.rstrip('.')})"
        ) from None


def free_port() -> str:
    """A port of this machine that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def temporary(link: Path) -> str:
    """A new folder for Ray, whose sockets need a short path; the one of a killed run goes."""
    remove(link)
    folder = tempfile.mkdtemp(prefix="ray-")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(folder)
    return folder


def remove(link: Path) -> None:
    """Remove Ray's folder."""
    if link.is_symlink():
        shutil.rmtree(link.resolve(), ignore_errors=True)
        link.unlink()
