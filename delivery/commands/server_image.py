"""The server image for CPUs: build it with the tool that is there, and push it."""

from delivery.cluster.server_image import build_server_image
from delivery.git import Repository
from delivery.oci.build import check_name, find_builder

LOCAL = "localhost/tritonserver-cpu"

ARGUMENTS = {
    "--push": {"metavar": "REGISTRY", "dest": "registry", "help": "<host>/<name> to push it to"},
}


def run(repository: Repository, registry: str | None = None) -> None:
    """Build the image; print its reference by digest. Raises DeliveryError.

    The tag follows from what it is built from. Without a registry it stays on this machine.
    """
    builder = find_builder()
    if registry:
        check_name(registry)
    print(build_server_image(repository.folder, registry or LOCAL, builder, bool(registry)))
