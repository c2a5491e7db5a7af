"""Command line of the pipeline: `python -m classifier <stage>`, run by `dvc repro`."""

import argparse
import sys
from pathlib import Path

from classifier import data, evaluation, export, networks, params, training, tuning
from classifier.errors import ClassifierError
from classifier.params import Params


def prepare(values: Params, root: Path) -> None:
    """Clean the data and split it."""
    data.prepare(values.prepare, values.seed, root)


STAGES = {
    "prepare": prepare,
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "export": export.export,
}


def ingest(arguments: argparse.Namespace) -> None:
    """Add a batch of labelled images to the data set."""
    from classifier import ingest  # brings what no stage needs

    ingest.ingest(arguments.batch, arguments.new_class, Path())


def tune(arguments: argparse.Namespace) -> None:
    """Search for better parameters."""
    tuning.tune(Path(), arguments.network, arguments.trials)


def main(argv: list[str] | None = None) -> int:
    """Run one command in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="classifier", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, stage in STAGES.items():
        command = commands.add_parser(name, help="a stage of the pipeline")
        command.set_defaults(run=lambda _, stage=stage: stage(params.load(Path()), Path()))
    command = commands.add_parser("ingest", help="add a batch of labelled images")
    command.add_argument("batch", type=Path, help="a folder with a sub-folder for each class")
    command.add_argument("--new-class", nargs="*", default=[], help="classes that may be new")
    command.set_defaults(run=ingest)
    command = commands.add_parser("tune", help="search for better parameters of the training")
    command.add_argument("--network", choices=networks.NETWORKS, help="default: train.network")
    command.add_argument("--trials", type=int, help="default: tune.trials")
    command.set_defaults(run=tune)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except ClassifierError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
