"""What Git and the image cannot tell: whether an environment serves a model well.

Who can ask gives such a function; without one the report says that nobody told.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from delivery.proposals.health import Health

# The commits of the base that have the release, newest first, and the status's name → what the
# newest of them says that has such a status; None where none has.
AskHealth = Callable[[Sequence[str], str], Health | None]


def nobody_told(commits: Sequence[str], status: str) -> Health | None:
    """Know of no status."""
    return None


@dataclass(frozen=True)
class Witnesses:
    """Whom a check asks."""

    health: AskHealth = field(default=nobody_told)
