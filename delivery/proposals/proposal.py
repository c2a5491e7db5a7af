"""A proposal: one commit that changes one file, on a branch of its own, in a pull request."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, GitError, Repository
from workspace.errors import printable, said
from workspace.files import write

DESCRIPTIONS = Path(".local/pull-requests")
URL = ["--json", "url", "--jq", ".[].url"]  # makes gh print addresses alone


@dataclass(frozen=True)
class Proposal:
    """What a pull request asks for: `content` in the file `path`, on the new branch `branch`."""

    branch: str
    path: str
    content: str
    title: str
    description: str


def propose(repository: Repository, base: str, proposal: Proposal) -> None:
    """Push the commit on top of `base` and open the pull request, or print how to.

    Doing it again after an interruption finishes what is left to do. Raises DeliveryError, also
    when someone else has proposed the same step.
    """
    tip = repository.remote_branch(proposal.branch)
    if tip is None:
        push_branch(repository, base, proposal)
    elif not is_ours(repository, base, proposal):
        raise DeliveryError(taken(proposal.branch))
    open_pull_request(repository, proposal)


def push_branch(repository: Repository, base: str, proposal: Proposal) -> None:
    """Make the commit and its branch on the remote; the user's checkout stays as it is."""
    message = f"{proposal.title}\n\n{proposal.description}"
    commit = repository.commit_file(base, proposal.path, proposal.content, message)
    try:
        repository.push_new_branch(proposal.branch, commit)
    except GitError as error:
        if repository.remote_branch(proposal.branch) is None:
            raise
        raise DeliveryError(taken(proposal.branch)) from error
    print(f"pushed branch {proposal.branch}: it changes {proposal.path} and nothing else")


def taken(branch: str) -> str:
    """Say that someone else has the branch."""
    return (
        f"the branch {branch} exists and proposes something else: merge its pull request and "
        f"`git pull`, or close it and `git push {REMOTE} --delete {branch}`"
    )


def is_ours(repository: Repository, base: str, proposal: Proposal) -> bool:
    """Tell whether the branch holds this very proposal, from an attempt that was interrupted."""
    repository.run("fetch", "--quiet", REMOTE, f"refs/heads/{proposal.branch}")
    commit = repository.ask("rev-parse", "FETCH_HEAD")
    parents = repository.ask("log", "-1", "--format=%P", commit)
    return parents == base and repository.read(commit, proposal.path) == proposal.content.encode()


def open_pull_request(repository: Repository, proposal: Proposal) -> None:
    """Open the pull request with GitHub's command line; without it, print the next command."""
    body = repository.folder / DESCRIPTIONS / f"{proposal.branch.replace('/', '-')}.md"
    write(body, proposal.description)
    command = ["gh", "pr", "create", "--base", BRANCH, "--head", proposal.branch]
    command += ["--title", proposal.title, "--body-file", str(body.relative_to(repository.folder))]
    if not logged_in(repository):
        print(f"next: {next_command(repository, proposal, command)}")
    elif url := _gh(repository, ["gh", "pr", "list", "--head", proposal.branch, *URL]):
        print(f"pull request: {url}")
    else:
        print(f"pull request: {_gh(repository, command)}")


def logged_in(repository: Repository) -> bool:
    """Tell whether GitHub's command line is installed and has an account."""
    if not shutil.which("gh"):
        return False
    status = subprocess.run(["gh", "auth", "status"], cwd=repository.folder, capture_output=True)
    return status.returncode == 0


def next_command(repository: Repository, proposal: Proposal, command: list[str]) -> str:
    """Return what the user runs to go on: a pull request on GitHub, elsewhere a merge."""
    if "github.com" in repository.ask("remote", "get-url", REMOTE):
        return shlex.join(command)
    tip = f"{REMOTE}/{proposal.branch}"
    return f"git fetch {REMOTE} && git show {tip} && git push {REMOTE} {tip}:{BRANCH}"


def _gh(repository: Repository, command: list[str]) -> str:
    result = subprocess.run(command, cwd=repository.folder, capture_output=True)
    if result.returncode:
        raise DeliveryError(
            f"the branch is pushed, but {' '.join(command[:3])} failed "
            f"({said(result.stderr)}): run the same make command again"
        )
    return printable(result.stdout.decode(errors="replace").strip())
