"""Command line of new pictures: `python -m curation <batch>`, of `make ingest` and `review`."""

import argparse
import shlex
import sys
from pathlib import Path

from curation.ingest import ingest, review_on_page
from workspace.errors import reported
from workspace.root import check_root


def main(argv: list[str] | None = None) -> int:
    """Add a batch to the data set of the current folder; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="curation", description="add a batch of labelled pictures"
    )
    parser.add_argument("batch", type=Path, help="a folder with a sub-folder for each class")
    parser.add_argument(
        "--new-class",
        type=shlex.split,
        default=[],
        help="classes that may be new, one after the other, in quotes as for a shell",
    )
    parser.add_argument("--review", action="store_true", help="decide what was asked, on a page")
    arguments = parser.parse_args(argv)

    def run() -> None:
        check_root()
        if arguments.review:
            review_on_page(arguments.batch, Path())
        else:
            ingest(arguments.batch, arguments.new_class, Path())

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
