"""The Markdown of a rehearsal, for the people who review the release."""

from delivery.checks.rehearsal import Check, Rehearsal
from delivery.model.replay import OUTCOMES, Replay
from delivery.proposals.texts import describe_change
from workspace.markdown import block, cell, cut, table

MARKS = {True: "passed", False: "**FAILED**"}
LONGEST_DIFF = 300  # lines of the manifests' difference that a comment can hold


def report(rehearsal: Rehearsal) -> str:
    """Write the report as Markdown."""
    verdict = "FAILED: do not merge" if rehearsal.failed else "passed"
    parts = [f"# Rehearsal of {rehearsal.title}: {verdict}", checks(rehearsal.checks)]
    if rehearsal.candidate:
        change = describe_change(rehearsal.candidate, rehearsal.champion, rehearsal.rival)
        parts += ["## Release", change]
    if rehearsal.champion and rehearsal.replay:
        parts += [f"## Clients of model {rehearsal.champion.version}", clients(rehearsal.replay)]
    parts += rehearsal.notes
    if rehearsal.speeds:
        parts += ["## Speed on one machine in one run", speeds(rehearsal)]
    if rehearsal.difference:
        parts += ["## What the merge changes in the cluster", changes(rehearsal.difference)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def checks(made: list[Check]) -> str:
    """Write a table of checks."""
    rows = [(each.name, MARKS[each.passed], cell(each.detail)) for each in made]
    return table(["check", "", ""], rows)


def clients(made: Replay) -> str:
    """Write who would break: a line for each class of whose requests not all are as before."""
    head = ["golden requests of class", "sent", *OUTCOMES]
    rows = [
        [cell(name), made.requests[name], *(counted[each] for each in OUTCOMES)]
        for name, counted in sorted(made.outcomes.items())
        if counted[""] < made.requests[name]
    ]
    return f"{cell(made)}.\n\n{table(head, rows, right=range(1, len(head))) if rows else ''}"


def speeds(rehearsal: Rehearsal) -> str:
    """Write a table of latencies and throughput, a line for each load and model."""
    models = [model for model in (rehearsal.candidate, rehearsal.champion) if model]
    rows = []
    for load, measured in rehearsal.speeds:
        name = f"{load.protocol}, {load.clients} client(s), {load.batch} picture(s) each"
        for model, speed in zip(models, measured, strict=False):
            latencies = [f"{speed.percentile(share):.1f}" for share in (50, 95, 99)]
            rows.append([name, model.version, *latencies, f"{speed.throughput:.0f}"])
    head = ["load", "model", "p50 ms", "p95 ms", "p99 ms", "pictures/s"]
    return table(head, rows, right=range(1, len(head)))


def changes(difference: str) -> str:
    """Write a diff, cut where it would not fit into a comment."""
    return block(cut(difference, LONGEST_DIFF), "diff")
