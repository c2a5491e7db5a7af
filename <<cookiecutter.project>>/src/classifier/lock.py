"""Long commands that must not run twice at once in the same folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.errors import ClassifierError


@contextmanager
def only_one(lock: Path, what: str, error: type[ClassifierError]) -> Iterator[None]:
    """Hold a lock that the kernel releases however the process ends; raises `error` if it is held.

    `what` names the command in the sentence.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error(f"another {what} is running in this folder: wait for it") from None
        yield
