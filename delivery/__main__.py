"""Command line of the delivery: `python -m delivery <command>`."""

import argparse
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

from delivery import commands
from delivery.git import Repository
from delivery.signals import heed_signals
from workspace.errors import reported
from workspace.machine import this_machine
from workspace.root import check_root


def main(argv: list[str] | None = None) -> int:
    """Run one command in the project's root; return its exit status."""
    # Only then is it imported: a library that opened files first could have a stream's number.
    return reported(lambda: run(parser(sys.argv[1:] if argv is None else argv)))


def parser(argv: list[str]) -> argparse.Namespace:
    """Parse a command line; of the commands only the one that is asked for is imported.

    A command is a module: its first line says what it does, its `run` does it for a repository and
    what else its ARGUMENTS describe, each in the words of argparse.
    """
    names = {module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)}
    made = argparse.ArgumentParser(prog="delivery", description=__doc__)
    subparsers = made.add_subparsers(required=True, metavar="command")
    for name in sorted(names & set(argv[:1]) or names):
        command = import_module(f"{commands.__name__}.{name.replace('-', '_')}")
        described = subparsers.add_parser(name, help=(command.__doc__ or "").partition("\n")[0])
        for argument, options in getattr(command, "ARGUMENTS", {}).items():
            described.add_argument(argument, **options)
        described.set_defaults(run=command.run)
    return made.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Run a command where the project is."""
    check_root()
    this_machine()
    repository = Repository(Path.cwd())
    repository.check_root()
    options = vars(arguments)
    options.pop("run")(repository, **options)


if __name__ == "__main__":
    heed_signals()
    sys.exit(main())
