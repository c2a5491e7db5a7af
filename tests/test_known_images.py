"""The policy `known-images`, judged by a CEL library; on the cluster the API server does it."""

import pytest
import yaml

import rendering
from admission import ADDED, ADMITTED, NAMESPACE, REFUSED, Object
from cel import evaluate, with_variables
from conftest import TEMPLATE, cookiecutter

FOLDER = TEMPLATE / "argocd/platform/configs"
POLICY, BINDING = yaml.safe_load_all((FOLDER / "known-images.yaml").read_text())


def refusal(pod: Object, namespace: Object = NAMESPACE, before: Object | None = None) -> str:
    """What the policy says against a pod; empty where it says nothing."""
    seen = {"object": pod, "namespaceObject": namespace, "oldObject": before}
    (condition,), (rule,) = POLICY["spec"]["matchConditions"], POLICY["spec"]["validations"]
    known = with_variables(POLICY["spec"], seen)
    if not evaluate(condition["expression"], known):
        return ""
    refused = not evaluate(rule["expression"], known)
    return str(evaluate(rule["messageExpression"], known)) if refused else ""


@pytest.mark.parametrize("name", ADMITTED)
def test_a_pod_with_known_images_is_admitted(name: str) -> None:
    assert not refusal(ADMITTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_a_pod_with_another_image_is_refused(name: str) -> None:
    assert refusal(REFUSED[name]).startswith("no image by digest of a registry that")


def test_a_container_that_is_added_to_a_pod_is_judged() -> None:
    before = ADMITTED["server and model"]
    assert "evil.io/shell@" in refusal(ADDED, before=before)
    assert not refusal(REFUSED["a tag"], before=REFUSED["a tag"]), "it was there before the label"


def test_a_namespace_that_lists_nothing_admits_nothing() -> None:
    for annotations in ({}, {"annotations": {}}, {"annotations": {"images-from": ""}}):
        namespace = {"metadata": {"name": "x", **annotations}}
        assert refusal(ADMITTED["server and model"], namespace)


def test_what_an_overlay_renders_after_make_pin_is_admitted(tmp_path) -> None:
    assert cookiecutter(tmp_path).returncode == 0
    argocd = tmp_path / "digit-classifier/argocd"
    rendering.release_everywhere(argocd)
    for name in ("triton/rollout.yaml", "components/gateway/deployment.yaml"):
        file = argocd / "base" / name
        text = file.read_text()
        for line in (line for line in text.splitlines() if "image: " in line and "." in line):
            text = text.replace(line, f"{line}@sha256:{'b' * 64}")
        file.write_text(text)
    overlay = argocd / "environments/staging/kustomization.yaml"
    settings = yaml.safe_load(overlay.read_text())
    settings["components"] += [
        f"../../base/components/{name}" for name in ("known-images", "gateway")
    ]
    path, listed = "/metadata/annotations/images-from", NAMESPACE["metadata"]["annotations"]
    value = f"{listed['images-from']} docker.io/library/traefik"
    patch = yaml.safe_dump([{"op": "add", "path": path, "value": value}])
    settings["patches"].append({"target": {"kind": "Namespace"}, "patch": patch})
    overlay.write_text(yaml.safe_dump(settings))
    built = rendering.build(overlay.parent)
    (namespace,) = [each for each in built if each["kind"] == "Namespace"]
    selector = BINDING["spec"]["matchResources"]["namespaceSelector"]["matchLabels"]
    assert selector.items() <= namespace["metadata"]["labels"].items()
    pods = [each["spec"]["template"] for each in built if each["kind"] in ("Rollout", "Deployment")]
    assert len(pods) == 2
    for each in pods:
        assert not refusal(each, namespace)
