"""What the API server and Argo CD refuse, and that nothing of ours is among it."""

import json
import re
from typing import Any

import pytest
import yaml

from cluster_project import ADDRESS, NAME
from delivered import Delivered
from kubernetes_api import Kubernetes, Object

FOREIGN = {
    "kind": ("models", f"{NAME}-staging", ADDRESS, "ClusterRole"),
    "namespace": ("models", "kube-system", ADDRESS, "ConfigMap"),
    "training's namespace": ("models", f"{NAME}-training", ADDRESS, "ConfigMap"),
    "source": ("models", f"{NAME}-staging", "github.com/evil/charts.git", "ConfigMap"),
    "place of a run": ("training", f"{NAME}-production", ADDRESS, "ConfigMap"),
    "kind of a run": ("training", f"{NAME}-training", ADDRESS, "Secret"),
    "place of the platform": ("platform", f"{NAME}-production", ADDRESS, "ConfigMap"),
    "kind of the platform": ("platform", "monitoring", ADDRESS, "Pod"),
}

DESTINATION = "do not match any of the allowed destinations in project '{}'"
REFUSED = {
    "kind": "is not permitted in project {}",
    "namespace": DESTINATION,
    "training's namespace": DESTINATION,
    "source": "is not permitted in project '{}'",
    "place of a run": DESTINATION,
    "kind of a run": "is not permitted in project {}",
    "place of the platform": DESTINATION,
    "kind of the platform": "is not permitted in project {}",
}


def templates(document: Object) -> list[Object]:
    """Every template of a pod in an object, however deep it lies."""
    found = []
    for key, value in document.items():
        if key in ("template", "submitterPodTemplate") and "spec" in value:
            found.append(value)
        for each in value if isinstance(value, list) else [value]:
            found += templates(each) if isinstance(each, dict) else []
    return found


def overlays(delivered: Delivered) -> list[Object]:
    """All that our overlays render; those without a release get one that names nothing."""
    found = []
    for folder in ("environments/staging", "environments/production", "training"):
        place = delivered.project.folder / "argocd" / folder
        name, kind = ("run.yaml", RUN) if folder == "training" else ("model.yaml", MODEL)
        made = not (place / name).exists()
        if made:
            (place / name).write_text(yaml.safe_dump(kind))
        try:
            rendered = delivered.kubernetes.kubectl("kustomize", str(place))
        finally:
            if made:
                (place / name).unlink()
        found += list(yaml.safe_load_all(rendered))
    return found


MODEL = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "model-release"},
    "data": {"version": "1", "image": f"registry.example.com/model@sha256:{'1' * 64}"},
}
RUN = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "training-run"},
    "data": {"run": "1", "image": f"registry.example.com/train@sha256:{'1' * 64}", "nodes": "2"},
}


def test_every_pod_is_admitted_under_the_level_of_its_namespace(delivered: Delivered) -> None:
    kubernetes, rendered = delivered.kubernetes, overlays(delivered)
    for namespace in (each for each in rendered if each["kind"] == "Namespace"):
        kubernetes.apply(namespace)
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    checked = 0
    for document in rendered:
        for template in templates(document.get("spec") or {}):
            refused = admission(kubernetes, template, document["metadata"]["namespace"])
            assert not refused, f"{document['kind']}: {refused}"
            checked += 1
    # Rollout and Job in two environments; head, workers and submitter of a run
    assert checked == 7


def admission(kubernetes: Kubernetes, template: Object, namespace: str) -> str:
    """Why the API server refuses a pod; empty where it takes it."""
    labels = template.get("metadata", {})
    pod: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}
    pod["metadata"] = {**labels, "generateName": "tried-", "namespace": namespace}
    pod["spec"] = {**pod["spec"], "serviceAccountName": "default"}
    content = re.sub(r"\{\{args\.\w+\}\}", "given", json.dumps(pod))  # by Argo Rollouts
    return kubernetes.run("create", "--dry-run=server", "-f", "-", content=content).stderr


def test_a_pod_that_could_do_more_is_refused(delivered: Delivered) -> None:
    rollout = next(each for each in overlays(delivered) if each["kind"] == "Rollout")
    template = rollout["spec"]["template"]
    template["spec"]["hostNetwork"] = True
    said = admission(delivered.kubernetes, template, f"{NAME}-staging")
    assert 'violates PodSecurity "restricted:v1.36"' in said


def test_the_api_server_knows_every_field(delivered: Delivered) -> None:
    known = delivered.kubernetes.kubectl("get", "customresourcedefinitions", "-o", "name")
    assert "rayjobs" not in known, "its definition is here: check it, too"
    tried(delivered.kubernetes, *(each for each in overlays(delivered) if each["kind"] != "RayJob"))


def test_a_field_that_a_controller_does_not_know_is_refused(delivered: Delivered) -> None:
    rollout = next(each for each in overlays(delivered) if each["kind"] == "Rollout")
    rollout["spec"]["strategy"]["canary"]["maxSurges"] = 2
    with pytest.raises(AssertionError, match='unknown field "maxSurges"'):
        tried(delivered.kubernetes, rollout)


def tried(kubernetes: Kubernetes, *documents: Object) -> None:
    """Have the API server take objects strictly, without keeping them."""
    kubernetes.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"),
        *("-f", "-"),
        content=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}),
    )


@pytest.mark.parametrize("what", FOREIGN)
def test_a_project_of_argo_cd_refuses_what_is_foreign(delivered: Delivered, what: str) -> None:
    project, namespace, source, kind = FOREIGN[what]
    why = REFUSED[what].format(project)
    name = f"foreign-{what.replace(' ', '-').replace(chr(39), '')}"
    push_branch(delivered, name, {"kind": kind, "metadata": {"name": name}})
    kubernetes = delivered.kubernetes
    try:
        kubernetes.apply(application(name, project, namespace, f"https://{source}"))
        kubernetes.until(f"application/{name}", lambda seen: why in refusal(seen))
        listed = kubernetes.run("get", kind, name, "-n", namespace)
        assert "NotFound" in listed.stderr
    finally:
        kubernetes.run("delete", "application", name, "-n", "argocd")


def refusal(seen: Object) -> str:
    """What Argo CD says against an Application."""
    status = seen.get("status", {})
    conditions = [each["message"] for each in status.get("conditions", [])]
    resources = status.get("operationState", {}).get("syncResult", {}).get("resources", [])
    return "\n".join(conditions + [each.get("message", "") for each in resources])


def push_branch(delivered: Delivered, name: str, document: Object) -> None:
    """A branch beside main with one manifest."""
    git, folder = delivered.project.review, delivered.project.reviewer
    git("fetch", "-q", "origin")
    git("checkout", "-q", "-B", name, "origin/main")
    place = folder / "foreign"
    place.mkdir(exist_ok=True)
    group = "rbac.authorization.k8s.io/v1" if document["kind"] == "ClusterRole" else "v1"
    (place / "manifest.yaml").write_text(yaml.safe_dump({"apiVersion": group, **document}))
    git("add", "--all")
    git("commit", "-q", "-m", "Try something foreign")
    git("push", "-q", "--force", "origin", name)
    git("checkout", "-q", "-B", "main", "origin/main")


def application(name: str, project: str, namespace: str, source: str) -> Object:
    """An Application of a branch, synced by itself."""
    server = "https://kubernetes.default.svc"
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": name, "namespace": "argocd"},
        "spec": {
            "project": project,
            "source": {"repoURL": source, "targetRevision": name, "path": "foreign"},
            "destination": {"server": server, "namespace": namespace},
            "syncPolicy": {"automated": {"enabled": True}},
        },
    }
