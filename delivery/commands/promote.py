"""Promote: propose for production exactly what staging has."""

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.contest import meet_again
from delivery.proposals.gate import Champion
from delivery.proposals.proposal import propose
from delivery.proposals.release_file import parse_release
from delivery.proposals.releases import (
    all_releases,
    check_image,
    release_path,
    released,
    released_content,
)
from delivery.proposals.texts import release_proposal

SOURCE, TARGET = "staging", "production"


def run(repository: Repository) -> None:
    """Propose staging's release file for production, as it is. Raises DeliveryError."""
    base = repository.fetch()
    content = released_content(repository, base, SOURCE)
    if content is None:
        raise DeliveryError(f"{SOURCE} has no release: `make release`, and merge it first")
    if content == released_content(repository, base, TARGET):
        raise DeliveryError(f"{TARGET} already has what {SOURCE} has: nothing to promote")
    candidate = parse_release(content, release_path(SOURCE))
    past = all_releases(repository, base)
    check_image(candidate.version, candidate.digest, past)
    current = released(repository, base, TARGET)
    if current and candidate.version < current.version:
        had = any(
            each.environment == TARGET and each.release.version == candidate.version
            for each in past
        )
        back = f"`make rollback ENV={TARGET} TO={candidate.version}` goes back"
        raise DeliveryError(
            f"{SOURCE} has model {candidate.version}, {TARGET} the newer {current.version}: "
            f"{back if had else 'the older one was never there to go back to'}"
        )
    text = content.decode()
    rival = meet_again(candidate.image, current.image) if current else None
    champion = Champion(current, rival) if current and rival else None
    proposal = release_proposal(TARGET, text, candidate, champion, past, "make promote")
    propose(repository, base, proposal)
