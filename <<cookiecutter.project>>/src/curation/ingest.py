"""`make ingest`: add a batch of labelled images to the data set, after a person has decided.

The first run compares and asks; the run that finds every question answered adds. What it adds is
written beside the data set first, with a plan; a run that was killed is finished by the next.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from classifier import params
from classifier.cleaning import progress
from classifier.errors import ClassifierError
from classifier.lock import only_one
from classifier.params import IngestParams, Params
from classifier.sources import UNFINISHED, printable
from classifier.training import RUNS
from curation import batch_report as changes
from curation import review
from curation.batch_comparison import Comparison, compare
from curation.batch_report import Limits
from curation.label_doubts import judge
from curation.review import Outcome, Question

REVIEWS = Path("reviews")
LOCK = RUNS / "ingest.lock"
NAME_BYTES = 255  # of a file, on the usual file systems


class IngestError(ClassifierError):
    """The batch can't be added to this data set."""


class UndecidedError(ClassifierError):
    """A person must decide on images of the batch first."""


def ingest(batch: Path, new_classes: Sequence[str], root: Path) -> None:
    """Compare the batch with the data set and ask, or add it if every question is answered.

    Raises:
        UndecidedError: questions are open; they are in reviews/<batch>.csv, nothing is added.
        ClassifierError: the batch, the review file or the data set can't be used.
    """
    settings, limits = params.load(root), params.load_section(root, "ingest", IngestParams)
    folder = data_folder(settings, root)
    name = batch_name(batch, folder)
    with only_one(root / LOCK, "`make ingest`", IngestError):
        if finish(folder, root) == name:
            return
        check_version(folder, root)
        try:
            with workplace(folder) as place:
                known = folder, folder.relative_to(root).as_posix()
                comparison = compare(batch, known, new_classes, settings.prepare, place)
                content = content_sha256(comparison)
                check_current(root, name, content)
                ask_or_plan(batch, name, content, comparison, settings, limits, root, place)
        except OSError as error:
            raise IngestError(
                f"{batch} can't be compared or copied, nothing is added: {error}"
            ) from None
        finish(folder, root)


def ask_or_plan(
    batch: Path,
    name: str,
    content: str,
    comparison: Comparison,
    settings: Params,
    limits: IngestParams,
    root: Path,
    place: Path,
) -> None:
    """Ask what must be asked; with all the answers, plan what to add."""
    judgement = judge(comparison, root, settings.seed, limits.judged_by)
    file = root / REVIEWS / f"{name}.csv"
    written = review.read(file, comparison)
    questions = merge(review.ask(comparison, judgement, limits.min_confidence), written)
    waiting = {i: question for i, question in questions.items() if not question.decision}
    outcome = None if waiting else review.decide(comparison, questions)
    report = changes.report(
        name,
        content,
        comparison,
        judgement,
        questions,
        outcome,
        Limits(settings.prepare.max_class_ratio, limits.max_drift),
    )
    if outcome is None:
        write_report(root, name, report)  # first: answers without a report are not accepted
        if not ask_the_same(questions, written):
            review.write(file, list(questions.values()))
        review.draw(comparison, waiting, root)
        raise UndecidedError(waiting_sentence(batch, name, waiting))
    if not (outcome.labels >= 0).any() and not outcome.moved:
        if not changes.is_final(root / REVIEWS / f"{name}.md"):
            write_report(root, name, report)
        print(f"nothing to add: all of {name} is in {comparison.title} or left out")
        return
    plan(batch, name, comparison, outcome, report, place)


# -- may it be added? ------------------------------------------------------------------------------


def data_folder(settings: Params, root: Path) -> Path:
    """Return the folder of the data set.

    Raises:
        IngestError: the data are not a folder of images, or DVC can't keep their versions.
    """
    if settings.prepare.source != "folder":
        raise IngestError(
            f"prepare.source in params.yaml is {settings.prepare.source!r}: set it to folder, "
            "as a batch is added to a folder of images"
        )
    folder = (root / str(settings.prepare.folder)).resolve()
    if root.resolve() not in folder.parents:
        raise IngestError(
            f"prepare.folder in params.yaml is {settings.prepare.folder!r}, outside the project, "
            "where DVC keeps no versions: move it inside"
        )
    return root / folder.relative_to(root.resolve())


def batch_name(batch: Path, folder: Path) -> str:
    """Return the batch's name, which its review carries.

    Raises:
        IngestError: it overlaps with the data set, or its name can't be that of a file.
    """
    inside, outside = batch.resolve(), folder.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise IngestError(
            f"the batch {batch} and the data set {folder} are in one another: move the batch out"
        )
    name = unicodedata.normalize("NFC", inside.name)
    if printable(name) != name:
        raise IngestError(
            f"the batch's folder {printable(name)} has characters that can't be shown: rename it"
        )
    return name


