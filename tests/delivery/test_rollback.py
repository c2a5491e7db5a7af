from pathlib import Path

import pytest

import fake_pipeline
from delivery.__main__ import main
from delivery.commands.rollback import run as rollback
from delivery.proposals.release_file import parse_release
from fake_project import Project, make_project

PATH = "argocd/environments/staging/model.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project that released versions 1, 2 and 3 to staging."""
    project = make_project(tmp_path, monkeypatch)
    for version in (1, 2, 3):
        project.deploy("staging", version)
    return project


def serving(project: Project) -> int:
    return parse_release(project.show("main", PATH), PATH).version


def texts(project: Project) -> dict[int, str]:
    """Return every release file that main ever had, by version."""
    commits = project.git("log", "--first-parent", "--format=%H", "--", PATH).split()
    shown = [project.show(commit, PATH) for commit in commits]
    return {parse_release(text, PATH).version: text for text in shown}


def test_a_rollback_restores_the_earlier_file_byte_for_byte(project: Project) -> None:
    state = project.state()
    rollback(project.repository, "staging")
    branch = "rollback/staging-v3-to-v2"
    assert project.show(branch, PATH) == texts(project)[2]
    assert project.git("diff", "--name-only", f"main..{branch}", folder=project.origin) == PATH
    assert project.state() == state


def test_a_rollback_to_a_chosen_version(project: Project) -> None:
    rollback(project.repository, "staging", 1)
    assert project.show("rollback/staging-v3-to-v1", PATH) == texts(project)[1]


def test_history_only_grows(project: Project) -> None:
    before = set(project.git("rev-list", "main").split())
    rollback(project.repository, "staging")
    project.merge("rollback/staging-v3-to-v2")
    assert before < set(project.git("rev-list", "main").split())
    assert serving(project) == 2


def test_a_second_rollback_goes_further_back(project: Project) -> None:
    rollback(project.repository, "staging")
    project.merge("rollback/staging-v3-to-v2")
    rollback(project.repository, "staging")
    project.merge("rollback/staging-v2-to-v1")
    assert serving(project) == 1


def test_after_a_rollback_and_a_release_it_returns_to_what_was_good(project: Project) -> None:
    rollback(project.repository, "staging")
    project.merge("rollback/staging-v3-to-v2")
    project.deploy("staging", 4)
    rollback(project.repository, "staging")
    assert "rollback/staging-v4-to-v2" in project.branches()


def test_a_revert_that_git_made_counts_as_history(project: Project) -> None:
    project.git("revert", "--no-edit", "HEAD")
    project.git("push", "--quiet", "origin", "main")
    assert serving(project) == 2
    rollback(project.repository, "staging")
    assert "rollback/staging-v2-to-v1" in project.branches()


def test_what_was_only_on_a_branch_never_served(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.git("checkout", "--quiet", "-b", "release/staging-v4")
    for version in (9, 4):  # a slip, put right in the same pull request
        text = project.show("main", PATH).replace('version: "3"', f'version: "{version}"')
        fake_pipeline.write(project.folder, PATH, text)
        project.git("commit", "--quiet", "--all", "-m", f"Release {version}")
    project.git("push", "--quiet", "origin", "release/staging-v4")
    project.git("checkout", "--quiet", "main")
    project.merge("release/staging-v4")
    assert main(["rollback", "staging", "--to", "9"]) == 1
    assert "(in its history: 1, 2, 3, 4)" in capsys.readouterr().err


def test_a_rollback_of_the_rollback(project: Project) -> None:
    rollback(project.repository, "staging")
    project.merge("rollback/staging-v3-to-v2")
    rollback(project.repository, "staging", 3)
    project.merge("rollback/staging-v2-to-v3")
    assert serving(project) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["qa"], "there is no environment 'qa': give ENV=production or ENV=staging"),
        (["production"], "production has no release: there is nothing to roll back"),
        (["staging", "--to", "3"], "staging already serves model 3"),
        (["staging", "--to", "9"], "never had model 9 to go back to (in its history: 1, 2, 3)"),
    ],
    ids=["unknown environment", "no release", "current version", "unknown version"],
)
def test_a_rollback_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    state, branches = project.state(), project.branches()
    assert main(["rollback", *arguments]) == 1
    assert sentence in capsys.readouterr().err
    assert (project.state(), project.branches()) == (state, branches)


def test_the_first_release_has_nothing_before_it(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    rollback(project.repository, "staging", 1)
    project.merge("rollback/staging-v3-to-v1")
    assert main(["rollback", "staging"]) == 1
    assert "never had an earlier release to go back to" in capsys.readouterr().err


def test_an_unreadable_release_in_the_past_is_passed_over(project: Project) -> None:
    good = project.show("main", PATH)
    fake_pipeline.write(project.folder, PATH, "half a merge\n")
    project.commit("Break the release file")
    fake_pipeline.write(project.folder, PATH, good)
    project.commit("Repair it")
    rollback(project.repository, "staging")
    assert "rollback/staging-v3-to-v2" in project.branches()
