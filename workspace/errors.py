"""What a user can put right: reported as one sentence, without a traceback.

Much of a sentence was written by others: files, hosts, programs. It is quoted so that it can do no
harm on a terminal or in a report: `printable` for a name, `shown` for a value, `said` for a reason.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

SHOWN = 80  # characters of a value that a sentence repeats
SAID = 400  # of a reason that somebody else gave
SENTENCE = 500  # of why something failed, on whatever somebody else wrote
LINE = 2000  # of a line that is reported

# Failures that happen to any program; what they say of themselves is the reason.
KNOWN = (OSError, UnicodeError, subprocess.SubprocessError, MemoryError, RecursionError)


class UserError(Exception):
    """Base of every failure that a command reports: one sentence, or a line for each argument."""

    def __str__(self) -> str:
        """Return the report, in which whatever is no letter, sign or blank is escaped."""
        return "\n".join(_cut(printable(str(line))) for line in self.args)


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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KNOWN as error:
        reason = printable(str(error)) or "there is too little memory"
        print(f"error: {_cut(reason)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0


def printable(text: str) -> str:
    """Return a text with line breaks, control signs and marks that turn its direction escaped."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def shown(value: Any) -> str:
    """Return a value as a sentence repeats it: escaped, and not longer than a line."""
    text = repr(value).replace("`", "\\x60")  # what is in backticks is ours, to be typed
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def said(text: str | bytes) -> str:
    """Return what somebody else gave as a reason: on one line, not long and without backticks."""
    words = text if isinstance(text, str) else text.decode(errors="replace")
    return _cut(printable(" ".join(words.split())).replace("`", "'"), SAID)


def sentence(error: BaseException) -> str:
    """Return why something failed, on one line that can be printed anywhere.

    It is for work on what somebody else wrote, where any kind of exception may come up; the name of
    one that nobody foresaw goes first.
    """
    foreseen = isinstance(error, UserError | OSError)
    text = str(error) if foreseen else f"{type(error).__name__}: {error}".rstrip(": ")
    return _cut(printable(" ".join(text.split())), SENTENCE)


def _cut(line: str, most: int = LINE) -> str:
    """Leave out the middle of a long line: what failed comes first, why and what to do last."""
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"
