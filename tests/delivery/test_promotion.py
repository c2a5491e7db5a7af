import re
from pathlib import Path

import pytest

from delivery.__main__ import main
from delivery.commands.promote import run as promote
from fake_project import Project, kill, make_project

STAGING = "argocd/environments/staging/model.yaml"
PRODUCTION = "argocd/environments/production/model.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


def test_production_gets_stagings_file_byte_for_byte(project: Project) -> None:
    project.deploy("staging", 1)
    state = project.state()
    promote(project.repository)
    branch = "release/production-v1"
    assert project.show(branch, PRODUCTION) == project.show("main", STAGING)
    changed = project.git("diff", "--name-only", f"main..{branch}", folder=project.origin)
    assert changed == PRODUCTION
    assert project.state() == state


def test_a_dirty_tree_does_not_matter_as_only_git_is_read(project: Project) -> None:
    project.deploy("staging", 1)
    (project.folder / STAGING).write_text("half-edited")
    promote(project.repository)
    assert project.show("release/production-v1", PRODUCTION) == project.show("main", STAGING)


def test_promoting_twice_opens_one_branch(project: Project) -> None:
    project.deploy("staging", 1)
    promote(project.repository)
    branches = project.branches()
    promote(project.repository)
    assert project.branches() == branches


def test_production_may_skip_versions(project: Project) -> None:
    project.deploy("staging", 1)
    project.deploy("production", 1)
    project.deploy("staging", 2)
    project.deploy("staging", 3)
    promote(project.repository)
    assert "release/production-v3" in project.branches()


STEPS = {
    "commit": "delivery.git.Repository.commit_file",
    "branch": "delivery.git.Repository.push_new_branch",
    "pull request": "delivery.proposals.proposal.open_pull_request",
}
COMMANDS = {
    "promote": (["promote"], "release/production-v2"),
    "rollback": (["rollback", "staging"], "rollback/staging-v2-to-v1"),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize(("command", "branch"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_killed_command_leaves_all_or_nothing(
    project: Project, command: list[str], branch: str, step: str, when: str
) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    state, before = project.state(), project.branches()
    assert kill(project, command, step, when) == 9
    assert project.state() == state
    left = project.branches()
    assert left in (before, before | {branch: left.get(branch)})
    assert main(command) == 0
    assert left.get(branch) in (None, project.branches()[branch]), "it was made once"


def refusal(capsys: pytest.CaptureFixture[str], project: Project) -> str:
    state, branches = project.state(), project.branches()
    capsys.readouterr()
    assert main(["promote"]) == 1
    assert (project.state(), project.branches()) == (state, branches)
    return capsys.readouterr().err


def test_nothing_in_staging(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert "staging has no release: `make release`, and merge it first" in refusal(capsys, project)
    assert main(["release"]) == 0
    project.merge("release/staging-v1")
    promote(project.repository)


def test_nothing_new_in_staging(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.deploy("staging", 1)
    promote(project.repository)
    project.merge("release/production-v1")
    assert "production already has what staging has" in refusal(capsys, project)


def test_a_promotion_does_not_go_back(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    project.deploy("production", 2)
    project.deploy("staging", 1)
    assert "the older one was never there to go back to" in refusal(capsys, project)
    project.deploy("production", 1)
    project.deploy("production", 2)
    assert "`make rollback ENV=production TO=1` goes back" in refusal(capsys, project)
    assert main(["rollback", "production", "--to", "1"]) == 0
    assert "rollback/production-v2-to-v1" in project.branches()


def test_a_promotion_that_someone_else_proposed_otherwise(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.deploy("staging", 1)
    promote(project.repository)
    project.commit("Move main on")
    message = refusal(capsys, project)
    assert "the branch release/production-v1 exists and proposes something else" in message
    _, close = re.findall("`([^`]+)`", message)
    project.git(*close.split()[1:])
    promote(project.repository)
    project.commit("Move main on again")
    refusal(capsys, project)
    project.merge("release/production-v1")  # or close it, as above
    assert "nothing to promote" in refusal(capsys, project)
