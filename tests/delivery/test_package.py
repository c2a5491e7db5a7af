import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

import fake_pipeline
from conftest import TEMPLATE, UNBAKED, mark_root
from delivery.__main__ import main
from delivery.errors import DeliveryError
from delivery.model.packaging import image_files, package
from delivery.model.pipeline_outputs import PLOTS, REQUIRED
from delivery.oci.image import parse_manifest
from delivery.oci.layout import Layout


@pytest.fixture
def project(tmp_path: Path) -> Path:
    mark_root(tmp_path / "project")
    fake_pipeline.write_outputs(tmp_path / "project")
    return tmp_path / "project"


def layer(layout: Layout, digest: str) -> Path:
    return layout.path(parse_manifest(layout.read_manifest(digest), digest).layer.digest)


def test_the_image_is_a_triton_model_repository_that_explains_itself(project: Path) -> None:
    layout = Layout(project / "registry")
    digest = package(project, 8, layout)
    with tarfile.open(layer(layout, digest)) as archive:
        entries = {entry.name: entry for entry in archive}
    assert list(entries) == sorted(entries)
    assert {name for name, entry in entries.items() if entry.isfile()} == {
        "classifier/config.pbtxt",
        "classifier/labels.txt",
        "classifier/golden.npz",
        "classifier/8/model.onnx",
        "classifier/about/metrics.json",
        "classifier/about/lineage.json",
        "classifier/about/export.json",
        "classifier/about/report.json",
        "classifier/about/predictions.csv",
        "classifier/about/MODEL_CARD.md",
        "classifier/about/plots/confusion.png",
    }
    for entry in entries.values():
        assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) == (0, 0, "", "", 0)
        assert entry.mode == (0o755 if entry.isdir() else 0o644)


def test_the_digest_is_the_same_in_another_folder_at_another_time(
    project: Path, tmp_path: Path
) -> None:
    first = package(project, 8, Layout(tmp_path / "one"))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project, elsewhere, copy_function=shutil.copyfile)
    for path in elsewhere.rglob("*"):
        path.chmod(0o700)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert package(elsewhere, 8, Layout(tmp_path / "two")) == first


def test_the_digest_never_changes_between_releases_of_this_code(tmp_path: Path) -> None:
    for path in REQUIRED:
        fake_pipeline.write(tmp_path, str(path), str(path))
    # another value breaks the promise that an old image can be made again: change it knowingly
    assert package(tmp_path, 8, Layout(tmp_path / "registry")) == (
        "sha256:b30473fb158ee67706ca4749783606019dc43cf695f0b10be4b19abb861523bf"
    )


@pytest.mark.parametrize("path", REQUIRED, ids=str)
def test_one_changed_byte_gives_another_digest(project: Path, path: Path) -> None:
    before = package(project, 8, Layout(project / "registry"))
    content = bytearray((project / path).read_bytes())
    content[-1] ^= 1
    (project / path).write_bytes(content)
    assert package(project, 8, Layout(project / "registry")) != before


def test_what_held_out_pictures_look_like_is_packaged_where_the_pipeline_counted_them(
    project: Path,
) -> None:
    name = "classifier/about/behaviour.json"
    assert name not in image_files(project, 8), "older models have none"
    fake_pipeline.write(project, "artifacts/behaviour.json", {})
    assert image_files(project, 8)[name].read_text() == "{}\n"


def test_only_plots_of_the_pipeline_are_packaged(project: Path) -> None:
    before = package(project, 8, Layout(project / "registry"))
    fake_pipeline.write(project, "plots/review.png", b"of another command")
    assert package(project, 8, Layout(project / "registry")) == before
    fake_pipeline.write(project, "plots/data.png", b"of the pipeline")
    assert package(project, 8, Layout(project / "registry")) != before


