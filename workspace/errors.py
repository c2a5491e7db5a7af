"""What a user can put right: reported as one sentence, without a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Base of every failure that a command reports; the message is the whole report."""


def reported(command: Callable[[], None]) -> int:
    """Run a command; say in a sentence on stderr why it failed; return the exit status."""
    try:
        command()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0
