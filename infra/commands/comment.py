"""Write the saved plans to `infra/plan.md`, as a comment on a pull request shows them.

Standard library only, as `roots.py`.
"""

import sys

from failures import InfraError, reported
from roots import INFRA, ROOTS, answer, replace_file

MOST = 60_000  # characters; GitHub takes 65,536 in a comment


def text() -> str:
    """Return what each root's plan says. Raises InfraError when there is none."""
    planned = [root for root in ROOTS if (INFRA / root / "planned.tfplan").exists()]
    if not planned:
        raise InfraError("nothing is planned yet: run `make infra-plan` first")
    shown = [(root, answer(root, "show", "-no-color", "planned.tfplan")) for root in planned]
    parts = [f"### infra/{root}\n\n~~~\n{plan.strip()}\n~~~\n" for root, plan in shown]
    whole = "\n".join(parts)
    cut = "\n~~~\n\nThis is not all of it: the job's log has the rest.\n"
    return whole if len(whole) <= MOST else whole[:MOST] + cut


def main() -> int:
    """Write it; return the exit status."""
    return reported(lambda: replace_file(INFRA / "plan.md", text()))


if __name__ == "__main__":
    sys.exit(main())
