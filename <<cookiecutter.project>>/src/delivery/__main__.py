"""Command line of the delivery: `python -m delivery <command>`."""

import argparse
import sys

from delivery import (
    package,
    pin,
    pipeline_job,
    predict,
    preview,
    promotion,
    rehearse,
    release,
    reproduce,
    rollback,
    serve,
    status,
    training_image,
    training_run,
)
from delivery.errors import DeliveryError

# modules with `add_arguments(subparsers)`, in the order of the help
COMMANDS: list = [
    *(serve, predict),
    *(package, release, rehearse, promotion, rollback, reproduce, status),
    *(preview, pin),
    *(training_image, training_run, pipeline_job),
]


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit status."""
    parser = argparse.ArgumentParser(prog="delivery")
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add_arguments(subparsers)
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
    except (DeliveryError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