def check_version(folder: Path, root: Path) -> None:
    """Refuse a data set that is not the version that Git names, lest other images get lost.

    Raises:
        IngestError: says how to get that version, or to keep what is there.
    """
    tracked = folder.with_name(f"{folder.name}.dvc")
    if not tracked.exists():
        return
    if not folder.exists():
        raise IngestError(f"the images of {tracked} are not on this machine: run `make data-pull`")
    command = [sys.executable, "-m", "dvc", "status", "--json", str(tracked.relative_to(root))]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if answer.returncode:
        raise IngestError(f"dvc status failed: {' '.join(answer.stderr.split())}")
    if json.loads(answer.stdout):
        raise IngestError(
            f"{folder} is not what {tracked} says: run `dvc checkout {tracked}` for that version, "
            f"after `make data-pull` if it is not here, or `dvc add {folder}` to keep what is there"
        )


def content_sha256(comparison: Comparison) -> str:
    """SHA-256 over shape, paths and pixels of the batch; files that can't be read count, too."""
    batch, staged = comparison.parts[1], comparison.staged[1]
    total = hashlib.sha256(repr(comparison.shape).encode())
    digests = dict(zip(staged.origins.tolist(), staged.digests.tolist(), strict=True))
    for i, path in enumerate(batch.paths):
        total.update(os.fsencode(path) + b"\0" + digests.get(i, b"unreadable") + b"\n")
    return total.hexdigest()


def check_current(root: Path, name: str, content: str) -> None:
    """Refuse answers that were given for other images.

    Raises:
        IngestError: the review's files are of another batch or an earlier state of this one.
    """
    report, answers = (root / REVIEWS / f"{name}.{kind}" for kind in ("md", "csv"))
    known = changes.content_of(report)
    if known is None and answers.exists():
        raise IngestError(
            f"{REVIEWS / name}.csv is there without {name}.md, which says what images it is about: "
            "put that back, or remove the CSV file and decide anew"
        )
    if known not in (None, content):
        raise IngestError(
            f"{REVIEWS / name}.md and .csv are about other images than the batch now has, or about "
            "these in another size or colour: if the batch or params.yaml was changed, remove both "
            "files and decide anew; if it is another batch, rename its folder"
        )


# -- ask -------------------------------------------------------------------------------------------


def merge(asked: dict[int, Question], written: dict[int, Question]) -> dict[int, Question]:
    """Return the questions with the answers given so far; answers that nothing asks for stay."""
    answered = {i: question for i, question in written.items() if question.decision}
    known = {
        i: replace(question, decision=answered[i].decision)
        if i in answered and still_holds(answered[i], question)
        else question
        for i, question in asked.items()
    }
    return known | {i: question for i, question in answered.items() if i not in known}


def still_holds(earlier: Question, question: Question) -> bool:
    """Whether an earlier decision holds for what is asked now.

    It was given to the same question, or does what asking again would suggest, as when the image
    has been added as what a person decided, or leaves the image out.
    """
    return same_reason(earlier, question) or earlier.decision in (review.DROP, question.suggestion)


def ask_the_same(questions: dict[int, Question], written: dict[int, Question]) -> bool:
    """Whether the review file has these questions already."""
    return questions.keys() == written.keys() and all(
        same_reason(question, written[i]) for i, question in questions.items()
    )


def same_reason(one: Question, other: Question) -> bool:
    """Whether both ask the same; an editor may have written it with other code points."""
    return unicodedata.normalize("NFC", one.reason) == unicodedata.normalize("NFC", other.reason)


def waiting_sentence(batch: Path, name: str, waiting: dict[int, Question]) -> str:
    """Say how many images wait for what."""
    count = f"{len(waiting)} images wait" if len(waiting) > 1 else "1 image waits"
    return (
        f"{count} for a decision in {REVIEWS / name}.csv: look at plots/{review.PLOT}.png, write "
        "keep, drop or the right class into the column decision and run "
        f"`make ingest BATCH={shlex.quote(str(batch))}` again; nothing is added yet"
    )


# -- add -------------------------------------------------------------------------------------------


@contextmanager
def workplace(folder: Path) -> Iterator[Path]:
    """A folder beside the data set, so that renaming is atomic; what has a plan stays."""
    place = (folder.parent / UNFINISHED).parent
    if place.exists():  # of a run that was killed before it had a plan
        shutil.rmtree(place)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        if not (folder.parent / UNFINISHED).exists():
            shutil.rmtree(place, ignore_errors=True)


