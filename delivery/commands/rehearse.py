"""`make rehearse`: a release served before its merge, by the real Triton, as its manifests say.

Writes one Markdown report for the people who review the release.
"""

import tempfile
from pathlib import Path

from delivery.checks.rehearsal import Check, Rehearsal, rehearse
from delivery.checks.rehearsal_report import report
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.releases import check_environment
from workspace.errors import sentence
from workspace.files import write

REPORTS = Path(".local/rehearsals")

ARGUMENTS = {
    "environment": {},
    "--image": {"help": "rehearse this model image instead of the release's"},
    "--report": {
        "type": Path,
        "dest": "path",
        "help": "default: .local/rehearsals/<environment>.md",
    },
}


def run(repository: Repository, environment: str, image: str | None, path: Path | None) -> None:
    """Rehearse, write the report, and fail unless everything passed."""
    commit = repository.head()
    check_environment(repository, commit, environment)
    rehearsal = Rehearsal(f"{environment} at {commit[:12]}", environment)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        try:
            base = repository.fetch()
            rehearse(rehearsal, repository, base, commit, image, Path(folder))
        except Exception as error:  # what is rehearsed was written by somebody else
            rehearsal.checks.append(Check("the release can be served", False, sentence(error)))
    path = path or REPORTS / f"{environment}.md"
    write(path, report(rehearsal))
    if rehearsal.failed:
        first = rehearsal.failed[0]
        raise DeliveryError(f"{first.name}: {first.detail} (report: {path})")
    change = rehearsal.rival.change if rehearsal.rival else ""
    breaks = f"; clients must change: {change}" if change else ""
    print(f"rehearsed {rehearsal.title}: every check passed{breaks} (report: {path})")
