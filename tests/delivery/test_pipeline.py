"""What `make pipeline` says: the stages, the figures, the gate's word; nothing of DVC's own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fake_pipeline
from conftest import TEMPLATE, UNBAKED
from fake_project import PARAMS, Project, make_project

STAGES = """
stages:
  train:
    cmd: python stage.py train
    deps: [data/raw]
    params: [train]
    outs: [artifacts/weights]
  export:
    cmd: python stage.py export
    deps: [artifacts/weights]
    outs: [artifacts/exported]
"""
STAGE = """
import pathlib, sys
stage = sys.argv[1]
if "epochs: 0" in pathlib.Path("params.yaml").read_text():
    sys.exit("error: cannot train for 0 epochs")
print("working:", stage)
pathlib.Path("artifacts", "weights" if stage == "train" else "exported").write_text(stage)
"""
NO_EPOCHS = PARAMS.replace("epochs: 3", "epochs: 0")
CHATTER = (
    "WARNING",
    "is empty",
    "Updating lock file",
    "git add dvc",
    "autostage",
    "dvc push",
    "> python",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path, monkeypatch)
    made.use_dvc()
    fake_pipeline.write(made.folder, "dvc.yaml", STAGES)
    fake_pipeline.write(made.folder, "stage.py", STAGE)
    made.commit("Let DVC run the pipeline")
    return made


def pipeline(project: Project, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "delivery", "pipeline", *arguments],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)},
        capture_output=True,
        text=True,
    )


def test_it_ends_with_figures_pictures_the_gate_and_the_next_command(project: Project) -> None:
    said = pipeline(project)
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [
        *("Running stage 'train':", "working: train"),
        *("Running stage 'export':", "working: export", ""),
        "model:    accuracy 97.0% (92.0% to 100.0%), macro F1 96.0% (91.0% to 100.0%) on 200 test "
        "pictures",
        "page:     artifacts/report.html; `make report` adds latency and the served model",
        "pictures: plots/, explained in MODEL_CARD.md; `make serve` tries the model",
        "gate:     would let it pass (compared with nothing, none is released)",
        'next:     `git add --all && git commit --message "Train" && git push`, then `make '
        "release`",
    ]
    assert [each for each in CHATTER if each in said.stdout + said.stderr] == []


def test_the_next_command_works(project: Project) -> None:
    pipeline(project)
    project.commit("Train")
    assert pipeline(project).stdout.splitlines()[-1] == "next:     `make release`"


def test_pictures_that_dvc_does_not_know_are_added_first(project: Project) -> None:
    fake_pipeline.write(project.folder, ".gitignore", (UNBAKED / ".gitignore").read_bytes())
    fake_pipeline.write(project.folder, "data/raw/cat/1.png", b"a picture")
    pipeline(project)
    said = pipeline(project)
    (add,) = re.findall(r"^next: +`(\S+dvc add data/raw)`, `git add --all && ", said.stdout, re.M)
    subprocess.run(add, shell=True, cwd=project.folder, check=True, capture_output=True)
    assert (project.folder / "data/raw.dvc").is_file()
    assert "dvc add" not in pipeline(project).stdout


def test_a_second_run_does_nothing_and_says_so(project: Project) -> None:
    pipeline(project)
    said = pipeline(project)
    assert said.stdout.startswith("nothing was out of date\n") and "working" not in said.stdout


def test_only_the_stage_that_is_asked_for_runs(project: Project) -> None:
    assert "export" not in pipeline(project, "--until", "train").stdout
    said = pipeline(project, "--until", "train", "--force")
    assert said.stdout.splitlines() == ["Running stage 'train':", "working: train"]


def test_the_gate_says_what_it_would_refuse(project: Project) -> None:
    project.deploy("staging", 4)  # whose image is nowhere
    (*_, gate, after) = pipeline(project).stdout.splitlines()
    assert gate.startswith("gate:     not compared with model 4 in staging: its image cannot be")
    assert after == "next:     `make judge`"
    project.train(0.99)
    project.deploy("staging", 4, project.image(4))
    project.train(0.92)
    said = pipeline(project)
    assert said.returncode == 0
    assert "the gate refuses this model:\n  - not worse than released: accuracy 0.92" in said.stdout
    assert "make release" not in said.stdout


def test_it_says_how_many_test_pictures_are_new_since_the_released_model(project: Project) -> None:
    names = [f"{n:x}" * 64 for n in range(5)]
    known = {names[0]: "test", names[1]: "test", names[2]: "train", names[3]: "validation"}
    lines = [f"{name[:16]},{split}\n" for name, split in known.items()]
    path = project.folder / "data/splits.csv"
    fake_pipeline.write(project.folder, "data/splits.csv", "sha256,split\n" + "".join(lines))
    project.git("add", "--force", str(path))
    project.commit("Deal the pictures")
    project.deploy("staging", 4)
    for there, told in (
        ((0, 1, 4), "1 of 3 pictures are new since model 4, which was trained on none of all"),
        ((0, 2, 3, 4), "1 of 4 pictures are new since model 4, which was trained on 2 others, so"),
    ):
        rows = "".join(f"{names[n]},cat/{n}.png\n" for n in there)
        prepared = "data/prepared/test/pictures.csv"
        fake_pipeline.write(project.folder, prepared, f"sha256,file\n{rows}")
        path.write_text("sha256,split\n")  # what is dealt now says nothing of what was then
        assert f"\ntest set: {told}" in pipeline(project).stdout


def test_a_mistake_of_the_gates_section_is_told_before_anything_runs(project: Project) -> None:
    fake_pipeline.write(project.folder, "params.yaml", PARAMS.replace("0.9,", "9,"))
    said = pipeline(project)
    assert said.returncode == 1 and said.stdout == ""
    assert "params.yaml: gate.min_accuracy is 9: give a number from 0 to 1" in said.stderr
    fake_pipeline.write(project.folder, "params.yaml", PARAMS)
    assert pipeline(project).returncode == 0


def test_before_the_first_commit_there_is_nothing_to_compare_with(project: Project) -> None:
    shutil.rmtree(project.folder / ".git")
    project.git("init", "--quiet")
    said = pipeline(project)
    assert said.returncode == 0, said.stderr
    assert "would let it pass (compared with nothing, none is released)" in said.stdout


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        ("params.yaml", NO_EPOCHS, "failed to reproduce 'train': it says why above"),
        ("dvc.yaml", "stages: [", "dvc.yaml"),
        ("dvc.yaml", STAGES.replace("data/raw", "data/nowhere"), "data/nowhere'"),
    ],
    ids=["a stage that fails", "no YAML", "a missing dependency"],
)
def test_what_fails_is_one_sentence(
    project: Project, path: str, content: str, sentence: str
) -> None:
    fake_pipeline.write(project.folder, path, content)
    said = pipeline(project)
    assert said.returncode == 1 and "Traceback" not in said.stderr
    *_, error = said.stderr.splitlines()
    assert error.startswith("error: ") and sentence in error
