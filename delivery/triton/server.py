"""The real Triton on this machine: started, awaited, stopped."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.triton.installation import backends, installation
from delivery.triton.loopback import HOST

MODEL = "classifier"
SHARED_MEMORY = Path("/dev/shm")  # where the Python backend passes tensors
END = 64 * 1024  # bytes of a log, which may be of any length, that say why a server ended
POLL = 0.05  # seconds between two looks at a starting or stopping server

# Arguments of a production container that this machine's older Triton (2.51) does without.
UNKNOWN = {
    "--allow-client-shm": "newer than 2.51, where only a client on the same machine could use it",
    "--http-max-input-size": "newer than 2.51, whose limit is fixed at 64 MB",
}
# Arguments that this machine decides itself.
OWN = {
    "--model-repository": "the image volume is a folder here",
    "--backend-directory": "holds the Python stand-in for ONNX Runtime",
    "--http-address": "loopback only",
    "--grpc-address": "loopback only",
    "--metrics-address": "loopback only",
    "--http-port": "several servers share one machine",
    "--grpc-port": "several servers share one machine",
    "--metrics-port": "several servers share one machine",
    "--allow-gpu-metrics": "the package's DCGM finds no GPU",
    "--pinned-memory-pool-byte-size": "pinned memory needs a GPU",
    "--cuda-memory-pool-byte-size": "needs a GPU",
    "--log-file": "the log is captured",
}
# What production sets as well, for servers started without a manifest.
STRICT = ("--model-control-mode=none", "--disable-auto-complete-config")
# Where Triton's log gives the reason of its end, the most telling first.
REASONS = (
    r"failed to load '[^']+' version \d+: \w[\w ]*: "
    r"(?:TritonModelException: )?(?P<why>.+?)(?:\\n.*)?\"?$",
    r"Poll failed for model directory '[^']+': (?P<why>.+?)\"?$",
    r"(?P<why>unrecognized option .+)$",
    r"error: creating server: (?P<why>.+)$",
    r"(?P<why>failed to start .+)$",
    r"(?P<why>error while loading shared libraries: .+)$",
)


@dataclass(frozen=True)
class Ports:
    """TCP ports of one server; 0 stands for any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


# The ports of a server as arguments of a command.
PORTS = {
    f"--{name}-port": {"dest": name, "type": int, "default": port, "help": "0: any free port"}
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002))
}


def translate(arguments: Iterable[str]) -> list[str]:
    """Drop from a container's arguments what this machine decides or its Triton does not know."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if argument.startswith("--"):
            dropping = argument.partition("=")[0] in OWN | UNKNOWN
        if not dropping:
            kept.append(argument)
    return kept


def versions(model_repository: Path) -> list[int]:
    """List the versions in a model repository, the newest last."""
    files = (model_repository / MODEL).glob("[1-9]*/model.onnx")
    return sorted(int(file.parent.name) for file in files if file.parent.name.isdecimal())


def latest_version(model_repository: Path) -> int:
    """Return the newest version in a model repository. Raises DeliveryError without any."""
    found = versions(model_repository)
    if not found:
        raise DeliveryError(
            f"there is no exported model in {model_repository}: run `make pipeline` first"
        )
    return found[-1]


def check_version(model_repository: Path, wanted: int) -> None:
    """Raise DeliveryError unless a pulled image holds the version that is released."""
    found = versions(model_repository)
    if found != [wanted]:
        held = f"version {', '.join(map(str, found))}" if found else "no version"
        raise DeliveryError(
            f"the image holds {held} of the model and the release says {wanted}: "
            "release the image that was packaged for this version"
        )


def choose(ports: Ports) -> Ports:
    """Replace zeros by free ports; raise DeliveryError if one asked for is not free."""
    held, chosen = hold(ports)
    held.close()
    return chosen


def hold(ports: Ports) -> tuple[contextlib.ExitStack, Ports]:
    """Choose ports, and give nobody else a free one that is among them until the stack is closed.

    Who is told to, as Triton is, may listen there all the same: both sides set SO_REUSEADDR.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(bound(*wanted)) for wanted in vars(ports).items()]
        return held.pop_all(), Ports(*(each.getsockname()[1] for each in sockets))


def bound(name: str, port: int) -> socket.socket:
    """Bind a loopback port."""
    attempt = socket.socket()
    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        attempt.bind((HOST, port))
    except OSError as error:
        attempt.close()
        raise DeliveryError(
            f"the {name} port {port} cannot be used ({error.strerror}): "
            f"stop what listens there or choose another with {name.upper()}_PORT=<number>"
        ) from None
    return attempt


