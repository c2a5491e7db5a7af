"""Commit statuses `<environment>/healthy`, as `make promote` believes them."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from delivery.__main__ import main
from delivery.manifests.cluster import UnknownError
from delivery.proposals.health import MOST, told_health
from fake_gh import GitHub, answering
from fake_project import Project, make_project

CONTEXT = "staging/healthy"
BRANCH = "release/production-v1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with model 1 in staging, and no cluster that this machine may ask."""

    def unknown(*_: object) -> None:
        raise UnknownError("no cluster here")

    monkeypatch.setattr("delivery.commands.promote.standing", unknown)
    made = make_project(tmp_path, monkeypatch)
    made.deploy("staging", 1)
    # fetched and pushed as before, and GitHub's by its address
    made.git("config", f"url.{made.origin}.pushInsteadOf", str(made.origin))
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    project.serve_as("git@github.com:acme/digits.git")
    return answering(project.folder.parent, monkeypatch)


def tell(github: GitHub, commit: str, state: str, hour: int, context: str = CONTEXT) -> None:
    status = {
        "context": context,
        "state": state,
        "createdAt": f"2026-11-20T{hour:02}:00:00Z",
        "description": f"it is {state.lower()}",
    }
    known = github.read("statuses")
    github.write(statuses=known | {commit: [*known.get(commit, []), status]})


def tip(project: Project) -> str:
    return project.git("rev-parse", "HEAD")


def health(project: Project) -> tuple[bool, int] | None:
    found = told_health(project.repository, tip(project), "staging")
    return (found.healthy, found.since.hour) if found else None


def test_what_staging_serves_well_is_promoted_without_a_doubt(
    project: Project, github: GitHub
) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    project.commit("Change something else")
    assert main(["promote"]) == 0
    (pull,) = github.read("pulls")
    assert pull["--head"] == BRANCH
    assert "not known" not in project.git("log", "-1", "--format=%B", BRANCH, folder=project.origin)


@pytest.mark.parametrize("state", ["FAILURE", "ERROR", "PENDING"])
def test_what_is_not_well_is_not_promoted_until_it_is(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str], state: str
) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    tell(github, tip(project), state, 9)
    assert main(["promote"]) == 1
    assert f"staging does not serve model 1: its status says it is {state.lower()}" in (
        capfd.readouterr().err
    )
    assert BRANCH not in project.branches() and github.read("pulls") == []
    tell(github, tip(project), "SUCCESS", 10)
    assert main(["promote"]) == 0


def test_the_newest_word_holds_and_since_when(project: Project, github: GitHub) -> None:
    assert health(project) is None
    first = tip(project)
    tell(github, first, "SUCCESS", 8)
    assert health(project) == (True, 8)
    project.commit("Something else")
    assert health(project) == (True, 8)
    tell(github, tip(project), "SUCCESS", 9)
    assert health(project) == (True, 8), "nobody said otherwise in between"
    tell(github, first, "FAILURE", 10)
    assert health(project) == (False, 10), "on whatever commit"
    project.commit("More")
    tell(github, tip(project), "SUCCESS", 11)
    assert health(project) == (True, 11)


def test_what_was_said_of_the_release_before_does_not_count(
    project: Project, github: GitHub
) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    project.deploy("staging", 2)
    tell(github, tip(project), "SUCCESS", 9, "production/healthy")
    assert health(project) is None
    project.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    project.git("commit", "--quiet", "--allow-empty", "-m", "Beside")
    tell(github, tip(project), "SUCCESS", 9)
    project.git("checkout", "--quiet", "main")
    project.git("merge", "--quiet", "--no-ff", "side", "-m", "Merge")
    assert health(project) is None, "that commit had the release before"
    tell(github, tip(project), "FAILURE", 10)
    assert health(project) == (False, 10)


