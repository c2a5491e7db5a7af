"""The rehearsal: what a merge would serve, tried out before, and told in one report."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import numpy_helper

from delivery.__main__ import main
from delivery.checks import rehearsal
from delivery.proposals.release_file import Release
from delivery.triton import load
from tiny import write_repository
from tiny_project import TinyProject, make_project

REPORT = Path(".local/rehearsals/staging.md")
MODEL = Path("artifacts/model/classifier")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    made = make_project(tmp_path)
    monkeypatch.chdir(made.folder)
    monkeypatch.setattr(load, "SECONDS", 0.05)
    monkeypatch.setattr(rehearsal, "LOADS", load.LOADS[:2])
    return made


def propose(project: TinyProject, release: Release) -> None:
    """Commit a release on a branch, as a pull request does."""
    project.git("checkout", "--quiet", "-B", f"release/{release.version}")
    project.release_file().write_text(release.to_yaml())
    project.git("commit", "--quiet", "-am", f"Release model {release.version}")


def repackaged(project: TinyProject, release: Release) -> Release:
    """Return the release with the image of what lies in artifacts now."""
    digest = project.package(release.version)
    text = release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    project.release_file().write_text(text)
    return project.released()


def test_good_release_passes_and_is_compared(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project.bump(1)
    release = project.build(2)
    propose(project, release)
    assert main(["rehearse", "staging"]) == 0
    report = REPORT.read_text()
    title, *_ = report.splitlines()
    assert title == f"# Rehearsal of staging at {project.git('rev-parse', 'HEAD')[:12]}: passed"
    assert report.count("70 of 70 golden answers") == 7
    assert "| accuracy | 0.97 | 0.97 |" in report
    for protocol in ("http", "grpc"):
        for version in (1, 2):
            assert f"| {protocol}, 1 client(s), 1 picture(s) each | {version} |" in report
    assert f"+          reference: {release.image}" in report
    assert "-            path: /v2/models/classifier/versions/1/ready" in report
    assert "every check passed (report" in capsys.readouterr().out
    assert "| clients of model 1 | passed | of 70 golden requests 0 fail, " in report
    assert (
        "| accuracy, the released model's own test set of 200 (200) | 0.9700 | 0.9700 |" in report
    )


def test_first_release_has_nothing_to_compare_with(project: TinyProject) -> None:
    release = project.build(1)
    project.release_file().write_text(release.to_yaml())
    project.git("checkout", "--quiet", "-b", "release/1")
    project.git("add", "--all")
    project.git("commit", "--quiet", "-m", "Release model 1")
    assert main(["rehearse", "staging"]) == 0
    assert "There is nothing to compare with: nothing is released yet." in REPORT.read_text()


def test_another_image_can_be_rehearsed_before_it_is_proposed(project: TinyProject) -> None:
    project.bump(1)
    release = project.build(2)
    state = project.git("status", "--porcelain")
    assert main(["rehearse", "staging", "--image", release.image, "--report", "report.md"]) == 0
    assert f"- image: `{release.image}`" in Path("report.md").read_text()
    assert "answered by version 2" in Path("report.md").read_text()
    Path("report.md").unlink()
    assert project.git("status", "--porcelain") == state


def test_released_model_that_is_gone_is_noted(project: TinyProject) -> None:
    project.bump(1)
    shutil.rmtree(".local/registry")
    propose(project, project.build(2))
    assert main(["rehearse", "staging"]) == 0
    assert "The released model cannot be served here: " in REPORT.read_text()


def test_a_server_that_obeys_everyone_fails_until_its_arguments_restrict_that(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project.bump(1)
    propose(project, project.build(2))
    rollout = Path("argocd/base/triton/rollout.yaml")
    restricted = yaml.safe_load(rollout.read_text())
    (container,) = restricted["spec"]["template"]["spec"]["containers"]
    for protocol in ("http", "grpc"):
        container["args"] = [each for each in container["args"] if f"--{protocol}-r" not in each]
        rollout.write_text(yaml.safe_dump(restricted))
        project.git("commit", "--quiet", "-am", "Let everyone administer")
        assert main(["rehearse", "staging"]) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"{protocol}, administration: shared-memory answers everyone; " in error
        (cure,) = re.findall(r"give Triton `(.*?)` in (?=argocd/base/triton/rollout.yaml)", error)
        container["args"].append(cure)
        rollout.write_text(yaml.safe_dump(restricted))
        project.git("commit", "--quiet", "-am", "Follow the sentence")
        assert main(["rehearse", "staging"]) == 0
        assert REPORT.read_text().count("nobody without the value shared-memory, ") == 2


@pytest.mark.parametrize("largest", [5, 1])
def test_no_more_pictures_are_sent_at_once_than_the_model_takes(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(rehearsal, "LOADS", load.LOADS)
    project.bump(1)
    release = project.build(2)
    config = MODEL / "config.pbtxt"
    text = config.read_text().replace("max_batch_size: 32", f"max_batch_size: {largest}")
    config.write_text(text)
    propose(project, repackaged(project, release))
    assert main(["rehearse", "staging"]) == 0, REPORT.read_text()
    report = REPORT.read_text()
    assert {*re.findall(r"grpc, batches of (\d+)", report)} == {"1", str(largest)}
    sent = re.findall(r"grpc, (\d+) client\(s\), (\d+) picture\(s\) each \| 2", report)
    assert sent == [*dict.fromkeys([("1", "1"), ("8", "1"), ("1", str(largest))])]


def reordered(labels: Path) -> None:
    labels.write_text("".join(reversed(labels.read_text().splitlines(keepends=True))))


def test_clients_that_would_break_are_shown_also_where_that_is_accepted(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    project.bump(1)
    release = project.build(2, seed=1)  # the same weights, so that only the labels differ
    reordered(MODEL / "labels.txt")
    release = repackaged(project, release)
    propose(project, release)
    assert main(["rehearse", "staging"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    change = "labels: 0 class 0 -> class 4, 1 class 1 -> class 3, 3 class 3 -> class 1, 4 class 4"
    assert f"clients of model 1: {change} -> class 0 (not accepted in params.yaml); of 70" in said
    (misread,) = re.findall(r"and (\d+) answers are read as another class", said)
    shutil.rmtree(MODEL.parent)
    write_repository(MODEL.parent, shape=(4, 6, 1))
    propose(project, repackaged(project, release))
    params = Path("params.yaml").read_text()
    accepted = 'accept_interface_change: "shape: 8x6x1 -> 4x6x1"'
    Path("params.yaml").write_text(re.sub("accept_interface_change: .*", accepted, params))
    project.git("commit", "--quiet", "-am", "Say that clients are ready")
    assert main(["rehearse", "staging"]) == 0
    assert "passed; clients must change: shape: 8x6x1 -> 4x6x1 (" in capsys.readouterr().out
    report = REPORT.read_text()
    assert "**Clients of model 1 must change:** `shape: 8x6x1 -> 4x6x1`" in report
    assert "of 70 golden requests 70 fail (the server refused (400): " in report
    assert int(misread) > 0 and "| class 4 | " in report.partition("## Clients of model 1")[2]


# -- releases that must not be merged --------------------------------------------------------------


def other_weights(project: TinyProject, release: Release) -> Release:
    change_weights(lambda weights: -weights)
    return repackaged(project, release)


def weights_that_are_not_numbers(project: TinyProject, release: Release) -> Release:
    change_weights(lambda weights: weights * np.float32("nan"))
    return repackaged(project, release)


def change_weights(change: Callable[[np.ndarray], np.ndarray]) -> None:
    model = onnx.load(MODEL / "1" / "model.onnx")
    (weights,) = model.graph.initializer
    changed = change(numpy_helper.to_array(weights))
    weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    onnx.save(model, MODEL / "1" / "model.onnx")


def corrupt_onnx(project: TinyProject, release: Release) -> Release:
    (MODEL / "1" / "model.onnx").write_bytes(b"not a graph")
    return repackaged(project, release)


def missing_golden_requests(project: TinyProject, release: Release) -> Release:
    (MODEL / "golden.npz").write_bytes(b"")
    return repackaged(project, release)


def figures_that_flatter(project: TinyProject, release: Release) -> Release:
    return Release(**vars(release) | {"accuracy": 0.999})


def data_of_another_model(project: TinyProject, release: Release) -> Release:
    return Release(**vars(release) | {"data": "f" * 64})


def image_of_another_version(project: TinyProject, release: Release) -> Release:
    return Release(**vars(release) | {"version": 3})


def image_that_is_not_there(project: TinyProject, release: Release) -> Release:
    return Release(**vars(release) | {"image": f"oci:.local/registry@sha256:{'0' * 64}"})


def manifests_that_cannot_be_built(project: TinyProject, release: Release) -> Release:
    path = project.release_file().parent / "kustomization.yaml"
    path.write_text(path.read_text().replace("- model.yaml", "- model.yaml\n  - missing.yaml"))
    return release


def account_that_is_damaged(project: TinyProject, release: Release) -> Release:
    Path("metrics.json").write_text(json.dumps({"accuracy": 0.9}))
    return repackaged(project, release)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (other_weights, "http, batches of 1: .*of 70 golden answers have the recorded class"),
        (weights_that_are_not_numbers, "differ by at most nan"),
        (corrupt_onnx, "Triton ended: .*Protobuf parsing failed"),
        (missing_golden_requests, "golden.npz cannot be read"),
        (figures_that_flatter, "accuracy is 0.999 in the release file and 0.97 in the image"),
        (data_of_another_model, "data is f+ in the release file and a+ in the image"),
        (image_of_another_version, "holds version 2 of the model and the release says 3"),
        (image_that_is_not_there, "does not hold sha256:0000"),
        (manifests_that_cannot_be_built, "missing.yaml"),
        (account_that_is_damaged, "the image's own account of the model cannot be read"),
    ],
)
def test_bad_release_fails_with_its_reason(
    project: TinyProject,
    spoil: Callable[[TinyProject, Release], Release],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    project.bump(1)
    propose(project, spoil(project, project.build(2)))
    assert main(["rehearse", "staging"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and error.endswith(f"(report: {REPORT})")
    assert re.search(sentence, error)
    assert ": FAILED: do not merge" in REPORT.read_text().splitlines()[0]
