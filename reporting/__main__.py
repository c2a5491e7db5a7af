"""Command line of the stage `report`: `python -m reporting <project>`, run by `dvc repro`."""

import argparse
import sys
from pathlib import Path

from reporting import model_page
from workspace.errors import reported
from workspace.root import check_root


def main(argv: list[str] | None = None) -> int:
    """Write the page of the model in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="reporting", description="write the page of a model")
    parser.add_argument("name", help="of the project")
    name = parser.parse_args(argv).name

    def run() -> None:
        check_root()
        model_page.write(Path(), name)

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
