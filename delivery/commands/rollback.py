"""Roll back: propose an earlier release file of an environment, as it was."""

import argparse
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.proposal import propose
from delivery.proposals.release_file import Release
from delivery.proposals.releases import check_environment, released, released_before
from delivery.proposals.texts import rollback_proposal


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `rollback`."""
    parser = subparsers.add_parser("rollback", help="propose an environment's earlier release")
    parser.add_argument("environment")
    parser.add_argument("--to", type=int, help="version; default: what the current one replaced")
    parser.set_defaults(
        run=lambda given: rollback(Repository(Path.cwd()), given.environment, given.to)
    )


def rollback(repository: Repository, environment: str, version: int | None = None) -> None:
    """Propose an earlier release file of an environment, as it was. Raises DeliveryError."""
    base = repository.fetch()
    check_environment(repository, base, environment)
    current = released(repository, base, environment)
    if current is None:
        raise DeliveryError(f"{environment} has no release: there is nothing to roll back")
    past = released_before(repository, base, environment)
    restored, text = earlier(past, current, version, environment)
    propose(repository, base, rollback_proposal(environment, text, restored, current))


def earlier(
    past: list[tuple[Release, str]], current: Release, version: int | None, environment: str
) -> tuple[Release, str]:
    """Find a release among those of the past, newest first.

    Without a version it is what the current model replaced when it was first released: after a
    rollback the next one goes further back instead of returning to what was rolled back.
    Raises DeliveryError.
    """
    if version == current.version:
        raise DeliveryError(f"{environment} already serves model {version}")
    versions = [release.version for release, _ in past]
    if version is None:
        places = [place for place, each in enumerate(versions) if each == current.version]
        found = past[max(places) + 1 :]
    else:
        found = [each for each in past if each[0].version == version]
    if found:
        return found[0]
    wanted = "an earlier release" if version is None else f"model {version}"
    raise DeliveryError(
        f"{environment} serves model {current.version} and never had {wanted} to go back to "
        f"(in its history: {', '.join(map(str, sorted(set(versions))))})"
    )
