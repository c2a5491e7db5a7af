"""What a user of a delivery command can put right, and what nobody foresaw: a sentence each."""

from workspace.errors import UserError, printable

LONGEST = 500  # characters of a sentence


class DeliveryError(UserError):
    """Base of every failure that a delivery command reports; the message is the whole report."""


def sentence(error: BaseException) -> str:
    """Return why something failed, on one line that can be printed anywhere.

    It is for work on what somebody else wrote, where any kind of exception may come up; the name of
    one that nobody foresaw goes first.
    """
    foreseen = isinstance(error, UserError | OSError)
    text = str(error) if foreseen else f"{type(error).__name__}: {error}".rstrip(": ")
    return printable(" ".join(text.split()))[:LONGEST]
