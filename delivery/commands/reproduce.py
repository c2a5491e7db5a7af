"""Reproduce: make a released model again from its release file, and say what differs.

The release file names the commit; Git has its code and parameters, DVC its data.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.differences import (
    Compared,
    committed_files,
    compare_accounts,
    compare_files,
    differing_outputs,
    files_below,
)
from delivery.model.packaging import LOCAL, image_files, package
from delivery.model.pipeline_outputs import read_outputs
from delivery.model.rebuild import cloned, rebuild
from delivery.oci.layout import Layout
from delivery.oci.registry import parse_reference, pull
from delivery.proposals.release_file import FIGURES, Release
from delivery.proposals.releases import (
    FIRST,
    all_releases,
    check_environment,
    digests,
    environments,
    is_genuine,
)
from delivery.proposals.texts import describe
from workspace.files import write
from workspace.markdown import cell, table

FOLDER = Path(".local/reproduce")
HEAD = ("what", "released", "rebuilt", "same")
SHORT = 19  # characters that a terminal gets of a hash: those of `sha256:` and twelve more
WIDTH = 22  # characters: enough for every digit of a figure
FEW = 3  # causes that fit into a sentence
CAUSES = tuple(  # what else than data and code, which the release file names, makes a model
    f"lineage.json {name}" for name in ("params", "libraries", "python", "trained")
)


@dataclass
class Reproduction:
    """What the report tells: all values of the release file; of the rest, what differs."""

    release: Release
    values: list[Compared]
    files: list[Compared] = field(default_factory=list)  # of the image
    accounts: list[Compared] = field(default_factory=list)  # of the pipeline, its lineage first
    outputs: list[str] = field(default_factory=list)  # of the stages, the first stage's first
    notes: list[str] = field(default_factory=list)  # what could not be compared and why

    @property
    def image(self) -> Compared:
        """The digests, which differ when anything of the model does."""
        return self.values[0]

    @property
    def differing(self) -> list[str]:
        """Names of the release file's values that the model made again does not have."""
        return [value.what for value in self.values if not value.same]

    @property
    def verdict(self) -> str:
        """One sentence for the person who asked."""
        name, digest = f"model {self.release.version}", self.image.released
        if not self.differing:
            return f"{name} was made again: its image is {digest[:SHORT]}, as released"
        return (
            f"{name} made again differs from the release in {', '.join(self.differing)}{self.cause}"
        )

    @property
    def cause(self) -> str:
        """What probably made the difference, as far as anything was found."""
        if self.image.same:
            return ", though the image is the released one: someone edited the release file"
        causes = [each for each in self.accounts if each.what.startswith(CAUSES)][:FEW]
        if causes:
            said = [f"{each.what}: {each.released} → {each.rebuilt}" for each in causes]
            return f" ({'; '.join(said)})"
        return f" (the first that differs is {self.outputs[0]})" if self.outputs else ""


ARGUMENTS = {
    "version": {"type": int},
    "--environment": {"help": "where it was released; default: anywhere"},
    "--keep": {"action": "store_true", "help": "keep the clone that it is made in"},
}


def run(
    repository: Repository, version: int, environment: str | None = None, keep: bool = False
) -> None:
    """Make a released model again, print and write how it compares.

    Raises UserError, also when it is not the released one.
    """
    release = find_release(repository, version, environment)
    clone = repository.folder.absolute() / FOLDER / f"v{version}"
    with cloned(repository, release.commit, clone, keep):
        rebuild(repository, release.commit, clone)
        found = compare(repository, release, clone)
    path = repository.folder / FOLDER / f"v{version}.md"
    write(path, report(found))
    print(columns(found.values))
    if found.differing:
        raise DeliveryError(f"{found.verdict}; report: {path.relative_to(repository.folder)}")
    print(found.verdict)


def find_release(repository: Repository, version: int, environment: str | None = None) -> Release:
    """Find a version's newest release file of all that ever were. Raises DeliveryError."""
    tip = repository.fetch()
    places = sorted(environments(repository, tip), key=lambda place: (place != FIRST, place))
    if environment:
        check_environment(repository, tip, environment)
        places = [environment]
    everything = all_releases(repository, tip)
    own = digests(everything)
    past = [
        each.release
        for place in places
        for each in everything
        if each.environment == place and is_genuine(each.release, own)
    ]
    for release in past:
        if release.version == version:
            check_commit(repository, release)
            return release
    known = ", ".join(map(str, sorted({each.version for each in past})))
    hint = f"give VERSION={known}" if known else "`make release`, and merge it first"
    raise DeliveryError(f"no model {version} was released to {' or '.join(places)}: {hint}")


