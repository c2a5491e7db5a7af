"""The server image for CPUs, built and named after what it is built from."""

import tempfile
from pathlib import Path

from delivery.oci.build import Build, build_image
from delivery.triton.cpu_image import write_context

EPOCH = "86400"  # of all files: the same parts are the same image, whenever it is built
PARTS = "org.opencontainers.image.version"


def build_server_image(project: Path, name: str, builder: str, push: bool) -> str:
    """Build the image under a name, push it if that is wanted, and return it by digest.

    Raises DeliveryError.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder) / "context"
        tag = write_context(project, context)[:12]
        wanted = Build(context, name, tag, EPOCH, f"{PARTS}={tag}", push)
        return build_image(wanted, builder)
