"""`make image` with programs that stand in for the builders: they note what they were told."""

import re
from pathlib import Path

import pytest

from conftest import UNBAKED
from delivery.__main__ import main
from fake_project import Project, make_project

DIGEST = f"sha256:{'d' * 64}"
# Answers where it is told to: with a digest, or with JSON as docker does.
BUILDER = """#!/bin/sh
echo "${0##*/} $* $SOURCE_DATE_EPOCH" >> "$COMMANDS"
echo progress
while [ $# -gt 0 ]; do
    case $1 in
        --digestfile) printf %s "$ANSWER" > "$2" ;;
        --metadata-file) printf '{"containerimage.digest": "%s"}' "$ANSWER" > "$2" ;;
    esac
    shift
done
exit "${STATUS:-0}"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("COMMANDS", str(tmp_path / "commands"))
    monkeypatch.setenv("ANSWER", DIGEST)
    return make_project(tmp_path, monkeypatch)


@pytest.fixture(params=["docker", "podman", "buildah"])
def builder(
    request: pytest.FixtureRequest,
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The only builder on this machine."""
    program = tmp_path / "bin" / request.param
    program.parent.mkdir()
    program.write_text(BUILDER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr("shutil.which", lambda name: name if name == request.param else None)
    return request.param


def told(tmp_path: Path) -> list[str]:
    commands = tmp_path / "commands"
    return commands.read_text().splitlines() if commands.exists() else []


def test_the_image_is_named_after_its_commit(
    project: Project, builder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "--push", "registry.example/train"]) == 0
    assert capsys.readouterr().out == f"registry.example/train@{DIGEST}\n"
    commit = project.git("rev-parse", "HEAD")
    first, *others = told(tmp_path)
    assert f"--label org.opencontainers.image.revision={commit}" in first
    assert f"--tag registry.example/train:{commit[:12]}" in first
    assert first.endswith(project.git("log", "-1", "--format=%ct"))
    pushed = "push=true" in first or f"docker://registry.example/train:{commit[:12]}" in others[0]
    assert pushed and first.startswith(builder)


def test_the_server_image_is_named_after_its_parts_whatever_the_commit(
    project: Project, builder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["server-image", "--push", "localhost:5001/server"]) == 0
        (project.folder / "notes").write_text("not committed")
    assert capsys.readouterr().out == f"localhost:5001/server@{DIGEST}\n" * 2
    lines = told(tmp_path)
    assert (
        len(set(re.findall(r"--tag (localhost:5001/server:[0-9a-f]{12}) ", " ".join(lines)))) == 1
    )
    assert all(line.endswith(" 86400") for line in lines)
    plain = builder == "docker" or "--tls-verify=false" in lines[1]
    assert plain, "the registry of a loopback address speaks plain HTTP"
    assert main(["server-image"]) == 0
    assert capsys.readouterr().out == f"localhost/tritonserver-cpu@{DIGEST}\n"


def test_without_a_registry_the_image_stays_here(
    project: Project, builder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image"]) == 0
    assert capsys.readouterr().out == f"localhost/training@{DIGEST}\n"
    assert not any("docker://" in line or "push=true" in line for line in told(tmp_path))


def test_a_build_that_fails(
    project: Project,
    builder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STATUS", "1")
    assert main(["image"]) == 1
    assert f"error: {builder} build" in capsys.readouterr().err


def test_a_builder_that_gives_no_digest(
    project: Project,
    builder: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ANSWER", "latest")
    assert main(["image"]) == 1
    assert "the builder gave no digest but" in capsys.readouterr().err


def test_changes_that_are_not_committed_are_not_built(
    project: Project, builder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.folder / "params.yaml").write_text("seed: 1\n")
    assert main(["image"]) == 1
    assert "the working tree is not what is committed (params.yaml)" in capsys.readouterr().err
    assert told(tmp_path) == []


def test_a_registry_with_a_tag(
    project: Project, builder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["image", "--push", "registry.example/train:1"]) == 1
    assert "is not a registry: give <host>/<name>, without a tag" in capsys.readouterr().err
    assert told(tmp_path) == []


def test_a_machine_without_a_builder(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image"]) == 1
    assert "install buildah or podman or docker" in capsys.readouterr().err


def test_the_image_takes_what_the_pipeline_needs_and_nothing_else() -> None:
    pattern = [
        line for line in (UNBAKED / ".dockerignore").read_text().splitlines() if line[:1] != "#"
    ]
    assert pattern[0] == "*"
    taken = {line.removeprefix("!") for line in pattern if line.startswith("!")}
    missing = {name for name in taken if "*" not in name and not (UNBAKED / name).exists()}
    assert missing <= {"dvc.lock", "data/splits.csv"}, "a name that no file has any more"
    assert not any(name.startswith((".git", "infra", "argocd", ".local")) for name in taken)
    assert ".dvc" not in taken, "a file beside its settings holds secrets"


def test_what_a_refused_build_is_told_to_do_works(
    project: Project, builder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a builder, without the tag, after the commit, and built again."""
    push = ["image", "--push", "registry.example/train"]
    with monkeypatch.context() as without:
        without.setattr("shutil.which", lambda name: None)
        assert main(push) == 1
    assert main(push) == 0
    assert main([*push[:-1], "registry.example/train:1"]) == 1
    assert main(push) == 0
    (project.folder / "params.yaml").write_text("seed: 1\n")
    assert main(push) == 1
    project.commit("Change the seed")
    assert main(push) == 0
    monkeypatch.setenv("ANSWER", "latest")
    assert main(push) == 1
    monkeypatch.setenv("ANSWER", DIGEST)
    assert main(push) == 0
