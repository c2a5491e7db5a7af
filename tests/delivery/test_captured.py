"""Kept pictures are fetched from the monitor's pods, and asked about before they are data."""

import io
import tarfile
from pathlib import Path

import pytest

from delivery.commands import captured
from delivery.errors import DeliveryError
from delivery.git import Repository
from tiny_project import make_project
from workspace.root import CAPTURED

# Runs what is asked of a pod on a folder here.
KUBECTL = """#!/bin/sh
case "$*" in
    *"config current-context"*) echo ours; exit;;
    *"get pods"*) cat "{here}/pods"; exit;;
esac
for pod in monitor-a monitor-b; do case "$*" in *"pod/$pod"*) folder="{here}/$pod";; esac; done
while [ "$1" != -- ]; do shift; done
shift
if [ "$1" = rm ]; then cd "$folder" && for file in "$@"; do rm -f "./${{file#/captured/}}"; done
else exec $(echo "$@" | sed "s#/captured#$folder#"); fi
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    project = make_project(tmp_path_factory.mktemp("captured"))
    for path in (project.folder / "argocd/environments").glob("*/kustomization.yaml"):
        path.write_text(path.read_text().replace("<<cookiecutter.project>>", "digits"))
    project.merge("Name it")
    return Repository(project.folder)


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cluster in which two pods run that keep nothing so far."""
    program = tmp_path / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(KUBECTL.format(here=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    (tmp_path / "pods").write_text("pod/monitor-a\npod/monitor-b\n")
    for name in ("monitor-a", "monitor-b"):
        (tmp_path / name).mkdir()
    return tmp_path


def keep(pod: Path, *names: str) -> None:
    for name in names:
        (pod / name).parent.mkdir(parents=True, exist_ok=True)
        (pod / name).write_bytes(name.encode())


def test_the_pictures_of_all_pods_are_a_batch(
    repository: Repository, pods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(pods / "monitor-a", "a cat/1.png", "dog/2.png", ".partial", "notes.txt", "dog/x.txt")
    keep(pods / "monitor-b", "dog/3.png", "dog/deep/4.png")
    captured.run(repository, "staging")
    (batch,) = (repository.folder / CAPTURED).iterdir()
    found = {str(path.relative_to(batch)) for path in batch.rglob("*") if path.is_file()}
    assert found == {"a cat/1.png", "dog/2.png", "dog/3.png"}
    assert (batch / "dog/3.png").read_bytes() == b"dog/3.png"
    assert batch.name.endswith("-staging")
    left = {path.name for path in pods.glob("monitor-*/**/*") if path.is_file()}
    assert left == {".partial", "notes.txt", "x.txt", "4.png"}, "there is room for others"
    assert f"3 pictures are in {CAPTURED / batch.name}, by" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside.png", tarfile.REGTYPE),
        ("/outside.png", tarfile.REGTYPE),
        ("cat/a.png", tarfile.SYMTYPE),
        ("cat/a.png", tarfile.LNKTYPE),
        ("cat.png", tarfile.REGTYPE),
    ],
)
def test_nothing_but_pictures_of_classes_is_taken(name: str, kind: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
        archive.addfile(tarfile.TarInfo("./dog/good.png"))
    assert [str(path) for path, _ in captured.pictures(stream.getvalue())] == ["dog/good.png"]


def test_an_environment_that_is_not_there_is_said(repository: Repository) -> None:
    with pytest.raises(DeliveryError, match="no environment 'nowhere'"):
        captured.run(repository, "nowhere")


def test_another_context_or_the_components_help(
    repository: Repository, pods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pods / "pods").write_text("")
    with pytest.raises(DeliveryError, match=r"no monitor runs .*: name the component capture"):
        captured.run(repository, "staging")
    (pods / "pods").write_text("pod/monitor-a\n")
    (pods / "monitor-a").rmdir()
    with pytest.raises(DeliveryError, match=r"Cannot open.*: name the component capture in the"):
        captured.run(repository, "staging")
    keep(pods / "monitor-a", "cat/1.png")  # as the component has it
    captured.run(repository, "staging", context="another")
    assert "1 pictures are in" in capsys.readouterr().out


def test_what_was_kept_meanwhile_or_comes_whole_is_fetched(
    repository: Repository, pods: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeliveryError, match="no picture of staging is kept so far: try again"):
        captured.run(repository, "staging")
    keep(pods / "monitor-a", "cat/1.png")
    kubectl = pods / "bin/kubectl"
    whole = kubectl.read_text()
    kubectl.write_text(whole.replace("else exec $(", "else echo no archive; fi #"))
    with pytest.raises(DeliveryError, match="no whole archive"):
        captured.run(repository, "staging")
    kubectl.write_text(whole)
    captured.run(repository, "staging")
    assert "1 pictures are in" in capsys.readouterr().out
