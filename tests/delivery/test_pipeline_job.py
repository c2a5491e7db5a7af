"""A training job with the real DVC, and the checkout that takes up what it made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import TEMPLATE, UNBAKED
from delivery.__main__ import main
from delivery.commands.run_pipeline import checkpoints, run_pipeline
from delivery.errors import DeliveryError

sys.path.insert(0, str(TEMPLATE / "infra/commands"))

from outputs import with_remote

CONFIG = UNBAKED / ".dvc/config"

# Stages that leave a line in a log whenever they really run.
PIPELINE = """\
stages:
  prepare:
    cmd: python stage.py prepare
    deps: [stage.py, data/raw]
    outs: [data/prepared]
  train:
    cmd: python stage.py train
    deps: [data/prepared]
    params: [epochs]
    outs: [artifacts]
  evaluate:
    cmd: python stage.py evaluate
    deps: [artifacts]
    metrics:
      - metrics.json: {cache: false}
"""
STAGE = """\
import os, pathlib, sys
stage = sys.argv[1]
if stage == "prepare":
    images = pathlib.Path("data/raw").iterdir()
    pathlib.Path("data/prepared").write_text(" ".join(path.name for path in images))
elif stage == "train":
    if "epochs: 0" in pathlib.Path("params.yaml").read_text():
        sys.exit("cannot train for 0 epochs")
    pathlib.Path("artifacts").mkdir()
    data = pathlib.Path("data/prepared").read_text()
    pathlib.Path("artifacts/model").write_text(f"trained on {data or 'nothing'}")
else:
    pathlib.Path("metrics.json").write_text("{}")
with open(os.environ["LOG"], "a") as log:
    print(stage, *(os.environ.get(name) for name in ("STORAGE", "RAY_ADDRESS", "NODES")), file=log)
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "log").touch()
    return tmp_path / "log"


def stages(log: Path) -> list[str]:
    """The stages that really ran."""
    return [line.split()[0] for line in log.read_text().splitlines()]


def make(folder: Path, store: str | None, epochs: int = 1) -> Path:
    """A project as the image holds it: code, pipeline, settings; no data and no Git."""
    (folder / ".dvc").mkdir(parents=True)
    remote = f"    remote = store\n['remote \"store\"']\n    url = {store}/dvc\n" if store else ""
    (folder / ".dvc/config").write_text(f"[core]\n    analytics = false\n{remote}")
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "dvc.yaml").write_text(PIPELINE)
    (folder / "stage.py").write_text(STAGE)
    (folder / "params.yaml").write_text(f"epochs: {epochs}\n")
    return folder


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_checkout_takes_up_the_model_that_the_job_trained(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # as Ray does for a job's driver
    monkeypatch.setenv("NODES", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))  # as the image does
    project = make(tmp_path / "image", str(tmp_path / "store"))
    before = sorted(project.rglob("*"))
    run_pipeline(project, tmp_path / "job")
    assert log.read_text() == "".join(
        f"{stage} {tmp_path}/store/training 10.0.0.1:6379 1\n" for stage in ("prepare", "train")
    )
    assert (tmp_path / "site").is_dir(), "nothing is written below /var/tmp"
    assert sorted(project.rglob("*")) == before, "an image is not written to"
    checkout = shutil.copytree(project, tmp_path / "checkout")
    (checkout / "data/raw").mkdir(parents=True)
    dvc(checkout, "repro", "--pull")  # what `make pipeline PULL=1` does
    assert stages(log) == ["prepare", "train", "evaluate"]
    model = "artifacts/model"
    assert (checkout / model).read_text() == (tmp_path / "job" / model).read_text()


@pytest.mark.parametrize(
    ("store", "place"),
    [
        ("s3://digits-data/dvc", "s3://digits-data/training"),
        ("s3://digits-data/dvc/", "s3://digits-data/training"),
        ("s3://digits-data/team/dvc", "s3://digits-data/team/training"),
        ("s3://digits-data", "s3://digits-data/training"),
        ("s3://digits-data/", "s3://digits-data/training"),
        ("/mnt/store/dvc/", "/mnt/store/training"),
        ("/mnt", "/mnt/training"),
    ],
)
def test_checkpoints_go_beside_the_data_and_into_no_other_bucket(store: str, place: str) -> None:
    assert checkpoints(store) == place


def test_the_job_trains_on_the_data_that_the_commit_names(tmp_path: Path, log: Path) -> None:
    project = make(tmp_path / "image", str(tmp_path / "store"))
    images = project / "data/raw"
    images.mkdir(parents=True)
    (images / "a.png").write_text("a")
    dvc(project, "add", "data/raw")
    dvc(project, "push")
    shutil.rmtree(images)
    shutil.rmtree(project / ".dvc/cache")
    run_pipeline(project, tmp_path / "job")
    assert (tmp_path / "job/artifacts/model").read_text() == "trained on a.png"


def test_what_finished_stages_made_is_kept_when_a_later_one_fails(
    tmp_path: Path, log: Path
) -> None:
    project = make(tmp_path / "image", str(tmp_path / "store"), epochs=0)
    with pytest.raises(DeliveryError, match="what was done before is kept"):
        run_pipeline(project, tmp_path / "job")
    (project / "params.yaml").write_text("epochs: 1\n")
    run_pipeline(project, tmp_path / "another")
    assert stages(log) == ["prepare", "train"]


def test_without_a_data_store_nothing_is_trained(tmp_path: Path, log: Path) -> None:
    project = make(tmp_path / "image", None)
    with pytest.raises(DeliveryError, match=r"is not set, so .* `make infra-outputs`"):
        run_pipeline(project, tmp_path / "job")
    assert stages(log) == []
    config = project / ".dvc/config"  # in the image that is built after `make infra-outputs`
    config.write_text(with_remote(config.read_text(), str(tmp_path / "store/dvc")))
    run_pipeline(project, tmp_path / "next")
    assert stages(log) == ["prepare", "train"]


def test_a_data_store_that_ends_with_the_machine_is_none(tmp_path: Path, log: Path) -> None:
    project = make(tmp_path / "image", None)
    shutil.copy(CONFIG, project / ".dvc/config")  # of a new project
    with pytest.raises(DeliveryError, match=r"is .*/job/.local/data, so .* `make infra-"):
        run_pipeline(project, tmp_path / "job")
    assert stages(log) == []


def test_data_that_were_never_pushed_are_asked_for(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make(tmp_path / "image", str(tmp_path / "store"))
    (project / "data/raw").mkdir(parents=True)
    (project / "data/raw/a.png").write_text("a")
    dvc(project, "add", "data/raw")
    where_they_are = shutil.copytree(project, tmp_path / "there")
    shutil.rmtree(project / "data/raw")
    shutil.rmtree(project / ".dvc/cache")
    with pytest.raises(DeliveryError, match="run `make data-push` where the data are"):
        run_pipeline(project, tmp_path / "job")
    assert stages(log) == []
    monkeypatch.chdir(where_they_are)
    assert main(["data-push"]) == 0
    run_pipeline(project, tmp_path / "next")
    assert stages(log) == ["prepare", "train"]


def test_a_data_store_that_does_not_answer_ends_the_job_before_training(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(DeliveryError, match="s3://bucket/dvc did not give the data"):
        run_pipeline(make(tmp_path / "image", "s3://bucket"), tmp_path / "job")
    assert stages(log) == []
