"""Command line of the search: `python -m tuning`, run by `make tune`."""

import argparse
import sys
from pathlib import Path

from classifier.networks import NETWORKS
from tuning.search import tune
from workspace.errors import reported


def main(argv: list[str] | None = None) -> int:
    """Search in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="tuning", description="search for better parameters")
    parser.add_argument("--network", choices=NETWORKS, help="default: train.network")
    parser.add_argument("--trials", type=int, help="default: tune.trials")
    arguments = parser.parse_args(argv)
    return reported(lambda: tune(Path(), arguments.network, arguments.trials))


if __name__ == "__main__":
    sys.exit(main())
