"""A proposal: one commit that changes one file, on a branch of its own, in a pull request."""

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from delivery.errors import DeliveryError
from delivery.git import BRANCH, FETCH, REMOTE, GitError, Repository
from delivery.proposals.github import GitHub, gh, github_repository, knows, reached_github
from delivery.proposals.release_file import in_conflict
from workspace.errors import said
from workspace.files import write

DESCRIPTIONS = Path(".local/pull-requests")
# What gh prints of pull requests: their addresses; those of forks are others'.
SHOWN = "url,isCrossRepository", ".[] | select(.isCrossRepository | not) | .url"


@dataclass(frozen=True)
class Proposal:
    """What a pull request asks for: `content` in the file `path`, on the new branch `branch`.

    `command` proposes it again, on what is deployed by then; `label` is the pull request's, if any.
    `renews` has an open pull request of the same say what this one does.
    """

    branch: str
    path: str
    content: str
    title: str
    description: str
    command: str
    label: str = ""
    renews: bool = False

    @property
    def body(self) -> str:
        """What the pull request says."""
        name = PurePosixPath(self.path).name
        cure = in_conflict(self.branch, f"`{self.command}`")
        return f"{self.description}\nShould Git find a conflict in {name}, {cure}.\n"


def propose(repository: Repository, base: str, proposal: Proposal) -> None:
    """Push the commit on top of `base` and open the pull request, or print how to.

    Doing it again after an interruption finishes what is left to do. A branch that was merged and
    is still there is left alone, and another name taken. Raises DeliveryError, also when someone
    else has proposed the same step.
    """
    name, number = proposal.branch, 1
    while tip := repository.remote_branch(proposal.branch):
        repository.run(*FETCH, REMOTE, f"refs/heads/{proposal.branch}")
        if is_ours(repository, base, tip, proposal):
            break
        if not is_merged(repository, base, tip, proposal.path):
            raise DeliveryError(taken(proposal.branch))
        number += 1
        proposal = replace(proposal, branch=f"{name}-{number}")
    else:
        push_branch(repository, base, proposal)
    open_pull_request(repository, proposal)


def propose_once(repository: Repository, base: str, proposal: Proposal, same: str = "") -> None:
    """Propose what nobody asked for, unless it was proposed before, whatever came of that.

    `same` is a pattern of the branches, this one among them, that propose as much. Raises
    DeliveryError.
    """
    github = reached_github(repository)
    there = repository.remote_branches(same or proposal.branch)
    if others := [each for each in there if each != proposal.branch]:
        print(f"proposed before, on the branch {others[0]}")
    elif github and (url := pull_request(github, proposal, "all")):
        print(f"proposed before: {url}")
        label(github, proposal, url)
    elif there:  # an attempt was interrupted, or nobody can be asked
        print(f"pushed before, as the branch {proposal.branch}")
        open_pull_request(repository, proposal)
    else:
        propose(repository, base, proposal)


def push_branch(repository: Repository, base: str, proposal: Proposal) -> None:
    """Make the commit and its branch on the remote; the user's checkout stays as it is."""
    message = f"{proposal.title}\n\n{proposal.body}"
    commit = repository.commit_file(base, proposal.path, proposal.content, message)
    try:
        repository.push_new_branch(proposal.branch, commit)
    except GitError as error:
        if repository.remote_branch(proposal.branch):
            raise DeliveryError(taken(proposal.branch)) from error
        above = proposal.branch.partition("/")[0]
        if repository.remote_branch(above) is None:
            raise
        raise DeliveryError(
            f"{REMOTE} has a branch {above}, so it can have none named {proposal.branch}: rename "
            f"it, `git fetch {REMOTE} {above} && git push {REMOTE} FETCH_HEAD:refs/heads/<name> "
            f":{above}`"
        ) from error
    if repository.remote_branch(proposal.branch) != commit:
        raise DeliveryError(
            f"`git push` ended well, but {REMOTE} does not have the branch {proposal.branch}: see "
            f"whether `git remote get-url --push --all {REMOTE}` is where `git fetch` looks"
        )
    print(f"pushed branch {proposal.branch}: it changes {proposal.path} and nothing else")


