"""The report of a batch, in Markdown: what it changes in the data set, and how it differs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.stats import ks_2samp

from workspace.markdown import cell, code, lines, table

EXAMPLES = 20  # names that a list shows
WAITING = "Waiting for a decision"
CHANCE = 0.01  # probability that two samples of the same pictures are said to differ


class _Source(Protocol):
    """A data set or a batch."""

    @property
    def classes(self) -> list[str]: ...

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def ignored(self) -> list[str]: ...

    @property
    def litter(self) -> list[str]: ...


class _Staged(Protocol):
    """What became of its files."""

    @property
    def unreadable(self) -> dict[int, str]: ...

    @property
    def converted(self) -> Counter[str]: ...


class _Comparison(Protocol):
    """A batch beside the data set: see `curation.batch_comparison`."""

    @property
    def classes(self) -> list[str]: ...

    @property
    def parts(self) -> tuple[_Source, _Source]: ...

    @property
    def staged(self) -> tuple[_Staged, _Staged]: ...

    @property
    def old(self) -> int: ...

    @property
    def names(self) -> list[str]: ...

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def repeats(self) -> np.ndarray: ...

    @property
    def contradicts(self) -> np.ndarray: ...

    @property
    def groups(self) -> np.ndarray: ...

    @property
    def candidates(self) -> np.ndarray: ...


class _Judgement(Protocol):
    """What a model thinks of the candidates."""

    @property
    def judge(self) -> str: ...

    @property
    def answers(self) -> np.ndarray: ...


class _Question(Protocol):
    """What is asked of a picture, and decided."""

    @property
    def image(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def suggestion(self) -> str: ...

    @property
    def confidence(self) -> str: ...

    @property
    def decision(self) -> str: ...


class _Outcome(Protocol):
    """What becomes of the candidates."""

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def moved(self) -> dict[int, int]: ...


def report(
    title: str,
    content: str,
    comparison: _Comparison,
    judgement: _Judgement,
    questions: Mapping[int, _Question],
    outcome: _Outcome | None,
    statistics: tuple[np.ndarray, np.ndarray],
    max_class_ratio: float,
    max_drift: float,
) -> str:
    """Write the report: of what is asked, or with an outcome of what was added.

    `statistics` are mean and standard deviation of each channel of each picture, (M, C) each.
    """
    parts = [
        f"# Batch {cell(title)}",
        _status(title, comparison, questions, outcome),
        f"Content `{content}`. Labels were judged by {judgement.judge}; it agrees with "
        f"{_share(_agreement(comparison, judgement))} of them.",
        "## Pictures per class",
        *_balance(comparison, outcome, max_class_ratio),
        "## Left out",
        *_left_out(comparison),
        "## Near duplicates",
        *_near(comparison),
        "## Decisions",
        *_decisions(questions),
        "## Statistics",
        *_statistics(comparison, statistics, max_drift),
    ]
    return "\n".join(f"{part.rstrip()}\n" for part in parts)


def content_of(report: Path) -> str | None:
    """Return the content that a report is of; None if there is no report."""
    if not report.exists():
        return None
    match = re.search(r"^Content `(\w+)`", report.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def is_final(report: Path) -> bool:
    """Whether a report is there and says what was added."""
    return report.exists() and not re.search(
        f"^{WAITING}", report.read_text(encoding="utf-8"), re.MULTILINE
    )


def _status(
    title: str,
    comparison: _Comparison,
    questions: Mapping[int, _Question],
    outcome: _Outcome | None,
) -> str:
    if outcome:
        added = int((outcome.labels >= 0).sum())
        moved = f"; {len(outcome.moved)} of these get another class" if outcome.moved else ""
        return f"Added to the {comparison.old} pictures of the data set{moved}: {added}."
    waiting = sum(not question.decision for question in questions.values())
    return f"{WAITING} in {code(f'{title}.csv')}: {waiting}. Nothing is added yet."


def _agreement(comparison: _Comparison, judgement: _Judgement) -> float:
    same = judgement.answers == comparison.labels[comparison.candidates]
    return float(same.mean()) if len(same) else 1.0


def _balance(comparison: _Comparison, outcome: _Outcome | None, max_ratio: float) -> list[str]:
    classes, count = comparison.classes, len(comparison.classes)
    before = np.bincount(comparison.labels[: comparison.old], minlength=count)
    labels = comparison.labels[comparison.candidates]
    new = np.bincount(labels, minlength=count)
    after = before + new
    if outcome:
        after = before + np.bincount(outcome.labels[outcome.labels >= 0], minlength=count)
        for position, label in outcome.moved.items():
            after[comparison.labels[position]] -= 1
            after[label] += 1
    rows = [
        (cell(classes[k]), before[k], _part(before, k), new[k], after[k], _part(after, k))
        for k in range(count)
    ]
    rows.append(("all", before.sum(), "", new.sum(), after.sum(), ""))
    last = "after" if outcome else "after, if all were kept"
    ratios = ", ".join(
        f"{when} {images.max() / max(1, images.min()):.1f}"
        for when, images in (("before", before), ("after", after))
        if images.any()
    )
    said = [
        table(("class", "before", "share", "new", last, "share"), rows, right=range(1, 6)),
        f"Pictures of the largest class over the smallest: {ratios}; `prepare.max_class_ratio` "
        f"allows {max_ratio:g}.",
    ]
    absent = [name for name, images in zip(classes, new, strict=True) if not images]
    if absent:
        said.append(f"Classes that the batch does not have: {cell(', '.join(absent))}.")
    added = [name for name in classes if name not in comparison.parts[0].classes]
    if added and comparison.old:
        said.append(f"New classes: {cell(', '.join(added))}.")
    return said


def _left_out(comparison: _Comparison) -> list[str]:
    batch, staged = comparison.parts[1], comparison.staged[1]
    new = np.arange(comparison.old, len(comparison.labels))
    reasons: dict[str, list[str]] = {
        "can't be read": [f"{batch.names[i]}: {why}" for i, why in staged.unreadable.items()],
        "outside a class folder": batch.ignored,
        "litter of other programs": batch.litter,
        "in the data set already": [],
        "repeated within the batch": [],
    }
    for position in new[comparison.repeats[new] >= 0]:
        original = comparison.repeats[position]
        is_known = original < comparison.old
        reason = "in the data set already" if is_known else "repeated within the batch"
        reasons[reason].append(f"{comparison.names[position]} = {comparison.names[original]}")
    rows = [
        (reason, len(found), lines(_shown(found))) for reason, found in reasons.items() if found
    ]
    said = [table(("reason", "files", "examples"), rows, right=[1]) if rows else "Nothing."]
    if staged.converted:
        counts = ", ".join(f"{step} {n}" for step, n in sorted(staged.converted.items()))
        said.append(f"`prepare` will convert: {counts}.")
    return said


def _near(comparison: _Comparison) -> list[str]:
    groups = comparison.groups
    sizes = Counter(groups[groups >= 0].tolist())
    candidates = comparison.candidates[comparison.contradicts[comparison.candidates] < 0]
    near = [p for p in candidates.tolist() if sizes[groups[p]] > 1]
    if not near:
        return ["None."]
    first: dict[int, int] = {}
    for p, group in enumerate(groups.tolist()):
        first.setdefault(group, p)
    examples = [
        f"{comparison.names[p]} ≈ {comparison.names[first[groups[p]]]}"
        for p in near
        if first[groups[p]] != p
    ]
    return [
        f"New pictures that are nearly the same as others: {len(near)}. They stay; `prepare` puts "
        "them into the split of those, and leaves out what would link two splits.",
        "\n".join(f"- {cell(text)}" for text in _shown(examples)),
    ]


def _decisions(questions: Mapping[int, _Question]) -> list[str]:
    if not questions:
        return ["None was needed."]
    counts = Counter(_kind(question) for question in questions.values())
    total = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    reasons = Counter(question.reason.split(" as ")[0] for question in questions.values())
    why = ", ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items()))
    rows = [_row(question) for question in [*questions.values()][:EXAMPLES]]
    said = [
        f"{total}. Asked because a picture or its label: {why}.",
        table(("picture", "label", "reason", "suggestion", "decision"), rows),
    ]
    if len(questions) > EXAMPLES:
        said.append(f"And {len(questions) - EXAMPLES} more, all in the CSV file.")
    return said


def _row(question: _Question) -> list[str]:
    suggestion = f"{question.suggestion} {question.confidence}"
    values = (question.image, question.label, question.reason, suggestion, question.decision or "…")
    return [cell(value) for value in values]


def _kind(question: _Question) -> str:
    words = {"": "waiting", "keep": "kept", "drop": "dropped"}
    return words.get(question.decision, "given another label")


# -- statistics ------------------------------------------------------------------------------------


def _statistics(
    comparison: _Comparison, statistics: tuple[np.ndarray, np.ndarray], max_drift: float
) -> list[str]:
    measures = _measures(*statistics)
    old, new = np.arange(comparison.old), comparison.candidates
    if not len(old) or not len(new):
        there = old if len(old) else new
        means = [(name, f"{values[there].mean():.1f}") for name, values in measures]
        return [table(("mean over pictures, grey levels", ""), means, right=[1])]
    chance = critical_distance(len(old), len(new))
    rows, drifted = [], []
    for name, values in measures:
        distance = float(ks_2samp(values[old], values[new], method="asymp").statistic)
        far = distance > max(max_drift, chance)
        drifted += [name] if far else []
        means_of_both = f"{values[old].mean():.1f}", f"{values[new].mean():.1f}"
        rows.append((name, *means_of_both, f"{distance:.3f}", "drift" if far else ""))
    verdict = "No drift."
    if drifted:
        verdict = f"**The batch differs in {', '.join(drifted)}**: look at some of its pictures."
    head = ("mean over pictures, grey levels", "data set", "batch", "distance", "")
    return [
        table(head, rows, right=(1, 2, 3)),
        f"{verdict} The distance is Kolmogorov-Smirnov's; `ingest.max_drift` allows {max_drift:g}, "
        f"and {chance:.3f} may be chance.",
    ]


def _measures(means: np.ndarray, deviations: np.ndarray) -> list[tuple[str, np.ndarray]]:
    measures = [("brightness", means.mean(axis=1)), ("contrast", deviations.mean(axis=1))]
    if means.shape[1] == 3:
        for k, name in enumerate(("red", "green", "blue")):
            measures += [(f"{name} mean", means[:, k]), (f"{name} deviation", deviations[:, k])]
    return measures


def critical_distance(n: int, m: int) -> float:
    """Return the Kolmogorov-Smirnov distance that two samples of one distribution seldom exceed.

    D = sup |F(x) - G(x)| over the empirical distribution functions of n and m values exceeds
    sqrt(-ln(a / 2) / 2 · (n + m) / (n m)) with probability a, 1 % here (Smirnov, Annals of
    Mathematical Statistics 19, 1948).
    """
    return float(np.sqrt(-np.log(CHANCE / 2) / 2 * (n + m) / (n * m)))


# -- words ---------------------------------------------------------------------------------------


def _shown(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - EXAMPLES} more"] if len(texts) > EXAMPLES else []
    return [*texts[:EXAMPLES], *more]


def _part(counts: np.ndarray, k: int) -> str:
    return _share(counts[k] / counts.sum()) if counts.sum() else ""


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
