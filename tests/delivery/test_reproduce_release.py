"""A real clone, real DVC and a pipeline that copies: a model is made again, or why it is not."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fake_pipeline
from conftest import TEMPLATE
from delivery.__main__ import main
from delivery.commands.release import run as release
from delivery.commands.reproduce import find_release
from delivery.model.differences import compare_accounts, compare_files
from delivery.model.rebuild import trained_on
from delivery.proposals.release_file import Release, parse_release
from fake_project import Project, code_sha256, follow, isolate, kill, make_project
from waiting import wait_until

PATH = "argocd/environments/staging/model.yaml"
STAGES = """
stages:
  copy:
    cmd: sh pipeline.sh
    deps: [pipeline.sh, made, data/raw]
    outs: [artifacts, data/prepared, plots]
    metrics: [metrics.json: {cache: false}]
  export:
    cmd: cp made/lineage.json made/MODEL_CARD.md .
    deps: [metrics.json, src/classifier, serving/classifier/config.pbtxt]
    outs: [lineage.json: {cache: false}, MODEL_CARD.md: {cache: false}]
"""
# tests change what it does by variables, as another machine would
PIPELINE = """set -e
test -z "$NEEDED" || cat "$NEEDED"
if [ -n "$SLEEP" ]; then echo $$ > "$SLEEP"; sleep 600; fi
cp -r made/. .
if [ -n "$OTHER" ]; then cp -r "$OTHER"/. .; fi
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a project that released model 1, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        project = make_project(folder, monkeypatch)
        fake_pipeline.write_outputs(project.folder / "made", code=code_sha256())
        fake_pipeline.write(project.folder, "data/raw/zero/1.png", b"an image")
        fake_pipeline.write(project.folder, "dvc.yaml", STAGES)
        fake_pipeline.write(project.folder, "pipeline.sh", PIPELINE)
        ignored = "".join(f"/{name}/\n" for name in ("data/?*", "artifacts", "plots", ".local"))
        fake_pipeline.write(project.folder, ".gitignore", ignored)
        project.use_dvc()
        project.dvc("add", "data/raw")
        project.dvc("repro")
        project.commit("Let DVC run the pipeline")
        release(project.repository)
        project.merge("release/staging-v1")
        yield folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return that project, of the test's own, without a DVC cache; and go into it."""
    isolate(monkeypatch)
    for name in ("NEEDED", "SLEEP", "OTHER"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True, symlinks=True)
    project = Project(*(tmp_path / name for name in ("project", "origin.git", "reviewer")))
    for clone in (project.folder, project.reviewer):
        project.git("remote", "set-url", "origin", str(project.origin), folder=clone)
    shutil.rmtree(project.folder / ".dvc/cache")
    monkeypatch.chdir(project.folder)
    return project


def released(project: Project) -> Release:
    return parse_release(project.show("main", PATH), PATH)


def edit(project: Project, **changes: object) -> None:
    """Merge a release file that someone edited."""
    text = released(project).model_copy(update=changes).to_yaml()
    fake_pipeline.write(project.folder, PATH, text)
    project.commit("Edit the release by hand")


