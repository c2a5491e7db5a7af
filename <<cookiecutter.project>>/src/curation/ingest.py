"""`make ingest`: add a batch of labelled pictures to the data set, after a person has decided.

The first run compares and asks; the run that finds every question answered adds. What it adds is
written beside the data set first, with a plan; a run that was killed is finished by the next.
"""

import hashlib
import io
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, unquote_to_bytes

import numpy as np
from PIL import Image
from pydantic import AfterValidator, Field

from classifier import params
from classifier.cleaning import progress
from classifier.params import IngestParams, Params
from classifier.sources import UNFINISHED, folded, printable
from curation import review
from curation.batch_comparison import (
    Comparison,
    batch_source,
    compare,
    existing_source,
    statistics,
    used_classes,
)
from curation.label_doubts import judge
from curation.review import Outcome, Question
from reporting import batch_report, review_page, review_picture
from workspace import files, settings
from workspace.errors import UserError, said, shown
from workspace.pictures import refuse_links, to_pixels, upright_size
from workspace.root import CAPTURED
from workspace.settings import Settings

REVIEWS = Path("reviews")
LOCK = Path("runs/ingest.lock")
BUSY = "another `make ingest` is running in this folder: wait for it"
DVC = (sys.executable, "-m", "dvc")
LOOKED_AT = 1024  # pixels of the longer side on the page
NAME_BYTES = 255  # of a file, on the usual file systems


def path_of(step: str) -> str:
    """Return the path of a step, whose bytes may be no UTF-8."""
    return os.fsdecode(unquote_to_bytes(step))


def _below(step: str) -> str:
    path = Path(path_of(step))
    if path.is_absolute() or ".." in path.parts or "\0" in str(path):
        raise ValueError
    return step


Place = Annotated[str, AfterValidator(_below)]


class Plan(Settings):
    """What is to be added: which batch, what is renamed to what beside the data set, its report.

    Paths are percent-encoded, as the names of files need not be text.
    """

    batch: str = Field(description="the name of a batch", pattern=r"^[^/]+$")
    steps: tuple[tuple[Place, Place], ...] = Field(description="pairs of paths below the folder")
    report: str


def ingest(batch: Path, new_classes: Sequence[str], root: Path) -> None:
    """Compare the batch with the data set and ask, or add it if every question is answered.

    What is asked is in reviews/<batch>.csv, and nothing is added. Raises UserError when the batch,
    the review file or the data set can't be used.
    """
    pipeline, limits = params.load(root), params.load_section(root, "ingest", IngestParams)
    folder = data_folder(pipeline, root)
    name = batch_name(batch, folder)
    with files.only_one(root / LOCK, BUSY):
        forget_partial_files(root / REVIEWS)
        if finish(folder, root) == name:
            return
        check_version(folder, root)
        try:
            with workplace(folder) as place:
                known = folder, folder.relative_to(root).as_posix()
                comparison = compare(batch, known, new_classes, pipeline.prepare, place)
                ask_or_plan(batch, name, comparison, pipeline, limits, root)
        except OSError as error:
            raise UserError(
                f"{batch} can't be compared or copied, nothing is added: {error}"
            ) from None
        finish(folder, root)


def ask_or_plan(
    batch: Path,
    name: str,
    comparison: Comparison,
    pipeline: Params,
    limits: IngestParams,
    root: Path,
) -> None:
    """Ask what must be asked, which is no failure; with all the answers, plan what to add.

    Raises UserError.
    """
    content = content_sha256(comparison)
    report_file, answers_file = review_files(name, root)
    if unreadable := comparison.staged[1].unreadable:
        found = f"{len(unreadable)} of {len(comparison.parts[1].names)} files of {name}"
        print(f"left out: {found} can't be read; {REVIEWS / report_file.name} names them")
    check_current(report_file, answers_file, content)
    judgement = judge(comparison, root, pipeline.seed, limits.judged_by)
    written = review.read(answers_file, comparison)
    guessed = (root / CAPTURED).resolve() in batch.resolve().parents
    questions = merge(review.ask(comparison, judgement, limits.min_confidence, guessed), written)
    waiting = {i: question for i, question in questions.items() if not question.decision}
    outcome = None if waiting else review.decide(comparison, questions)
    report = batch_report.report(
        *(name, content, comparison, judgement, questions, outcome, statistics(comparison)),
        *(pipeline.prepare.max_class_ratio, limits.max_drift),
    )
    if outcome is None:
        files.write(report_file, report)  # first: answers without a report are not accepted
        if not ask_the_same(questions, written):
            review.write(answers_file, list(questions.values()))
        draw(comparison, waiting, root)
        print(waiting_sentence(batch, name, len(waiting)))
        return
    if (outcome.labels >= 0).any() or outcome.moved:
        plan(batch, name, comparison, outcome, report)
        return
    if not batch_report.is_final(report_file):
        files.write(report_file, report)
    print(f"nothing to add: all of {name} is in {comparison.title} or left out")


