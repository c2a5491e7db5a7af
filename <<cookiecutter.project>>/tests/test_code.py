"""The model's code: `dvc.yaml` lists for every stage what it imports, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_project import PROJECT, prepared_project

from classifier.__main__ import STAGES
from workspace.errors import UserError
from workspace.model_code import code_files, code_sha256

# Run the stages one after the other, each with our modules imported anew; say what came from src/.
SPY = """
import sys
from importlib import import_module
from pathlib import Path
source, *stages = sys.argv[1:]
for stage in stages:
    assert import_module("classifier.__main__").main([stage]) == 0
    if stage == "train":
        import_module("classifier.ray_cluster")  # what several workers need
    for name, module in sorted(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "")
        if file.is_relative_to(source):
            print("imported", stage, "src" / file.relative_to(source))
            del sys.modules[name]
        elif name == "torch":
            print("imported", stage, name)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What each stage imported: the paths of our modules, and torch."""
    root = prepared_project(tmp_path_factory.mktemp("project"))
    brief = (root / "params.yaml").read_text().replace("epochs: 3", "epochs: 1")
    (root / "params.yaml").write_text(brief)
    source = str(root / "src")
    result = subprocess.run(
        [sys.executable, "-c", SPY, source, *STAGES],
        cwd=root,
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for line in result.stdout.splitlines():
        if line.startswith("imported "):
            _, stage, what = line.split()
            found[stage].add(what)
    return found


def code(stage: str) -> set[str]:
    """The modules that `dvc.yaml` names as a stage's."""
    return {path for path in code_files(PROJECT, stage) if path.endswith(".py")}


def ours(modules: set[str]) -> set[str]:
    return {path for path in modules if path.endswith(".py")}


@pytest.mark.parametrize("stage", ["prepare", "train", "evaluate"])
def test_a_stage_names_the_modules_that_it_imports_and_no_other(
    stage: str, imported: dict[str, set[str]]
) -> None:
    assert code(stage) == ours(imported[stage])


def test_export_names_what_any_stage_imports_and_no_other(imported: dict[str, set[str]]) -> None:
    assert code("export") == ours(set().union(*imported.values()))
    assert "serving/classifier/config.pbtxt" in code_files(PROJECT)


def test_preparing_does_not_wait_for_torch(imported: dict[str, set[str]]) -> None:
    assert "torch" not in imported["prepare"] and "torch" in imported["train"]


def test_only_training_waits_for_lightning(imported: dict[str, set[str]]) -> None:
    needing = {
        stage
        for stage in STAGES
        for path in ours(imported[stage])
        if "import pytorch_lightning" in (PROJECT / path).read_text()
    }
    assert needing == {"train"}


@pytest.fixture
def copied(root: Path) -> Path:
    """A project with code of its own."""
    (root / "src").unlink()
    shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.mark.parametrize(
    "path", ["src/classifier/networks.py", "src/workspace/files.py", "src/classifier/deep/new.py"]
)
def test_the_hash_follows_the_content_of_the_models_code(path: str, copied: Path) -> None:
    before = code_sha256(copied)
    (copied / path).parent.mkdir(exist_ok=True)
    with (copied / path).open("a") as file:
        file.write("# a remark\n")
    assert code_sha256(copied) != before


@pytest.mark.parametrize(
    "path",
    [
        "src/curation/ingest.py",
        "src/tuning/search.py",
        "src/delivery/dvc.py",
        "src/workspace/unused.py",
        "src/classifier/__pycache__/networks.pyc",
    ],
)
def test_other_code_leaves_the_hash_as_it_is(path: str, copied: Path) -> None:
    before = code_sha256(copied), code_sha256(copied, "train")
    (copied / path).parent.mkdir(exist_ok=True)
    with (copied / path).open("a") as file:
        file.write("# a remark\n")
    assert (code_sha256(copied), code_sha256(copied, "train")) == before


def test_the_evaluations_code_is_not_the_trainings(copied: Path) -> None:
    before, trained = code_sha256(copied), code_sha256(copied, "train")
    (copied / "src/classifier/evaluation.py").write_text("")
    assert code_sha256(copied, "train") == trained and code_sha256(copied) != before


def test_a_link_to_code_hashes_as_the_code(root: Path, copied: Path) -> None:
    before = code_sha256(copied)
    (copied / "src/workspace").rename(copied / "elsewhere")
    (copied / "src/workspace").symlink_to("../elsewhere")
    assert code_sha256(copied) == before


def test_code_that_is_not_there_is_named(copied: Path) -> None:
    (copied / "src/workspace/files.py").unlink()
    with pytest.raises(UserError, match=r"dvc.yaml: src/workspace/files.py is not there: correct"):
        code_sha256(copied)
    pipeline = (copied / "dvc.yaml").read_text().splitlines(keepends=True)
    (copied / "dvc.yaml").write_text("".join(x for x in pipeline if "workspace/files.py" not in x))
    assert code_sha256(copied)


def test_a_pipeline_without_the_stage_is_refused(root: Path) -> None:
    before = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text("stages: {train: {cmd: 'true'}}\n")
    with pytest.raises(UserError, match=r"dvc.yaml has no stage 'export' with deps"):
        code_sha256(root)
    (root / "dvc.yaml").write_text(before)
    assert code_sha256(root)
