"""Proposing a training run, with the image in a registry on loopback."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from delivery.__main__ import main
from delivery.oci.image import CONFIG, MANIFEST, REVISION, digest_of
from delivery.proposals.run_file import RUN_FILE, Run
from fake_project import Project, make_project
from fake_registry import FakeRegistry, alone_with_registry

COMMIT = "c" * 40


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRegistry]:
    with alone_with_registry(monkeypatch, tmp_path) as server:
        yield server


def put(registry: FakeRegistry, document: object) -> str:
    content = json.dumps(document).encode()
    registry.content[digest_of(content)] = content
    return digest_of(content)


def image(registry: FakeRegistry, labels: dict[str, str] | None) -> str:
    """An image as builders make it; returns its digest."""
    config = put(registry, {"config": {"Labels": labels}})
    described = {"mediaType": CONFIG, "digest": config, "size": len(registry.content[config])}
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": []}
    return put(registry, document)


def index_of(registry: FakeRegistry, images: dict[str, str]) -> str:
    """An image for several architectures; returns its digest."""
    entries = [
        {
            "mediaType": MANIFEST,
            "digest": digest,
            "size": len(registry.content[digest]),
            "platform": {"architecture": name, "os": "linux"},
        }
        for name, digest in images.items()
    ]
    return put(registry, {"schemaVersion": 2, "manifests": entries})


@pytest.fixture
def reference(registry: FakeRegistry) -> str:
    return f"{registry.name}@{image(registry, {REVISION: COMMIT})}"


def proposed(project: Project, run: int) -> dict[str, str]:
    return yaml.safe_load(project.show(f"training/run-{run}", RUN_FILE))["data"]


def test_a_run_is_one_file_on_a_branch_of_its_own(project: Project, reference: str) -> None:
    state = project.state()
    assert main(["train-on-cluster", reference, "--nodes", "3"]) == 0
    assert proposed(project, 1) == {
        "run": "1",
        "image": reference,
        "nodes": "3",
        "commit": COMMIT,
    }
    changed = project.git("diff", "--name-only", "main..training/run-1", folder=project.origin)
    assert changed == RUN_FILE
    assert project.state() == state


def test_a_number_is_never_given_again(project: Project, reference: str) -> None:
    for number in (1, 2):
        assert main(["train-on-cluster", reference]) == 0
        project.merge(f"training/run-{number}")
    project.git("rm", "--quiet", RUN_FILE)
    project.commit("Stop training")
    assert main(["train-on-cluster", reference]) == 0
    assert proposed(project, 3)["nodes"] == "2"


def test_proposing_twice_opens_one_branch(project: Project, reference: str) -> None:
    assert main(["train-on-cluster", reference]) == 0
    branches = project.branches()
    assert main(["train-on-cluster", reference]) == 0
    assert project.branches() == branches


def test_an_index_is_asked_for_the_image_of_the_nodes(
    project: Project, registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    platforms = {"arm64": image(registry, {}), "amd64": image(registry, {REVISION: COMMIT})}
    index = index_of(registry, platforms)
    assert main(["train-on-cluster", f"{registry.name}@{index}"]) == 0
    assert proposed(project, 1)["commit"] == COMMIT
    index = index_of(registry, {"arm64": platforms["arm64"]})
    said = refusal(project, capsys, f"{registry.name}@{index}")
    assert "no image found in image index for architecture amd64" in said


def refusal(project: Project, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    branches = project.branches()
    capsys.readouterr()
    assert main(["train-on-cluster", *arguments]) == 1
    assert project.branches() == branches
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [
        "acme/train:latest",
        "acme/train",
        f"acme/train:1@sha256:{'1' * 64}",
        f"@sha256:{'1' * 64}",
        f"train@sha256:{'1' * 64}",
        f"acme/train@sha256:{'1' * 64}",
        f"localhost:x@evil.test/train@sha256:{'1' * 64}",
        f"localhost/train@sha256:{'1' * 64}@sha256:{'1' * 64}",
        "acme/train@sha256:123",
    ],
)
def test_a_reference_that_can_move_or_names_nothing(
    project: Project, reference: str, capsys: pytest.CaptureFixture[str], bad: str
) -> None:
    said = refusal(project, capsys, bad)
    assert said.startswith(f"error: IMAGE is {bad!r}: give <host>/<name>@sha256:<64 hex>")
    assert main(["train-on-cluster", reference]) == 0


@pytest.mark.parametrize("nodes", ["0", "-1", "1001"])
def test_a_number_of_machines_that_nobody_has(
    project: Project, reference: str, capsys: pytest.CaptureFixture[str], nodes: str
) -> None:
    said = refusal(project, capsys, reference, f"--nodes={nodes}")
    assert f"NODES is {nodes}: give a whole number" in said
    assert main(["train-on-cluster", reference, "--nodes=1000"]) == 0


def test_an_image_that_was_never_pushed(
    project: Project, registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(project, capsys, f"{registry.name}@sha256:{'1' * 64}")
    assert f"{registry.name} does not hold it (reading manifest sha256:1111" in said


def test_an_image_that_does_not_say_what_it_was_built_from(
    project: Project, registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    for labels in (None, {}, {REVISION: "main"}):
        said = refusal(project, capsys, f"{registry.name}@{image(registry, labels)}")
        assert "does not say which commit it was built from: build it with `make image`" in said
    built = image(registry, {REVISION: COMMIT})  # with the label that `make image` gives
    assert main(["train-on-cluster", f"{registry.name}@{built}"]) == 0


def test_a_registry_that_answers_with_another_image(
    project: Project, registry: FakeRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = f"sha256:{hashlib.sha256(b'asked for').hexdigest()}"
    registry.content[digest] = b"{}"
    said = refusal(project, capsys, f"{registry.name}@{digest}")
    assert "does not match provided manifest digest" in said


def test_a_run_file_that_nobody_can_count_from(
    project: Project, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project.folder / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    for text in ("", "data: {run: 3}", 'data: {run: "03"}', "data: ["):
        path.write_text(text)
        project.commit("Write a run file by hand")
        assert f"{RUN_FILE} at " in refusal(project, capsys, reference)


@pytest.mark.parametrize("cure", ["put right", "removed"])
def test_a_run_file_that_was_put_right_or_removed_is_counted_from(
    project: Project, reference: str, capsys: pytest.CaptureFixture[str], cure: str
) -> None:
    path = project.folder / RUN_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("data: [")
    project.commit("Write a run file by hand")
    assert "put it right on main, or remove the file" in refusal(project, capsys, reference)
    if cure == "removed":
        path.unlink()
    else:
        run = Run(run=4, image=reference, nodes=1, commit=COMMIT)
        path.write_text(run.to_yaml())
    project.commit("Do what was said")
    assert main(["train-on-cluster", reference]) == 0
    assert proposed(project, 1 if cure == "removed" else 5)["image"] == reference
