"""Comment: put a report on a pull request, as the one comment that is edited from then on."""

import json
from itertools import count
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.github import GitHub, GitHubError, find_github
from workspace.machine import this_machine
from workspace.settings import Settings, read_text

REPORT = ".local/reports/check.md"
MARKER = "<!-- the report of make check: edited in place, never a second one -->"
LARGEST = 65_536  # characters of a comment that GitHub takes
CUT = (
    "**This report is longer than a comment may be, so its end is missing here: the job's summary "
    "has all of it.**\n\n"
)
PAGE = 100
WRITERS = ("OWNER", "MEMBER", "COLLABORATOR")

ARGUMENTS = {
    "number": {"type": int, "help": "the pull request's"},
    "--report": {"type": Path, "default": Path(REPORT), "help": f"Markdown; default: {REPORT}"},
}


class Author(Settings, extra="ignore"):
    """Who wrote a comment: a User, or the Bot of a token."""

    type: str


class Comment(Settings, extra="ignore"):
    """A comment; of a deleted account it has no author."""

    id: int
    body: str
    user: Author | None = None
    author_association: str

    @property
    def is_ours(self) -> bool:
        """Whether it is the report's, by somebody who may write here: strangers copy the marker."""
        bot = self.user is not None and self.user.type == "Bot"
        return self.body.startswith(MARKER) and (bot or self.author_association in WRITERS)


def run(repository: Repository, number: int, report: Path) -> None:
    """Put the report where it belongs. Raises UserError."""
    text = read_text(repository.folder / report)
    github = find_github(repository)
    body = comment_body(text, link_to(github, this_machine().ci_run))
    try:
        place(github, number, body)
    except GitHubError as error:
        if error.status not in (403, 404):
            raise
        raise DeliveryError(
            f"{github.name} takes no comment on pull request {number} (HTTP {error.status}): see "
            "that it has it, and give the job `pull-requests: write` below `permissions`"
        ) from None
    print(f"report: https://{github.host}/{github.name}/pull/{number}")


def link_to(github: GitHub, run: str) -> str:
    """Return how a comment leads to the run of CI that made its report, if one did."""
    if not run.isdecimal():
        return ""
    address = f"https://{github.host}/{github.name}/actions/runs/{run}"
    return f"\n[The run: this report and the pictures that change are its artifact]({address})\n"


def comment_body(report: str, link: str = "") -> str:
    """Return what the comment says: the report, as far as a comment has room for it, and a link."""
    body = f"{MARKER}\n{report}{link}"
    if len(body) <= LARGEST:
        return body
    room = LARGEST - len(MARKER) - len(CUT) - len(link) - 1
    return f"{MARKER}\n{CUT}{report[:room].rpartition(chr(10))[0] or report[:room]}{link}"


def place(github: GitHub, number: int, body: str) -> None:
    """Have the pull request one comment of ours that says this. Raises GitHubError.

    Of two that came at once, both see both afterwards: the older stays. A run that was interrupted
    is finished by the next.
    """
    ours = comments(github, number)
    if not ours:
        write(github, f"issues/{number}/comments", "POST", body)
        ours = comments(github, number)
    for each in ours[1:]:
        remove(github, each)
    if ours and ours[0].body != body:
        write(github, f"issues/comments/{ours[0].id}", "PATCH", body)


def comments(github: GitHub, number: int) -> list[Comment]:
    """List our comments, oldest first. Raises GitHubError."""
    found: list[Comment] = []
    for page in count(1):
        path = f"issues/{number}/comments?per_page={PAGE}&page={page}"
        listed = github.ask(list[Comment], path)
        found += [each for each in listed if each.is_ours]
        if len(listed) < PAGE:
            break
    return sorted(found, key=lambda each: each.id)


def write(github: GitHub, path: str, method: str, body: str) -> None:
    """Make a comment, or change one. Raises GitHubError."""
    text = json.dumps({"body": body})
    github.answer(path, "--method", method, "--input", "-", body=text)


def remove(github: GitHub, comment: Comment) -> None:
    """Remove a comment, which somebody may have done by now. Raises GitHubError."""
    try:
        github.answer(f"issues/comments/{comment.id}", "--method", "DELETE")
    except GitHubError as error:
        if error.status != 404:
            raise
