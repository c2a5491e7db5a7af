"""The order of things that people get wrong: each has its sentence, and what it says works."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fake_pipeline
from conftest import UNBAKED
from delivery.__main__ import main
from delivery.commands.release import run as release
from delivery.dvc import typed_dvc
from fake_project import EXPORT, Project, follow, make_project

DVC = Path(sys.prefix) / "bin/dvc"  # as a person types it: it is not on the PATH
PATH = "argocd/environments/staging/model.yaml"
BRANCH = "release/staging-v1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


def refusal(capfd: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that fails with one sentence; return the sentence."""
    capfd.readouterr()
    assert main(list(command)) == 1
    (sentence,) = [line for line in capfd.readouterr().err.splitlines() if "error: " in line]
    return sentence


# -- Git -------------------------------------------------------------------------------------------


def local_commit(project: Project) -> None:
    project.git("commit", "--quiet", "--allow-empty", "-m", "Only here")


def commit_of_a_colleague(project: Project) -> None:
    project.review("fetch", "--quiet", "origin")
    project.review("reset", "--quiet", "--hard", "origin/main")
    project.review("commit", "--quiet", "--allow-empty", "-m", "Of a colleague")
    project.review("push", "--quiet", "origin", "main")


def test_a_forgotten_push(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    local_commit(project)
    said = refusal(capfd, "release")
    assert said.endswith(": `git push` first, and release again") and "git pull" not in said
    assert follow(said, project) == ["git push"]
    release(project.repository)
    assert BRANCH in project.branches()


def test_a_forgotten_pull(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    commit_of_a_colleague(project)
    said = refusal(capfd, "release")
    assert "git push" not in said
    assert follow(said, project) == ["git pull"]
    release(project.repository)
    assert BRANCH in project.branches()


def test_commits_on_both_sides(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    local_commit(project)
    commit_of_a_colleague(project)
    said = refusal(capfd, "release")
    assert "each lacks commits of the other" in said
    assert follow(said, project) == ["git pull --rebase && git push"]
    release(project.repository)
    assert BRANCH in project.branches()


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ([local_commit], "git push -u origin main"),
        ([commit_of_a_colleague], "git pull origin main"),
        (
            [local_commit, commit_of_a_colleague],
            "git pull --rebase origin main && git push -u origin main",
        ),
    ],
    ids=["ahead", "behind", "both"],
)
def test_a_branch_without_an_upstream(
    project: Project, capfd: pytest.CaptureFixture[str], change: list, cure: str
) -> None:
    project.git("branch", "--unset-upstream", "main")
    for each in change:
        each(project)
    assert follow(refusal(capfd, "release"), project) == [cure]
    release(project.repository)
    assert BRANCH in project.branches()


def test_a_release_from_another_branch(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    project.git("switch", "--quiet", "--create", "better")
    local_commit(project)
    project.git("push", "--quiet", "origin", "better")
    said = refusal(capfd, "release")
    assert "merge what is only here by a pull request" in said
    project.review("fetch", "--quiet", "origin")
    project.review("merge", "--quiet", "--no-edit", "origin/better")
    project.review("push", "--quiet", "origin", "main")
    assert follow(said, project) == ["git switch main && git pull"]
    release(project.repository)
    assert BRANCH in project.branches()


@pytest.mark.parametrize("command", ["release", "promote", "status"])
def test_no_remote(project: Project, capfd: pytest.CaptureFixture[str], command: str) -> None:
    project.git("remote", "remove", "origin")
    origin = project.origin.with_name("new.git")
    project.git("init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    said = refusal(capfd, command)
    assert said == (
        "error: there is no remote named origin: "
        "`git remote add origin <address> && git push -u origin main`"
    )
    follow(said, project, address=str(origin))
    release(project.repository)
    assert project.git("branch", "--list", BRANCH, folder=origin)


def test_a_remote_that_nothing_was_pushed_to(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.git("update-ref", "-d", "refs/heads/main", folder=project.origin)
    said = refusal(capfd, "release")
    assert said == "error: origin has no branch main yet: `git push -u origin main`"
    follow(said, project)
    release(project.repository)
    assert BRANCH in project.branches()


def test_a_remote_that_cannot_be_reached_is_told_from_an_empty_one(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.origin.rename(project.origin.with_name("away.git"))
    assert "git fetch failed: fatal: " in refusal(capfd, "release")


@pytest.mark.parametrize("command", ["release", "promote"])
def test_a_repository_that_git_will_not_read_keeps_gits_own_reason(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    said = refusal(capfd, command)
    assert "dubious ownership" in said and "git init" not in said


def start_again(project: Project, *init: str) -> None:
    """Leave a folder in which Git knows nothing yet, and an empty remote."""
    shutil.rmtree(project.folder / ".git")
    project.git("update-ref", "-d", "refs/heads/main", folder=project.origin)
    if init:
        project.git(*init)


@pytest.mark.parametrize(
    ("init", "steps"),
    [
        ([], "git init --initial-branch=main && git add --all && git commit --message Generate"),
        (["init", "--initial-branch=main"], "git add --all && git commit --message Generate"),
        (
            ["init", "--initial-branch=master"],
            "git add --all && git commit --message Generate && git branch -M main",
        ),
    ],
    ids=["no repository", "no commit", "no commit, other name"],
)
def test_a_folder_that_git_knows_nothing_of(
    project: Project, capfd: pytest.CaptureFixture[str], init: list[str], steps: str
) -> None:
    start_again(project, *init)
    push = "git remote add origin <address> && git push -u origin main"
    assert refusal(capfd, "promote").endswith(f": `{steps} && {push}`")
    said = refusal(capfd, "release")
    assert said == f"error: there is no commit yet in {project.folder}: `{steps}`"
    follow(said, project)
    said = refusal(capfd, "release")
    assert said == f"error: there is no remote named origin: `{push}`"
    follow(said, project, address=str(project.origin))
    release(project.repository)
    assert BRANCH in project.branches()


# -- a conflict in a release file ------------------------------------------------------------------


@pytest.fixture
def outrun(project: Project) -> Project:
    """Return a project whose proposed version 1 conflicts with what was merged meanwhile."""
    release(project.repository)
    project.deploy("staging", 4, project.image(4))
    project.git("fetch", "--quiet", "origin")
    project.git("switch", "--quiet", BRANCH)
    merge = ["git", "merge", "main"]
    assert subprocess.run(merge, cwd=project.folder, capture_output=True).returncode == 1
    assert "<" * 7 in (project.folder / PATH).read_text()
    return project


def released_again(project: Project) -> bool:
    project.train(0.995)  # better than what was merged
    release(project.repository)
    return project.branches().keys() == {"main", "release/staging-v5"}


def test_a_conflict_in_the_working_tree(outrun: Project, capfd: pytest.CaptureFixture[str]) -> None:
    said = refusal(capfd, "release")
    assert f"{PATH} is in conflict: `git merge --abort`, do not resolve it by hand: " in said
    assert "delete the branch and release again" in said and "`make rollback`" in said
    assert len(follow(said, outrun, branch=BRANCH)) == 3
    assert released_again(outrun)


def test_marks_of_a_conflict_that_were_committed(
    outrun: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    outrun.git("commit", "--quiet", "--all", "-m", "Merge main")
    outrun.git("push", "--quiet", "origin", BRANCH)
    said = refusal(capfd, "rehearse", "staging")
    assert "model.yaml is in conflict: do not resolve it by hand: " in said
    follow(said, outrun, branch=BRANCH)
    assert released_again(outrun)


def test_the_pull_request_says_what_to_do_about_a_conflict(outrun: Project) -> None:
    outrun.git("merge", "--abort")
    text = (outrun.folder / ".local/pull-requests/release-staging-v1.md").read_text()
    *_, last = text.strip().splitlines()
    assert "do not resolve it by hand: delete the branch and release again" in last
    follow(last, outrun)
    assert released_again(outrun)


@pytest.mark.parametrize(
    ("command", "branch", "again"),
    [
        (["release"], "release/staging-v3", "`make release`"),
        (["promote"], "release/production-v2", "`make promote`"),
        (
            ["rollback", "staging"],
            "rollback/staging-v2-to-v1",
            "`make rollback ENV=staging TO=1`",
        ),
    ],
    ids=["release", "promote", "rollback"],
)
def test_a_pull_request_names_the_command_that_proposes_it_again(
    project: Project, command: list[str], branch: str, again: str
) -> None:
    for version in (1, 2):
        project.deploy("staging", version, project.image(version))
    assert main(command) == 0
    text = (project.folder / f".local/pull-requests/{branch.replace('/', '-')}.md").read_text()
    assert text.endswith(
        f"`git push origin --delete {branch}`, `git switch main && git pull`, {again}.\n"
    )


# -- data ------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(project: Project) -> Project:
    """Return a project with images of its own, of which DVC keeps the versions."""
    stage = "prepare: {cmd: 'true', deps: [data/raw], outs: [plots/confusion.png]}"
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{stage}, {EXPORT}}}}}\n")
    fake_pipeline.write(project.folder, "data/raw/zero/1.png", b"an image")
    shutil.copy(UNBAKED / ".gitignore", project.folder)
    project.use_dvc()
    project.dvc("commit", "--force")
    project.commit("Read images of our own")
    return project


def test_dvc_is_named_as_a_person_types_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(project.folder / ".venv"))
    assert typed_dvc(project.folder) == ".venv/bin/dvc"
    assert typed_dvc(project.folder.parent / "other") == f"{project.folder}/.venv/bin/dvc"


@pytest.mark.parametrize("command", ["release", "data-push"])
def test_images_that_dvc_does_not_know_yet(
    pictures: Project, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    said = refusal(capfd, command)
    assert f"`{DVC} add data/raw && git add data/raw.dvc && git commit " in said
    follow(said, pictures)
    assert main([command]) == 0
    assert pictures.git("status", "--porcelain") == ""
    kept = [path for path in (pictures.folder / ".local/data").rglob("*") if path.is_file()]
    assert b"an image" in [path.read_bytes() for path in kept]


@pytest.fixture
def colleague(pictures: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return the clone of a colleague, who has no data, of a project with a released model."""
    pictures.dvc("add", "data/raw")
    pictures.commit("Let DVC keep the images")
    release(pictures.repository)
    pictures.merge(BRANCH)
    clone = Project(pictures.reviewer, pictures.origin, pictures.folder)
    clone.git("pull", "--quiet")
    monkeypatch.chdir(clone.folder)
    return clone


@pytest.mark.parametrize("command", [["data-pull"], ["reproduce", "1"]], ids=lambda each: each[0])
def test_a_store_in_a_folder_of_another_machine(
    colleague: Project, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    said = refusal(capfd, *command)
    store = colleague.folder / ".local/data"
    assert f"DVC's store is {store}, a folder that this machine does not have: " in said
    assert f"`{DVC} remote modify --local store url <folder>`" in said
    follow(said, colleague, folder=str(colleague.reviewer / ".local/data"))
    assert main(["data-pull"]) == 0
    capfd.readouterr()
    assert (colleague.folder / "data/raw/zero/1.png").read_bytes() == b"an image"
    assert colleague.git("status", "--porcelain") == ""
    main(command)
    assert "DVC's store" not in capfd.readouterr().err


def test_a_pipeline_without_its_images(
    colleague: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert refusal(capfd, "pipeline").endswith("'source': data/raw: run `make data-pull`")
    follow(refusal(capfd, "data-pull"), colleague, folder=str(colleague.reviewer / ".local/data"))
    assert main(["data-pull"]) == 0
    fake_pipeline.write_outputs(colleague.folder)  # of the stages that this project leaves out
    assert main(["pipeline"]) == 0


@pytest.mark.parametrize("command", [["release"], ["data-push"]], ids=lambda each: each[0])
def test_a_store_in_a_folder_that_cannot_be_made(
    pictures: Project, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    pictures.dvc("add", "data/raw")
    pictures.dvc("remote", "modify", "store", "url", "/dev/null/store")
    pictures.commit("Use a disk of this machine")
    said = refusal(capfd, *command)
    assert "DVC's store is /dev/null/store, a folder that this machine does not have: " in said
    follow(said, pictures, folder=str(pictures.folder.parent / "shared"))
    assert main(command) == 0
    assert (pictures.folder.parent / "shared/files").is_dir()


def test_a_store_that_does_not_answer_is_corrected(
    pictures: Project, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    pictures.dvc("add", "data/raw")
    pictures.dvc("remote", "modify", "store", "url", "s3://nowhere/dvc")
    pictures.commit("Use a store that is not there")
    said = refusal(capfd, "release")
    assert "correct the default remote in .dvc/config or .dvc/config.local, and release" in said
    pictures.dvc("remote", "modify", "store", "url", str(pictures.folder.parent / "shared"))
    pictures.commit("Correct the store")
    assert main(["release"]) == 0


@pytest.mark.parametrize("command", [["release"], ["data-push"]], ids=lambda each: each[0])
def test_no_store(pictures: Project, capfd: pytest.CaptureFixture[str], command: list[str]) -> None:
    pictures.dvc("add", "data/raw")
    pictures.dvc("remote", "remove", "store")
    pictures.commit("Name no store")
    said = refusal(capfd, *command)
    assert (
        f"DVC has no default remote: `{DVC} remote add --force --default store <address> " in said
    )
    follow(said, pictures, address=str(pictures.folder.parent / "shared"))
    assert main(command) == 0
    assert (pictures.folder.parent / "shared/files").is_dir()
