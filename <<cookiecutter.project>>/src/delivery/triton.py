"""The real Triton on this machine: started, awaited, stopped.

The package `nvidia-pytriton` carries `tritonserver` in an environment of its own (`TRITON_VENV`).
It has only the Python backend, so `serving/backends/onnxruntime` stands in for the ONNX Runtime
backend of production.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from delivery.errors import DeliveryError

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
MODEL = "classifier"
OLDEST_GLIBC = (2, 35)  # nvidia-pytriton is built against it
SHARED_MEMORY = Path("/dev/shm")  # where the Python backend passes tensors
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


class NoTritonError(DeliveryError):
    """This machine cannot run the packaged Triton."""


class PortTakenError(DeliveryError):
    """Another process listens on a port that was asked for."""


class NoModelError(DeliveryError):
    """The model repository holds no version to serve."""


class WrongVersionError(DeliveryError):
    """An image holds another version than the release says."""


class NotServingError(DeliveryError):
    """Triton ended, or was not ready in time; the message holds its own reason."""


@dataclass(frozen=True)
class Ports:
    """TCP ports of one server; 0 stands for any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


@dataclass(frozen=True)
class Installation:
    """Where the parts of the packaged Triton lie."""

    server: Path
    backend: Path
    stub: Path
    binaries: Path
    libraries: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Variables for the server: its Python finds the environment's packages through `PATH`.

        An embedded interpreter looks for `python3` on `PATH` and, finding that of a virtual
        environment, uses the packages there. Otherwise it would import the system's NumPy,
        which may be newer than Triton 2.51 can use.
        """
        paths = [self.binaries, *os.get_exec_path()]
        return os.environ | {
            "PATH": os.pathsep.join(map(str, paths)),
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries)),
        }


# Run by the Python of TRITON_VENV: only it knows where its packages and its shared library are.
DESCRIBE = """
import json, sys, sysconfig
print(json.dumps({
    "packages": sysconfig.get_path("purelib"),
    "version": "%d.%d" % sys.version_info[:2],
    "folder": sysconfig.get_config_var("LIBDIR"),
    "library": "libpython%d.%d.so.1.0" % sys.version_info[:2],
}))
"""


def installation() -> Installation:
    """Find the packaged Triton.

    Raises:
        NoTritonError: glibc is too old, or the environment or Python's shared library is missing.
    """
    check_glibc(os.confstr("CS_GNU_LIBC_VERSION") or "")
    venv = ROOT / os.environ.get("TRITON_VENV", ".venv-triton")
    python = venv / "bin" / "python"
    if not python.exists():
        raise NoTritonError(f"there is no Triton environment in {venv}: run `make setup`")
    described = subprocess.run([python, "-c", DESCRIBE], capture_output=True, text=True, check=True)
    facts = json.loads(described.stdout)
    packages = Path(facts["packages"])
    triton = packages / "pytriton" / "tritonserver"
    if not triton.exists():
        raise NoTritonError(
            f"{venv} lacks the package nvidia-pytriton: remove it and run `make setup`"
        )
    check_shared_library(Path(facts["folder"]), facts["library"])
    return Installation(
        server=triton / "bin" / "tritonserver",
        backend=triton / "backends" / "python",
        stub=triton / "python_backend_stubs" / facts["version"] / "triton_python_backend_stub",
        binaries=python.parent,
        libraries=(Path(facts["folder"]), packages / "nvidia_pytriton.libs"),
    )


def check_glibc(found: str) -> None:
    """Refuse a C library older than the package needs; `found` is such as "glibc 2.36"."""
    version = re.fullmatch(r"glibc (\d+)\.(\d+).*", found)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GLIBC:
        needed = ".".join(map(str, OLDEST_GLIBC))
        raise NoTritonError(
            f"the packaged Triton needs glibc {needed} or newer and this system has "
            f"{found or 'another C library'}: use Debian 12, Ubuntu 22.04 or a newer system"
        )


def check_shared_library(folder: Path, name: str) -> None:
    """Refuse an interpreter without its shared library, which Triton's Python backend embeds."""
    try:
        ctypes.CDLL(str(folder / name) if (folder / name).exists() else name)
    except OSError:
        package = name.removesuffix(".so.1.0")
        raise NoTritonError(
            f"Triton's Python backend needs the shared library {name}: "
            f"install it with `sudo apt install {package}`"
        ) from None


def backends(found: Installation) -> Path:
    """Assemble the backend directory; return it.

    Triton wants the stub beside its library and refuses links out of the folder. The folder is
    named after its content, so servers may share it and an edited backend gets a new one.
    """
    model = ROOT / "serving" / "backends" / "onnxruntime" / "model.py"
    content = hashlib.sha256(model.read_bytes() + str(found.stub).encode()).hexdigest()
    folder = ROOT / ".local" / "triton" / content[:12]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(found.backend, draft / "python")
    shutil.copy2(found.stub, draft / "python")
    (draft / "onnxruntime").mkdir()
    shutil.copy2(model, draft / "onnxruntime")
    try:
        draft.rename(folder)
    except OSError:  # another server was faster
        shutil.rmtree(draft)
    return folder


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


def versions(repository: Path) -> list[int]:
    """List the versions in a model repository, the newest last."""
    files = (repository / MODEL).glob("[1-9]*/model.onnx")
    return sorted(int(file.parent.name) for file in files if file.parent.name.isdecimal())


def latest_version(repository: Path) -> int:
    """Return the newest version in a model repository. Raises NoModelError without any."""
    found = versions(repository)
    if not found:
        raise NoModelError(f"there is no exported model in {repository}: run `make pipeline` first")
    return found[-1]


