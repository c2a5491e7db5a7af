"""`make report`: the page of the model that is here, and of a version that was released."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import UNBAKED
from delivery.commands import report
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.releases import Past

PIPELINE = "stages: {report: {cmd: make-page, outs: [artifacts/report.html]}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Two commits with a page each, the pages only in the data store."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(UNBAKED / ".dvc/config", folder / ".dvc/config")
    (folder / ".gitignore").write_text("/artifacts/\n/.local/\n/.dvc/cache\n/.dvc/tmp\n")
    monkeypatch.chdir(folder)
    (folder / "MODEL_CARD.md").write_text("# A card\n")
    run("git", "init", "--quiet")
    for text in ("first", "second"):
        page = f"mkdir -p artifacts && echo {text} > artifacts/report.html"
        (folder / "dvc.yaml").write_text(PIPELINE.replace("make-page", page))
        for command in ("repro", "push"):
            run(sys.executable, "-m", "dvc", command, "--quiet")
        run("git", "add", "--all")
        run("git", *("-c", "user.name=T", "-c", "user.email=t@t"), "commit", "--quiet", "-m", text)
    shutil.rmtree("artifacts")
    shutil.rmtree(".dvc/cache")
    return Repository(folder)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def test_a_released_page_comes_back_from_the_data_store(
    project: Repository, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = project.ask("rev-parse", "HEAD~1")
    release = SimpleNamespace(version=8, commit=first)
    monkeypatch.setattr(report, "find", lambda *_: release)
    report.run(project, "p", 8)
    assert capsys.readouterr().out == "page: .local/reports/8.html\n"
    assert Path(".local/reports/8.html").read_text() == "first\n"


def test_a_version_that_was_not_released_is_named(
    project: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DeliveryError, match="no model 9 was released; give one of: none"):
        report.run(project, "p", 9)
    release = SimpleNamespace(version=8, digest="sha256:0", commit=project.head())
    past = [Past("staging", release, b"")]  # type: ignore[arg-type]
    monkeypatch.setattr(report, "all_releases", lambda *_: past)
    with pytest.raises(DeliveryError, match="no model 9 was released; give one of: 8"):
        report.run(project, "p", 9)
    report.run(project, "p", 8)
    assert Path(".local/reports/8.html").read_text() == "second\n"


def test_a_release_from_before_there_were_pages_has_a_card(project: Repository) -> None:
    run("git", "rm", "--quiet", "dvc.lock")
    run("git", *("-c", "user.name=T", "-c", "user.email=t@t"), "commit", "--quiet", "-m", "none")
    release = SimpleNamespace(version=8, commit=project.head())
    with pytest.raises(DeliveryError, match=r"look at MODEL_CARD.md of commit (\w+)") as refused:
        report.bring_back(project, release, Path("page.html"))  # type: ignore[arg-type]
    commit = str(refused.value).split()[-1]
    assert project.ask("show", f"{commit}:MODEL_CARD.md") == "# A card"


def test_a_page_comes_from_the_store_that_the_settings_name(project: Repository) -> None:
    Path(".local/data").rename("../moved")
    release = SimpleNamespace(version=8, commit=project.head())
    with pytest.raises(DeliveryError, match="page of model 8 can't be had, as DVC's store is"):
        report.bring_back(project, release, Path("page.html"))  # type: ignore[arg-type]
    elsewhere = str(project.folder.parent / "moved")
    run(sys.executable, "-m", "dvc", "remote", "modify", "--local", "store", "url", elsewhere)
    report.bring_back(project, release, Path("page.html"))  # type: ignore[arg-type]
    assert Path("page.html").read_text() == "second\n"
