"""Command line of the delivery: `python -m delivery <command>`."""

import argparse
import pkgutil
import sys
from importlib import import_module

from delivery import commands
from delivery.git import Repository
from workspace.errors import reported
from workspace.root import find_root


def main(argv: list[str] | None = None) -> int:
    """Run one command in the project's root; return its exit status."""
    arguments = parser(sys.argv[1:] if argv is None else argv)
    return reported(lambda: run(arguments))


def parser(argv: list[str]) -> argparse.Namespace:
    """Parse a command line; of the commands only the one that is asked for is imported."""
    names = {module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)}
    made = argparse.ArgumentParser(prog="delivery", description=__doc__)
    subparsers = made.add_subparsers(required=True, metavar="command")
    for name in sorted(names & set(argv[:1]) or names):
        import_module(f"{commands.__name__}.{name.replace('-', '_')}").add_arguments(subparsers)
    return made.parse_args(argv)


def run(arguments: argparse.Namespace) -> None:
    """Run a command where the project is, which is the root of a repository or in none."""
    Repository(find_root()).check_root()
    arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
