"""Command line of the search: `python -m tuning`, run by `make tune`."""

import argparse
import sys
from pathlib import Path

from classifier.networks import NETWORKS
from tuning.search import tune
from workspace.errors import reported
from workspace.machine import this_machine
from workspace.root import check_root


def main(argv: list[str] | None = None) -> int:
    """Search in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="tuning", description="search for better parameters")
    parser.add_argument("--network", choices=NETWORKS, help="default: train.network")
    parser.add_argument("--trials", type=int, help="default: tune.trials")
    arguments = parser.parse_args(argv)

    def run() -> None:
        check_root()
        tune(Path(), this_machine(), arguments.network, arguments.trials)

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
