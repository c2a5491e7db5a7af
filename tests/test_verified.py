"""The component `verified`: what runs before the server, and what it lets pass."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import fake_pipeline
import rendering
from conftest import UNBAKED
from delivery.checks.pod_security import violations
from delivery.manifests.rendering import render
from delivery.manifests.server_pod import read_server_pod
from delivery.model.packaging import package
from delivery.oci import signature
from delivery.oci.layout import Layout
from delivery.oci.registry import pull
from delivery.proposals.release_file import Release
from delivery.proposals.signing import signed
from example_release import RELEASE

VERSION = 8


class Served:
    """A release that is signed, its image unpacked, and the environment that serves it."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        (folder / "project").mkdir()
        fake_pipeline.write_outputs(folder / "project")
        layout = Layout(folder / "registry")
        digest = package(folder / "project", VERSION, layout)
        self.models = folder / "models"
        pull(f"{layout.name}@{digest}", self.models)
        image = f"r.example/digits@{digest}"
        self.release = signed(RELEASE.model_copy(update={"image": image}), self.key)
        self.argocd = folder / "argocd"
        shutil.copytree(UNBAKED / "argocd", self.argocd)
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        public = self.key.public_key().public_bytes(*form)
        (self.argocd / "signing/signing.pub").write_bytes(public)
        overlay = self.argocd / "environments/staging/kustomization.yaml"
        settings = yaml.safe_load(overlay.read_text()) | {"namespace": "staging"}
        settings["components"].append("../../signing")
        overlay.write_text(yaml.safe_dump(settings))

    def render(self, release: Release) -> list[dict]:
        """What Argo CD applies of a release."""
        folder = self.argocd / "environments/staging"
        (folder / "model.yaml").write_text(release.to_yaml())
        return rendering.build(folder)

    def pod(self, release: Release | None = None) -> dict:
        """The pods of a release."""
        built = self.render(release or self.release)
        return next(each for each in built if each["kind"] == "Rollout")["spec"]["template"]

    def start(self, release: Release | None = None, **changed: str) -> tuple[int, str]:
        """Run the init container as the kubelet does; its status and what it said."""
        (container,) = self.pod(release)["spec"]["initContainers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        command = [sys.executable, *container["command"][1:]]
        environment = {"MODELS": str(self.models)} | variables | changed
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def test_a_model_that_is_signed_and_whole_is_let_pass(served: Served) -> None:
    status, said = served.start()
    assert (status, said.partition(": ")[0]) == (0, f"{served.release.digest} is signed and whole")


def test_the_container_is_the_servers_restricted_and_alone(served: Served) -> None:
    pod = served.pod()
    (container,), (server,) = pod["spec"]["initContainers"], pod["spec"]["containers"]
    assert container["image"] == server["image"] and not violations({"kind": "Pod", **pod})
    assert container["volumeMounts"] == [
        {"name": "model", "mountPath": "/models", "readOnly": True}
    ]
    assert "$" not in "".join(container["command"]), "Kubernetes would replace it"
    kinds = [each["metadata"]["name"] for each in served.render(served.release)]
    assert not {"verify-program", "signing-key"} & {*kinds}, "what a pod needs is in the pod"
    assert read_server_pod(render(served.argocd / "environments/staging")).version == VERSION


def edited(models: Path) -> None:
    file = models / f"classifier/{VERSION}/model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"!")


def linked(models: Path) -> None:
    (models / "classifier/labels.txt").unlink()
    (models / "classifier/labels.txt").symlink_to("/etc/passwd")


BROKEN: dict[str, Callable[[Path], object]] = {
    "a byte": edited,
    "a file more": lambda models: (models / "classifier/evil.py").write_text("evil"),
    "a folder more": lambda models: (models / "evil").mkdir(),
    "a file less": lambda models: (models / "classifier/labels.txt").unlink(),
    "a link": linked,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_model_that_is_not_whole_stays_out(served: Served, how: str) -> None:
    BROKEN[how](served.models)
    status, said = served.start()
    assert (status, said.count("\n")) == (1, 1) and said.startswith("not the model that was signed")


def test_what_the_key_did_not_sign_stays_out(served: Served) -> None:
    other = signed(served.release, ec.generate_private_key(ec.SECP256R1()))
    status, said = served.start(other)
    assert (status, said) == (1, "not signed: ValueError: the key did not sign it\n")
    elsewhere = served.release.model_copy(update={"image": f"r.example/x@sha256:{'2' * 64}"})
    status, said = served.start(elsewhere)
    assert (status, said.partition(" than")[0]) == (
        1,
        "not signed: the signature is of another image",
    )
    again = served.release.model_copy(update={"version": VERSION + 1})
    assert served.start(again)[0] == 1
    for name, value in (("SIGNATURE", "e30="), ("SIGNATURE", "?"), ("KEY", "no key")):
        status, said = served.start(**{name: value})
        assert (status, said.count("\n")) == (1, 1) and said.startswith("not signed: ")


def test_an_unsigned_release_renders_nothing(served: Served) -> None:
    with pytest.raises(AssertionError, match=r"`data.signature` is missing"):
        served.render(served.release.model_copy(update={"signature": None}))


def test_its_arithmetic_is_that_of_the_library(served: Served, tmp_path: Path) -> None:
    """Forty keys, each with a good signature and one of which a bit is turned."""
    (container,) = served.pod()["spec"]["initContainers"]
    program = container["command"][3].replace("\nmain()\n", "\n")
    cases = []
    for number in range(40):
        key = ec.generate_private_key(ec.SECP256R1())
        content = b"x" * number
        made = key.sign(content, signature.ALGORITHM)
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        pem = key.public_key().public_bytes(*form).decode()
        cases.append((pem, base64.b64encode(content), base64.b64encode(made), True))
        turned = bytes([*made[:-1], made[-1] ^ 1])
        cases.append((pem, base64.b64encode(content), base64.b64encode(turned), False))
    judged = (
        f"cases = {cases!r}\n"
        "found = [is_signed(base64.b64decode(content), base64.b64decode(made), public_key(pem))\n"
        "         for pem, content, made, _ in cases]\n"
        "assert found == [good for *_, good in cases]\n"
    )
    (tmp_path / "judge.py").write_text(program + judged)
    subprocess.run([sys.executable, str(tmp_path / "judge.py")], check=True, env=dict(os.environ))
