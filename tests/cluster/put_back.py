"""Show that the cluster's tests can fail: `put_back.py [part of a cause's name] ...`; all, if none.

Each is put back by itself, in a copy of the newest commit, and the tests that it is to fail are run
there, on a cluster of their own. Ends with 0 when every one of these tests failed by it.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
TEMPLATE = HERE.parents[1]
FILE = HERE / "causes.toml"
SHORT = 300  # of a message, which goes on with what a person would look at on the cluster
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
    """A cause, and the tests that fail by it: `<file>::<test>`, without `[...]` for all of it.

    What each of them says of it has the regular expression `says`.
    """

    name: str
    tests: list[str]
    says: str
    changes: list[Change]


def causes() -> list[Cause]:
    """Every cause of `causes.toml`."""
    table = tomllib.loads(FILE.read_text())
    return [
        Cause(**entry | {"name": name, "changes": [Change(**each) for each in entry["changes"]]})
        for name, entry in table.items()
    ]


def put_back(cause: Cause, root: Path) -> dict[str, str]:
    """Run the tests of a cause in a copy that has it; why each failed, or nothing."""
    for change in cause.changes:
        change.make(root)
    name, pattern, shorter = PATIENCE
    (root / name).write_text(re.sub(pattern, shorter, (root / name).read_text()))
    (root / ".cache").symlink_to(TEMPLATE / ".cache")
    report = root / "report.xml"
    tests = [f"tests/cluster/{test}" for test in cause.tests]
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
    """Print what became of the tests of a cause; whether all of them failed by it."""
    print(f"\n{cause.name}")
    of_cause = {
        name: " ".join(why.split())[:SHORT]
        for name, why in found.items()
        if any(name == test or name.startswith(f"{test}[") for test in cause.tests)
    }
    by_it = {name: bool(why and re.search(cause.says, why)) for name, why in of_cause.items()}
    for name, why in of_cause.items():
        judged = "" if by_it[name] else "FAILED BY SOMETHING ELSE: " if why else "DID NOT FAIL"
        print(f"    {name}: {judged}{why}", flush=True)
    return bool(by_it) and all(by_it.values())


def main(names: list[str]) -> int:
    """Put causes back, and return the exit status."""
    chosen = [each for each in causes() if not names or any(name in each.name for name in names)]
    if not chosen:
        print(f"no cause in {FILE} has {' or '.join(names)} in its name", file=sys.stderr)
        return 2
    failed = []
    for cause in chosen:
        with copy_of_the_newest_commit() as root:
            failed.append(judge(cause, put_back(cause, root)))
    return 0 if all(failed) else 1


@contextmanager
def copy_of_the_newest_commit() -> Iterator[Path]:
    """A checkout to change, as long as the context lasts."""
    git = ["git", "-C", str(TEMPLATE), "worktree"]
    with tempfile.TemporaryDirectory(prefix="put-back-") as folder:
        root = Path(folder) / "template"
        subprocess.run([*git, "add", "--quiet", "--detach", str(root), "HEAD"], check=True)
        try:
            yield root
        finally:
            subprocess.run([*git, "remove", "--force", str(root)], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