def test_more_commits_than_a_query_asks_of(project: Project, github: GitHub) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    for _ in range(MOST):
        project.git("commit", "--quiet", "--allow-empty", "-m", "More")
    assert health(project) == (True, 8)
    assert len(github.writes()) == 2, "each query asks of a hundred"


def test_where_nobody_tells_the_approver_judges_unless_the_project_wants_to_know(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("release: {", "release: {require_healthy: true, "))
    project.commit("Want to know")
    assert main(["promote"]) == 1
    message = capfd.readouterr().err
    assert "nor by a commit status `staging/healthy`: wait for the status, or set" in message
    assert github.read("pulls") == []
    params.write_text(params.read_text().replace("require_healthy: true", "require_healthy: false"))
    project.commit("Do without")
    assert main(["promote"]) == 0
    assert "Whether staging serves model 1 is not known here (no cluster here)" in project.git(
        "log", "-1", "--format=%B", BRANCH, folder=project.origin
    )


def test_a_github_that_answers_nonsense_promotes_nothing(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    answers = (502, "Bad Gateway"), '{"data": {"repository": {"c0": 1}}}', "<html>", '{"data": {}}'
    for fails in answers:
        github.write(fails={"POST graphql": fails})
        assert main(["promote"]) == 1
        (line,) = capfd.readouterr().err.splitlines()
        assert re.search("the status staging/healthy .*try again$", line)
    assert BRANCH not in project.branches()
    github.write(fails={})
    assert main(["promote"]) == 0


# -- promoted by itself ----------------------------------------------------------------------------


def soaked(project: Project, capfd: pytest.CaptureFixture[str]) -> str:
    """What `make promote SOAKED=1` prints, which fails for no reason of these."""
    capfd.readouterr()
    assert main(["promote", "--soaked"]) == 0
    return capfd.readouterr().out


def test_what_staging_served_well_for_long_enough_is_proposed_once(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("release: {", "release: {soak: 24, "))
    project.commit("Let staging serve for a day")
    assert "no status `staging/healthy` says that model 1 is well" in soaked(project, capfd)
    now = datetime.now(UTC)
    for hours in (23, 25):
        status = {"context": CONTEXT, "state": "SUCCESS", "description": "well"}
        status |= {"createdAt": (now - timedelta(hours=hours)).isoformat()}
        github.write(statuses={tip(project): [status]})
        said = soaked(project, capfd)
    assert [each["--head"] for each in github.read("pulls")] == [BRANCH]
    assert "pull request: https://github.com/acme/digits/pull/1" in said
    project.commit("Go on")
    assert "proposed before: https://github.com/acme/digits/pull/1" in soaked(project, capfd)
    github.write(pulls=[each | {"state": "closed"} for each in github.read("pulls")])
    project.git("push", "--quiet", "origin", f":{BRANCH}")
    assert "proposed before" in soaked(project, capfd), "a person has said no"


def test_too_early_is_said_in_hours(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("release: {", "release: {soak: 1e6, "))
    project.commit("Wait for long")
    tell(github, tip(project), "SUCCESS", 8)
    assert re.search(
        r"nothing to promote: staging has served model 1 for [\d.]+ of 1e\+06 hours",
        soaked(project, capfd),
    )
    tell(github, tip(project), "FAILURE", 9)
    assert "no status `staging/healthy` says" in soaked(project, capfd)
    assert github.read("pulls") == []


def test_what_production_had_or_is_ahead_of_is_a_persons_decision(
    project: Project, github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    tell(github, tip(project), "SUCCESS", 8)
    project.deploy("production", 1)
    assert "nothing to promote: production has or had model 1" in soaked(project, capfd)
    project.deploy("staging", 2)
    project.deploy("production", 2)
    project.deploy("staging", 1)
    assert "staging has nothing newer than production" in soaked(project, capfd)
    project.deploy("staging", 2)
    project.deploy("production", 1)
    tell(github, tip(project), "SUCCESS", 9)
    assert "production has or had model 2" in soaked(project, capfd), "it was taken back there"
    assert github.read("pulls") == []
