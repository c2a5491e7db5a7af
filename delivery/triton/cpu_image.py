"""The image of a server for CPUs: what it is built from."""

import hashlib
import shutil
from pathlib import Path

from delivery.triton import installation

HERE = Path(__file__).with_name("cpu_server")
PARTS = (HERE / "Dockerfile", HERE / "tritonserver.sh", installation.BACKEND)


def write_context(project: Path, folder: Path) -> str:
    """Put all that the image is built from into a new folder; return the SHA-256 of its content."""
    folder.mkdir(parents=True)
    parts = [*PARTS, project / "serving/requirements.txt"]
    for part in parts:
        copied = Path(shutil.copyfile(part, folder / part.name))
        copied.chmod(0o755 if part.suffix == ".sh" else 0o644)  # whatever the checkout's umask
    content = b"\0".join(part.read_bytes() for part in parts)
    return hashlib.sha256(content).hexdigest()