def check_version(repository: Path, wanted: int) -> None:
    """Raise WrongVersionError unless a pulled image holds the version that is released."""
    found = versions(repository)
    if found != [wanted]:
        held = f"version {', '.join(map(str, found))}" if found else "no version"
        raise WrongVersionError(
            f"the image holds {held} of the model and the release says {wanted}: "
            "release the image that was packaged for this version"
        )


def choose(ports: Ports) -> Ports:
    """Replace zeros by free ports; raise PortTakenError if one asked for is not free."""
    sockets: list[socket.socket] = []
    try:
        for name in ("http", "grpc", "metrics"):
            sockets.append(bound(name, getattr(ports, name)))
        return Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


def bound(name: str, port: int) -> socket.socket:
    """Bind a loopback port."""
    attempt = socket.socket()
    attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        attempt.bind((HOST, port))
    except OSError as error:
        attempt.close()
        raise PortTakenError(
            f"the {name} port {port} cannot be used ({error.strerror}): "
            f"stop what listens there or choose another with {name.upper()}_PORT=<number>"
        ) from None
    return attempt


@dataclass
class Server:
    """A running Triton. Leaving its `with` block stops it."""

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path
    started: float = field(default_factory=time.monotonic)

    def __enter__(self) -> "Server":
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.stop()

    def url(self, path: str = "") -> str:
        """Return the HTTP address of a path on this server."""
        return f"http://{HOST}:{self.ports.http}{path}"

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self.process.poll() is None

    def answers(self, path: str, timeout: float = 1.0) -> bool:
        """Tell whether a GET of `path` succeeds, as the kubelet's HTTP probe sees it."""
        try:
            with urllib.request.urlopen(self.url(path), timeout=timeout) as response:
                return 200 <= response.status < 400
        except (urllib.error.URLError, OSError):
            return False

    def wait(
        self, path: str, timeout: float, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        """Wait until `path` answers; call `meanwhile` now and then, which may end it by raising.

        Raises:
            NotServingError: the server ended, or `timeout` seconds passed.
        """
        deadline = time.monotonic() + timeout
        while not self.answers(path):
            if not self.alive():
                raise NotServingError(f"Triton ended: {self.reason()} (log: {self.log})")
            if time.monotonic() > deadline:
                raise NotServingError(
                    f"{path} did not answer within {timeout:.0f} s (log: {self.log})"
                )
            meanwhile()
            time.sleep(POLL)

    def reason(self) -> str:
        """Return what Triton's log gives as the reason of its end."""
        return reason(self.log.read_text(errors="replace"))

    def stop(self, grace: float = 30.0) -> None:
        """Ask the server to finish what it runs and end; after `grace` seconds, kill it."""
        if self.alive():
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
        for region in SHARED_MEMORY.glob(f"{prefix(os.getpid())}{self.ports.http}-*"):
            region.unlink(missing_ok=True)


def prefix(owner: int) -> str:
    """Return how the names of the shared memory begin that servers of a process `owner` use."""
    return f"delivery-{owner}-"


def sweep() -> None:
    """Remove the shared memory of servers that were killed together with their owner."""
    for region in SHARED_MEMORY.glob("delivery-*-*"):
        if not Path("/proc", region.name.split("-")[1]).exists():
            region.unlink(missing_ok=True)


REASONS = (
    r"failed to load '[^']+' version \d+: \w[\w ]*: (?P<why>.+?)(?:\\n.*)?\"?$",
    r"Poll failed for model directory '[^']+': (?P<why>.+?)\"?$",
    r"(?P<why>unrecognized option .+)$",
    r"error: creating server: (?P<why>.+)$",
    r"(?P<why>failed to start .+)$",
    r"(?P<why>error while loading shared libraries: .+)$",
)


def reason(log: str) -> str:
    """Find in a log of Triton the sentence that tells why it ended."""
    for pattern in REASONS:
        found = re.search(pattern, log, re.MULTILINE)
        if found:
            return found["why"].strip().strip('"')
    lines = log.strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def start(
    repository: Path, log: Path, ports: Ports | None = None, arguments: Iterable[str] = STRICT
) -> Server:
    """Start Triton on a model repository, without waiting for it.

    It listens on loopback only and ends with the thread that called this, however that ends.

    Args:
        repository: the folder that holds `classifier/<version>/model.onnx`.
        log: the file that keeps what Triton prints.
        ports: where to listen; by default any free ports.
        arguments: those of a container, translated for this machine.

    Raises:
        NoTritonError, NoModelError, PortTakenError: before anything is started.
    """
    found = installation()
    latest_version(repository)
    chosen = choose(ports or Ports())
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = backends(found)
    sweep()
    command: list[str | Path] = [
        *("setpriv", "--pdeathsig", "KILL"),
        found.server,
        *translate(arguments),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={folder.name}",
        *(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics")),
        *(f"--{name}-port={getattr(chosen, name)}" for name in ("http", "grpc", "metrics")),
        "--allow-gpu-metrics=false",
        "--pinned-memory-pool-byte-size=0",
        f"--backend-config=python,shm-region-prefix-name={prefix(os.getpid())}{chosen.http}-",
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder.parent,  # Triton hands the folder's path to a shell, unquoted
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=found.environment(),
            start_new_session=True,  # Ctrl-C in a terminal is ours to answer
        )
    return Server(process, chosen, log)


def ready_path(version: int) -> str:
    """Return the path that answers once this very version of the model can be called."""
    return f"/v2/models/{MODEL}/versions/{version}/ready"
