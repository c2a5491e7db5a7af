"""What a release calls the model's code at a commit is what the pipeline called it on disk."""

import shutil
import subprocess
from pathlib import Path

import pytest
from small_project import PROJECT

from delivery.git import Repository
from delivery.model import lineage
from workspace.errors import UserError
from workspace.model_code import code_sha256, sha256


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project's code and pipeline, committed; its links are folders, as after generation."""
    shutil.copytree(PROJECT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copytree(PROJECT / "serving", tmp_path / "serving")
    shutil.copy(PROJECT / "dvc.yaml", tmp_path)
    commit(tmp_path)
    return tmp_path


def commit(folder: Path) -> None:
    author = ("-c", "user.name=A Tester", "-c", "user.email=tester@example.com")
    for command in (["init", "-q"], ["add", "-A"], [*author, "commit", "-qm", "Change"]):
        subprocess.run(["git", *command], cwd=folder, check=True)


def committed_sha256(folder: Path) -> str:
    repository = Repository(folder)
    return sha256(lineage.committed_code(repository, repository.head()))


def test_a_commit_has_the_code_that_is_on_disk(project: Path) -> None:
    assert committed_sha256(project) == code_sha256(project) == code_sha256(PROJECT)


def test_another_commit_has_other_code_only_if_the_models_changed(project: Path) -> None:
    before = committed_sha256(project)
    for path, changes in (("src/curation/ingest.py", False), ("src/classifier/export.py", True)):
        with (project / path).open("a") as file:
            file.write("# a remark\n")
        commit(project)
        assert (committed_sha256(project) != before) is changes


@pytest.mark.parametrize("content", [None, "stages: {train: {cmd: 'true'}}\n", "stages: 3\n"])
def test_a_commit_that_names_no_code_is_refused(content: str | None, project: Path) -> None:
    (project / "dvc.yaml").unlink()
    if content:
        (project / "dvc.yaml").write_text(content)
    commit(project)
    with pytest.raises(UserError, match=r"dvc\.yaml of commit \w+ has no stage 'export' with"):
        committed_sha256(project)