def draw(comparison: Comparison, waiting: Mapping[int, Question], root: Path) -> None:
    """Draw the first pictures that wait for a decision."""
    chosen = [*waiting][: review_picture.SHOWN]
    step = max(1, max(comparison.shape[:2]) // 128)  # a thumbnail needs no more pixels
    images = [
        image[::step, ::step].copy()
        for chunk in comparison.pixels(comparison.candidates[chosen])
        for image in chunk
    ]
    review_picture.draw([*waiting.values()], images, root)


def forget_partial_files(reviews: Path) -> None:
    """Remove what a run that was killed had begun to write."""
    for kind in ("md", "csv"):
        for partial in reviews.glob(f".*.{kind}.*"):
            partial.unlink()


def review_files(name: str, root: Path) -> tuple[Path, Path]:
    """Where a batch's report and the answers to its questions are."""
    return root / REVIEWS / f"{name}.md", root / REVIEWS / f"{name}.csv"


# -- may it be added? ------------------------------------------------------------------------------


def data_folder(pipeline: Params, root: Path) -> Path:
    """Return the folder of the data set.

    Raises UserError: the data are not a folder of pictures, or DVC can't keep their versions, as of
    those behind links.
    """
    prepare = pipeline.prepare
    if prepare.source != "folder":
        raise UserError(
            f"prepare.source in params.yaml is {prepare.source!r}: set it to folder, "
            "as a batch is added to a folder of pictures"
        )
    if (root / str(prepare.folder)).is_dir():
        refuse_links(root / str(prepare.folder), root)
    folder = (root / str(prepare.folder)).resolve()
    if root.resolve() not in folder.parents:
        raise UserError(
            f"prepare.folder in params.yaml is {prepare.folder!r}, outside the project, "
            "where DVC keeps no versions: move it inside"
        )
    return root / folder.relative_to(root.resolve())


def batch_name(batch: Path, folder: Path) -> str:
    """Return the batch's name, which its review carries.

    Raises UserError: it overlaps with the data set, or its name can't be that of a file.
    """
    inside, outside = batch.resolve(), folder.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise UserError(
            f"the batch {batch} and the data set {folder} are in one another: move the batch out"
        )
    name = unicodedata.normalize("NFC", inside.name)
    if printable(name) != name:
        raise UserError(
            f"the batch's folder {printable(name)} has characters that can't be shown: rename it"
        )
    return name


def check_version(folder: Path, root: Path) -> None:
    """Refuse a data set that is not the version that Git names, lest other pictures get lost.

    Raises UserError, which says how to get that version, or to keep what is there.
    """
    tracked = folder.with_name(f"{folder.name}.dvc")
    if not tracked.exists():
        return
    if not folder.exists():
        raise UserError(f"the pictures of {tracked} are not on this machine: run `make data-pull`")
    answer = subprocess.run(
        [*DVC, "status", "--json", tracked.relative_to(root)],
        cwd=root,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        raise UserError(f"dvc status failed: {said(answer.stderr)}")
    if settings.parse_json(answer.stdout, "what dvc status says"):
        raise UserError(
            f"{folder} is not what {tracked} says: run `.venv/bin/dvc checkout {tracked}` for that "
            "version, after `make data-pull` if it is not here, or "
            f"`.venv/bin/dvc add {folder}` to keep what is there"
        )


def content_sha256(comparison: Comparison) -> str:
    """SHA-256 over shape, paths and pixels of the batch; files that can't be read count, too."""
    batch, staged = comparison.parts[1], comparison.staged[1]
    total = hashlib.sha256(repr(comparison.shape).encode())
    digests = dict(zip(staged.origins.tolist(), staged.digests.tolist(), strict=True))
    for i, path in enumerate(batch.paths):
        total.update(os.fsencode(path) + b"\0" + digests.get(i, b"unreadable") + b"\n")
    return total.hexdigest()


def check_current(report: Path, answers: Path, content: str) -> None:
    """Refuse answers that were given for other pictures than those of that content.

    Raises UserError: the files are of another batch or an earlier state of this one.
    """
    known = batch_report.content_of(report)
    if known is None and answers.exists():
        raise UserError(
            f"{REVIEWS / answers.name} is there without {report.name}, which says what pictures it "
            "is about: put that back, or remove the CSV file and decide anew"
        )
    if known not in (None, content):
        raise UserError(
            f"{REVIEWS / report.name} and .csv are about other pictures than the batch now has, or "
            "about these in another size or colour: if the batch or params.yaml was changed, "
            "remove both files and decide anew; if it is another batch, rename its folder"
        )


# -- ask -------------------------------------------------------------------------------------------


def merge(asked: dict[int, Question], written: dict[int, Question]) -> dict[int, Question]:
    """Return the questions with the answers given so far; answers that nothing asks for stay."""
    merged = dict(asked)
    for i, earlier in written.items():
        question = asked.get(i, earlier)
        if earlier.decision and still_holds(earlier, question):
            merged[i] = replace(question, decision=earlier.decision)
    return merged


def still_holds(earlier: Question, question: Question) -> bool:
    """Whether an earlier decision holds for what is asked now.

    It was given to the same question, or does what asking again would suggest, as when the picture
    has been added as what a person decided, or leaves the picture out.
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


def waiting_sentence(batch: Path, name: str, images: int) -> str:
    """Say how many pictures wait for what."""
    count = f"{images} pictures wait" if images > 1 else "1 picture waits"
    return (
        f"{count} for a decision: `make review BATCH={shlex.quote(str(batch))}` asks in a browser; "
        f"or look at plots/{review_picture.PLOT}.png and write keep, drop or the right class into "
        f"the column decision of {REVIEWS / name}.csv. Then run the same command again; nothing is "
        "added yet"
    )


# -- the page --------------------------------------------------------------------------------------


def review_on_page(batch: Path, root: Path) -> None:
    """Serve the page on which a person decides what a batch's review file asks.

    Raises UserError: nothing was asked yet, or the batch or the file can't be used.
    """
    prepare = params.load(root).prepare
    folder = data_folder(params.load(root), root)
    name = batch_name(batch, folder)
    answers = review_files(name, root)[1]
    again = f"`make ingest BATCH={shlex.quote(str(batch))}`"
    if not answers.exists():
        raise UserError(f"nothing is asked about {name}: run {again} first")
    source = batch_source(batch, prepare.max_pixels)
    known = existing_source(folder, prepare.max_pixels).classes
    classes = sorted({*known, *used_classes(source)})
    places = {unicodedata.normalize("NFC", each): i for i, each in enumerate(source.names)}

    def picture(image: str) -> bytes:
        place = places.get(unicodedata.normalize("NFC", image))
        if place is None:
            raise ValueError(f"{shown(image)} is not in the batch")
        with source.open_image(place) as opened:
            return as_file(opened, prepare.white)

    def decide(image: str, decision: str) -> None:
        with files.only_one(root / LOCK, BUSY):
            review.record(answers, image, decision, classes)

    def rows() -> list[dict[str, str]]:
        return [asdict(question) for question in review.written(answers)]

    page = review_page.Review(name, classes, rows, picture, decide)
    review_page.serve(page, lambda address: print(f"decide on {address}", flush=True))
    waiting = sum(not question.decision for question in review.written(answers))
    left = f"{waiting} still wait: the same command goes on" if waiting else "all is decided"
    print(left if waiting else f"{left}: run {again}")


def as_file(picture: Image.Image, white: int) -> bytes:
    """A picture as training sees its pixels, large enough to look at: PNG, or JPEG of larger ones.

    Raises what `to_pixels` raises.
    """
    height, width = upright_size(picture)
    factor = min(1.0, LOOKED_AT / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    stream = io.BytesIO()
    pixels = Image.fromarray(to_pixels(picture, size, 3, white))
    pixels.save(stream, "PNG" if max(size) <= 64 else "JPEG")
    return stream.getvalue()


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


def plan(batch: Path, name: str, comparison: Comparison, outcome: Outcome, report: str) -> None:
    """Copy the new files beside the data set and write down what goes where."""
    names = FreeNames(comparison)
    base = comparison.folder.name
    file = comparison.folder.parent / UNFINISHED
    copies = file.with_name("files")
    copies.mkdir()
    steps: list[tuple[str, str]] = []
    added = np.flatnonzero(outcome.labels >= 0).tolist()
    for i in progress(added, "copying"):
        position = int(comparison.candidates[i])
        shutil.copyfile(batch / comparison.paths[position], copies / str(i))
        target = names.take(position, int(outcome.labels[i]))
        steps.append((f"{UNFINISHED.parent}/{copies.name}/{i}", quote(f"{base}/{target}")))
    for position, label in outcome.moved.items():
        target = names.take(position, label)
        source = quote(os.fsencode(f"{base}/{comparison.paths[position]}"))
        steps.append((source, quote(f"{base}/{target}")))
    files.sync_all(copies)
    files.write(file, Plan(batch=name, steps=tuple(steps), report=report).model_dump_json())


class FreeNames:
    """Names of files in the class folders, none of which is given twice."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        there = [path for path in inside(comparison.folder) if path.is_dir()]
        self.folders = {unicodedata.normalize("NFC", path.name): path.name for path in there}
        self.taken: dict[str, set[str]] = {}

    def take(self, position: int, label: int) -> str:
        """Return where a picture goes, relative to the data set: its own name if that is free."""
        name = self.comparison.classes[label]
        folder, own = self.folders.setdefault(name, name), Path(self.comparison.paths[position])
        if self.comparison.is_official(position):  # and stays so
            folder = f"{folder}/{own.parts[1]}"
        if folder not in self.taken:
            files_there = inside(self.comparison.folder / folder)
            self.taken[folder] = {folded(file.name) for file in files_there}
        taken = self.taken[folder]
        free = (
            possible
            for possible in possible_names(own.name, self.comparison.digests[position].hex()[:12])
            if folded(possible) not in taken and len(possible.encode()) <= NAME_BYTES
        )
        file = next(free)
        taken.add(folded(file))
        return f"{folder}/{file}"


def possible_names(own: str, digest: str) -> Iterator[str]:
    """Yield a file's own name, then with the digest of its pixels, then with numbers besides."""
    composed = unicodedata.normalize("NFC", own)
    # DVC keeps no names that are not UTF-8, and nobody can type the others
    plain = "".join(sign if sign.isprintable() else "_" for sign in composed)
    if plain == composed:
        yield plain
    yield with_tail(plain, f"-{digest}")
    for number in itertools.count(1):
        yield with_tail(plain, f"-{digest}-{number}")


def with_tail(name: str, tail: str) -> str:
    """Put a tail between a name's stem, which is cut if need be, and its suffix."""
    end = tail + Path(name).suffix[:16]
    room = NAME_BYTES - len(end.encode())
    return Path(name).stem.encode()[:room].decode(errors="ignore") + end


def inside(folder: Path) -> list[Path]:
    """What is in a folder, which need not exist."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def finish(folder: Path, root: Path) -> str | None:
    """Do what the plan beside the data set says, all or the rest; return the batch's name.

    Every step can be repeated, so a run that is killed here is finished by the next.

    Raises UserError: a file is in the way, the disk is full, or DVC fails; the plan stays.
    """
    file = folder.parent / UNFINISHED
    if not file.exists():
        return None
    planned = read_plan(file)
    name = planned.batch
    try:
        for source, target in progress([*planned.steps], "adding"):
            move(folder.parent / path_of(source), folder.parent / path_of(target))
        files.write(review_files(name, root)[0], planned.report)
    except OSError as error:
        raise UserError(
            f"{name} is added to {folder} only in part ({error}): put it right and run "
            "`make ingest` again"
        ) from None
    relative = folder.relative_to(root)
    if subprocess.run([*DVC, "add", relative], cwd=root).returncode:
        raise UserError(
            f"the pictures of {name} are in {folder}, but `dvc add` failed as it says above: put "
            "it right and run `make ingest` again"
        )
    shutil.rmtree(file.parent)
    print(
        f"added {name} to {relative}; commit {relative}.dvc and {REVIEWS}/, run `make pipeline`, "
        "then `make data-push`"
    )
    return name


def read_plan(file: Path) -> Plan:
    """Read what is planned. Raises UserError for what no run has written."""
    try:
        return settings.check(Plan, settings.read_json(file), str(file))
    except settings.SettingsError as error:
        raise UserError(
            f"{error}; that plan can't be followed: remove {file.parent} and run `make ingest` "
            "again"
        ) from None


def move(source: Path, target: Path) -> None:
    """Rename a file unless that is done already. Raises UserError if another has the name."""
    if not source.exists():
        return
    if target.exists():
        raise UserError(
            f"{target} has come into being since the batch was planned: move it away and run "
            "`make ingest` again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
