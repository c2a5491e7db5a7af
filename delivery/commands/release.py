"""Release the model of this commit to staging: gate, push data and image, propose."""

import argparse
from pathlib import Path

from delivery.dvc import DvcError, dvc
from delivery.errors import DeliveryError
from delivery.model.lineage import check_lineage
from delivery.model.packaging import LOCAL, package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.oci.registry import push
from delivery.parameters import limits, read_parameters, target
from delivery.proposals.gate import check_gate
from delivery.proposals.git import BRANCH, REMOTE, Repository
from delivery.proposals.proposal import Proposal, propose
from delivery.proposals.release_file import Release
from delivery.proposals.releases import FIRST, next_version, release_path, released
from delivery.proposals.texts import describe, describe_change


class DirtyTreeError(DeliveryError):
    """The working tree differs from the commit."""


class StaleCommitError(DeliveryError):
    """The commit that is checked out is not the newest of the branch that is deployed."""


class DataNotPushedError(DeliveryError):
    """The store of the data did not take them."""


class VersionError(DeliveryError):
    """The version asked for is not the next."""


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `release`."""
    parser = subparsers.add_parser("release", help="propose the model of this commit for staging")
    parser.add_argument("--version", type=int, help="the version you expect it to be")
    parser.add_argument(
        "--accept-test-data",
        action="store_true",
        help="release although the test data are not those of the released model",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Release from the current folder."""
    release(Repository(Path.cwd()), arguments.version, arguments.accept_test_data)


def release(
    repository: Repository, version: int | None = None, accept_test_data: bool = False
) -> None:
    """Propose the model in the working tree as the next version in staging.

    Nothing is visible to others before every check has passed. Raises MissingOutputError,
    ParameterError, DirtyTreeError, StaleCommitError, LineageError, VersionError, GateError,
    DataNotPushedError and what packaging, pushing and proposing raise.
    """
    root = repository.folder
    outputs = read_outputs(root)
    parameters = read_parameters(root)
    commit = releasable_commit(repository)
    check_lineage(repository, commit, outputs)
    champion = released(repository, commit, FIRST)
    new_version = checked_version(version, next_version(repository, commit, FIRST))
    check_gate(outputs, limits(parameters), champion, accept_test_data)
    push_data(repository, commit)
    layout = Layout(LOCAL)
    pushed = push(layout, package(root, new_version, layout), target(parameters).registry)
    sent = f"{pushed.sent:,} bytes sent" if pushed.sent else "nothing to send"
    print(f"model {new_version}: {pushed.reference} ({sent})")
    candidate = describe(outputs, new_version, pushed.reference, commit)
    propose(repository, commit, proposal(candidate, champion))


def releasable_commit(repository: Repository) -> str:
    """Return the commit that is checked out, the newest of the branch that is deployed.

    Raises DirtyTreeError and StaleCommitError.
    """
    if changed := repository.changed_files():
        raise DirtyTreeError(
            f"the working tree is not what is committed ({', '.join(changed[:5])}): "
            "commit or stash it, so that the release can be made again from its commit"
        )
    head, tip = repository.head(), repository.fetch()
    if head != tip:
        raise StaleCommitError(
            f"{REMOTE}/{BRANCH} is at {tip[:12]}, you are at {head[:12]}: `git pull` what is newer "
            "there (perhaps a release that this model was not compared with), merge what is only "
            "here, and release again"
        )
    return head


def push_data(repository: Repository, commit: str) -> None:
    """Send what DVC keeps for this commit to its remote, so that the model can be made again.

    Raises DataNotPushedError; a commit without DVC has nothing to send.
    """
    if not repository.files(commit, ".dvc/config"):
        return
    try:
        printed = dvc(repository.folder, "push")
    except DvcError as error:
        raise DataNotPushedError(
            f"the data cannot be sent to their store ({error}): correct the default remote in "
            ".dvc/config or .dvc/config.local, and release again"
        ) from error
    print(f"data: {' '.join(printed.split())}")


def checked_version(asked: int | None, following: int) -> int:
    """Return the next version. Raises VersionError when another one was asked for."""
    if asked not in (None, following):
        raise VersionError(f"version {asked} is not the next: give {following}, or no version")
    return following


def proposal(candidate: Release, champion: Release | None) -> Proposal:
    """Return the pull request for a candidate."""
    return Proposal(
        branch=f"release/{FIRST}-v{candidate.version}",
        path=release_path(FIRST),
        content=candidate.to_yaml(),
        title=f"Release model {candidate.version} to {FIRST}",
        description=describe_change(candidate, champion),
    )
