"""What a user can put right: reported as one sentence, without a traceback."""

import io
import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Base of every failure that a command reports; the message is the whole report."""


def reported(command: Callable[[], None]) -> int:
    """Run a command; say in a sentence on stderr why it failed; return the exit status."""
    _open_streams()
    status = _tried(command)
    try:
        sys.stdout.flush()
    except OSError:  # whoever read it has gone: Python would fail once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _open_streams() -> None:
    """Have all standard streams, and let them take any text.

    Otherwise the next file to be opened would be the standard output of all that is started.
    """
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(opened, True)
    os.close(opened)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _tried(command: Callable[[], None]) -> int:
    try:
        command()
        sys.stdout.flush()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0
