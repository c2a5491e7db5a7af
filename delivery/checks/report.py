"""The report of a check: one screen of Markdown, the verdict first, what is long folded away."""

import re

from delivery.checks.judge import Verdict
from delivery.checks.rehearsal import Rehearsal
from delivery.checks.rehearsal_report import checks, clients, speeds
from delivery.checks.release_rules import Proposed
from delivery.model.contest import Rival
from delivery.proposals.release_file import FIGURES, Release
from delivery.proposals.texts import describe_interface
from workspace.markdown import cell, code, table

MOST = 20  # findings that are listed
LOWER = ("calibration_error", "loss")  # figures of which less is better
KINDS = {"release": "Release", "promotion": "Promotion", "rollback": "Rollback"}
EFFECTS = {  # kind of change: what merging does, and how that is undone
    "manifests": "Argo CD applies the differences above. Undo: a pull request with `git revert`.",
    "infrastructure": "Applied by a person, or by CI behind a reviewer. Undo: revert, apply again.",
    "workflows": "CI runs otherwise from the next event on. Undo: `git revert`.",
    "data": "Nothing is deployed: the next `make pipeline` and `make release` go by it.",
    "code": "Nothing is deployed: the next `make pipeline` and `make release` go by it.",
    "texts": "Nothing is deployed.",
}