def taken(branch: str) -> str:
    """Say that someone else has the branch."""
    return (
        f"the branch {branch} exists and proposes something else: merge its pull request and "
        f"`git pull`, or close it and `git push {REMOTE} --delete {branch}`"
    )


def is_ours(repository: Repository, base: str, tip: str, proposal: Proposal) -> bool:
    """Tell whether a branch holds this very proposal, from an attempt that was interrupted."""
    parents = repository.ask("rev-parse", f"{tip}^@").split()
    ours = repository.ask("hash-object", "--stdin", stdin=proposal.content.encode())
    return parents == [base] and repository.blob(tip, proposal.path) == ours


def is_merged(repository: Repository, base: str, tip: str, path: str) -> bool:
    """Tell whether what a branch proposed was deployed since: merged, squashed or rebased."""
    if repository.contains(base, tip):
        return True
    if not repository.says_yes("merge-base", base, tip):  # of another history
        return False
    start = repository.ask("merge-base", base, tip)
    since, wanted = repository.history(base, path, start), repository.blob(tip, path)
    return any(repository.blob(commit, path) == wanted for commit in since)


def open_pull_request(repository: Repository, proposal: Proposal) -> None:
    """Open the pull request with GitHub's command line; without it, print the next command."""
    body = repository.folder / DESCRIPTIONS / f"{proposal.branch.replace('/', '-')}.md"
    write(body, proposal.body)
    home = github_repository(repository)
    host, _, name = (home or "").partition("/")
    command = ["pr", "create", *_place(home or "", proposal), "--title", proposal.title]
    command += ["--body-file", str(body.relative_to(repository.folder))]
    if not home:
        tip = f"{REMOTE}/{proposal.branch}"
        print(f"next: git fetch {REMOTE} && git show {tip} && git push {REMOTE} {tip}:{BRANCH}")
    elif not knows(host):
        print(f"next: {shlex.join(['gh', *command])}")
    else:
        github = GitHub(host, name, repository.folder)
        url = pull_request(github, proposal)
        if url and proposal.renews:
            renew(github, proposal, url)
        url = url or _address(github, command)
        if not url:
            raise DeliveryError(
                "the branch is pushed, but gh does not name the pull request that it opened: "
                "run the same make command again"
            )
        print(f"pull request: {url}")
        label(github, proposal, url)


def pull_request(github: GitHub, proposal: Proposal, state: str = "open") -> str:
    """Return the address of the proposal's pull request in a state that gh knows, or nothing."""
    wanted = ["--state", state, *_place(f"{github.host}/{github.name}", proposal)]
    return _address(github, ["pr", "list", *wanted, "--json", SHOWN[0], "--jq", SHOWN[1]])


def label(github: GitHub, proposal: Proposal, url: str) -> None:
    """Give a pull request the proposal's label, if any; GitHub makes one that is new."""
    if proposal.label:
        path = f"issues/{url.rpartition('/')[2]}/labels"
        text = json.dumps({"labels": [proposal.label]})
        github.answer(path, "--method", "POST", "--input", "-", body=text)


def renew(github: GitHub, proposal: Proposal, url: str) -> None:
    """Give a pull request the proposal's text."""
    path, text = f"pulls/{url.rpartition('/')[2]}", json.dumps({"body": proposal.body})
    github.answer(path, "--method", "PATCH", "--input", "-", body=text)


def _place(home: str, proposal: Proposal) -> list[str]:
    """Return where a pull request is: the repository and both branches, as gh takes them."""
    return ["--repo", home, "--head", proposal.branch, "--base", BRANCH]


def _address(github: GitHub, command: list[str]) -> str:
    """Return the address of a pull request that gh prints, which may print more; or nothing."""
    result = gh(github.folder, *command)
    if result.returncode:
        raise DeliveryError(
            f"the branch is pushed, but gh {' '.join(command[:2])} failed "
            f"({said(result.stderr)}): run the same make command again"
        )
    found = re.search(
        rf"(?mi)^https://{re.escape(github.host)}/[\w./-]+/pull/[0-9]+$", result.stdout
    )
    return found[0] if found else ""
