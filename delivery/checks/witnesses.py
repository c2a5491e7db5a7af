"""What Git and the image cannot tell: whether an environment serves well, and who signed an image.

Who can ask gives these functions; without them the report says that nobody was asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Health:
    """What a commit status such as `staging/healthy` says: whether, and since when."""

    healthy: bool
    since: datetime


@dataclass(frozen=True)
class Signature:
    """What is known of an image's signature; an image that is not `accepted` is refused."""

    accepted: bool
    told: str


# The commits of the base that have the release, newest first, and the status's name → what the
# newest of them says that has such a status; None where none has.
AskHealth = Callable[[Sequence[str], str], Health | None]
AskSignature = Callable[[str], Signature]  # the image's reference by digest → its signature


def nobody_told(commits: Sequence[str], status: str) -> Health | None:
    """Know of no status."""
    return None


def not_asked(image: str) -> Signature:
    """Know nothing of signatures."""
    return Signature(True, "not looked at")


@dataclass(frozen=True)
class Witnesses:
    """Whom a check asks."""

    health: AskHealth = field(default=nobody_told)
    signature: AskSignature = field(default=not_asked)
