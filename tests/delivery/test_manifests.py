"""What would be applied, and every release file that must not get that far."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import UNBAKED
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.differences import differences
from delivery.manifests.rendering import render
from delivery.manifests.server_pod import read_server_pod
from delivery.proposals.release_file import read_release
from example_release import RELEASE
from tiny_project import make_project
from workspace.errors import UserError

GOOD = RELEASE.to_yaml()

ARGOCD = UNBAKED / "argocd"


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    """A copy of the manifests, with one release in staging."""
    shutil.copytree(ARGOCD, tmp_path / "argocd")
    environment = tmp_path / "argocd/environments/staging"
    (environment / "model.yaml").write_text(GOOD)
    return environment


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_release_file_says_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(GOOD)
    assert read_release(tmp_path / "model.yaml") == RELEASE


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_rollout_serves_exactly_the_release(staging: Path, environment: str) -> None:
    folder = staging.parent / environment
    (folder / "model.yaml").write_text(RELEASE.model_copy(update={"version": 12}).to_yaml())
    documents = render(folder)
    labels = [documents["Rollout", "triton"]["metadata"]["labels"]]
    labels += [documents["Rollout", "triton"]["spec"]["template"]["metadata"]["labels"]]
    assert [each["app.kubernetes.io/version"] for each in labels] == ["12", "12"]
    pod = documents["Rollout", "triton"]["spec"]["template"]["spec"]
    (model,) = [volume for volume in pod["volumes"] if volume["name"] == "model"]
    assert model["image"]["reference"] == RELEASE.image
    ready = "/v2/models/classifier/versions/12/ready"
    (container,) = pod["containers"]
    assert container["startupProbe"]["httpGet"]["path"] == ready
    assert container["readinessProbe"]["httpGet"]["path"] == ready


def test_the_environments_differ_in_name_and_replicas_only(staging: Path) -> None:
    production = staging.parent / "production"
    (production / "model.yaml").write_text(GOOD)
    first, second = render(staging), render(production)
    rollouts = [each["Rollout", "triton"] for each in (first, second)]
    assert [each["spec"].pop("replicas") for each in rollouts] == [1, 2]
    for each in rollouts:
        assert each["metadata"].pop("namespace").endswith(("-staging", "-production"))
    assert rollouts[0] == rollouts[1]


# name of the fault: (text, replacement, what the message must name)
BAD_RELEASES = {
    "version-zero": ('"8"', '"0"', "version is '0'"),
    "version-with-a-leading-zero": ('"8"', '"01"', "version is '01'"),
    "version-is-text": ('"8"', '"eight"', "version is 'eight'"),
    "version-negative": ('"8"', '"-1"', "version is '-1'"),
    "version-not-quoted": ('"8"', "8", "version is 8, not text"),
    "version-in-other-digits": ('"8"', '"\u0668"', "version is"),
    "image-by-tag": ("@sha256:" + "1" * 64, ":latest", "image is"),
    "image-digest-too-short": ("1" * 64, "1" * 63, "image is"),
    "image-missing": (
        "  image:",
        "  picture:",
        "there is no 'data.picture': did you mean 'signature'?",
    ),
    "data-missing": ("  data:", "  date:", "there is no 'data.date': did you mean 'data'?"),
    "key-unknown": (
        "\ndata:\n",
        '\ndata:\n  reviewer: "me"\n',
        "there is no 'data.reviewer': known are",
    ),
    "accuracy-not-a-number": ('"0.9877"', '"nan"', "accuracy is 'nan'"),
    "accuracy-in-percent": ('"0.9877"', '"98.77"', "accuracy is '98.77'"),
    "loss-infinite": ('"0.0431"', '"inf"', "loss is 'inf'"),
    "commit-abbreviated": ("d" * 40, "d" * 7, "commit is"),
    "another-kind": ("ConfigMap", "Secret", "not one ConfigMap"),
    "another-name": ("model-release", "model", "not one ConfigMap"),
    "two-documents": ("\ndata:\n", "\n---\ndata:\n", "is not YAML"),
    "conflict-markers": (
        "\ndata:\n",
        "\n" + "<" * 7 + " HEAD\ndata:\n",
        "do not resolve it by hand",
    ),
    "empty": (GOOD, "", "not one ConfigMap"),
}


@pytest.mark.parametrize("fault", BAD_RELEASES)
def test_a_bad_release_file_is_refused_with_one_sentence(staging: Path, fault: str) -> None:
    old, new, named = BAD_RELEASES[fault]
    edit(staging / "model.yaml", old, new)
    with pytest.raises(UserError) as refusal:
        render(staging)
    assert named in str(refusal.value)
    assert "model.yaml" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_environment_without_a_release_is_named(staging: Path) -> None:
    (staging / "model.yaml").unlink()
    with pytest.raises(UserError, match=r"is released there; make and merge a release first\."):
        render(staging)
    (staging / "model.yaml").write_text(GOOD)
    assert render(staging)


ROLLOUT = "base/triton/rollout.yaml"
SERVICE = "base/triton/service.yaml"
OVERLAY = "environments/staging/kustomization.yaml"

# name of the fault: (file, text, replacement, what the message must match)
BAD_MANIFESTS: dict[str, tuple[str, str, str, str]] = {
    "unknown-key-in-a-service": (
        SERVICE,
        "  selector:",
        "  selektor:",
        "'selektor' was unexpected",
    ),
    "unknown-key-in-the-pod": (
        ROLLOUT,
        "enableServiceLinks",
        "enableServiceLink",
        "'enableServiceLink' was unexpected",
    ),
    "unknown-key-in-the-container": (
        ROLLOUT,
        "readinessProbe:",
        "readyProbe:",
        "cannot be built: .*readinessProbe",
    ),
    "unknown-key-in-the-rollout": (
        ROLLOUT,
        "revisionHistoryLimit",
        "revisionHistory",
        "'revisionHistory' was unexpected",
    ),
    "unknown-key-in-a-monitors-metadata": (
        "base/triton/pod-monitor.yaml",
        "metadata:",
        "metadata:\n  label: {team: vision}",
        "'label' was unexpected",
    ),
    "label-that-is-a-number": (
        ROLLOUT,
        'version: "0"',
        "version: 0",
        "8 is not of type 'string'",
    ),
    "wrong-type": (
        ROLLOUT,
        "PeriodSeconds: 60",
        "PeriodSeconds: sixty",
        "'sixty' is not of type",
    ),
    "component-left-out": (
        OVERLAY,
        "  - ../../base/components/release\n",
        "",
        "set-by-the-release",
    ),
    "probe-of-another-model": (
        ROLLOUT,
        "models/classifier/versions/0",
        "models/other/versions/0",
        "/v2/models/other/versions/8/ready",
    ),
    "volume-renamed": (
        ROLLOUT,
        "- name: model\n          image",
        "- name: weights\n          image",
        "cannot be built: .*model",
    ),
    "missing-file": (OVERLAY, "base/triton", "base/tritom", "cannot be built: .*tritom"),
    "not-yaml": (ROLLOUT, "spec:", "spec: [", "cannot be built: .*rollout.yaml"),
    "rollout-without-spec": (
        "base/triton/service-account.yaml",
        "kind: ServiceAccount\nmetadata:\n  name: triton",
        "kind: Rollout\nmetadata:\n  name: second",
        "Rollout second",
    ),
    "no-rollout": (
        "base/triton/kustomization.yaml",
        "  - rollout.yaml\n",
        "",
        "There are 0 Rollouts",
    ),
}


@pytest.mark.parametrize("fault", BAD_MANIFESTS)
def test_bad_manifests_are_refused_with_one_sentence(staging: Path, fault: str) -> None:
    file, old, new, named = BAD_MANIFESTS[fault]
    right = (staging.parent.parent / file).read_text()
    edit(staging.parent.parent / file, old, new)
    with pytest.raises(DeliveryError, match=named) as refusal:
        render(staging)
    assert "\n" not in str(refusal.value)
    (staging.parent.parent / file).write_text(right)
    assert render(staging)


def test_a_machine_without_kubectl_is_told_so(
    staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path))
        with pytest.raises(DeliveryError, match="kubectl is not installed; install it"):
            render(staging)
    assert render(staging)


def test_a_pod_that_is_put_right_is_served(staging: Path) -> None:
    documents = render(staging)
    (container,) = documents["Rollout", "triton"]["spec"]["template"]["spec"]["containers"]
    for key, wrong, said in (
        ("startupProbe", None, r"no startupProbe with httpGet; give it one\."),
        ("volumeMounts", [], r"is mounted at \[\] and Triton reads .*; make them the same\."),
    ):
        right = container.pop(key)
        container |= {key: wrong} if wrong is not None else {}
        with pytest.raises(UserError, match=said):
            read_server_pod(documents)
        container[key] = right
        read_server_pod(documents)


def test_a_kubectl_that_hangs_is_tried_again(
    staging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def hangs(command: list[str], **options: Any) -> Any:
        monkeypatch.setattr(subprocess, "run", run)
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hangs)
    with pytest.raises(DeliveryError, match=r"took two minutes; try again\."):
        render(staging)
    assert render(staging)


def add(environment: Path, kind: str) -> None:
    """Have an environment contain an object of a kind that no schema here knows."""
    document = f"apiVersion: example.com/v1\nkind: {kind}\nmetadata: {{name: added}}\n"
    (environment / "added.yaml").write_text(document)
    edit(environment / "kustomization.yaml", "  - model.yaml\n", "  - model.yaml\n  - added.yaml\n")


@pytest.mark.parametrize("kind", ["EC2NodeClass", "L2Advertisement"])
def test_a_kind_may_have_digits(staging: Path, kind: str) -> None:
    add(staging, kind)
    assert (kind, "added") in render(staging)


def test_how_the_others_change_is_said_where_one_is_no_manifest(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    for environment in ("staging", "production"):
        project.release(RELEASE, environment)
    now = project.git("rev-parse", "HEAD")
    project.release(RELEASE.model_copy(update={"version": 12}), "production")
    add(project.release_file("staging").parent, "No kind")
    then = project.merge("Add something")
    project.git("checkout", "--quiet", now)
    said = differences(Repository(project.folder), then, tmp_path / "built")
    assert "'No kind'" in said["argocd/environments/staging"]
    assert str(tmp_path) not in said["argocd/environments/staging"]
    assert "/versions/12/ready" in said["argocd/environments/production"]


def test_a_release_file_that_cannot_be_read_is_one_sentence(staging: Path) -> None:
    (staging / "model.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot be read: .*; or restore the file from Git"):
        render(staging)
    (staging / "model.yaml").unlink()
    (staging / "model.yaml").mkdir()
    with pytest.raises(UserError, match=r"cannot be read: .*; restore it from Git\."):
        read_release(staging / "model.yaml")
    (staging / "model.yaml").rmdir()
    (staging / "model.yaml").write_text(GOOD)
    assert render(staging)
