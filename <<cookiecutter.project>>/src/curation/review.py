"""Questions about new images that a person answers in a CSV file, and what follows from them."""

import csv
import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from classifier import plots
from classifier.errors import ClassifierError
from curation.batch_comparison import DROP, KEEP, Comparison, closest
from curation.label_doubts import Judgement

SHOWN = 48  # images on the contact sheet
PLOT = "review"


class ReviewError(ClassifierError):
    """The review file holds something that is not an answer to its questions."""


@dataclass(frozen=True)
class Question:
    """A row of the review file: an image whose label a person must decide on."""

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

    `moved` maps images of the data set to the class that a person decided they are of.
    """

    labels: np.ndarray
    moved: dict[int, int]


# -- questions -------------------------------------------------------------------------------------


def ask(comparison: Comparison, judgement: Judgement, min_confidence: float) -> dict[int, Question]:
    """Return what must be asked, by the image's place among the candidates, the surest first."""
    candidates = comparison.candidates
    same, near = comparison.contradicts[candidates], comparison.resembles[candidates]
    disagrees = judgement.answers != comparison.labels[candidates]
    wrong = disagrees & (judgement.confidences >= min_confidence)
    kinds = np.select([same >= 0, near >= 0, wrong], [0, 1, 2], 3)
    order = np.lexsort((-judgement.confidences, kinds))
    return {
        int(i): _question(comparison, judgement, int(i), max(same[i], near[i]), kinds[i])
        for i in order
        if kinds[i] < 3
    }


def _question(
    comparison: Comparison, judgement: Judgement, i: int, partner: int, kind: int
) -> Question:
    position = int(comparison.candidates[i])
    reason = "the label looks wrong"
    if kind < 2:
        how = ("has the same pixels as", "is nearly the same as")[kind]
        reason = f"{how} {comparison.name(partner)}, which is {comparison.label(partner)}"
    suggestion = comparison.classes[judgement.answers[i]]
    confidence = f"{judgement.confidences[i]:.2f}"
    if kind == 0 and partner < comparison.old:  # a label that was reviewed before
        suggestion, confidence = comparison.label(partner), ""
    return Question(
        comparison.name(position), comparison.label(position), reason, suggestion, confidence
    )


# -- the file --------------------------------------------------------------------------------------


def write(path: Path, questions: Sequence[Question]) -> None:
    """Write the review file."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(question) for question in questions)
    partial.replace(path)


def read(path: Path, comparison: Comparison) -> dict[int, Question]:
    """Return the rows of the review file by the image's place among the candidates.

    Raises:
        ReviewError: it is not such a file, names an image that the batch does not have, or holds a
            word that is no decision; names the line.
    """
    if not path.exists():
        return {}
    places = {comparison.name(p): p for p in range(comparison.old, len(comparison.labels))}
    composed = {unicodedata.normalize("NFC", name): p for name, p in places.items()}
    found: dict[int, Question] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for row in rows:
                where = f"{path.parent.name}/{path.name} line {rows.line_num}"
                if set(COLUMNS) - row.keys() or None in row.values():
                    raise ReviewError(f"{where}: the columns must be {','.join(COLUMNS)}")
                name = row["image"]
                # an editor may have written the same name with other code points
                position = places.get(name, composed.get(unicodedata.normalize("NFC", name)))
                if position is None or position in found:
                    problem = "is not in the batch" if position is None else "is there twice"
                    raise ReviewError(f"{where}: {name} {problem}: remove the line")
                decision = _decision(row["decision"], comparison.classes, where)
                found[position] = Question(
                    **{name: row[name] for name in COLUMNS} | {"decision": decision}
                )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReviewError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one") from None
    # what was added since is no candidate any more
    order = {p: i for i, p in enumerate(comparison.candidates.tolist())}
    return {order[p]: question for p, question in found.items() if p in order}


def _decision(word: str, classes: Sequence[str], where: str) -> str:
    word = unicodedata.normalize("NFC", word.strip())
    if word.casefold() in ("", KEEP, DROP):
        return word.casefold()
    if word not in classes:
        close = closest(word, [KEEP, DROP, *classes])
        hint = f", did you mean {close}?" if close else ""
        raise ReviewError(
            f"{where}: the decision {word!r} is unknown: write keep, drop or the class it is{hint}"
        )
    return word


# -- what follows ----------------------------------------------------------------------------------


def decide(comparison: Comparison, answers: Mapping[int, Question]) -> Outcome:
    """Apply the decisions; images with the same pixels get one label and are in the set once.

    Raises:
        ReviewError: the decisions give the same pixels two labels; names the images.
    """
    candidates = comparison.candidates
    labels = comparison.labels[candidates].copy()
    for i, question in answers.items():
        if question.decision == DROP:
            labels[i] = -1
        elif question.decision != KEEP:
            labels[i] = comparison.classes.index(question.decision)
    moved: dict[int, int] = {}
    in_conflict = np.flatnonzero(comparison.contradicts[candidates] >= 0)
    by_digest: dict[bytes, list[int]] = {}
    for i in in_conflict.tolist():
        by_digest.setdefault(comparison.digests[candidates[i]], []).append(i)
    for digest, members in by_digest.items():
        kept = [i for i in members if labels[i] >= 0]
        if not kept:
            continue
        if len({*labels[kept].tolist()}) > 1:
            names = " and ".join(comparison.name(candidates[i]) for i in kept[:2])
            raise ReviewError(
                f"{names} have the same pixels, but the decisions put them into different classes: "
                "decide for one class, or drop all but one"
            )
        wanted = int(labels[kept[0]])
        there = np.flatnonzero(comparison.digests[: comparison.old] == digest).tolist()
        moved |= {p: wanted for p in there if comparison.labels[p] != wanted}
        labels[kept if there else kept[1:]] = -1
    return Outcome(labels, moved)


# -- the picture -----------------------------------------------------------------------------------


def draw(comparison: Comparison, questions: Mapping[int, Question], root: Path) -> None:
    """Draw the first images that wait for a decision as plots/review.png."""
    chosen = list(questions)[:SHOWN]
    columns = min(8, len(chosen))
    rows = -(-len(chosen) // columns)
    step = max(1, max(comparison.shape[:2]) // 128)  # a thumbnail needs no more pixels
    images = [
        chunk[:, ::step, ::step].copy()
        for chunk in comparison.pixels(comparison.candidates[chosen])
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name in a script the font lacks
        with plots.figure(root, PLOT, max(4.8, 1.3 * columns), 1.6 * rows + 0.6) as drawing:
            more = f", the first {len(chosen)}" if len(chosen) < len(questions) else ""
            drawing.suptitle(f"Label → suggestion of {len(questions)} images{more}", fontsize=11)
            axes = drawing.subplots(rows, columns, squeeze=False).ravel()
            for place in axes:
                place.set_axis_off()
            for place, image, i in zip(axes, np.concatenate(images), chosen, strict=False):
                question = questions[i]
                place.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
                title = f"{_short(question.label)} → {_short(question.suggestion)}"
                if question.confidence:
                    title += f"  {float(question.confidence):.0%}"
                place.set_title(title, fontsize=8, parse_math=False)
                place.text(
                    *(0.5, -0.04, _short(question.image, 20)),
                    transform=place.transAxes,
                    ha="center",
                    va="top",
                    fontsize=6,
                    color=plots.GREY,
                    parse_math=False,
                )


def _short(text: str, signs: int = 9) -> str:
    return text if len(text) <= signs else "…" + text[1 - signs :]
