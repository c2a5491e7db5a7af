"""Propose: the model that was trained here, in a pull request with all that Git keeps of it."""

import os

from delivery.errors import DeliveryError
from delivery.git import BRANCH, FETCH, REMOTE, Repository
from delivery.model.pipeline_outputs import Metrics, read_outputs
from delivery.proposals.proposal import Proposal, open_pull_request, taken
from workspace.errors import shown
from workspace.markdown import table

LOCK = "dvc.lock"  # where two trainings meet


def run(repository: Repository) -> None:
    """Commit what changed here on a branch of its own, and open its pull request.

    Main may have moved on since. Raises UserError.
    """
    metrics = read_outputs(repository.folder).metrics
    head, tip = repository.head(), repository.fetch()
    if not repository.contains(tip, head):
        raise DeliveryError(
            f"{REMOTE}/{BRANCH} does not have {head[:12]}, which is trained here: merge it first, "
            "or commit what was trained on its branch"
        )
    if not repository.changed_files():
        print(f"nothing to propose: {BRANCH} has this model")
        return
    proposal = training(head, metrics)
    push(repository, head, proposal)
    open_pull_request(repository, proposal)


def training(commit: str, metrics: Metrics) -> Proposal:
    """Return the pull request for what was trained at a commit."""
    figures = {"accuracy": metrics.accuracy, "macro F1": metrics.macro_f1, "loss": metrics.loss}
    rows = [(name, shown(value)) for name, value in figures.items()]
    return Proposal(
        branch=f"training/{commit[:12]}",
        path=LOCK,
        content="",  # of whatever the pipeline wrote
        title=f"Train the model of {commit[:12]}",
        description=f"{table(('figure', 'test set'), rows, right=[1])}\n"
        "Merging it deploys nothing: `make release` does, or the workflow `release`.\n",
        command="make pipeline propose",
    )


def push(repository: Repository, head: str, proposal: Proposal) -> None:
    """Make the branch, unless an interrupted run has made it. Raises DeliveryError."""
    changed = {*repository.changed_files()}
    with repository.index_apart(head) as index:
        missing = repository.listed("ls-files", "--deleted", "-z", index=index)
        left_out = os.fsencode("\0".join(path for path in missing if path not in changed))
        # A file that a sparse checkout leaves out stays as it is: nobody has deleted it.
        repository.run(
            "update-index", "-z", "--skip-worktree", "--stdin", stdin=left_out, index=index
        )
        repository.run("add", "--all", index=index)
        tree = repository.ask("write-tree", index=index)
    made = repository.remote_branch(proposal.branch)
    if made is None:
        message = f"{proposal.title}\n\n{proposal.body}"
        repository.push_new_branch(proposal.branch, repository.commit_tree(tree, head, message))
        print(f"pushed branch {proposal.branch}")
        return
    repository.run(*FETCH, REMOTE, f"refs/heads/{proposal.branch}")
    if repository.ask("rev-parse", f"{made}^{{tree}}") != tree:
        raise DeliveryError(taken(proposal.branch))
