"""`make package`: the model image, built on this machine."""

import argparse
from pathlib import Path

from delivery.model.packaging import LOCAL, package
from delivery.oci.layout import Layout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--version", type=int, default=1, help="version directory in the image")


def run(arguments: argparse.Namespace) -> None:
    """Build the image and print its reference."""
    layout = Layout(LOCAL)
    print(f"{layout.name}@{package(Path.cwd(), arguments.version, layout)}")