def check_commit(repository: Repository, release: Release) -> None:
    """Raise DeliveryError unless the commit of a release is here."""
    if not repository.says_yes("cat-file", "-e", f"{release.commit}^{{commit}}"):
        raise DeliveryError(
            f"model {release.version} was made from commit {release.commit[:12]}, which this clone "
            f"lacks: `git fetch origin {release.commit}`"
        )


def compare(repository: Repository, release: Release, clone: Path) -> Reproduction:
    """Compare the model in the clone with the release: its file, and if need be its image."""
    layout = Layout(clone / LOCAL)
    digest = package(clone, release.version, layout)
    image = f"{layout.name}@{digest}"
    rebuilt = describe(read_outputs(clone), release.version, image, release.commit)
    found = Reproduction(release, compare_releases(release, rebuilt))
    if not found.image.same:
        with tempfile.TemporaryDirectory(dir=clone / LOCAL) as folder:
            compare_content(repository, found, clone, Path(folder))
        found.outputs = differing_outputs(repository, release.commit, clone)
    return found


def compare_releases(released: Release, rebuilt: Release) -> list[Compared]:
    """Compare what the release file says with what it would say of the model made again."""
    names = ["data", "test_data", "code", *FIGURES]
    values = [(name, getattr(released, name), getattr(rebuilt, name)) for name in names]
    image = Compared("image", released.digest, rebuilt.digest)
    return [image, *(Compared(name, str(was), str(now)) for name, was, now in values)]


def compare_content(repository: Repository, found: Reproduction, clone: Path, folder: Path) -> None:
    """Compare file by file: with the released image, or without it with what is in Git."""
    release, rebuilt = found.release, image_files(clone, found.release.version)
    try:
        pull(release.image, folder / "image")
        released = files_below(folder / "image")
    except (DeliveryError, OSError) as error:
        name = parse_reference(release.image)[0]
        found.notes.append(
            f"The released image could not be compared file by file: {name} does not give it "
            f"({cell(error)})."
        )
        released = committed_files(repository, release.commit, folder)
        rebuilt = {name: path for name, path in rebuilt.items() if name in released}
    found.files = compare_files(released, rebuilt)
    found.accounts = compare_accounts(released, rebuilt)


# -- report ----------------------------------------------------------------------------------------


def columns(values: list[Compared]) -> str:
    """Write values for a terminal, in columns."""
    rows = [(v.what, short(v.released), short(v.rebuilt), yes_or_no(v)) for v in values]
    return "\n".join(
        f"{what:<18} {released:<{WIDTH}} {rebuilt:<{WIDTH}} {same}"
        for what, released, rebuilt, same in [("", *HEAD[1:]), *rows]
    )


def short(value: str) -> str:
    """Cut a hash; people compare its beginning."""
    return value if len(value) <= WIDTH else value[:SHORT]


def yes_or_no(value: Compared) -> str:
    """Say whether both are the same."""
    return "yes" if value.same else "NO"


def report(found: Reproduction) -> str:
    """Write the report as Markdown."""
    release = found.release
    parts = [
        f"# Model {release.version}, made again",
        f"{found.verdict}.",
        f"Made from commit `{release.commit}`, released as `{release.image}`.",
        compared(found.values),
        *found.notes,
    ]
    if found.outputs:
        listed = [f"- {cell(each)}" for each in found.outputs]
        parts += ["## Outputs of the pipeline that differ", "\n".join(listed)]
    if found.accounts:
        parts += ["## Values that differ", compared(found.accounts)]
    if found.files:
        parts += ["## Files of the image that differ, by SHA-256", compared(found.files)]
    return "\n\n".join(parts) + "\n"


def compared(values: list[Compared]) -> str:
    """Write values as a table of Markdown."""
    rows = [(cell(v.what), cell(v.released), cell(v.rebuilt), yes_or_no(v)) for v in values]
    return table(HEAD, rows).rstrip()
