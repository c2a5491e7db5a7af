"""Command line of the pipeline: `python -m classifier <stage>`, run by `dvc repro`."""

import argparse
import sys
from pathlib import Path

from classifier import data, evaluation, export, params, training
from classifier.params import Params
from workspace.errors import reported


def prepare(values: Params, root: Path) -> None:
    """Clean the data and split it."""
    data.prepare(values.prepare, values.seed, root)


STAGES = {
    "prepare": prepare,
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "export": export.export,
}


def main(argv: list[str] | None = None) -> int:
    """Run one stage in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="classifier", description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    stage = STAGES[parser.parse_args(argv).stage]
    return reported(lambda: stage(params.load(Path()), Path()))


if __name__ == "__main__":
    sys.exit(main())
