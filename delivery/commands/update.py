"""Update: merge what the template changed since this project was made, on a branch of its own."""

import re
import sys
import tempfile
from pathlib import Path
from shlex import quote

from delivery.errors import DeliveryError
from delivery.git import REMOTE, Repository
from delivery.manifests.differences import differences
from delivery.proposals.template import ORIGIN, Origin, Rendering, Template, read_origin
from delivery.proposals.template_merge import Merge, check_out, merge, store
from workspace.errors import printable

GIT = (2, 38)  # the first whose merge-tree merges as `git merge` does


ARGUMENTS = {
    "--to": {"default": "HEAD", "help": "a commit or tag of the template; the newest"},
}


def run(repository: Repository, to: str) -> None:
    """Merge a commit of the template into a new branch and check that out.

    Until the merge is whole, nothing of the user's changes. Raises DeliveryError, SettingsError and
    GitError.
    """
    check_ready(repository)
    origin = read_origin(repository.folder)
    with tempfile.TemporaryDirectory(prefix="template-") as temporary:
        template = Template.clone(origin.address, Path(temporary) / "clone")
        old, new = template.commit(origin.commit), template.commit(to)
        if old == new:
            print(f"up to date: this project was made from {new[:12]} of {origin.address}")
            return
        branch = new_branch(repository, new)
        before = render_old(template, old, origin)
        after = render_new(template, new, before)
        updated = Origin(address=origin.address, commit=new, answers=dict(after.answers))
        merged = merge_renderings(repository, before, after, updated)
        deploys = differences(repository, merged.tree, Path(temporary))
    title = f"Update from the template: {old[:12]} to {new[:12]}"
    name = repository.ask("branch", "--show-current")  # empty where none is checked out
    start = quote(name) if name else f"--detach {repository.head()}"
    check_out(repository, merged, branch, title)
    say_what_was_merged(merged, branch, start, title)
    say_what_to_propose(deploys, branch, title, origin.address)


def check_ready(repository: Repository) -> None:
    """Raise DeliveryError unless Git can merge and nothing of the user's is in the way."""
    version = repository.ask("version")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < GIT:
        raise DeliveryError(f"{version} cannot merge apart from a checkout: install 2.38 or newer")
    repository.check_clean("so that an update mixes with nothing else")


def new_branch(repository: Repository, commit: str) -> str:
    """Return the name of the branch for an update. Raises DeliveryError when there is one."""
    branch = f"template/{commit[:12]}"
    if repository.ask("branch", "--list", branch):
        raise DeliveryError(
            f"the branch {branch} exists already: `git switch {branch}` goes on with it, "
            f"`git branch --delete --force {branch}` lets you start anew"
        )
    return branch


def render_old(template: Template, commit: str, origin: Origin) -> Rendering:
    """Make the project as it was generated. Raises DeliveryError when an answer is not known."""
    before = template.render(commit, origin.answers)
    if missing := before.answers.keys() - origin.answers.keys():
        raise DeliveryError(f"{ORIGIN} has no answer to {', '.join(sorted(missing))}: add it")
    return before


def render_new(template: Template, commit: str, before: Rendering) -> Rendering:
    """Make the project as it would be generated now, asking what was not asked then."""
    after = template.render(commit, before.answers)
    for name in before.answers.keys() - after.answers.keys():
        print(f"the template no longer asks for {name}: {before.answers[name]!r} is dropped")
    new = [name for name in after.answers if name not in before.answers]
    given = {name: answer(template.prompt(commit, name), name, after.answers[name]) for name in new}
    if all(after.answers[name] == given[name] for name in new):
        return after
    return template.render(commit, {**before.answers, **given})


def answer(prompt: str, name: str, default: str) -> str:
    """Ask a person a new question; without a terminal take the default and say so."""
    if not sys.stdin.isatty():
        print(f"the template asks for {name}, which is new: the default {default!r} is taken")
        return default
    return input(f"{prompt} [{default}]: ").strip() or default


def merge_renderings(
    repository: Repository, before: Rendering, after: Rendering, updated: Origin
) -> Merge:
    """Merge what changed from one rendering to the other into what is checked out."""
    was = repository.read("HEAD", str(ORIGIN))
    if was is None:
        raise DeliveryError(f"{ORIGIN} is not committed: `git add --force {ORIGIN}` and commit it")
    (before.folder / ORIGIN).write_bytes(was)
    (after.folder / ORIGIN).write_text(updated.to_json())
    base, theirs = store(repository, before.folder), store(repository, after.folder)
    return merge(repository, base, repository.ask("rev-parse", "HEAD^{tree}"), theirs)


def say_what_was_merged(merged: Merge, branch: str, start: str, title: str) -> None:
    """Tell what became of the merge, and how to finish it or to drop it."""
    for path in merged.deleted:
        print(f"stays deleted, although the template changed it: {printable(path)}")
    if not merged.unmerged:
        print(f"branch {branch} is checked out and has the update as one commit")
        return
    print(f"branch {branch} is checked out; these conflicts are yours to resolve:")
    print(*(f"  {printable(conflict)}" for conflict in merged.conflicts), sep="\n")
    print(
        f'then: git add --all && git commit --message "{title}"',
        f"or not: git reset --hard && git switch {start} && git branch --delete --force {branch}",
        sep="\n",
    )


def say_what_to_propose(deploys: dict[str, str], branch: str, title: str, address: str) -> None:
    """Tell what merging the branch deploys, and which pull request to open."""
    for place, text in deploys.items():
        print(f"\nwhat Argo CD applies of {printable(place)}:")
        print(*map(printable, text.expandtabs().split("\n")), sep="\n")
    places = ", ".join(deploys)
    print(
        f"\nnext: git push --set-upstream {REMOTE} {branch}",
        f"and a pull request, {title!r}:",
        f"  Merges what {address} changed.",
        f"  Merging it deploys what changes in {places}."
        if deploys
        else "  Merging it deploys nothing: all manifests stay as they are.",
        sep="\n",
    )
