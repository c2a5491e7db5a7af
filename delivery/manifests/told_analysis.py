"""What Argo Rollouts told GitHub of a model that it took away, for whoever cannot ask the cluster.

It is the payload of a deployment, whose environment is the namespace (`argocd/components/figures`).
Whoever may make deployments may tell anything, so it explains a proposal, and decides on none.
"""

from typing import Any
from urllib.parse import quote

from delivery.git import Repository
from delivery.manifests.analysis import Analysis
from delivery.proposals.github import reached_github
from delivery.proposals.release_file import Release
from workspace.settings import Settings, SettingsError, check

TASK = "analysis"
NEWEST = 30  # deployments that are looked through


class Deployment(Settings, extra="ignore"):
    """One deployment, of which only what was told with it is of interest here."""

    payload: Any = None


class Told(Settings, extra="ignore"):
    """The analyses of the model in an image."""

    image: str
    analyses: tuple[Analysis, ...]


def told_analyses(repository: Repository, namespace: str, release: Release) -> tuple[Analysis, ...]:
    """Return what was told last of a release in a namespace; nothing where nobody told anything.

    Raises GitHubError.
    """
    github = reached_github(repository)
    if github is None:
        return ()
    query = f"deployments?task={TASK}&environment={quote(namespace, safe='')}&per_page={NEWEST}"
    for each in github.ask(list[Deployment], query):  # the newest first
        try:
            told = check(Told, each.payload, "a payload")
        except SettingsError:
            continue
        if told.image == release.image:
            return told.analyses
    return ()