def other_machine(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pipeline give other weights, as on another machine, which the lineage names."""
    folder = project.folder.parent / "other"
    fake_pipeline.write_model(folder, b"other weights")
    fake_pipeline.write_predictions(folder, 0.96)
    fake_pipeline.write(folder, "metrics.json", fake_pipeline.metrics() | {"loss": 0.12})
    lineage = fake_pipeline.lineage(code_sha256())
    lineage["trained"]["hardware"] = "another CPU"
    fake_pipeline.write(folder, "made/lineage.json", lineage)
    monkeypatch.setenv("OTHER", str(folder))


def report(project: Project) -> str:
    return (project.folder / ".local/reproduce/v1.md").read_text()


# -- made again ------------------------------------------------------------------------------------


def test_a_model_is_made_again_from_its_release_file(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    state, digest = project.state(), released(project).image.rpartition("@")[2]
    for each in ("artifacts", "plots", "data/prepared", "data/raw", ".local/registry"):
        shutil.rmtree(project.folder / each)  # none of it is needed
    assert main(["reproduce", "1"]) == 0
    printed = capfd.readouterr().out
    assert "using this environment: the commit wants the same" in printed
    assert "Running stage 'copy'" in printed and "Running stage 'export'" in printed
    assert f"model 1 was made again: its image is {digest[:19]}, as released\n" in printed
    assert printed.count(" yes\n") == 9 and " NO\n" not in printed
    assert f"| image | {digest} | {digest} | yes |" in report(project)
    assert not (project.folder / ".local/reproduce/v1").exists()
    assert project.state() == state
    assert "copy" not in project.git("worktree", "list", "--porcelain")


def test_a_model_of_an_older_commit_is_made_by_its_own_code(project: Project) -> None:
    fake_pipeline.write(project.folder, "pipeline.sh", "exit 1\n")
    project.commit("Break the pipeline")
    assert main(["reproduce", "1", "--environment", "staging"]) == 0


def test_store_and_downloads_of_today_are_used_and_the_clone_is_kept_on_a_word(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever the commit had the store."""
    store = project.folder.parent / "store with a blank"
    (project.folder / ".local/data").rename(store)
    project.dvc("remote", "modify", "--local", "store", "url", f"../{store.name}")
    fake_pipeline.write(project.folder, "data/downloads/archive", "downloaded before")
    monkeypatch.setenv("NEEDED", "data/downloads/archive")
    assert main(["reproduce", "1", "--keep"]) == 0
    assert "downloaded before" in capfd.readouterr().out
    assert (project.folder / "data/downloads/archive").is_file()
    clone = project.folder / ".local/reproduce/v1"
    assert project.git("rev-parse", "HEAD", folder=clone) == released(project).commit
    assert (clone / "artifacts/model/classifier/1/model.onnx").is_file()


def test_a_model_runs_on_as_many_devices_as_it_was_trained_on(project: Project) -> None:
    trained = trained_on(project.repository, project.repository.head())
    assert (trained.devices, trained.nodes, trained.threads) == (1, 1, None)
    noted = {"devices": 2, "nodes": 3, "threads": 8, "hardware": "GPU"}
    project.change("lineage.json", trained=noted)
    trained = trained_on(project.repository, project.repository.head())
    assert (trained.devices, trained.nodes, trained.threads) == (2, 3, 8)


OWN_PYTHON = """
.venv/ready:
\tmkdir -p .venv/bin
\tprintf '#!/bin/sh\\nexec {python} "$$@"\\n' > .venv/bin/python
\tchmod +x .venv/bin/python
\ttest -n "$(PYTHON)" && echo made its own environment
"""


@pytest.mark.parametrize("works", [True, False])
def test_a_commit_with_another_environment_installs_its_own(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    works: bool,
) -> None:
    makefile = OWN_PYTHON.format(python=sys.executable) if works else ".venv/ready:\n\tfalse\n"
    fake_pipeline.write(project.folder, "Makefile", makefile)
    fake_pipeline.write(project.folder, "constraints.txt", "torch==2.8.0\n")
    project.commit("Pin torch")
    edit(project, commit=project.git("rev-parse", "HEAD"))
    fake_pipeline.write(project.folder, "constraints.txt", "torch==2.9.0\n")
    monkeypatch.setenv("VENV", "/an/outer/environment")
    monkeypatch.setenv("MAKEFLAGS", " -- VENV=/an/outer/environment")
    assert main(["reproduce", "1"]) == (0 if works else 1)
    printed = capfd.readouterr()
    assert "installing the commit's own environment: other constraints.txt" in printed.out
    assert ("made its own environment" in printed.out) is works
    assert ("cannot be installed (status 2)" in printed.err) is not works


# -- not the same ----------------------------------------------------------------------------------


def test_an_edited_release_file_is_named(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    edit(project, accuracy=0.99, data="d" * 64)
    assert main(["reproduce", "1"]) == 1
    printed = capfd.readouterr()
    assert "accuracy           0.99                   0.97                   NO" in printed.out
    assert (
        "error: model 1 made again differs from the release in data, accuracy, though the image is "
        "the released one: someone edited the release file; report: .local/reproduce/v1.md"
    ) in printed.err
    assert "| accuracy | 0.99 | 0.97 | NO |" in report(project)


def test_another_model_is_described_by_files_values_and_stages(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    other_machine(project, monkeypatch)
    assert main(["reproduce", "1"]) == 1
    assert (
        "error: model 1 made again differs from the release in image, loss "
        "(lineage.json trained.hardware: CPU → another CPU); report: "
    ) in capfd.readouterr().err
    lines = report(project).splitlines()
    assert "| lineage.json trained.hardware | CPU | another CPU | NO |" in lines
    assert "| metrics.json loss | 0.11 | 0.12 | NO |" in lines
    before, after = (
        hashlib.sha256(content).hexdigest()
        for content in (fake_pipeline.model(0.97), b"other weights")
    )
    assert f"| classifier/1/model.onnx | {before} | {after} | NO |" in lines
    assert any(line.startswith("| classifier/about/predictions.csv | ") for line in lines)
    outputs = [line for line in lines if line.startswith("- ")]
    assert outputs == ["- copy: artifacts", "- copy: metrics.json", "- export: lineage.json"]
    assert not any("golden.npz" in line for line in lines), "equal files are not listed"


def test_without_the_released_image_what_git_has_is_compared(
    project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project.folder / ".local/registry")
    other_machine(project, monkeypatch)
    assert main(["reproduce", "1"]) == 1
    assert "lineage.json trained.hardware: CPU → another CPU" in capfd.readouterr().err
    text = report(project)
    assert "could not be compared file by file: oci:.local/registry does not give it" in text
    assert "- copy: artifacts\n" in text and "| metrics.json loss | 0.11 | 0.12 | NO |" in text
    assert "classifier/about/lineage.json" in text and "model.onnx" not in text


def test_an_account_that_is_no_json_differs_as_a_file(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text("{}")
    bad.write_text("<html>")
    assert compare_accounts({"a/lineage.json": bad}, {"a/lineage.json": good}) == []
    assert len(compare_files({"a/lineage.json": bad}, {"a/lineage.json": good})) == 1


# -- refusals: one sentence, nothing left ----------------------------------------------------------


def unknown_version(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    project.deploy("production", 3)
    monkeypatch.setenv("ASKED", "7")
    return "no model 7 was released to staging or production: give VERSION=1, 3"


def version_of_another_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ASKED", "1 --environment production")
    return "no model 1 was released to production: `make release`, and merge it first"


def unknown_environment(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ASKED", "1 --environment qa")
    return "there is no environment 'qa': give ENV=production or ENV=staging"


def commit_that_is_not_here(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    edit(project, commit="f" * 40)
    return "made from commit ffffffffffff, which this clone lacks: `git fetch origin fff"


def data_that_are_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    shutil.rmtree(project.folder / ".local/data/files")
    return "cannot be had (dvc pull failed: WARNING: Some of the cache files do not exist"


def store_that_is_not_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    project.dvc("remote", "remove", "store")
    project.commit("Name no store")
    return "error: DVC has no default remote: `"


def pipeline_that_fails(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NEEDED", "nothing")
    return "failed with status 255: it says why above"


@pytest.mark.parametrize(
    "fault",
    [
        unknown_version,
        version_of_another_environment,
        unknown_environment,
        commit_that_is_not_here,
        data_that_are_gone,
        store_that_is_not_named,
        pipeline_that_fails,
    ],
)
def test_nothing_is_made_and_one_sentence_says_why(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Project, pytest.MonkeyPatch], str],
) -> None:
    monkeypatch.setenv("ASKED", "1")
    sentence = fault(project, monkeypatch)
    state = project.state()
    assert main(["reproduce", *os.environ["ASKED"].split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and sentence in error
    assert project.state() == state
    assert not (project.folder / ".local/reproduce/v1").exists()
    assert not (project.folder / ".local/reproduce/v1.md").exists()


def test_a_version_that_was_released_is_made(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reproduce", "7"]) == 1
    assert "give VERSION=1" in capsys.readouterr().err
    assert main(["reproduce", "1"]) == 0


def test_data_that_were_pushed_again_are_had(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(project.folder / ".local/data", project.folder / "kept")
    assert main(["reproduce", "1"]) == 1
    assert "cannot be had" in (said := capsys.readouterr().err) and "`make data-push` puts" in said
    project.dvc("add", "data/raw")  # where they are there is a cache, too
    assert main(["data-push"]) == 0
    assert main(["reproduce", "1"]) == 0


def test_a_commit_that_was_fetched_is_found(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.review("checkout", "--quiet", "-b", "other")
    project.review("commit", "--quiet", "--allow-empty", "-m", "Only there")
    project.review("push", "--quiet", "origin", "other")
    edit(project, commit=project.review("rev-parse", "HEAD"))
    assert main(["reproduce", "1"]) == 1
    said = capsys.readouterr().err
    assert "which this clone lacks: `git fetch origin " in said
    follow(said, project)
    assert find_release(project.repository, 1).commit == project.review("rev-parse", "HEAD")


def test_the_same_model_is_not_made_twice_at_once(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pipeline.write(project.folder, ".local/reproduce/v1/dvc.yaml", "of the other run")
    with (project.folder / ".local/reproduce/v1.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["reproduce", "1"]) == 1
    assert "reproduce/v1 is in use: another `make reproduce` runs" in capsys.readouterr().err
    assert (project.folder / ".local/reproduce/v1/dvc.yaml").is_file()


def test_what_a_killed_run_left_is_replaced(project: Project) -> None:
    assert kill(project, ["reproduce", "1"], "delivery.commands.reproduce.package", "before") == 9
    left = project.folder / ".local/reproduce/v1"
    assert left.is_dir()
    (left / "artifacts/model/classifier/1/model.onnx").write_bytes(b"half")
    assert main(["reproduce", "1"]) == 0
    assert not left.exists()


def alive(process: str) -> bool:
    """Tell whether a process runs; one that was killed may be left as an entry without words."""
    try:
        return Path("/proc", process, "cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_ends_the_pipeline_and_removes_the_clone(
    project: Project, how: signal.Signals
) -> None:
    note = project.folder.parent / "stage"
    process = subprocess.Popen(
        [sys.executable, "-m", "delivery", "reproduce", "1"],
        env=os.environ | {"PYTHONPATH": str(TEMPLATE), "SLEEP": str(note)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def begun() -> bool:
        assert process.poll() is None
        return note.exists() and note.read_text().endswith("\n")

    wait_until(begun)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and error.endswith("error: interrupted\n")
    wait_until(lambda: not alive(note.read_text().strip()))
    assert not (project.folder / ".local/reproduce/v1").exists()
