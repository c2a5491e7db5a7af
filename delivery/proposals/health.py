"""Whether an environment serves its release well, as commit statuses on GitHub say.

Who knows writes them, such as Argo CD's notifications: `<environment>/healthy`, on the commit that
was applied. A status on any commit since the release counts, and the newest is what holds.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import Field

from delivery.git import Repository
from delivery.proposals.github import GitHub, reached_github
from delivery.proposals.releases import release_path
from workspace.settings import Settings

MOST = 100  # commits that one query asks of
WELL = "SUCCESS"


class Status(Settings, extra="ignore"):
    """One commit status."""

    state: str
    since: datetime = Field(alias="createdAt")
    description: str | None = None


class Statuses(Settings, extra="ignore"):
    """The statuses of a commit, of which one was asked for."""

    context: Status | None = None


class Commit(Settings, extra="ignore"):
    """A commit; one without any status has none."""

    status: Statuses | None = None


class Commits(Settings, extra="ignore"):
    """What a repository has of the commits that were asked for; one that is not there is null."""

    repository: dict[str, Commit | None]


class Found(Settings, extra="ignore"):
    """What GitHub's GraphQL answers."""

    data: Commits


@dataclass(frozen=True)
class Health:
    """What the newest status says, and since when nobody has said otherwise."""

    healthy: bool
    since: datetime
    says: str = ""


def hours_since(moment: datetime) -> float:
    """Return how many hours ago a moment was."""
    return (datetime.now(UTC) - moment) / timedelta(hours=1)


def status_name(environment: str) -> str:
    """Return the name of the status that tells of an environment."""
    return f"{environment}/healthy"


def told_health(repository: Repository, base: str, environment: str) -> Health | None:
    """Return what was told of the release that an environment has at a commit.

    None where nobody has told anything, and where gh reaches no GitHub. Raises GitHubError.
    """
    changes = repository.history(base, release_path(environment))
    github = reached_github(repository) if changes else None
    if github is None:
        return None
    later = repository.ask("rev-list", "--ancestry-path", f"{changes[0]}..{base}").split()
    return newest_word(github, [changes[0], *later], status_name(environment))


def newest_word(github: GitHub, commits: Sequence[str], name: str) -> Health | None:
    """Return what the newest status of a name on any of some commits says, or None without one.

    It holds since the first of those that say the same without another between. Raises GitHubError.
    """
    found = statuses(github, commits, name)
    if not found:
        return None
    newest = found[-1]
    since = newest.since
    for each in reversed(found):
        if (each.state == WELL) != (newest.state == WELL):
            break
        since = each.since
    return Health(newest.state == WELL, since, newest.description or newest.state.lower())


def statuses(github: GitHub, commits: Sequence[str], name: str) -> list[Status]:
    """Return the statuses of a name that some commits have, oldest first. Raises GitHubError."""
    found = []
    for start in range(0, len(commits), MOST):
        query = status_query(github.name, commits[start : start + MOST], name)
        answer = github.query(Found, query, f"the status {name}").data.repository
        asked = [each.status.context for each in answer.values() if each and each.status]
        found += [each for each in asked if each]
    return sorted(found, key=lambda each: each.since)


def status_query(repository: str, commits: Sequence[str], name: str) -> str:
    """Return the query for the newest status of a name on each of some commits."""
    owner, _, short = repository.partition("/")
    wanted = "state createdAt description"
    of = f"... on Commit {{ status {{ context(name: {json.dumps(name)}) {{ {wanted} }} }} }}"
    each = "\n".join(
        f'  c{place}: object(oid: "{commit}") {{ {of} }}' for place, commit in enumerate(commits)
    )
    where = f"owner: {json.dumps(owner)}, name: {json.dumps(short)}"
    return f"{{ repository({where}) {{\n{each}\n}} }}"
