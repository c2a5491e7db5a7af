"""The causes that show that the cluster's tests can fail: they are there to be put back."""

import re
import shutil
from pathlib import Path

import pytest

import put_back
from conftest import TEMPLATE
from put_back import Cause, causes

CAUSES = {each.name: each for each in causes()}


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_a_cause_can_be_put_back(cause: Cause, tmp_path: Path) -> None:
    for change in cause.changes:
        copy = tmp_path / change.file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copy(TEMPLATE / change.file, copy)
        change.make(tmp_path)
    assert cause.changes


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_the_tests_of_a_cause_are_there(cause: Cause) -> None:
    for test in cause.tests:
        file, _, name = test.partition("::")
        text = (TEMPLATE / "tests/cluster" / file).read_text()
        assert f"def {name.partition('[')[0]}(" in text


def test_the_page_about_clusters_has_every_cause() -> None:
    section = (TEMPLATE / "docs/cluster.md").read_text().partition("## What they fail by\n")[2]
    rows = re.findall(r"(?m)^\| (.+?) \| (.+?) \|", section.partition("\n## ")[0])
    listed = {cause: re.findall(r"`(test_\w+)`", tests) for cause, tests in rows[1:]}
    assert listed == {
        name: list(dict.fromkeys(re.findall(r"::(test_\w+)", " ".join(cause.tests))))
        for name, cause in CAUSES.items()
    }


REPORT = """<testsuites><testsuite>
<testcase classname="tests.cluster.test_one" name="test_a[x]"><failure message="wrong"/></testcase>
<testcase classname="tests.cluster.test_one" name="test_a[y]">{}</testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(
    ("other", "failed"),
    [("<error message='also wrong'/>", True), ("<error message='no server'/>", False), ("", False)],
    ids=["by it", "by something else", "not"],
)
def test_every_case_of_a_test_has_to_fail_by_the_cause(
    tmp_path: Path, other: str, failed: bool
) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(other))
    found = put_back.results(report)
    cause = Cause("a cause", ["test_one.py::test_a"], "wro?ng", [])
    assert put_back.judge(cause, found) is failed


def test_a_test_that_did_not_run_did_not_fail(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(""))
    cause = Cause("a cause", ["test_two.py::test_b"], "", [])
    assert not put_back.judge(cause, put_back.results(report))
