"""The report of a batch, in Markdown: what it changes in the data set, and how it differs."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import ks_2samp

from classifier.cleaning import EXAMPLES
from curation.batch_comparison import DROP, KEEP, Comparison, statistics
from curation.label_doubts import Judgement
from curation.review import Outcome, Question

WAITING = "Waiting for a decision"
CHANCE = 0.01  # probability that two samples of the same images are said to differ


@dataclass(frozen=True)
class Limits:
    """The parameters that the report compares with."""

    max_class_ratio: float
    max_drift: float


def report(
    title: str,
    content: str,
    comparison: Comparison,
    judgement: Judgement,
    questions: Mapping[int, Question],
    outcome: Outcome | None,
    limits: Limits,
) -> str:
    """Write the report: of what is asked, or with an outcome of what was added."""
    parts = [
        f"# Batch {_cell(title)}",
        _status(title, comparison, questions, outcome),
        f"Content `{content}`. Labels were judged by {judgement.judge}; it agrees with "
        f"{_share(_agreement(comparison, judgement))} of them.",
        "## Images per class",
        *_balance(comparison, outcome, limits.max_class_ratio),
        "## Left out",
        *_left_out(comparison),
        "## Near duplicates",
        *_near(comparison),
        "## Decisions",
        *_decisions(questions),
        "## Statistics",
        *_statistics(comparison, limits.max_drift),
    ]
    return "\n\n".join(parts) + "\n"


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
    title: str, comparison: Comparison, questions: Mapping[int, Question], outcome: Outcome | None
) -> str:
    if outcome:
        added = int((outcome.labels >= 0).sum())
        moved = f"; {len(outcome.moved)} of these get another class" if outcome.moved else ""
        return f"Added to the {comparison.old} images of the data set{moved}: {added}."
    waiting = sum(not question.decision for question in questions.values())
    return f"{WAITING} in `{title}.csv`: {waiting}. Nothing is added yet."


def _agreement(comparison: Comparison, judgement: Judgement) -> float:
    same = judgement.answers == comparison.labels[comparison.candidates]
    return float(same.mean()) if len(same) else 1.0


def _balance(comparison: Comparison, outcome: Outcome | None, max_ratio: float) -> list[str]:
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
        (classes[k], before[k], _part(before, k), new[k], after[k], _part(after, k))
        for k in range(count)
    ]
    rows.append(("all", before.sum(), "", new.sum(), after.sum(), ""))
    last = "after" if outcome else "after, if all were kept"
    ratios = ", ".join(
        f"{when} {images.max() / max(1, images.min()):.1f}"
        for when, images in (("before", before), ("after", after))
        if images.any()
    )
    lines = [
        _table(("class", "before", "share", "new", last, "share"), rows),
        f"Images of the largest class over the smallest: {ratios}; `prepare.max_class_ratio` "
        f"allows {max_ratio:g}.",
    ]
    absent = [name for name, images in zip(classes, new, strict=True) if not images]
    if absent:
        lines.append(f"Classes that the batch does not have: {_cell(', '.join(absent))}.")
    added = [name for name in classes if name not in comparison.parts[0].classes]
    if added and comparison.old:
        lines.append(f"New classes: {_cell(', '.join(added))}.")
    return lines


def _left_out(comparison: Comparison) -> list[str]:
    batch, staged = comparison.parts[1], comparison.staged[1]
    new = np.arange(comparison.old, len(comparison.labels))
    original = comparison.repeats[new]
    within, known = original >= comparison.old, (original >= 0) & (original < comparison.old)

    def pairs(chosen: np.ndarray) -> list[str]:
        return [
            f"{comparison.name(p)} = {comparison.name(comparison.repeats[p])}" for p in new[chosen]
        ]

    reasons = {
        "can't be read": [f"{batch.names[i]}: {why}" for i, why in staged.unreadable.items()],
        "outside a class folder": batch.ignored,
        "in the data set already": pairs(known),
        "repeated within the batch": pairs(within),
    }
    rows = [(reason, len(found), _shown(found)) for reason, found in reasons.items() if found]
    lines = [_table(("reason", "files", "examples"), rows)] if rows else ["Nothing."]
    if staged.converted:
        counts = ", ".join(f"{step} {n}" for step, n in sorted(staged.converted.items()))
        lines.append(f"`prepare` will convert: {counts}.")
    return lines


def _near(comparison: Comparison) -> list[str]:
    groups = comparison.groups
    sizes = Counter(groups[groups >= 0].tolist())
    candidates = comparison.candidates[comparison.contradicts[comparison.candidates] < 0]
    near = [p for p in candidates.tolist() if sizes[groups[p]] > 1]
    if not near:
        return ["None."]
    first = {group: p for p, group in reversed([*enumerate(groups.tolist())])}
    examples = [
        f"{comparison.name(p)} ≈ {comparison.name(first[groups[p]])}"
        for p in near
        if first[groups[p]] != p
    ]
    return [
        f"New images that are nearly the same as others: {len(near)}. They stay; `prepare` keeps "
        "them in one split.",
        "\n".join(f"- {_cell(text)}" for text in _shown(examples)),
    ]


def _decisions(questions: Mapping[int, Question]) -> list[str]:
    if not questions:
        return ["None was needed."]
    counts = Counter(_kind(question) for question in questions.values())
    total = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    reasons = Counter(question.reason.split(" as ")[0] for question in questions.values())
    why = ", ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items()))
    rows = [
        (
            *(question.image, question.label, question.reason),
            f"{question.suggestion} {question.confidence}".rstrip(),
            question.decision or "…",
        )
        for question in [*questions.values()][:EXAMPLES]
    ]
    table = _table(("image", "label", "reason", "suggestion", "decision"), rows)
    lines = [f"{total}. Asked because an image or its label: {why}.", table]
    if len(questions) > EXAMPLES:
        lines.append(f"And {len(questions) - EXAMPLES} more, all in the CSV file.")
    return lines


def _kind(question: Question) -> str:
    words = {"": "waiting", KEEP: "kept", DROP: "dropped"}
    return words.get(question.decision, "given another label")


# -- statistics ------------------------------------------------------------------------------------


def _statistics(comparison: Comparison, max_drift: float) -> list[str]:
    means, deviations = statistics(comparison)
    old, new = np.arange(comparison.old), comparison.candidates
    if not len(old) or not len(new):
        chosen = old if len(old) else new
        found = [
            (name, f"{values[chosen].mean():.1f}") for name, values in _measures(means, deviations)
        ]
        return [_table(("mean over images, grey levels", ""), found)]
    chance = critical_distance(len(old), len(new))
    rows, drifted = [], []
    for name, values in _measures(means, deviations):
        distance = float(ks_2samp(values[old], values[new], method="asymp").statistic)
        far = distance > max(max_drift, chance)
        drifted += [name] if far else []
        rows.append(
            (
                name,
                f"{values[old].mean():.1f}",
                f"{values[new].mean():.1f}",
                f"{distance:.3f}",
                "drift" if far else "",
            )
        )
    verdict = (
        f"**The batch differs in {', '.join(drifted)}**: look at some of its images."
        if drifted
        else "No drift."
    )
    return [
        _table(("mean over images, grey levels", "data set", "batch", "distance", ""), rows),
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


# -- Markdown --------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(content: object) -> str:
    if isinstance(content, list):
        return "<br>".join(_cell(text) for text in content)
    return re.sub(r"([\\|`*_\[\]<>])", r"\\\1", str(content))


def _shown(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - EXAMPLES} more"] if len(texts) > EXAMPLES else []
    return [*texts[:EXAMPLES], *more]


def _part(counts: np.ndarray, k: int) -> str:
    return _share(counts[k] / counts.sum()) if counts.sum() else ""


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
