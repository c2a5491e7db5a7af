"""Promote: propose for production exactly what staging has."""

import argparse
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.proposals.git import Repository
from delivery.proposals.proposal import Proposal, propose
from delivery.proposals.release_file import parse_release
from delivery.proposals.releases import release_path, released, released_text
from delivery.proposals.texts import describe_change

SOURCE, TARGET = "staging", "production"


class NothingToPromoteError(DeliveryError):
    """Staging has nothing that production lacks."""


class BackwardsError(DeliveryError):
    """A promotion would replace a newer model."""


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `promote`."""
    parser = subparsers.add_parser("promote", help="propose staging's release for production")
    parser.set_defaults(run=lambda arguments: promote(Repository(Path.cwd())))


def promote(repository: Repository) -> None:
    """Propose to copy staging's release file to production, byte for byte.

    Raises NothingToPromoteError, BackwardsError, ReleaseFileError and what proposing raises.
    """
    base = repository.fetch()
    text = released_text(repository, base, SOURCE)
    if text is None:
        raise NothingToPromoteError(f"{SOURCE} has no release: `make release`, and merge it first")
    if text == released_text(repository, base, TARGET):
        raise NothingToPromoteError(f"{TARGET} already has what {SOURCE} has: nothing to promote")
    candidate = parse_release(text, release_path(SOURCE))
    current = released(repository, base, TARGET)
    if current and candidate.version < current.version:
        raise BackwardsError(
            f"{SOURCE} has model {candidate.version}, {TARGET} the newer {current.version}: "
            f"`make rollback ENV={TARGET} TO={candidate.version}` goes back"
        )
    proposal = Proposal(
        branch=f"release/{TARGET}-v{candidate.version}",
        path=release_path(TARGET),
        content=text,
        title=f"Release model {candidate.version} to {TARGET}",
        description=describe_change(candidate, current),
    )
    propose(repository, base, proposal)
