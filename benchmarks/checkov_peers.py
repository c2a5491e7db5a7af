"""What checkov says of this project's Terraform beside two public projects': one table.

    python benchmarks/checkov_peers.py [--peers FOLDER]

The peers' code is not part of this project. Fetch it first, into FOLDER (default `.cache/peers`):

    git clone --depth 1 https://github.com/terraform-aws-modules/terraform-aws-eks
    git clone --depth 1 https://github.com/aws-ia/terraform-aws-eks-blueprints

A peer that is not there is left out, with a message. Modules that a peer takes from a registry are
not fetched, so only its own code is judged; its examples and tests are left out.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
CHECKOV = "checkov==3.3.30"  # the version of tests/test_infra.py
COLUMNS = "{:<58}{:>10}{:>8}{:>8}{:>14}{:>7}"

OURS = TEMPLATE / "<<cookiecutter.project>>" / "infra"
# What of each peer is like ours: its modules, or the pattern for GPU nodes.
PEERS = (
    "terraform-aws-eks",
    "terraform-aws-eks-blueprints/patterns/nvidia-gpu-efa",
)
LEFT_OUT = ("examples", "tests")


def scan(folder: Path) -> dict:
    """Return checkov's report on the Terraform in a folder."""
    command = [sys.executable, "-m", "uv", "tool", "run", "--from", CHECKOV, "checkov"]
    command += ["--framework", "terraform"]
    command += ["--directory", str(folder), "--skip-download", "--output", "json"]
    for name in LEFT_OUT:
        command += ["--skip-path", f"/{name}/"]
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(result.stdout)
    except json.JSONDecodeError:
        sys.exit(f"error: checkov did not report on {folder}: {result.stderr.strip()[-500:]}")


def row(name: str, folder: Path) -> str:
    """Return a line of the table."""
    report = scan(folder)
    summary = report["summary"]
    failed = {check["check_id"] for check in report["results"]["failed_checks"]}
    counts = (summary["resource_count"], summary["passed"], summary["failed"])
    return COLUMNS.format(name, *counts, len(failed), summary["skipped"])


def lines(peers: Path) -> Iterable[str]:
    """Yield the table, and a message for each peer that is absent."""
    yield f"{CHECKOV}, Terraform only"
    yield COLUMNS.format("", "resources", "passed", "failed", "distinct ids", "skips")
    yield row("this project", OURS)
    for name in PEERS:
        if (peers / name).is_dir():
            yield row(name, peers / name)
        else:
            yield f"{name}: left out, not in {peers}; the head of this file says how to fetch it"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=Path, default=TEMPLATE / ".cache" / "peers")
    for line in lines(parser.parse_args().peers):
        print(line, flush=True)


if __name__ == "__main__":
    main()