def report(verdict: Verdict) -> str:
    """Write the report as Markdown, without a line break at more places than a reader needs."""
    parts = [
        f"# {title(verdict)}",
        notice(verdict),
        refusals(verdict),
        release(verdict),
        *(text for part in verdict.parts for text in part.told),
        left_out(verdict),
        served(verdict.rehearsal) if verdict.rehearsal else "",
        *(folded(name, text) for part in verdict.parts for name, text in part.folded.items()),
        pictures(verdict),
        provenance(verdict) if verdict.proposed else "",
        effects(verdict),
        folded("how long it took", durations(verdict)),
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def title(verdict: Verdict) -> str:
    """Say the verdict, and on what."""
    proposed = verdict.proposed
    if proposed:
        what = (
            f"{KINDS[proposed.kind]} of model {proposed.release.version} to {proposed.environment}"
        )
    else:
        kinds = list(dict.fromkeys(each.kind for each in verdict.changes.files))
        what = f"Change of {', '.join(kinds)}" if kinds else "No change"
    word = "passed" if verdict.passed else "refused" if verdict.findings else "not judged"
    return f"{what}: {word}"


def notice(verdict: Verdict) -> str:
    """Say that the pull request changes what judges it."""
    if not verdict.judges:
        return ""
    named = ", ".join(code(each) for each in verdict.judges[:5])
    more = f" and {len(verdict.judges) - 5} more" if len(verdict.judges) > 5 else ""
    by = (
        "The program that judged it is its own: believe only what the base's says."
        if verdict.own_judge
        else "The base's program judged it."
    )
    who = owners(verdict)
    what = f"It changes what judges pull requests: {named}{more}."
    return f"> **{what}** {by} An owner{who} has to review it."


def owners(verdict: Verdict) -> str:
    """Return who owns what nobody else does, as the base says."""
    content = (verdict.changes.before(".github/CODEOWNERS") or b"").decode(errors="replace")
    found = re.search(r"(?m)^\*\s+(\S.*?)\s*$", content)
    return f" ({cell(found[1])})" if found else ""


def refusals(verdict: Verdict) -> str:
    """List what is wrong, each with its place, and what could not be judged."""
    found = [
        f"- {code(f'{each.path}:{each.line}')}: {cell(each.sentence)}" for each in verdict.findings
    ]
    more = [f"- and {len(found) - MOST} more"] if len(found) > MOST else []
    undone = [f"- {cell(each)}" for each in verdict.undone]
    lines = [*found[:MOST], *more]
    parts = ["**Refused for:**\n" + "\n".join(lines)] if lines else []
    parts += ["**Not judged, so not passed:**\n" + "\n".join(undone)] if undone else []
    return "\n\n".join(parts)


def left_out(verdict: Verdict) -> str:
    """Say what this machine could not do, which refuses nothing."""
    found = [cell(each) for part in verdict.parts for each in part.without]
    return f"*Left out, which refuses nothing:* {'; '.join(found)}." if found else ""


def release(verdict: Verdict) -> str:
    """Write the figures beside those of what is served."""
    proposed = verdict.proposed
    if not proposed or not verdict.figures:
        return ""
    found = verdict.figures
    was = f"model {proposed.served.version} (served)" if proposed.served else "nothing served"
    pictures = contest_head(found.rival)
    head = ["figure", f"model {proposed.release.version}", was, "change", pictures]
    rows = [row(name, proposed.release, proposed.served, found.rival) for name in FIGURES]
    breaks = (
        describe_interface(proposed.served, found.rival) if proposed.served and found.rival else ""
    )
    silence = ""
    if found.rival and not found.rival.contests:
        silence = f"\n**Not compared on the same pictures:** {cell(found.rival.silence)}"
    elif proposed.served and proposed.served.test_data != proposed.release.test_data:
        silence = "\nThe test data differ: only the last column compares."
    return f"{breaks}{table(head, rows, right=(1, 2, 3, 4))}{silence}"


def contest_head(rival: Rival | None) -> str:
    """Name the pictures on which both models were compared."""
    if not rival or not rival.contests:
        return "on the same pictures"
    first = rival.contests[0]
    return f"on the same {first.result.pictures} pictures ({rival.confidence:.0%} interval)"


def row(name: str, new: Release, old: Release | None, rival: Rival | None) -> list[str]:
    """Write a figure of both models; bold if it got worse."""
    value = getattr(new, name)
    if old is None:
        return [name, f"{value:.4g}", "", "", ""]
    change = value - getattr(old, name)
    paired = ""
    if rival and rival.contests and name in ("accuracy", "macro_f1"):
        pair = getattr(rival.contests[0].result, name)
        paired = f"{pair.change:+.4f} ({pair.low:+.4f} to {pair.high:+.4f})"
        paired = f"**{paired}**" if pair.change < 0 else paired
    worse = name != "support" and (change > 0 if name in LOWER else change < 0)
    told = f"**{change:+.4g}**" if worse else f"{change:+.4g}"
    return [name, f"{value:.4g}", f"{getattr(old, name):.4g}", told, paired]


def served(rehearsal: Rehearsal) -> str:
    """Sum the rehearsal up in a line, with all of it folded below."""
    good = len(rehearsal.checks) - len(rehearsal.failed)
    answers = next((each.detail for each in rehearsal.checks if "golden" in each.detail), "")
    told = f"Rehearsed on the real Triton: {good} of {len(rehearsal.checks)} checks passed"
    lines = [f"{told}; {cell(answers)}." if answers else f"{told}."]
    if rehearsal.speeds:
        load, measured = rehearsal.speeds[0]
        models = [each for each in (rehearsal.candidate, rehearsal.champion) if each]
        pairs = zip(models, measured, strict=False)
        times = [f"{speed.percentile(95):.1f} ms (model {model.version})" for model, speed in pairs]
        lines.append(
            f"95 of 100 single requests over {load.protocol} within {' beside '.join(times)}."
        )
    detail = [checks(rehearsal.checks)]
    if rehearsal.champion and rehearsal.replay:
        detail.append(clients(rehearsal.replay))
    detail += [*rehearsal.notes, speeds(rehearsal) if rehearsal.speeds else ""]
    return (
        " ".join(lines) + "\n\n" + folded("the whole rehearsal", "\n\n".join(filter(None, detail)))
    )


def pictures(verdict: Verdict) -> str:
    """Name the pictures that change, which lie beside the report."""
    named = [code(path) for path in verdict.changes.pictures]
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return f"Pictures that change: {', '.join(named[:5])}{more}." if named else ""


def provenance(verdict: Verdict) -> str:
    """Say what the image is, who signed it, what it was made from, how it is made again."""
    assert verdict.proposed
    new = verdict.proposed.release
    return "\n".join(
        [
            f"- image: {code(new.image)}; signature: {cell(verdict.signature or 'not looked at')}",
            f"- made by commit {code(new.commit[:12])}, code {code(new.code[:12])}, "
            f"data {code(new.data[:12])}; again by `make reproduce VERSION={new.version}`",
        ]
    )


def effects(verdict: Verdict) -> str:
    """Say what merging does, and how that is undone."""
    proposed = verdict.proposed
    if proposed:
        return release_effect(proposed)
    kinds = [kind for kind in EFFECTS if verdict.changes.of(kind)]
    texts = list(dict.fromkeys(EFFECTS[kind] for kind in kinds))
    return f"**Merging it:** {' '.join(texts)}" if texts else ""


def release_effect(proposed: Proposed) -> str:
    """Say what merging a release does, and how that is undone."""
    where, new, old = proposed.environment, proposed.release.version, proposed.served
    if old is None:
        return (
            f"**Merging it:** Argo CD serves model {new} in {where}, which serves nothing now. "
            "Undo: a pull request with `git revert`."
        )
    return (
        f"**Merging it:** Argo CD serves model {new} in {where}, step by step in place of model "
        f"{old.version}. Undo: `make rollback ENV={where} TO={old.version}`."
    )


def durations(verdict: Verdict) -> str:
    """Write how long each part took."""
    rows = [[part.name, part.outcome, f"{part.seconds:.1f}"] for part in verdict.parts]
    total = sum(part.seconds for part in verdict.parts)
    return table(["part", "", "seconds"], [*rows, ["all", "", f"{total:.1f}"]], right=(2,))


def folded(name: str, text: str) -> str:
    """Fold Markdown away below its title."""
    if not text.strip():
        return ""
    return f"<details><summary>{cell(name)}</summary>\n\n{text.strip()}\n\n</details>"