def plan(
    batch: Path, name: str, comparison: Comparison, outcome: Outcome, report: str, place: Path
) -> None:
    """Copy the new files beside the data set and write down what goes where."""
    names = Names(comparison)
    base = comparison.folder.name
    steps: list[tuple[str, str]] = []
    (place / "files").mkdir()
    added = [i for i, label in enumerate(outcome.labels.tolist()) if label >= 0]
    for k in progress(range(len(added)), "copying"):
        i = added[k]
        position = int(comparison.candidates[i])
        copy = place / "files" / str(i)
        shutil.copyfile(batch / comparison.path(position), copy)
        target = names.free(position, int(outcome.labels[i]))
        steps.append((str(copy.relative_to(comparison.folder.parent)), f"{base}/{target}"))
    for position, label in outcome.moved.items():
        target = names.free(position, label)
        steps.append((f"{base}/{comparison.path(position)}", f"{base}/{target}"))
    content = {"batch": name, "steps": steps, "report": report}
    partial = place / "plan.partial"
    partial.write_text(json.dumps(content))
    partial.rename(comparison.folder.parent / UNFINISHED)


class Names:
    """Names of files in the class folders, none of which is given twice."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        there = [path for path in folders(comparison.folder) if path.is_dir()]
        self.folders = {unicodedata.normalize("NFC", path.name): path.name for path in there}
        self.taken = {
            self.folders[name]: {_folded(path.name) for path in folders(comparison.folder / real)}
            for name, real in self.folders.items()
        }

    def free(self, position: int, label: int) -> str:
        """Return where an image goes, relative to the data set: its own name if that is free."""
        folder = self.folders.setdefault(*[self.comparison.classes[label]] * 2)
        taken = self.taken.setdefault(folder, set())
        own = unicodedata.normalize("NFC", Path(self.comparison.path(position)).name)
        # DVC keeps no names that are not UTF-8, and nobody can type the others
        name = "".join(sign if sign.isprintable() else "_" for sign in own)
        digest = self.comparison.digests[position].hex()[:12]
        stem, suffix = Path(name).stem, Path(name).suffix
        number = 0
        while name != own or _folded(name) in taken or len(name.encode()) > NAME_BYTES:
            tail = f"-{digest}{f'-{number}' if number else ''}{suffix[:16]}"
            room = NAME_BYTES - len(tail.encode())
            name = own = stem.encode()[:room].decode(errors="ignore") + tail
            number += 1
        taken.add(_folded(name))
        return f"{folder}/{name}"


def folders(path: Path) -> list[Path]:
    """What is in a folder, which need not exist."""
    return sorted(path.iterdir()) if path.is_dir() else []


def _folded(name: str) -> str:
    # some file systems take these for the same name
    return unicodedata.normalize("NFC", name).casefold()


def finish(folder: Path, root: Path) -> str | None:
    """Do what the plan beside the data set says, all or the rest; return the batch's name.

    Every step can be repeated, so a run that is killed here is finished by the next.

    Raises:
        IngestError: a file is in the way, the disk is full, or DVC fails; the plan stays.
    """
    file = folder.parent / UNFINISHED
    if not file.exists():
        return None
    content = json.loads(file.read_text())
    name = content["batch"]
    try:
        for k in progress(range(len(content["steps"])), "adding"):
            source, target = content["steps"][k]
            move(folder.parent / source, folder.parent / target)
        write_report(root, name, content["report"])
    except OSError as error:
        raise IngestError(
            f"{name} is added to {folder} only in part ({error}): put it right and run "
            "`make ingest` again"
        ) from None
    relative = folder.relative_to(root)
    if subprocess.run([sys.executable, "-m", "dvc", "add", str(relative)], cwd=root).returncode:
        raise IngestError(
            f"the images of {name} are in {folder}, but `dvc add` failed as it says above: put it "
            "right and run `make ingest` again"
        )
    shutil.rmtree(file.parent)
    print(
        f"added {name} to {relative}; commit {relative}.dvc and {REVIEWS}/, run `make pipeline`, "
        "then `make data-push`"
    )
    return name


def move(source: Path, target: Path) -> None:
    """Rename a file unless that is done already.

    Raises:
        IngestError: another file has the name.
    """
    if not source.exists():
        return
    if target.exists():
        raise IngestError(
            f"{target} has come into being since the batch was planned: move it away and run "
            "`make ingest` again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


def write_report(root: Path, name: str, text: str) -> None:
    """Write the batch's report, all or nothing."""
    (root / REVIEWS).mkdir(exist_ok=True)
    partial = root / REVIEWS / f"{name}.md.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(partial.with_suffix(""))
