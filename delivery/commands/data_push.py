"""`make data-push`: data, models and the stages' results, into the data store."""

import argparse
from pathlib import Path

from delivery.dvc import RAW, absent_store, adding, default_store, dvc_shown, raw_is_unknown
from delivery.errors import DeliveryError


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `data-push`."""
    parser = subparsers.add_parser("data-push", help="put what DVC keeps into the data store")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Push from the current folder. Raises DeliveryError."""
    folder = Path.cwd()
    _, address = default_store(folder)
    if raw_is_unknown(folder):
        raise DeliveryError(
            f"DVC does not know {RAW} yet, so it would stay on this machine: "
            f"`{adding(folder, RAW)}`, and `make data-push` again"
        )
    if dvc_shown(folder, "push", "--run-cache"):
        why = absent_store(folder) or f"DVC says above of {address}: put it right"
        raise DeliveryError(
            f"not all is in the data store, as {why}, and run `make data-push` again"
        )
    print(f"the data store is {address}")
