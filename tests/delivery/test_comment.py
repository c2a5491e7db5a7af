"""`make comment`: one comment on a pull request, edited in place."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from delivery.__main__ import main
from delivery.commands import comment
from delivery.commands.comment import CUT, LARGEST, MARKER, REPORT
from fake_gh import GitHub, answering
from fake_pipeline import write
from fake_project import Project, kill, make_project
from workspace.machine import this_machine

GOOD, BAD = "# Good\n\nAll is well.\n", "# Bad\n\nLine 3 is not.\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path, monkeypatch)
    made.git("remote", "set-url", "origin", "https://github.com/acme/digits")
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    return answering(project.folder.parent, monkeypatch)


def put(project: Project, report: str, number: int = 7) -> int:
    write(project.folder, REPORT, report)
    return main(["comment", str(number)])


def texts(github: GitHub, number: int = 7) -> list[str]:
    return [each["body"] for each in github.read("comments") if each["about"] == number]


def ours(report: str) -> str:
    return f"{MARKER}\n{report}"


def test_a_second_report_takes_the_place_of_the_first(project: Project, github: GitHub) -> None:
    assert put(project, BAD) == put(project, GOOD) == put(project, GOOD) == 0
    assert texts(github) == [ours(GOOD)]
    assert github.writes() == ["POST", "PATCH"], "the same text is not written again"
    assert put(project, BAD, 8) == 0
    assert texts(github) == [ours(GOOD)] and texts(github, 8) == [ours(BAD)]


def test_in_ci_it_leads_to_the_run_however_long_it_is(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_RUN_ID", "42")
    for report in (GOOD, "x\n" * LARGEST):
        assert put(project, report) == 0
        (text,) = texts(github)
        assert text.endswith("](https://github.com/acme/digits/actions/runs/42)\n")
        assert len(text) <= LARGEST
    this_machine.cache_clear()
    monkeypatch.setenv("GITHUB_RUN_ID", "42) [more](https://example.com")
    assert put(project, GOOD) == 0
    assert texts(github) == [ours(GOOD)]


def test_it_is_found_behind_a_hundred_others(project: Project, github: GitHub) -> None:
    said = {"about": 7, "user": None, "author_association": "NONE"}
    github.write(comments=[said | {"id": 1 + each, "body": "Nice"} for each in range(200)])
    assert put(project, BAD) == put(project, GOOD) == 0
    assert texts(github)[200:] == [ours(GOOD)]


@pytest.mark.parametrize("association", ["NONE", "CONTRIBUTOR", "FIRST_TIME_CONTRIBUTOR"])
def test_a_stranger_who_copies_the_marker_gets_no_verdict(
    project: Project, github: GitHub, association: str
) -> None:
    user = {"login": "stranger", "type": "User"}
    copied = {"id": 1, "about": 7, "body": ours(GOOD), "user": user}
    github.write(comments=[copied | {"author_association": association}])
    assert put(project, BAD) == 0
    assert texts(github) == [ours(GOOD), ours(BAD)]


def test_a_person_s_comment_is_edited_in_place_too(project: Project, github: GitHub) -> None:
    github.write(author="User")
    assert put(project, BAD) == put(project, GOOD) == 0
    assert texts(github) == [ours(GOOD)]


def test_two_at_once_leave_one(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked, both found nothing, both wrote: each looks again."""
    write_comment = comment.write

    def both(*arguments: object) -> None:
        monkeypatch.setattr(comment, "write", write_comment)
        assert put(project, BAD) == 0
        write_comment(*arguments)

    monkeypatch.setattr(comment, "write", both)
    write(project.folder, "other.md", GOOD)
    assert main(["comment", "7", "--report", "other.md"]) == 0
    assert texts(github) == [ours(GOOD)]


def test_one_that_the_other_has_removed_is_no_failure(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert put(project, BAD) == 0
    (first,) = github.read("comments")
    github.write(comments=[first, first | {"id": 2}], fails={"DELETE": (404, "Not Found")})
    assert put(project, GOOD) == 0
    assert texts(github)[0] == ours(GOOD)


STEPS = ["GET repos/acme/digits/issues", "POST", "PATCH", "DELETE"]


@pytest.mark.parametrize("step", STEPS)
def test_an_api_that_fails_half_way_is_one_sentence_and_the_next_run_ends_it(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str], step: str
) -> None:
    if step != "POST":
        assert put(project, BAD) == 0
        (first,) = github.read("comments")
        github.write(comments=[first, first | {"id": 2}])
    github.write(fails={step: (502, "Bad Gateway")})
    capfd.readouterr()
    assert put(project, GOOD) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: GitHub does not answer issues/") and "try again" in line
    github.write(fails={})
    assert put(project, GOOD) == 0
    assert texts(github) == [ours(GOOD)]


def test_what_was_killed_before_it_looked_again_is_ended_by_the_next_run(
    project: Project, github: GitHub
) -> None:
    write(project.folder, REPORT, BAD)
    assert kill(project, ["comment", "7"], "delivery.commands.comment.write", "after") == 9
    assert put(project, GOOD) == 0
    assert texts(github) == [ours(GOOD)]


@pytest.fixture
def long_reports() -> Iterator[tuple[str, bool]]:
    line = "| é | " + "x" * 90 + " |\n"
    room = LARGEST - len(ours(""))
    return iter([(line * 1000, True), ("x" * 70_000, True), ("x" * room, False)])


def test_a_report_that_is_too_long_is_cut_with_a_sentence(
    project: Project, github: GitHub, long_reports: Iterator[tuple[str, bool]]
) -> None:
    for report, is_cut in long_reports:
        assert put(project, report) == 0
        (text,) = texts(github)
        assert (CUT in text) == is_cut and len(text) <= LARGEST
        assert report.startswith(text.removeprefix(ours("")).removeprefix(CUT))
        assert len(text) > LARGEST - 200, "no more than needed"


def test_a_job_that_may_not_comment_is_told_what_it_needs(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    github.write(fails={"POST": (403, "Resource not accessible by integration")})
    assert put(project, GOOD) == 1
    assert "see that it has it, and give the job `pull-requests: write` below" in (
        capfd.readouterr().err
    )
    github.write(fails={})
    assert put(project, GOOD, 999) == 1  # which GitHub does not have
    assert "takes no comment on pull request 999 (HTTP 404)" in capfd.readouterr().err
    assert put(project, GOOD) == 0


def test_without_a_report_nothing_is_said(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["comment", "7"]) == 1
    assert "check.md cannot be read: No such file" in capfd.readouterr().err
    assert github.read("calls") == []
