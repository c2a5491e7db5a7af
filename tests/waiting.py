"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable

PATIENCE = 300.0  # seconds: generous, because nothing here is a measurement


def wait_until(condition: Callable[[], object]) -> None:
    """Wait until something is so. Raises AssertionError after PATIENCE."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
