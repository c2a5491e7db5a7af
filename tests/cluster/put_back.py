"""Show that the cluster's tests can fail: `put_back.py [part of a cause's name] ...`; all, if none.

The causes named are put back together, in a copy of the newest commit, and the tests that each of
them is to fail are run there. Ends with 0 when every one of these tests failed.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
TEMPLATE = HERE.parents[1]
FILE = HERE / "causes.toml"
# What fails waits for what never comes, so not for as long as tests that pass may have to.
PATIENCE = ("tests/cluster/kubernetes_api.py", r"(?m)^PATIENCE = \d+", "PATIENCE = 120")


@dataclass(frozen=True)
class Change:
    """A text of a file, which is there so many times, and what it is to be."""

    file: str
    old: str
    new: str
    times: int = 1

    def make(self, root: Path) -> None:
        """Change the file below a checkout. Raises ValueError when the text is not there."""
        file = root / self.file
        text = file.read_text()
        if text.count(self.old) != self.times:
            raise ValueError(f"{self.file} has {self.old!r} not {self.times} times")
        file.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True)
class Cause:
    """A cause, and the tests that fail by it: `<file>::<test>`, without `[...]` for all of it."""

    name: str
    tests: list[str]
    changes: list[Change]


def causes() -> list[Cause]:
    """Every cause of `causes.toml`."""
    table = tomllib.loads(FILE.read_text())
    return [
        Cause(name, entry["tests"], [Change(**each) for each in entry["changes"]])
        for name, entry in table.items()
    ]


def put_back(chosen: list[Cause], root: Path) -> dict[str, str]:
    """Run the tests of causes in a copy with all of them; why each failed, or nothing."""
    for change in (change for cause in chosen for change in cause.changes):
        change.make(root)
    name, pattern, shorter = PATIENCE
    (root / name).write_text(re.sub(pattern, shorter, (root / name).read_text()))
    (root / ".cache").symlink_to(TEMPLATE / ".cache")
    tests = sorted({f"tests/cluster/{test}" for cause in chosen for test in cause.tests})
    report = root / "report.xml"
    command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *tests]
    subprocess.run(command, cwd=root, check=False)
    return results(report)


def results(report: Path) -> dict[str, str]:
    """Why each test of a report failed, by `<file>::<test>`; nothing for one that did not."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        told = [each for kind in ("failure", "error") for each in case.findall(kind)]
        file = case.get("classname", "").rpartition(".")[2]
        message = next((each.get("message") or each.text or "failed" for each in told), "")
        found[f"{file}.py::{case.get('name')}"] = message
    return found


def judge(cause: Cause, found: dict[str, str]) -> bool:
    """Print what became of the tests of a cause; whether all of them failed."""
    print(f"\n{cause.name}")
    of_cause = {
        name: why
        for name, why in found.items()
        if any(name == test or name.startswith(f"{test}[") for test in cause.tests)
    }
    for name, why in of_cause.items():
        print(f"    {name}: {' '.join(why.split())[:200] or 'DID NOT FAIL'}")
    return bool(of_cause) and all(of_cause.values())


def main(names: list[str]) -> int:
    """Put causes back, and return the exit status."""
    chosen = [each for each in causes() if not names or any(name in each.name for name in names)]
    if not chosen:
        print(f"no cause in {FILE} has {' or '.join(names)} in its name", file=sys.stderr)
        return 2
    git = ["git", "-C", str(TEMPLATE), "worktree"]
    with tempfile.TemporaryDirectory(prefix="put-back-") as folder:
        root = Path(folder) / "template"
        subprocess.run([*git, "add", "--quiet", "--detach", str(root), "HEAD"], check=True)
        try:
            found = put_back(chosen, root)
        finally:
            subprocess.run([*git, "remove", "--force", str(root)], check=True)
    failed = [judge(cause, found) for cause in chosen]
    return 0 if all(failed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
