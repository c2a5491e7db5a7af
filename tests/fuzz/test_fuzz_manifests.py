"""What Kustomize builds, or says why not, and what a preview wrote of itself."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import UNBAKED
from delivery.manifests import rendering
from delivery.manifests.differences import difference, written
from delivery.manifests.preview_status import PreviewStatus, read_status
from delivery.manifests.rendering import by_name, check_keys, check_release, render
from delivery.manifests.server_pod import read_server_pod
from hostile import changed_document, changed_text, files, value_or_sentence
from test_fuzz_releases import RELEASE


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the manifests, with one release in staging."""
    root = tmp_path_factory.mktemp("manifests")
    shutil.copytree(UNBAKED / "argocd", root / "argocd")
    (root / "argocd/environments/staging/model.yaml").write_text(RELEASE.to_yaml())
    return root / "argocd/environments/staging"


@pytest.fixture(scope="module")
def rollout(staging: Path) -> dict[str, Any]:
    """The Rollout of the manifests."""
    return rendering.rollout(render(staging))


def deploy(content: bytes) -> None:
    """Do with manifests what rehearsal and preview do."""
    documents = by_name(content, "staging")
    for document in documents.values():
        check_keys(document)
    difference({}, written(documents))
    check_release(documents, RELEASE)
    read_server_pod(documents)


@given(data=st.data())
def test_a_rollout_of_another_form(rollout: dict[str, Any], data: st.DataObject) -> None:
    document = data.draw(changed_document(rollout))
    value_or_sentence(deploy, json.dumps(document).encode())


@given(data=st.data())
def test_pods_of_another_form(rollout: dict[str, Any], data: st.DataObject) -> None:
    changed = data.draw(changed_document(rollout["spec"]))
    documents = {("Rollout", "triton"): rollout | {"spec": changed}}
    value_or_sentence(check_release, documents, RELEASE)
    value_or_sentence(read_server_pod, documents)


@given(data=st.data())
def test_what_kustomize_prints(rollout: dict[str, Any], data: st.DataObject) -> None:
    head = {name: rollout[name] for name in ("apiVersion", "kind", "metadata")}
    value_or_sentence(deploy, data.draw(files(head)))


@settings(max_examples=10)
@given(data=st.data())
def test_a_kustomization(staging: Path, data: st.DataObject) -> None:
    path = staging / "kustomization.yaml"
    good = path.read_bytes()
    try:
        path.write_bytes(data.draw(changed_text(good)))
        value_or_sentence(render, staging)
    finally:
        path.write_bytes(good)


@given(st.data())
def test_the_status_of_a_preview(data: st.DataObject) -> None:
    good = asdict(PreviewStatus("staging", "127.0.0.1:1", "127.0.0.1:2", timeline={"seen": 1.0}))
    content = data.draw(files(good))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "is_file", lambda self: True)
        patch.setattr("workspace.settings._content", lambda path, largest: content)
        patch.setattr("delivery.manifests.preview_status.is_held", lambda lock: True)
        value_or_sentence(read_status, Path("/project"), "staging")


@given(st.binary(max_size=400))
def test_a_reason_of_kubectl(stderr: bytes) -> None:
    assert rendering.reason(stderr).isprintable()
