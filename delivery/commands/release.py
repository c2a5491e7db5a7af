"""Release the model of this commit to staging: gate, push data and image, propose."""

from pathlib import Path

from delivery.dvc import DvcError, default_store, dvc, unavailable
from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, Repository
from delivery.model.lineage import check_lineage
from delivery.model.packaging import LOCAL, package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.oci.referrers import attach
from delivery.oci.registry import push
from delivery.parameters import read_parameters
from delivery.proposals.gate import challenge, check_gate, lowered
from delivery.proposals.proposal import propose
from delivery.proposals.release_file import RELEASE_FILE, in_conflict
from delivery.proposals.releases import FIRST, all_releases, check_image, next_version, released
from delivery.proposals.signing import read_signer, read_trust, signed
from delivery.proposals.texts import describe, release_proposal
from workspace.markdown import cell

ARGUMENTS = {
    "--version": {"type": int, "help": "the version you expect it to be"},
    "--accept-test-data": {
        "action": "store_true",
        "help": "release although nothing could be compared with the released model",
    },
    "--output": {"type": Path, "help": "file that `digest=…` is added to, for whoever attests it"},
}


def run(
    repository: Repository,
    version: int | None = None,
    accept_test_data: bool = False,
    output: Path | None = None,
) -> None:
    """Propose the model in the working tree as the next version in staging.

    Nothing is visible to others before every check has passed. Raises UserError.
    """
    root = repository.folder
    account = read_outputs(root)
    parameters = read_parameters(root)
    commit = releasable_commit(repository)
    repository.check_identity()
    check_lineage(repository, commit, account)
    trust = read_trust(repository, commit)
    signer = read_signer(trust)
    current = released(repository, commit, FIRST)
    past = all_releases(repository, commit)
    new_version = next_version(past)
    if version not in (None, new_version):
        raise DeliveryError(f"version {version} is not the next: give {new_version}, or no version")
    champion = challenge(repository, current, parameters, network=True) if current else None
    check_gate(account, parameters, champion, accept_test_data)
    push_data(repository, commit)
    layout = Layout(LOCAL)
    digest, registry = package(root, new_version, layout), parameters.release.registry
    check_image(new_version, digest, past)
    sent = "sent" if push(layout, digest, registry) else "nothing to send"
    print(f"model {new_version}: {registry}@{digest} ({sent})")
    candidate = describe(account, new_version, f"{registry}@{digest}", commit)
    if signer:
        candidate = signed(candidate, signer)
        attach(registry, digest, candidate.bundle)
    print(f"signature: {trust.judge(candidate)}")
    text = candidate.to_yaml()
    note = f"{cell(bits)}.\n\n" if (bits := lowered(account.export)) else ""
    proposal = release_proposal(FIRST, text, candidate, champion, past, "make release", note)
    propose(repository, commit, proposal)
    if output:
        with output.open("a") as file:
            file.write(f"digest={digest}\n")


def releasable_commit(repository: Repository) -> str:
    """Return the commit that is checked out, main's newest. Raises DeliveryError."""
    head = repository.head()
    for path in repository.conflicts():
        if path.endswith(f"/{RELEASE_FILE}"):
            raise DeliveryError(f"{path} is in conflict: `git merge --abort`, {in_conflict()}")
    repository.check_clean("so that the release can be made again from its commit")
    tip = repository.fetch()
    if head != tip:
        raise DeliveryError(
            f"{REMOTE}/{BRANCH} is at {tip[:12]}, you are at {head[:12]}: "
            f"{way_together(repository, head, tip)}, and release again"
        )
    return head


def way_together(repository: Repository, head: str, tip: str) -> str:
    """Say how what is checked out and the branch that is deployed come to the same commit."""
    place = f" {REMOTE} {BRANCH}"
    push, to = f"git push -u{place}", place
    if repository.says_yes("rev-parse", f"{BRANCH}@{{upstream}}"):
        push, to = "git push", ""
    if repository.ask("branch", "--show-current") != BRANCH:
        return f"merge what is only here by a pull request, `git switch {BRANCH} && git pull{to}`"
    if repository.contains(head, tip):
        return f"`{push}` first"
    if repository.contains(tip, head):
        newer = "what is newer there (perhaps a release that this model was not compared with)"
        return f"`git pull{to}` {newer}"
    return f"each lacks commits of the other: `git pull --rebase{to} && {push}`"


def push_data(repository: Repository, commit: str) -> None:
    """Send what DVC keeps for this commit to its store, so that the model can be made again.

    Raises DeliveryError; a commit without DVC has nothing to send.
    """
    if not repository.files(commit, ".dvc/config"):
        return
    default_store(repository.folder)
    try:
        printed = dvc(repository.folder, "push")
    except DvcError as error:
        why = unavailable(repository.folder, error)
        raise DeliveryError(
            f"the data cannot be sent to their store{why}, and release again"
        ) from None
    print(f"data: {' '.join(printed.split())}")
