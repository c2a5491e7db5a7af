"""`make compare`: figures, parameters and pictures of commits beside what is here."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import UNBAKED
from delivery.commands import compare
from delivery.errors import DeliveryError
from delivery.git import Repository

AUTHOR = ("-c", "user.name=T", "-c", "user.email=t@t")
STAGE = "stages: {train: {cmd: 'true', params: [train], metrics: [metrics.json: {cache: false}]}}\n"
PNG = b"\x89PNG\r\n\x1a\n"


def train(folder: Path, accuracy: float, loss: float, epochs: int, data: str = "a" * 64) -> None:
    (folder / "params.yaml").write_text(f"train: {{epochs: {epochs}, network: cnn}}\n")
    figures = {"accuracy": accuracy, "loss": loss, "support": 100}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "lineage.json").write_text(json.dumps({"data": {"test_sha256": data}}))
    (folder / "plots").mkdir(exist_ok=True)
    (folder / "plots/confusion.png").write_bytes(PNG + str(accuracy).encode())


def commit(folder: Path, message: str) -> None:
    for command in (["add", "--all"], [*AUTHOR, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", *command], cwd=folder, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """Two trainings that were committed, and one that was not."""
    (tmp_path / ".dvc").mkdir()
    shutil.copy(UNBAKED / ".dvc/config", tmp_path / ".dvc/config")
    (tmp_path / ".gitignore").write_text("/.local/\n/.dvc/tmp\n")
    (tmp_path / "dvc.yaml").write_text(STAGE)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    commit(tmp_path, "Generate")
    for accuracy, loss, epochs, message in ((0.8, 0.5, 10, "First"), (0.9, 0.6, 20, "<b>")):
        train(tmp_path, accuracy, loss, epochs)
        commit(tmp_path, message)
    train(tmp_path, 0.7, 0.4, 10, "b" * 64)
    return Repository(tmp_path)


def test_runs_stand_side_by_side(project: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    compare.run(project, ["HEAD~1", "HEAD"])
    assert capsys.readouterr().out == "page: .local/reports/compare.html\n"
    page = (project.folder / ".local/reports/compare.html").read_text()
    cells = {
        name: re.findall(r'<td class="n ?(\w*)">(.*?)</td>', rest)
        for name, rest in re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", page)
    }
    assert cells["accuracy"] == [("", "0.8000"), ("better", "0.9000"), ("worse", "0.7000")]
    assert cells["loss"] == [("", "0.5000"), ("worse", "0.6000"), ("better", "0.4000")]
    assert cells["support"] == [("", "100")] * 3
    assert cells["test data"][2] == ("worse", "b" * 12)
    epochs = [f'<td class="value">{number}</td>' for number in (10, 20, 10)]
    assert "<th>train.epochs</th>" + "".join(epochs) in page and "train.network" not in page
    assert len(set(re.findall(r'src="(data:image/png[^"]+)"', page))) == 3
    assert "&lt;b&gt;" in page and "<b>\n" not in page


def test_what_is_no_run_is_named_and_another_taken(project: Repository) -> None:
    for name, why in (
        ("nothing", r"there is no commit 'nothing': choose one of `git log --oneline`"),
        ("--help", r"there is no commit '--help'"),
        ("HEAD~2", r"has no metrics\.json: choose one that `make pipeline` came before"),
    ):
        with pytest.raises(DeliveryError, match=why):
            compare.run(project, [name])
    listed = project.ask("log", "--oneline").splitlines()
    compare.run(project, [listed[0].split()[0]])
    assert (project.folder / compare.PAGE).is_file()
