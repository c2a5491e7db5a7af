"""The preview: what Git says is served, and whatever goes wrong the last good version goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports
from tiny import SHAPE, processes
from tiny_project import TinyProject, make_project

IMAGE = np.zeros((1, *SHAPE), np.uint8)
PATIENCE = 60.0  # seconds: generous, because nothing here is a measurement


@dataclass
class Running:
    """A preview in a process of its own, and what it says."""

    project: TinyProject
    process: subprocess.Popen[str]
    options: list[str] = field(default_factory=list)

    def status(self) -> dict[str, Any]:
        path = self.project.folder / ".local" / "preview" / "staging" / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def until(self, **wanted: Any) -> dict[str, Any]:
        """Wait until the status has these values; return it."""
        deadline = time.monotonic() + PATIENCE
        while not wanted.items() <= (status := self.status()).items():
            assert time.monotonic() < deadline, f"{status} never became {wanted}"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        return status

    @property
    def ports(self) -> Ports:
        status = self.status()
        return Ports(
            *(int(status[name].rpartition(":")[2]) for name in ("address", "grpc_address"))
        )

    def versions(self) -> set[int]:
        """Ask over both protocols which version answers."""
        found = set()
        for protocol in PROTOCOLS:
            with connect(protocol, self.ports) as client:
                found.add(client.infer(IMAGE).version)
        return found

    def servers(self) -> list[int]:
        """List the processes of Triton that this preview started and that still run."""
        return processes(f"--model-repository=delivery-{self.process.pid}-")

    def stop(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=PATIENCE)


def start(project: TinyProject, *options: str) -> Running:
    ports = (
        [] if any("port" in option for option in options) else ["--http-port=0", "--grpc-port=0"]
    )
    return Running(project, project.delivery("preview", "staging", *ports, *options))


def end(running: Running) -> None:
    running.process.kill()
    running.process.communicate()


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make_project(tmp_path)


@pytest.fixture
def preview(project: TinyProject) -> Iterator[Running]:
    """A preview of a project that has released version 1."""
    commit = project.bump(1)
    running = start(project, "--watch")
    try:
        running.until(commit=commit, version=1, sync="Synced", health="Healthy")
        yield running
    finally:
        end(running)


def test_a_project_without_a_release_waits_for_the_first(project: TinyProject) -> None:
    running = start(project, "--watch")
    try:
        status = running.until(sync="Synced", health="Missing")
        assert status["message"] == "nothing is released yet"
        project.bump(1)
        status = running.until(version=1, health="Healthy")
        assert running.versions() == {1}
    finally:
        end(running)


def test_bump_and_rollback_under_load(preview: Running) -> None:
    stop, seen = threading.Event(), []

    def call(protocol: str) -> None:
        answered = []
        with connect(protocol, preview.ports) as client:
            last = False
            while not last:
                last = stop.is_set()  # one more request after the end is called
                answered.append(client.infer(IMAGE).version)
        seen.append(answered)

    threads = [threading.Thread(target=call, args=[protocol]) for protocol in PROTOCOLS * 2]
    for thread in threads:
        thread.start()
    bump = preview.project.bump(2)
    status = preview.until(commit=bump, version=2, health="Healthy")
    rollback = preview.project.revert()
    preview.until(commit=rollback, version=1, health="Healthy")
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 4  # no client met an error
    for answered in seen:
        changes = [new for old, new in pairwise(answered) if new != old]
        assert answered[0] == 1 and changes == [2, 1]
    steps = ["seen", "rendered", "pulled", "started", "ready", "switched"]
    assert list(status["timeline"]) == steps
    assert sorted(status["timeline"].values()) == list(status["timeline"].values())
    assert status["received"] > 0


def test_the_former_server_ends(preview: Running) -> None:
    preview.project.bump(2)
    preview.until(version=2, health="Healthy")
    models = preview.project.folder / ".local" / "preview" / "staging" / "models"
    deadline = time.monotonic() + PATIENCE
    while len(preview.servers()) > 1 or len(list(models.iterdir())) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [folder.name.split("-")[0] for folder in models.iterdir()] == ["2"]


def test_a_commit_that_changes_nothing_here_starts_nothing(preview: Running) -> None:
    before = preview.servers()
    (preview.project.folder / "README.md").write_text("Hello\n")
    commit = preview.project.merge("Write a README")
    preview.until(commit=commit, sync="Synced", health="Healthy", version=1)
    assert preview.servers() == before


def test_a_revert_does_not_wait_for_a_server_that_never_gets_ready(preview: Running) -> None:
    released = preview.project.build(2)
    add_argument(preview.project, "--model-control-mode=explicit")  # starts, but loads no model
    preview.project.release(released)
    preview.until(health="Progressing", version=1)
    commit = preview.project.revert()
    preview.until(commit=commit, health="Healthy", version=1)
    assert preview.versions() == {1}


# -- releases that cannot be served ----------------------------------------------------------------


def add_argument(project: TinyProject, argument: str) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    text = path.read_text().replace("- --model-control-mode=none", f"- {argument}")
    path.write_text(text)


def layer(project: TinyProject, digest: str) -> Path:
    """Return the file of an image's layer in the registry."""
    blobs = project.folder / ".local" / "registry" / "blobs" / "sha256"
    manifest = json.loads((blobs / digest.removeprefix("sha256:")).read_text())
    return blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")


