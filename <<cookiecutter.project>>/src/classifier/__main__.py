"""Command line of the pipeline: `python -m classifier <stage>`, run by `dvc repro`."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from classifier import params
from workspace.errors import reported
from workspace.machine import this_machine
from workspace.root import check_root

# The module of each stage, whose function of the stage's name runs it. Only that is imported, so
# that a stage depends on nothing else, and `prepare` need not wait for torch.
STAGES = {
    "prepare": "preparation",
    "train": "training",
    "evaluate": "evaluation",
    "export": "export",
}


def main(argv: list[str] | None = None) -> int:
    """Run one stage in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="classifier", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = parser.parse_args(argv).stage

    def run() -> None:
        check_root()
        work = getattr(import_module(f"classifier.{STAGES[stage]}"), stage)
        machine = [this_machine()] if stage == "train" else []
        work(params.load(Path()), Path(), *machine)

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