def test_all_plots_of_the_pipeline_are_known() -> None:
    pipeline = yaml.safe_load((UNBAKED / "dvc.yaml").read_text())
    declared = [plot for stage in pipeline["stages"].values() for plot in stage.get("plots", [])]
    # Git keeps them, so that MODEL_CARD.md shows them wherever it is shown
    assert declared == [{str(path): {"cache": False}} for path in PLOTS]


def test_another_version_gives_another_digest(project: Path) -> None:
    layout = Layout(project / "registry")
    assert package(project, 8, layout) != package(project, 9, layout)


@pytest.mark.parametrize("path", REQUIRED, ids=str)
def test_a_missing_pipeline_output_is_named(project: Path, path: Path) -> None:
    (project / path).unlink()
    with pytest.raises(DeliveryError, match=f"has not written {path}: run `make pipeline`"):
        package(project, 8, Layout(project / "registry"))
    assert not (project / "registry").exists()


def test_the_command_prints_the_reference(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    assert main(["package", "--version", "8"]) == 0
    reference = capsys.readouterr().out.strip()
    assert reference == f"oci:.local/registry@{package(project, 8, Layout(project / 'other'))}"


def test_the_index_lists_every_version_once(project: Path) -> None:
    layout = Layout(project / "registry")
    digests = [package(project, version, layout) for version in (7, 8, 7)]
    index = json.loads((layout.folder / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == digests[:2]


def test_a_killed_packaging_leaves_nothing_that_looks_complete(project: Path) -> None:
    script = (
        "import os; from pathlib import Path\n"
        "from delivery.model import packaging; from delivery.oci import layer, layout\n"
        "add = layer._add\n"
        "def die(archive, name, files):\n"
        "    if name.endswith('model.onnx'): os._exit(9)\n"
        "    add(archive, name, files)\n"
        "layer._add = die\n"
        "packaging.package(Path.cwd(), 8, layout.Layout(Path('registry')))\n"
    )
    died = subprocess.run([sys.executable, "-c", script], cwd=project, env=environment())
    assert died.returncode == 9
    registry = project / "registry"
    assert not (registry / "index.json").exists() and not (registry / "blobs").exists()
    digest = package(project, 8, Layout(registry))
    assert digest == package(project, 8, Layout(project / "other"))


def test_memory_does_not_grow_with_the_model(project: Path) -> None:
    with (project / "artifacts/model/classifier/1/model.onnx").open("wb") as model:
        model.truncate(200 * 1024 * 1024)
    script = (
        "import re; from pathlib import Path\n"
        "from delivery.model import packaging; from delivery.oci import layout\n"
        "status = Path('/proc/self/status')\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', status.read_text())[1])\n"
        "before = peak()\n"
        "packaging.package(Path.cwd(), 8, layout.Layout(Path('registry')))\n"
        "print(peak() - before)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=project, env=environment(), capture_output=True
    )
    assert int(answer.stdout) < 60 * 1024, "KiB more than the interpreter and its imports"


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(TEMPLATE)}


KILLED = (
    "import os, sys; from pathlib import Path\n"
    "from delivery.model import packaging; from delivery.oci import layer, layout\n"
    "def stop(archive, name, path):\n"
    "    archive.fileobj.write(bytes(1024))\n"
    "    print('begun', flush=True); sys.stdin.read(); os._exit(9)\n"
    "layer._add = stop\n"
    "packaging.package(Path.cwd(), 8, layout.Layout(Path('registry')))\n"
)


def test_partial_layers_of_the_dead_are_swept_and_of_the_living_kept(project: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    registry = Layout(project / "registry")
    with subprocess.Popen(command, cwd=project, env=environment(), **pipes) as running:
        assert running.stdout.readline() == b"begun\n"
        partial = list(registry.folder.glob(".blob.*"))
        package(project, 7, registry)
        assert list(registry.folder.glob(".blob.*")) == partial and len(partial) == 1
        running.kill()
    foreign = registry.folder / "blob.notes"
    foreign.write_text("of somebody else")
    package(project, 7, registry)
    assert not list(registry.folder.glob(".blob.*")) and foreign.exists()
