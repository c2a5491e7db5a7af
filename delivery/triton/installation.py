"""Where the packaged Triton is on this machine, and the backends that it gets.

The package `nvidia-pytriton` carries `tritonserver` in an environment of its own (TRITON_VENV). It
has only the Python backend, so `onnxruntime_backend.py` stands in for the ONNX Runtime
backend of production.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError
from workspace.files import publish
from workspace.machine import this_machine
from workspace.settings import check, parse_json

BACKEND = Path(__file__).with_name("onnxruntime_backend.py")
WORK = Path(".local/triton")
OLDEST_GLIBC = (2, 35)  # nvidia-pytriton is built against it


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
    """Find the packaged Triton. Raises DeliveryError where it cannot run."""
    check_glibc(os.confstr("CS_GNU_LIBC_VERSION") or "")
    venv = this_machine().triton_venv.absolute()
    python = venv / "bin" / "python"
    if not python.exists():
        raise DeliveryError(f"there is no Triton environment in {venv}: run `make setup`")
    described = subprocess.run([python, "-c", DESCRIBE], capture_output=True, text=True, check=True)
    told = f"what {python} says of itself"
    facts = check(dict[str, str], parse_json(described.stdout, told), told)
    packages = Path(facts["packages"])
    triton = packages / "pytriton" / "tritonserver"
    if not triton.exists():
        raise DeliveryError(
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
        raise DeliveryError(
            f"the packaged Triton needs glibc {needed} or newer and this system has "
            f"{found or 'another C library'}: use Debian 12, Ubuntu 22.04 or a newer system"
        )


def check_shared_library(folder: Path, name: str) -> None:
    """Refuse an interpreter without its shared library, which Triton's Python backend embeds."""
    try:
        ctypes.CDLL(str(folder / name) if (folder / name).exists() else name)
    except OSError:
        package = name.removesuffix(".so.1.0")
        raise DeliveryError(
            f"Triton's Python backend needs the shared library {name}: "
            f"install it with `sudo apt install {package}`"
        ) from None


def backends(found: Installation) -> Path:
    """Assemble the backend directory; return it.

    Triton wants the stub beside its library and refuses links out of the folder. The folder is
    named after its content, so servers may share it and an edited backend gets a new one.
    """
    content = hashlib.sha256(BACKEND.read_bytes() + str(found.stub).encode()).hexdigest()
    folder = WORK.absolute() / content[:12]
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copytree(found.backend, draft / "python")
    shutil.copy2(found.stub, draft / "python")
    (draft / "onnxruntime").mkdir()
    shutil.copy2(BACKEND, draft / "onnxruntime" / "model.py")
    try:
        publish(draft, folder)
    except OSError:  # another server was faster
        shutil.rmtree(draft)
    return folder
