"""Manifests before and after a merge: built as Argo CD builds them, judged, and compared."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from delivery.checks import policy
from delivery.checks.changes import Changes
from delivery.checks.findings import LONGEST, Part, first_unlike
from delivery.git import Repository
from delivery.manifests.differences import BUILT, difference, documents_difference, manifests
from delivery.manifests.rendering import Documents, build, check_keys, check_release
from delivery.manifests.snapshot import MANIFESTS, read_entries
from delivery.proposals.release_file import Release, read_release
from delivery.proposals.releases import ENVIRONMENTS, environments, release_path
from delivery.proposals.run_file import RUN_FILE, Run, next_run, parse_run
from workspace.errors import UserError, sentence, shown
from workspace.markdown import block, cut

TRAINING = "argocd/training"
# An environment without a release, and a project without a run, are built with these.
NOTHING = "0" * 64
RELEASE = Release(
    version=1,
    image=f"registry.example.com/model@sha256:{NOTHING}",
    accuracy=1,
    macro_f1=1,
    calibration_error=0,
    loss=0,
    support=1,
    data=NOTHING,
    test_data=NOTHING,
    code=NOTHING,
    commit=NOTHING[:40],
)
RUN = Run(run=1, image=RELEASE.image, nodes=1, commit="0" * 40)


@dataclass
class Built:
    """What Argo CD would make of a commit's manifests.

    Attributes:
        documents: by place, such as `argocd/environments/staging`, and there by kind and name.
        wrong: by place, why it cannot be built or would be refused.
    """

    documents: dict[str, Documents] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def of(self, place: str) -> Documents:
        """Return the documents of a place; one that is not there has none."""
        return self.documents.get(place, {})


def built(repository: Repository, commit: str, places: tuple[str, ...]) -> Built:
    """Build places of a commit or tree; the same manifests are built once in a process."""
    found = Built()
    there = set(repository.files(commit, MANIFESTS))
    wanted = [each for each in places if f"{each}/kustomization.yaml" in there]
    keys = {each: content_key(repository, commit, each) for each in wanted}
    missing = {each: key for each, key in keys.items() if key not in MADE}
    if missing:
        build_all(repository, commit, missing)
    for place, key in keys.items():
        found.documents[place], wrong = MADE[key]
        if wrong:
            found.wrong[place] = wrong
    return found


MADE: dict[tuple[str, str], tuple[Documents, str]] = {}  # by place and what it is built of


def content_key(repository: Repository, commit: str, place: str) -> tuple[str, str]:
    """Return what a place is built of: its own folder, or all manifests if it leads out of that."""
    leads_out = repository.says_yes("grep", "-qF", "../", commit, "--", place)
    is_alone = not leads_out and not place.startswith((ENVIRONMENTS, TRAINING))
    return place, repository.ask("rev-parse", f"{commit}:{place if is_alone else MANIFESTS}")


def build_all(repository: Repository, commit: str, places: dict[str, tuple[str, str]]) -> None:
    """Build places of a commit, two at a time; each has the key that it is kept by."""
    with tempfile.TemporaryDirectory(prefix="manifests-") as work, ThreadPoolExecutor(2) as pool:
        root = Path(work).resolve() / "all"
        manifests(repository, commit, root)
        add_samples(root)
        made_of = pool.map(partial(tried, root), places)
        for key, made in zip(places.values(), made_of, strict=True):
            MADE[key] = made[0], made[1].replace(f"{root}/", "")


def add_samples(root: Path) -> None:
    """Put a release and a run where there is none yet, so that all can be built."""
    for overlay in (root / ENVIRONMENTS).glob("*/kustomization.yaml"):
        if not os.path.lexists(overlay.with_name("model.yaml")):
            overlay.with_name("model.yaml").write_text(RELEASE.to_yaml())
    run = root / RUN_FILE
    if run.parent.is_dir() and not os.path.lexists(run):
        run.write_text(RUN.to_yaml())


def tried(root: Path, place: str) -> tuple[Documents, str]:
    """Build a place; return its documents and what is wrong with them."""
    documents: Documents = {}
    try:
        documents = build(root / place)
        for document in documents.values():
            check_keys(document)
        if place.startswith(ENVIRONMENTS):
            check_release(documents, read_release(root / place / "model.yaml"))
    except UserError as error:
        return documents, str(error)
    except Exception as error:  # whatever stands there
        return documents, sentence(error)
    return documents, ""


def all_places(repository: Repository, commit: str) -> tuple[str, ...]:
    """List what Argo CD builds of a commit."""
    own = (f"{ENVIRONMENTS}/{name}" for name in environments(repository, commit))
    return (*own, TRAINING, *(f"{MANIFESTS}/{each}" for each in BUILT))


def texts(repository: Repository, commit: str) -> dict[str, str]:
    """Return the YAML files of a commit's manifests, by path; links are seen where they lead."""
    entries = read_entries(repository, commit) if repository.files(commit, MANIFESTS) else []
    return {
        each.path: each.content.decode(errors="replace")
        for each in entries
        if each.path.endswith((".yaml", ".yml", ".json", "/Kustomization"))
        and each.mode & 0o170000 == 0o100000
    }


