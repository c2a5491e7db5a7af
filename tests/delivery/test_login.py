"""`make login`, and `make propose` where there is nothing or no place to propose."""

import re
from pathlib import Path

import pytest

from delivery.__main__ import main
from fake_gh import WHICH
from fake_pipeline import write, write_outputs
from fake_project import Project, code_sha256, make_project

ECR = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs that print a secret, and one that notes how it was called and with what."""
    programs, found = tmp_path / "bin", tmp_path / "calls"
    secret = "echo of-the-job"
    note = f'{{ echo "$@"; cat; }} >> {found}'
    for name, script in {"aws": secret, "gh": secret, "skopeo": note}.items():
        write(programs, name, f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return found


def pushes_to(project: Project, registry: str) -> None:
    params = project.folder / "params.yaml"
    params.write_text(re.sub(r'registry: "[^"]+"', f'registry: "{registry}"', params.read_text()))


@pytest.mark.parametrize(
    ("registry", "user"), [(f"{ECR}/digits", "AWS"), ("ghcr.io/acme/digits", "token")]
)
def test_a_job_logs_in_with_what_it_has(
    project: Project, calls: Path, registry: str, user: str
) -> None:
    pushes_to(project, registry)
    assert main(["login", "--push"]) == 0
    host = registry.partition("/")[0]
    assert calls.read_text() == f"login --username {user} --password-stdin {host}\nof-the-job"


def test_a_registry_that_a_job_has_nothing_for_is_asked_without(
    project: Project, calls: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for registry in ("registry.example.com/digits", f"{ECR}.example.com/x"):
        pushes_to(project, registry)
        assert main(["login"]) == 0
        assert "is asked as whoever is logged in" in capfd.readouterr().out
    assert not calls.exists(), "no secret goes to a host that is not its own"


def test_a_folder_that_others_do_not_have_is_nowhere_to_push_to(
    project: Project, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["login"]) == 0
    assert main(["login", "--push"]) == 1
    assert "name a registry that all reach, `<host>/<name>`, or a shared folder" in (
        capfd.readouterr().err
    )
    pushes_to(project, f"oci:{tmp_path}/shared")
    assert main(["login", "--push"]) == 0


def test_a_job_without_its_role_or_program_is_told_so(
    project: Project,
    calls: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pushes_to(project, f"{ECR}/digits")
    aws = calls.parent / "bin/aws"
    good = aws.read_text()
    aws.write_text("#!/bin/sh\necho Unable to locate credentials >&2\nexit 253\n")
    assert main(["login"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "error: aws ecr failed (Unable to locate credentials): see that the job has the role or "
        "the token that reads the registry, and run it again"
    )
    aws.write_text(good)
    bare = calls.parent / "bare"
    bare.mkdir()
    (bare / "git").symlink_to(WHICH("git") or "")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(bare))
        assert main(["login"]) == 1
    assert "`aws` is not installed, and a login needs it" in capfd.readouterr().err
    assert main(["login"]) == 0


# -- propose ---------------------------------------------------------------------------------------


def test_a_model_that_main_has_is_not_proposed(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    before = project.branches()
    assert main(["propose"]) == 0
    assert "nothing to propose: main has this model" in capfd.readouterr().out
    assert project.branches() == before


def test_main_may_move_on_while_it_is_trained(project: Project) -> None:
    trained_at = project.git("rev-parse", "HEAD")
    project.commit("Go on")
    project.git("reset", "--quiet", "--hard", trained_at)
    write_outputs(project.folder, 0.98, 0.97, code_sha256())
    state = project.state()
    assert main(["propose"]) == 0
    branch = f"training/{trained_at[:12]}"
    assert project.git("rev-parse", f"{branch}^", folder=project.origin) == trained_at
    assert project.state() == state, "the checkout stays as it is"
    project.git("checkout", "--quiet", "--force", "main")
    project.git("clean", "--quiet", "--force")
    project.merge(branch)
    assert '"accuracy": 0.98' in project.show("main", "metrics.json")


def test_a_commit_that_main_does_not_have_is_merged_first(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.git("commit", "--quiet", "--allow-empty", "-m", "Only here")
    write_outputs(project.folder, 0.98, 0.97, code_sha256())
    assert main(["propose"]) == 1
    assert "which is trained here: merge it first, or commit what was trained on" in (
        capfd.readouterr().err
    )
    project.git("push", "--quiet", "origin", "main")
    assert main(["propose"]) == 0


@pytest.mark.parametrize("index", ["--no-sparse-index", "--sparse-index"])
def test_what_a_sparse_checkout_leaves_out_is_not_taken_away(project: Project, index: str) -> None:
    for path in ("docs/long.md", "docs/\u00fcber.md", "site/page.html", "src/old.py"):
        write(project.folder, path, "now\n")
    project.commit("Write")
    project.git("sparse-checkout", "set", index, "src", "serving")
    assert not (project.folder / "docs").exists()
    write_outputs(project.folder, 0.98, 0.97, code_sha256())
    write(project.folder, "site/page.html", "then\n")
    (project.folder / "src/old.py").unlink()
    state = project.state()
    assert main(["propose"]) == 0
    assert project.state() == state
    branch = f"training/{project.git('rev-parse', 'HEAD')[:12]}"
    changes = ("diff", "--name-status", "--no-renames", "main", branch)
    changed = project.git(*changes, folder=project.origin).splitlines()
    assert "M\tmetrics.json" in changed and "M\tsite/page.html" in changed
    assert [line for line in changed if line.startswith("D")] == ["D\tsrc/old.py"]


def test_another_training_of_the_same_commit_is_proposed_once_the_first_is_closed(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    for accuracy in (0.98, 0.98, 0.99):
        write_outputs(project.folder, accuracy, 0.97, code_sha256())
        assert main(["propose"]) == (accuracy == 0.99)
    message = capfd.readouterr().err
    assert "exists and proposes something else" in message
    _, close = re.findall("`([^`]+)`", message)
    project.git(*close.split()[1:])
    assert main(["propose"]) == 0