def unknown_digest(project: TinyProject) -> None:
    release = project.build(2)
    digest = f"sha256:{'0' * 64}"
    project.release_file().write_text(
        release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    )


def missing_layer(project: TinyProject) -> None:
    released(project).unlink()


def truncated_layer(project: TinyProject) -> None:
    path = released(project)
    path.write_bytes(path.read_bytes()[:-1000])


def flipped_bit_in_the_layer(project: TinyProject) -> None:
    path = released(project)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def released(project: TinyProject) -> Path:
    """Write a good release of version 2; return its layer, to spoil it."""
    release = project.build(2)
    project.release_file().write_text(release.to_yaml())
    return layer(project, release.image.rpartition("@")[2])


def missing_registry(project: TinyProject) -> None:
    release = project.build(2)
    text = release.to_yaml().replace("oci:.local/registry", "oci:.local/elsewhere")
    project.release_file().write_text(text)


def corrupt_onnx(project: TinyProject) -> None:
    release = project.build(2)
    (project.folder / "artifacts/model/classifier/1/model.onnx").write_bytes(b"not a graph")
    digest = project.package(2)
    text = release.to_yaml().replace(release.image.rpartition("@")[2], digest)
    project.release_file().write_text(text)


def wrong_version_directory(project: TinyProject) -> None:
    release = project.build(2)
    project.release_file().write_text(release.to_yaml().replace('version: "2"', 'version: "3"'))


def argument_that_triton_does_not_know(project: TinyProject) -> None:
    add_argument(project, "--no-such-thing")


def grpc_switched_off(project: TinyProject) -> None:
    add_argument(project, "--allow-grpc=false")


def release_without_an_image(project: TinyProject) -> None:
    text = re.sub(r"  image: .*\n", "", project.release_file().read_text())
    project.release_file().write_text(text)


def version_that_is_no_number(project: TinyProject) -> None:
    text = project.release_file().read_text().replace('version: "1"', 'version: "two"')
    project.release_file().write_text(text)


def tag_instead_of_a_digest(project: TinyProject) -> None:
    text = re.sub(r"@sha256:\w+", ":latest", project.release_file().read_text())
    project.release_file().write_text(text)


def kustomization_that_names_a_missing_file(project: TinyProject) -> None:
    path = project.release_file().parent / "kustomization.yaml"
    path.write_text(path.read_text().replace("- model.yaml", "- model.yaml\n  - missing.yaml"))


def unknown_key_in_the_rollout(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("serviceAccountName:", "serviceAcountName:"))


def other_command(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("[tritonserver]", "[python3]"))


def image_mounted_elsewhere(project: TinyProject) -> None:
    path = project.folder / "argocd" / "base" / "triton" / "rollout.yaml"
    path.write_text(path.read_text().replace("mountPath: /models", "mountPath: /model"))


def deleted_release_file(project: TinyProject) -> None:
    project.release_file().unlink()


def deleted_manifests(project: TinyProject) -> None:
    shutil.rmtree(project.folder / "argocd" / "base")