@dataclass
class Server:
    """A running Triton. Leaving its `with` block stops it.

    Its ports are `held` until it answers, so that no other program answers in its place.
    """

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path
    work: Path
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    started: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "Server":
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def check(self) -> None:
        """Raise DeliveryError, with the reason, when the process has ended."""
        if self.process.poll() is not None:
            raise DeliveryError(f"Triton {self.reason()} (log: {self.log})")

    def answers(self, path: str, timeout: float = 1.0) -> bool:
        """Tell whether a GET of `path` succeeds, as the kubelet's HTTP probe sees it."""
        connection = http.client.HTTPConnection(HOST, self.ports.http, timeout=timeout)
        try:
            connection.request("GET", path)
            well = 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        if well:
            self.held.close()
        return well

    def wait(self, path: str, timeout: float) -> None:
        """Wait until `path` answers.

        Raises DeliveryError when the server ended or `timeout` seconds passed.
        """
        deadline = time.monotonic() + timeout
        while not self.answers(path):
            self.check()
            if time.monotonic() > deadline:
                raise DeliveryError(
                    f"{path} did not answer within {timeout:.0f} s (log: {self.log})"
                )
            time.sleep(POLL)

    def reason(self) -> str:
        """Say how it ended: of which signal it died, or the reason that Triton's log gives."""
        status = self.process.poll()
        return killed(status) or f"ended: {self.logged() or f'its exit status is {status}'}"

    def logged(self) -> str:
        """Return the reason that the end of Triton's log gives, or else its last line."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - END))
            return reason_in(log.read(END).decode(errors="replace"))

    def stop(self, grace: float = 30.0) -> None:
        """Ask the server to finish what it runs and end; after `grace` seconds, kill it."""
        self.process.terminate()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(grace)
        finally:
            self.kill()

    def kill(self) -> None:
        """End the server and its helper processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.held.close()
        remove(self.work, name_of(os.getpid(), self.ports.http))


def reason_in(log: str) -> str:
    """Return why a server ended, as its log says, or else the last line."""
    for pattern in REASONS:
        if found := re.search(pattern, log, re.MULTILINE):
            return found["why"].strip().strip('"')
    return (log.strip().splitlines() or [""])[-1]


def killed(status: int | None) -> str:
    """Say of which signal a process with this exit status died; empty if of none."""
    if status is None or status >= 0:
        return ""
    names = {each.value: each.name for each in signal.Signals}
    return f"died by signal {names.get(-status, -status)}"


def name_of(owner: int, port: int) -> str:
    """Return how the names begin of what a server leaves around while it runs, see `LEFT`."""
    return f"delivery-{owner}-{port}-"


LEFT = re.compile(r"delivery-(?P<owner>[1-9]\d*)-\d+-[\w-]*")


def remove(work: Path, name: str) -> None:
    """Remove the shared memory of a server and the link to its models; pass over what is not ours.

    Another user's files lie in the same folder, and a name may be given to anything.
    """
    for folder in (SHARED_MEMORY, work):
        for path in folder.glob(f"{name}*"):
            with contextlib.suppress(OSError):
                path.unlink()


def sweep(work: Path) -> None:
    """Remove what servers left that were killed together with their owner."""
    for path in [*SHARED_MEMORY.glob("delivery-*"), *work.glob("delivery-*")]:
        left = LEFT.fullmatch(path.name)
        if left and not Path("/proc", left["owner"]).exists():
            with contextlib.suppress(OSError):
                path.unlink()


def start(
    model_repository: Path, log: Path, ports: Ports | None = None, arguments: Iterable[str] = STRICT
) -> Server:
    """Start Triton on a model repository, without waiting for it.

    It listens on loopback only and ends with the thread that called this, however that ends.

    Args:
        model_repository: the folder that holds `classifier/<version>/model.onnx`.
        log: the file that keeps what Triton prints.
        ports: where to listen; by default any free ports.
        arguments: those of a container, translated for this machine.

    Raises DeliveryError before anything is started.
    """
    found = installation()
    latest_version(model_repository)
    folder = backends(found)
    work = folder.parent
    sweep(work)
    log.parent.mkdir(parents=True, exist_ok=True)
    held, chosen = hold(ports or Ports())
    name = name_of(os.getpid(), chosen.http)
    models = work / f"{name}models"
    with held, log.open("wb") as output:
        remove(work, name)  # of an owner before that had the same number
        models.symlink_to(model_repository.resolve())
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", str(found.server)),
                *translate(arguments),
                *own(chosen),
                f"--model-repository={models.name}",
                f"--backend-directory={folder.name}",
                f"--backend-config=python,shm-region-prefix-name={name}",
            ],
            cwd=work,  # Triton hands paths to a shell, unquoted: short names here are safe
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=found.environment(),
            start_new_session=True,  # Ctrl-C in a terminal is ours to answer
        )
        return Server(process, chosen, log, work, held.pop_all())


def own(ports: Ports) -> list[str]:
    """Return the arguments that this machine sets."""
    listen = [
        f"--{name}-{what}={value}"
        for name, port in vars(ports).items()
        for what, value in (("address", HOST), ("port", port))
    ]
    return [*listen, "--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"]


def ready_path(version: int) -> str:
    """Return the path that answers once this very version of the model can be called."""
    return f"/v2/models/{MODEL}/versions/{version}/ready"
