"""Compare runs: commits, branches and what is here, side by side on a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delivery.dvc import dvc
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.model.pipeline_outputs import PLOTS
from reporting import compare_page
from reporting.compare_page import Run
from workspace.errors import shown
from workspace.settings import parse_json

PAGE = Path(".local/reports/compare.html")
HERE = "workspace"  # as DVC calls what is not committed
FILES = {"metrics": "metrics.json", "params": "params.yaml"}
LINEAGE = "lineage.json"

ARGUMENTS = {"runs": {"nargs": "*", "help": "commits, branches or tags; default: HEAD"}}


def run(repository: Repository, runs: list[str]) -> None:
    """Write the page of some runs, and of what is here, and say where it is.

    Raises DeliveryError: there is no such commit, or DVC does not know its figures.
    """
    chosen = list(dict.fromkeys(runs or ["HEAD"]))
    for name in chosen:
        check(repository, name)
    chosen.append(HERE)
    compare_page.write(read(repository, chosen), repository.folder / PAGE)
    print(f"page: {PAGE}")


def check(repository: Repository, name: str) -> None:
    """Refuse what is no commit with a model. Raises DeliveryError."""
    is_commit = not name.startswith("-") and repository.says_yes(
        "rev-parse", "--verify", f"{name}^{{commit}}"
    )
    if not is_commit:
        raise DeliveryError(f"there is no commit {shown(name)}: choose one of `git log --oneline`")
    if repository.read(name, "metrics.json") is None:
        raise DeliveryError(
            f"commit {shown(name)} has no metrics.json: choose one that `make pipeline` came before"
        )


def read(repository: Repository, names: Sequence[str]) -> list[Run]:
    """Read what Git and DVC have of runs; DVC compares each with the first. Raises DvcError."""
    folder, first, found = repository.folder, names[0], []
    for name in names:
        other = [name] if name not in (first, HERE) else []
        side = "old" if name == first else "new"
        metrics, params = (
            differences(folder, kind, first, *other)[side] for kind in ("metrics", "params")
        )
        found.append(Run(*about(repository, name), metrics, params, pictures(repository, name)))
    return found


def differences(folder: Path, kind: str, *commits: str) -> dict[str, dict[str, Any]]:
    """Return all metrics or parameters of two commits, or of one and what is here: old and new.

    Raises DvcError.
    """
    printed = dvc(folder, kind, "diff", "--all", "--json", *commits)
    values = parse_json(printed, f"what dvc {kind} diff says").get(FILES[kind], {})
    return {
        side: {name: each[side] for name, each in values.items() if side in each}
        for side in ("old", "new")
    }


def about(repository: Repository, name: str) -> tuple[str, str, str]:
    """Say of a run what it is called, when and what it was, and on which data it was tested."""
    if name == HERE:
        path = repository.folder / LINEAGE
        content, what = path.read_bytes() if path.is_file() else b"", "what is here now"
    else:
        content = repository.read(name, LINEAGE) or b""
        what = repository.ask("log", "-1", "--format=%as %h %s", name, "--")
    lineage = parse_json(content, LINEAGE) if content else {}
    return name, what, lineage.get("data", {}).get("test_sha256", "")


def pictures(repository: Repository, name: str) -> dict[str, bytes]:
    """Read the plots of a run, which Git keeps."""
    found = {}
    for plot in PLOTS:
        path = repository.folder / plot
        here = path.read_bytes() if path.is_file() else None
        content = here if name == HERE else repository.read(name, plot.as_posix())
        if content:
            found[plot.stem] = content
    return found