DEGRADED = [
    (unknown_digest, "does not hold sha256:0000"),
    (missing_layer, "does not hold sha256:"),
    (truncated_layer, "gave .* instead of .* bytes"),
    (flipped_bit_in_the_layer, "corrupt"),
    (missing_registry, "elsewhere"),
    (corrupt_onnx, "Triton ended: .*Protobuf parsing failed"),
    (wrong_version_directory, "the image holds version 2 of the model and the release says 3"),
    (grpc_switched_off, "does not answer on its gRPC port"),
    (argument_that_triton_does_not_know, "unrecognized option '--no-such-thing'"),
]
UNKNOWN = [
    (release_without_an_image, "'data.image' is missing: give"),
    (version_that_is_no_number, "version is 'two'"),
    (tag_instead_of_a_digest, "image is 'oci:.local/registry:latest'"),
    (kustomization_that_names_a_missing_file, "missing.yaml"),
    (unknown_key_in_the_rollout, "serviceAcountName"),
    (other_command, "python3"),
    (image_mounted_elsewhere, "mounted at"),
    (deleted_release_file, "model.yaml is missing"),
    (deleted_manifests, "base"),
]
FAULTS = [
    pytest.param(fault, {"sync": sync, "health": health}, sentence, id=fault.__name__)
    for faults, sync, health in ((DEGRADED, "Synced", "Degraded"), (UNKNOWN, "Unknown", "Healthy"))
    for fault, sentence in faults
]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A preview that lives through all faults."""
    project = make_project(tmp_path_factory.mktemp("faults"))
    commit = project.bump(1)
    running = start(project, "--watch")
    try:
        running.until(commit=commit, version=1, sync="Synced", health="Healthy")
        yield running
    finally:
        end(running)


@pytest.mark.parametrize(("fault", "state", "sentence"), FAULTS)
def test_fault_is_told_and_not_served_and_a_revert_heals(
    patient: Running,
    fault: Callable[[TinyProject], None],
    state: dict[str, str],
    sentence: str,
) -> None:
    fault(patient.project)
    commit = patient.project.merge(f"Cause: {fault.__name__}")
    status = patient.until(commit=commit, version=1, **state)
    assert re.search(sentence, status["message"]) and "\n" not in status["message"]
    assert patient.versions() == {1}
    commit = patient.project.revert()
    patient.until(commit=commit, version=1, sync="Synced", health="Healthy")


# -- the process -----------------------------------------------------------------------------------


def test_server_that_dies_is_started_again(preview: Running) -> None:
    (server,) = preview.servers()
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while preview.servers() in ([], [server]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    preview.until(health="Healthy", version=1)
    assert preview.versions() == {1}


def test_new_release_replaces_a_server_that_cannot_be_started_again(preview: Running) -> None:
    release = preview.project.released()
    layer(preview.project, release.image.rpartition("@")[2]).unlink()
    (server,) = preview.servers()
    os.kill(server, signal.SIGKILL)
    preview.until(health="Degraded", version=None)
    preview.project.bump(2)
    preview.until(health="Healthy", version=2)
    assert preview.versions() == {2}


def test_git_that_does_not_answer_is_told_and_changes_nothing(preview: Running) -> None:
    before, origin = preview.servers(), preview.project.origin
    away = origin.rename(origin.with_name("away.git"))
    assert "git" in preview.until(sync="Unknown", health="Healthy", version=1)["message"]
    assert preview.versions() == {1}
    away.rename(origin)
    preview.until(sync="Synced", health="Healthy", version=1)
    assert preview.servers() == before


def test_killed_preview_leaves_nothing_and_starts_again(preview: Running) -> None:
    ports = preview.ports
    preview.process.kill()
    preview.process.communicate()
    deadline = time.monotonic() + PATIENCE
    while preview.servers():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    commit = preview.project.bump(2)
    same = [f"--http-port={ports.http}", f"--grpc-port={ports.grpc}"]
    again = start(preview.project, "--watch", *same)
    try:
        again.until(commit=commit, version=2, health="Healthy")
        assert again.ports == ports and again.versions() == {2}
    finally:
        end(again)


def test_second_preview_of_the_same_environment_is_refused(preview: Running) -> None:
    second = start(preview.project)
    errors = second.process.communicate(timeout=PATIENCE)[1]
    assert (second.process.returncode, errors.strip()) == (
        1,
        "error: a preview of staging runs already: stop it first",
    )
    assert preview.versions() == {1}


def test_clean_end(preview: Running) -> None:
    printed, errors = preview.stop()
    assert (preview.process.returncode, errors) == (0, "")
    assert printed.splitlines()[-1] == "stopped"
    assert preview.servers() == []
    assert (preview.status()["version"], preview.status()["health"]) == (None, "Missing")


def test_unknown_environment(project: TinyProject) -> None:
    process = project.delivery("preview", "testing", "--http-port=0", "--grpc-port=0")
    errors = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1
    assert errors.startswith("error: there is no environment 'testing': give ENV=")


def test_without_watching_a_bad_release_ends_the_preview(project: TinyProject) -> None:
    unknown_digest(project)
    project.merge("Release what is not there")
    running = start(project)
    errors = running.process.communicate(timeout=PATIENCE)[1]
    assert running.process.returncode == 1
    assert errors.startswith("error: ") and "does not hold" in errors and errors.count("\n") == 1
