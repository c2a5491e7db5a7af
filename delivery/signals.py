"""Signals that ask a command to end: Ctrl-C, `kill`, a terminal that is closed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed_signals() -> None:
    """End every command as Ctrl-C does, in order, when it is told to or its terminal is closed.

    What is ignored at the start stays so: `nohup` means it.
    """
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, interrupt)


def interrupt(*_: object) -> None:
    """Interrupt, once: more of these signals do not disturb the end."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """Give the signals that came, which are heeded at the end of the `with` block.

    An interrupt at any line would lose what that line had in hand.
    """
    held: list[int] = []
    kept = {each: before for each in ENDS if (before := signal.getsignal(each)) != signal.SIG_IGN}
    for each in kept:
        signal.signal(each, lambda number, _: held.append(number))
    try:
        yield held
    finally:
        for each, before in kept.items():
            signal.signal(each, before)
        for number in held:
            signal.raise_signal(number)