def judge_manifests(changes: Changes, part: Part) -> None:
    """Add what is wrong with the manifests; tell how what Argo CD applies would differ."""
    repository, accepted = changes.repository, changes.parameters.check.accept
    before, after = texts(repository, changes.base), texts(repository, changes.tree)
    for path, breach in policy.in_files(before, after):
        if breach.name not in accepted:
            refuse(changes, part, breach, path)
    check_run(changes, part)
    if part.findings:  # what is foreign is not built: Kustomize would fetch it
        part.told.append("Nothing was built of manifests that are refused as they stand.")
        return
    places = all_places(repository, changes.tree)
    was, will = built(repository, changes.base, places), built(repository, changes.tree, places)
    known = policy.image_names(before.values()) | registry_names(changes)
    for place, why in will.wrong.items():
        if was.wrong.get(place) != why:
            part.refuse(*located(changes, why), [f"{place}: {why}"])
    had, claimed = set(broken(was, known)), {*claims(was), *claims_in(before)}
    found = [each for each in dict.fromkeys(broken(will, known)) if each not in had]
    found += [policy.foreign(*each) for each in dict.fromkeys(claims(will)) if each not in claimed]
    for breach in found:
        if breach.name not in accepted:
            refuse(changes, part, breach)
    kinds = [
        {kind for documents in each.documents.values() for kind in policy.cluster_kinds(documents)}
        for each in (was, will)
    ]
    for kind in sorted(kinds[1] - kinds[0]):
        if (name := f"cluster kind {kind}") not in accepted:
            what = f"{kind} is a kind of the whole cluster that no manifest of the base has"
            refuse(changes, part, policy.Breach(what, kind, name))
    tell_differences(was, will, raw(before), raw(after), part)


def claims(made: Built) -> Iterator[tuple[str, str]]:
    """Give what all built documents say of sources and of what projects allow."""
    for documents in made.documents.values():
        yield from policy.claims_of(list(documents.values()))


def claims_in(files: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Give what files say of that."""
    for path, text in files.items():
        yield from policy.claims(path, text)


def broken(will: Built, known: set[str]) -> Iterator[policy.Breach]:
    """Give what of all places breaks the policy."""
    for place, documents in will.documents.items():
        if place not in will.wrong:
            yield from policy.in_documents(documents, known, place.startswith(ENVIRONMENTS))


def refuse(changes: Changes, part: Part, breach: policy.Breach, path: str = "") -> None:
    """Add a breach at its line, and how it is accepted if it can be."""
    line = breach.needle.removeprefix("line ")
    starts = [path or f"{MANIFESTS}/"]
    place = (path, int(line)) if path and line.isdigit() else changes.place(breach.needle, starts)
    how = f"; if it is meant, add {breach.name!r} to `check.accept` in params.yaml, merged before"
    part.refuse(*place, [breach.sentence + (how if breach.name else "")])


def located(changes: Changes, why: str) -> tuple[str, int]:
    """Return the place of an error: the first new line with a word that it quotes."""
    words = [word.strip("'\"`.,;:()") for word in why.split()]
    quoted = [word for word in words if len(word) > 3]
    for word in quoted:
        for path, lines in changes.added.items():
            hit = [number for number, line in lines.items() if word in line]
            if path.startswith(MANIFESTS) and hit:
                return path, hit[0]
    return changes.place("", [f"{MANIFESTS}/"])


def registry_names(changes: Changes) -> set[str]:
    """Return names of images that the project's own registry has: of servers that it builds."""
    host = changes.parameters.release.registry.partition("/")[0]
    own = changes.parameters.release.registry
    return set() if host.startswith("oci:") else {own, f"{own}-server"}


def check_run(changes: Changes, part: Part) -> None:
    """Add what is wrong with the file of a training run, if that changes."""
    content = changes.after(RUN_FILE)
    if content is None or content == changes.before(RUN_FILE):
        return
    run = parse_run(content, RUN_FILE)
    if content != run.to_yaml().encode():
        number, here, there = first_unlike(content.decode(), run.to_yaml())
        what = f"it is {shown(here)} and not {shown(there)}, as `make train-on-cluster` writes it"
        part.refuse(RUN_FILE, number, [what])
    if run.run != (new := next_run(changes.repository, changes.base)):
        what = f"run {run.run} is not the next, which is {new}: what was there would not run again"
        part.refuse(*changes.place("run:", [RUN_FILE]), [what])
    part.told.append(
        f"Merging starts training run {run.run} of {shown(run.image)} on {run.nodes} machines."
    )


def raw(files: dict[str, str]) -> dict[str, str]:
    """Return the files that Argo CD takes as they are, or builds of what it fetches."""
    taken = ("argocd/root.yaml", "argocd/base/platform/", "argocd/base/argo-cd/")
    return {path: text for path, text in files.items() if path.startswith(taken)}


def tell_differences(
    was: Built, will: Built, before: dict[str, str], after: dict[str, str], part: Part
) -> None:
    """Fold what differs, a title for each place."""
    for place in {**was.documents, **will.documents}:
        fold(place, documents_difference(was.of(place), will.of(place)), part)
    fold("what Argo CD takes as it is", difference(before, after), part)
    if not part.folded:
        part.told.append("Nothing changes in what Argo CD applies.")


def fold(place: str, text: str, part: Part) -> None:
    """Fold a difference under its place, cut where a comment could not hold it."""
    lines = text.splitlines()
    if lines:
        count = sum(line[:1] in "+-" and line[:3] not in ("+++", "---") for line in lines)
        part.folded[f"{place}: {count} lines differ"] = block(cut(text, LONGEST), "diff")


def environment_difference(changes: Changes, environment: str, part: Part) -> None:
    """Build one environment before and after; add what is wrong, fold what differs."""
    place = f"{ENVIRONMENTS}/{environment}"
    first = changes.before(release_path(environment)) is None
    was = Built() if first else built(changes.repository, changes.base, (place,))
    will = built(changes.repository, changes.tree, (place,))
    for why in will.wrong.values():
        part.refuse(release_path(environment), 1, [why])
    fold(place, documents_difference(was.of(place), will.of(place)), part)
