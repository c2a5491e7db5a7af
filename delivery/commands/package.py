"""`make package`: the model image, built on this machine."""

from delivery.git import Repository
from delivery.model.packaging import LOCAL, package
from delivery.oci.layout import Layout

ARGUMENTS = {
    "--version": {"type": int, "default": 1, "help": "version directory in the image"},
}


def run(repository: Repository, version: int) -> None:
    """Build the image and print its reference."""
    layout = Layout(LOCAL)
    print(f"{layout.name}@{package(repository.folder, version, layout)}")
