"""Judge a pull request by what it changes: one verdict, one report."""

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

from delivery.checks.changes import Changes, read_changes
from delivery.checks.judge import Bench, Verdict, judge
from delivery.checks.report import report
from delivery.checks.witnesses import Witnesses
from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, Repository
from delivery.proposals.github import reached_github
from delivery.proposals.health import newest_word
from workspace.files import write
from workspace.markdown import cell

REPORT = Path(".local/reports/check.md")
PICTURES = REPORT.with_name("pictures")
LONGEST = 100  # signs of a path that its file's name repeats, the last
ARGUMENTS = {
    "--base": {"default": f"{REMOTE}/{BRANCH}", "help": "what it would be merged into"},
    "--head": {"default": "HEAD", "help": "what is judged; default: the commit checked out"},
    "--report": {"type": Path, "default": REPORT, "dest": "path", "help": f"default: {REPORT}"},
}


def run(
    repository: Repository, base: str, head: str, path: Path = REPORT, bench: Bench | None = None
) -> None:
    """Judge what merging `head` into `base` would change. Raises DeliveryError for a refusal."""
    try:
        changes = read_changes(repository, base, head)
    except DeliveryError as error:  # no report of an earlier run may be taken for this one's
        write(path, f"# Not judged\n\n{cell(error)}\n")
        raise
    with tempfile.TemporaryDirectory(prefix="check-") as work:
        verdict = judge(changes, Path(work).resolve(), bench or Bench(asked(repository)))
    write(path, report(verdict))
    keep_pictures(changes)
    conclude(verdict, path)


def keep_pictures(changes: Changes) -> None:
    """Lay the pictures that change beside the report, in its order, where CI takes them from.

    No path, which others gave, keeps a file system or CI from taking all of them.
    """
    shutil.rmtree(PICTURES, ignore_errors=True)
    for number, (path, content) in enumerate(changes.pictures.items(), 1):
        name = re.sub(r"[^\w.-]", "-", path, flags=re.ASCII)[-LONGEST:]
        write(PICTURES / f"{number}-{name}", content)


def asked(repository: Repository) -> Witnesses:
    """Return whom a check asks: GitHub for commit statuses, where gh reaches it."""
    github = reached_github(repository)
    return Witnesses(health=partial(newest_word, github)) if github else Witnesses()


def conclude(verdict: Verdict, path: Path) -> None:
    """Print what passed, or raise DeliveryError with everything that did not."""
    without = [each for part in verdict.parts for each in part.without]
    for each in without:
        print(each)
    if verdict.judges:
        print(f"it changes what judges pull requests, which an owner reviews: {verdict.judges[0]}")
    if not verdict.passed:
        wrong = [*map(str, verdict.findings), *verdict.undone]
        word = "refused" if verdict.findings else "not judged"
        raise DeliveryError(f"{word} (report: {path})", *(f"  - {each}" for each in wrong))
    parts = ", ".join(part.name for part in verdict.parts) or "nothing to judge"
    print(f"passed: {parts} (report: {path})")
