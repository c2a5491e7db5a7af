"""Rules of a release file that Git alone can judge."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from delivery.checks.changes import FILE, REMOVED, Changed, Changes
from delivery.checks.findings import Part, first_unlike
from delivery.checks.witnesses import Witnesses
from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from delivery.model.lineage import committed_code
from delivery.parameters import committed_parameters
from delivery.proposals.health import hours_since
from delivery.proposals.release_file import Release, ReleaseFileError, parse_release
from delivery.proposals.releases import (
    FIRST,
    Past,
    all_releases,
    check_image,
    environments,
    next_version,
    release_path,
    released,
    released_content,
)
from workspace.errors import UserError, sentence, shown
from workspace.model_code import sha256


@dataclass(frozen=True)
class Proposed:
    """What a release file would release.

    Attributes:
        environment, path: whose file it is.
        content: the file.
        release: what it says.
        served: what the environment has at the base, if anything.
        past: what all environments ever had up to the base, newest first.
    """

    environment: str
    path: str
    content: bytes
    release: Release
    served: Release | None
    past: list[Past]

    @property
    def kind(self) -> str:
        """`release`, `promotion` or `rollback`."""
        if self.environment == FIRST:
            known = any(each.release.version == self.release.version for each in self.past)
            return "rollback" if known else "release"
        older = self.served and self.release.version < self.served.version
        return "rollback" if older else "promotion"

    @property
    def was_there(self) -> bool:
        """Whether the environment had this very file before."""
        own = (each for each in self.past if each.environment == self.environment)
        return any(each.content == self.content for each in own)

    def line(self, key: str) -> int:
        """Return the number of the line with a key."""
        return line_of(self.content, key)


def line_of(content: bytes, key: str) -> int:
    """Return the number of the line of a release file that has a key; 1 if none has."""
    lines = content.decode(errors="replace").splitlines()
    named = (number for number, line in enumerate(lines, 1) if re.match(rf"\s+{key}\s*:", line))
    return next(named, 1)


def read_proposed(changes: Changes, changed: Changed, part: Part) -> Proposed | None:
    """Read a release file of the head; what is wrong with it as a file is added to the part."""
    environment = changed.path.split("/")[-2]
    others = [each.path for each in changes.files if each.path != changed.path]
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        part.refuse(
            changed.path,
            1,
            [
                f"a release changes this file and nothing else, and here {others[0]}{more} "
                "changes, too: propose that apart"
            ],
        )
    if environment not in environments(changes.repository, changes.base):
        what = (
            f"the base has no environment {shown(environment)}: merge its kustomization.yaml first"
        )
        part.refuse(changed.path, 1, [what])
        return None
    if changed.how == REMOVED:
        what = "the release file would be gone: `make rollback` serves an earlier model instead"
        part.refuse(changed.path, 1, [what])
        return None
    if changed.mode != FILE:
        what = f"it is a link, a program or a submodule (mode {changed.mode}), and not a plain file"
        part.refuse(changed.path, 1, [what])
        return None
    content = b""
    try:
        content = released_content(changes.repository, changes.tree, environment) or b""
        release = parse_release(content, changed.path)
    except ReleaseFileError as error:
        part.refuse(changed.path, line_in(str(error), content), [sentence(error)])
        return None
    past = all_releases(changes.repository, changes.base)
    served = released(changes.repository, changes.base, environment)
    return Proposed(environment, changed.path, content, release, served, past)


def line_in(error: str, content: bytes) -> int:
    """Return the line of a file that an error is about: that it names, or that of its first key."""
    if named := re.search(r", line (\d+)", error):
        return int(named[1])
    keys = (key for key in Release.model_fields if re.search(rf"(^|[ .'])data\.{key}\b", error))
    plain = (key for key in Release.model_fields if re.search(rf": {key} is ", error))
    return line_of(content, next(keys, None) or next(plain, None) or "data")


def check_file(changes: Changes, proposed: Proposed, witnesses: Witnesses, part: Part) -> None:
    """Add what is wrong with a release file beside the base's history."""
    for judge in (not_canonical, not_history, not_in_registry, not_lineage):
        for key, sentence_ in judge(changes, proposed):
            line = key if isinstance(key, int) else proposed.line(key)
            part.refuse(proposed.path, line, [sentence_])
    if proposed.kind == "promotion" and not part.findings:
        check_promotion(changes, proposed, witnesses, part)


Sentences = Iterator[tuple[str | int, str]]  # the key or the line that a sentence is about, and it


def not_canonical(changes: Changes, proposed: Proposed) -> Sentences:
    """Say where the file is not what a command writes; one that was there before may be older."""
    text, wanted = proposed.content.decode(), proposed.release.to_yaml()
    if proposed.was_there or text == wanted:
        return
    number, here, there = first_unlike(text, wanted)
    yield (
        number,
        f"it is {shown(here)} and not {shown(there)}, as `make {command(proposed)}` writes it: a "
        "release is not written by hand",
    )


def command(proposed: Proposed) -> str:
    """Return the command that makes such a proposal."""
    return {"promotion": "promote"}.get(proposed.kind, proposed.kind)


