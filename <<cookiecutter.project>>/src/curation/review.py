"""Questions about new pictures that a person answers in a CSV file, and what follows from them."""

import csv
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from curation.batch_comparison import DROP, KEEP, Comparison, closest
from curation.label_doubts import Judgement
from workspace import files
from workspace.errors import UserError, shown

SHARE = re.compile(r"[01](\.[0-9]{1,9})?")
SAME, NEAR, WRONG, GUESSED = range(4)  # kinds of questions, the surest first


@dataclass(frozen=True)
class Question:
    """A row of the review file: a picture whose label a person must decide on."""

    image: str
    label: str
    reason: str
    suggestion: str
    confidence: str
    decision: str = ""


COLUMNS = [field.name for field in fields(Question)]


@dataclass(frozen=True)
class Outcome:
    """What becomes of the n candidates: int64 (n,), the class it is added to, or -1.

    `moved` maps pictures of the data set to the class that a person decided they are of.
    """

    labels: np.ndarray
    moved: dict[int, int]


# -- questions -------------------------------------------------------------------------------------


def ask(
    comparison: Comparison, judgement: Judgement, min_confidence: float, guessed: bool = False
) -> dict[int, Question]:
    """Return what must be asked, by the picture's place among the candidates, the surest first.

    Where a model has guessed the labels, that is each picture.
    """
    doubts = []
    for i, position in enumerate(comparison.candidates.tolist()):
        confidence = float(judgement.confidences[i])
        is_answered_otherwise = judgement.answers[i] != comparison.labels[position]
        if comparison.contradicts[position] >= 0:
            doubts.append((SAME, -confidence, i))
        elif comparison.resembles[position] >= 0:
            doubts.append((NEAR, -confidence, i))
        elif is_answered_otherwise and confidence >= min_confidence:
            doubts.append((WRONG, -confidence, i))
        elif guessed:
            doubts.append((GUESSED, -confidence, i))
    return {i: _question(comparison, judgement, i, kind) for kind, _, i in sorted(doubts)}


def _question(comparison: Comparison, judgement: Judgement, i: int, kind: int) -> Question:
    position = int(comparison.candidates[i])
    reason = "the label looks wrong" if kind == WRONG else "the label is a model's answer"
    suggestion = comparison.classes[judgement.answers[i]]
    confidence = f"{judgement.confidences[i]:.2f}"
    if kind in (SAME, NEAR):
        how = "has the same pixels as" if kind == SAME else "is nearly the same as"
        partner = int((comparison.contradicts if kind == SAME else comparison.resembles)[position])
        reason = f"{how} {comparison.names[partner]}, which is {comparison.label(partner)}"
        if kind == SAME and partner < comparison.old:  # a label that was reviewed before
            suggestion, confidence = comparison.label(partner), ""
    return Question(
        comparison.names[position], comparison.label(position), reason, suggestion, confidence
    )


# -- the file --------------------------------------------------------------------------------------


def write(path: Path, questions: Iterable[Question]) -> None:
    """Write the review file."""
    with files.replacing(path, newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        rows.writeheader()
        rows.writerows(map(asdict, questions))


def read(path: Path, comparison: Comparison) -> dict[int, Question]:
    """Return the rows of the review file by the picture's place among the candidates.

    Raises UserError, which names the line: it is not such a file, names a picture that the batch
    does not have, or holds a word that is no decision.
    """
    if not path.exists():
        return {}
    places = {name: p for p, name in enumerate(comparison.names) if p >= comparison.old}
    composed = {unicodedata.normalize("NFC", name): p for name, p in places.items()}
    found: dict[int, Question] = {}
    for where, row in _rows(path):
        name = row["image"]
        # an editor may have written the same name with other code points
        position = places.get(name, composed.get(unicodedata.normalize("NFC", name)))
        if position is None or position in found:
            problem = "is not in the batch" if position is None else "is there twice"
            raise UserError(f"{where}: {name[:200]} {problem}: remove the line")
        row["decision"] = _decision(row["decision"], comparison.classes, where)
        if not SHARE.fullmatch(row["confidence"]):  # a spreadsheet's spelling of it
            row["confidence"] = ""
        found[position] = Question(**row)
    # what was added since is no candidate any more
    order = {p: i for i, p in enumerate(comparison.candidates.tolist())}
    return {order[p]: question for p, question in found.items() if p in order}


def written(path: Path) -> list[Question]:
    """Return the rows of the review file, whatever batch it is of. Raises UserError."""
    return [Question(**row) for _, row in _rows(path)]


def record(path: Path, image: str, decision: str, classes: Sequence[str]) -> None:
    """Write one decision into the review file, whose other rows stay as they are now.

    Raises UserError: the file has no such row, or the word is no decision.
    """
    questions = written(path)
    word = _decision(decision, classes, f"{path.parent.name}/{path.name}")
    if all(question.image != image for question in questions):
        raise UserError(
            f"{path.parent.name}/{path.name} has no line for {shown(image)}: load the page again"
        )
    answered = [replace(each, decision=word) if each.image == image else each for each in questions]
    write(path, answered)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what stands in the columns of each row, and where that is. Raises UserError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for row in rows:
                where = f"{path.parent.name}/{path.name} line {rows.line_num}"
                if set(COLUMNS) - row.keys() or None in row.values():
                    raise UserError(f"{where}: the columns must be {','.join(COLUMNS)}")
                yield where, {name: row[name] for name in COLUMNS}
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one") from None


def _decision(word: str, classes: Sequence[str], where: str) -> str:
    word = unicodedata.normalize("NFC", word.strip())
    if word.casefold() in ("", KEEP, DROP):
        return word.casefold()
    if word not in classes:
        close = closest(word, [KEEP, DROP, *classes])
        hint = f", did you mean {close}?" if close else ""
        raise UserError(
            f"{where}: the decision {shown(word)} is unknown: write keep, drop or the class it is"
            f"{hint}"
        )
    return word


# -- what follows ----------------------------------------------------------------------------------


def decide(comparison: Comparison, answers: Mapping[int, Question]) -> Outcome:
    """Apply the decisions; pictures with the same pixels get one label and are in the set once.

    Raises UserError, which names the pictures, if the decisions give the same pixels two labels.
    """
    candidates = comparison.candidates
    labels = comparison.labels[candidates].copy()
    for i, question in answers.items():
        if question.decision == DROP:
            labels[i] = -1
        elif question.decision != KEEP:
            labels[i] = comparison.classes.index(question.decision)
    same_pixels: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(comparison.contradicts[candidates] >= 0).tolist():
        if labels[i] >= 0:
            same_pixels.setdefault(comparison.digests[candidates[i]], []).append(i)
    moved: dict[int, int] = {}
    for digest, kept in same_pixels.items():
        _check_one_label(comparison, labels, kept)
        wanted = int(labels[kept[0]])
        there = np.flatnonzero(comparison.digests[: comparison.old] == digest).tolist()
        moved |= {p: wanted for p in there if comparison.labels[p] != wanted}
        labels[kept if there else kept[1:]] = -1
    return Outcome(labels, moved)


def _check_one_label(comparison: Comparison, labels: np.ndarray, same: list[int]) -> None:
    if len(set(labels[same].tolist())) > 1:
        names = " and ".join(comparison.names[comparison.candidates[i]] for i in same[:2])
        raise UserError(
            f"{names} have the same pixels, but the decisions put them into different classes: "
            "decide for one class, or drop all but one"
        )