def not_history(changes: Changes, proposed: Proposed) -> Sentences:
    """Say how version and image contradict what was released before."""
    release, past = proposed.release, proposed.past
    try:
        check_image(release.version, release.digest, past)
    except DeliveryError as error:
        yield "version", sentence(error)
        return
    if proposed.environment == FIRST:
        if proposed.kind == "release" and release.version != (new := next_version(past)):
            yield "version", f"model {release.version} is not the next, which is {new}"
        elif proposed.kind == "rollback" and not proposed.was_there:
            yield (
                "version",
                f"{FIRST} had model {release.version}, but never this file: `make rollback` "
                "proposes the one that it had",
            )
    elif proposed.kind == "rollback" and not proposed.was_there:
        yield (
            "version",
            f"{proposed.environment} never had this file of model {release.version} to go back to",
        )
    elif not proposed.was_there and not is_staged(changes, proposed):
        has = released(changes.repository, changes.base, FIRST)
        told = f"model {has.version} of {has.digest[:19]}" if has else "nothing"
        yield (
            "version",
            f"{proposed.environment} gets byte for byte the file of {FIRST}, which has {told}: "
            "`make promote` proposes it",
        )


def is_staged(changes: Changes, proposed: Proposed) -> bool:
    """Tell whether the first environment has this very file."""
    return released_content(changes.repository, changes.base, FIRST) == proposed.content


def not_in_registry(changes: Changes, proposed: Proposed) -> Sentences:
    """Say that an image is not where the base keeps its images.

    What was released before may be where params.yaml of its own commit said.
    """
    name = proposed.release.image.rpartition("@")[0]
    allowed = [changes.parameters.release.registry]
    if proposed.kind != "release":
        try:
            commit = proposed.release.commit
            allowed.append(committed_parameters(changes.repository, commit).release.registry)
        except UserError:  # `not_lineage` says so
            pass
    if name not in allowed:
        yield (
            "image",
            f"the image is in {shown(name)}, and this project's are in {shown(allowed[0])} "
            "(release.registry of the base's params.yaml): push it there by `make release`",
        )


def not_lineage(changes: Changes, proposed: Proposed) -> Sentences:
    """Say that the commit is none of the base's history, or has other code."""
    repository, release = changes.repository, proposed.release
    if not is_ancestor(repository, changes.base, release.commit):
        yield (
            "commit",
            f"commit {release.commit[:12]} is not in the base's history, so nobody could make the "
            "model again: release from a commit of main",
        )
        return
    try:
        found = sha256(committed_code(repository, release.commit))
    except UserError as error:
        yield "code", sentence(error)
        return
    if found != release.code:
        yield (
            "code",
            f"the model was made by code {release.code[:12]}, and commit {release.commit[:12]} has "
            f"code {found[:12]}",
        )


def is_ancestor(repository: Repository, base: str, commit: str) -> bool:
    """Tell whether a commit is in the history of the base."""
    try:
        return repository.ask("cat-file", "-t", commit) == "commit" and repository.contains(
            base, commit
        )
    except GitError:
        return False


# -- promotions ------------------------------------------------------------------------------------


def check_promotion(changes: Changes, proposed: Proposed, witnesses: Witnesses, part: Part) -> None:
    """Add why a model may not be promoted yet; tell what is known of how staging serves it."""
    settings, status = changes.parameters.release, f"{FIRST}/healthy"
    if not is_staged(changes, proposed):  # it was there, and goes back to that
        part.told.append(
            f"{FIRST} no longer has this release; {proposed.environment} had it before."
        )
        return
    commits = since_release(changes.repository, changes.base)
    health = witnesses.health(commits, status)
    line = proposed.line("version")
    if health is None:
        told = f"whether {FIRST} serves model {proposed.release.version} is not told by {status}"
        if settings.require_healthy:
            told += ", and release.require_healthy of the base's params.yaml asks for that"
            part.refuse(proposed.path, line, [told])
            return
        part.told.append(f"**{told[0].upper()}{told[1:]}** (`release.require_healthy: false`).")
        since = datetime.fromisoformat(
            changes.repository.ask("show", "-s", "--format=%cI", commits[-1])
        )
    elif not health.healthy:
        what = f"{status} says that {FIRST} does not serve model {proposed.release.version} well"
        part.refuse(proposed.path, line, [what])
        return
    else:
        since = health.since
        part.told.append(
            f"`{status}` says that {FIRST} serves it since {since:%Y-%m-%d %H:%M} UTC."
        )
    hours = hours_since(since)
    if hours < settings.soak:
        what = (
            f"{FIRST} has model {proposed.release.version} for {max(hours, 0):.1f} hours, and "
            f"release.soak of the base's params.yaml asks for {settings.soak:g}: wait"
        )
        part.refuse(proposed.path, line, [what])


def since_release(repository: Repository, base: str) -> list[str]:
    """List the base's own commits since the first environment has its release, newest first."""
    own = ("rev-list", "--first-parent")
    begun = repository.ask(*own, "--max-count=1", base, "--", release_path(FIRST))
    return [*repository.ask(*own, f"{begun}..{base}").split(), begun]
