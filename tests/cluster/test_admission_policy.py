"""The policy `known-images` on the real API server."""

import json
import time

import yaml

from admission import ADDED, ADMITTED, NAMESPACE, REFUSED, SERVER, Object, others, pod
from conftest import TEMPLATE
from delivered import Delivered
from kubernetes_api import PATIENCE, Kubernetes

POLICY = TEMPLATE / "argocd/platform/configs/known-images.yaml"


def tried(kubernetes: Kubernetes, pod: Object) -> str:
    """Why the API server refuses a pod; empty where it takes it."""
    result = kubernetes.run("create", "--dry-run=server", "-f", "-", content=json.dumps(pod))
    return result.stderr


def in_force(kubernetes: Kubernetes) -> None:
    """Apply policy and namespace, and wait until the API server heeds them."""
    kubernetes.apply([*yaml.safe_load_all(POLICY.read_text()), NAMESPACE])
    account = f"serviceaccount/default -n {NAMESPACE['metadata']['name']}".split()
    kubernetes.run("wait", "--for=create", "--timeout=60s", *account)
    until = time.monotonic() + PATIENCE
    while "no image by digest of a registry" not in tried(kubernetes, REFUSED["a tag"]):
        assert time.monotonic() < until, "the policy refuses nothing"


def test_pods_with_known_images_only_are_admitted(delivered: Delivered) -> None:
    kubernetes = delivered.kubernetes
    in_force(kubernetes)
    said = {name: tried(kubernetes, pod) for name, pod in ADMITTED.items()}
    assert not any(said.values()), said
    assert len(ADMITTED) == 5
    said = {name: tried(kubernetes, pod) for name, pod in REFUSED.items()}
    wrong = [name for name, text in said.items() if "no image by digest of a registry" not in text]
    assert not wrong and len(REFUSED) >= 10, said


def test_a_shell_that_is_added_to_a_pod_is_refused(delivered: Delivered) -> None:
    kubernetes = delivered.kubernetes
    in_force(kubernetes)
    namespace = NAMESPACE["metadata"]["name"]
    unscheduled = ADMITTED["server and model"]
    unscheduled = {**unscheduled, "spec": {**unscheduled["spec"], "nodeSelector": {"no": "node"}}}
    kubernetes.apply(unscheduled)
    try:
        patch = json.dumps({"spec": {"ephemeralContainers": ADDED["spec"]["ephemeralContainers"]}})
        where = ("pod", "tried", "-n", namespace, "--subresource=ephemeralcontainers")
        added = kubernetes.run("patch", *where, "--type=strategic", "--patch", patch)
        assert "evil.io/shell@" in added.stderr
        kubernetes.kubectl("label", "pod", "tried", "-n", namespace, "seen=yes")
    finally:
        kubernetes.run("delete", "pod", "tried", "-n", namespace, "--wait=false")


def test_what_serves_staging_would_be_admitted_once_it_is_pinned(delivered: Delivered) -> None:
    kubernetes, release = delivered.kubernetes, delivered.serving()
    in_force(kubernetes)
    known = f"{SERVER} {release.image.rpartition('@')[0]}"
    annotations = {"annotations": {"images-from": known}}
    kubernetes.apply({**NAMESPACE, "metadata": {**NAMESPACE["metadata"], **annotations}})
    pod = delivered.pods()[0]["spec"]
    server = pod["containers"][0]
    server["image"] = f"{server['image'].partition('@')[0]}@sha256:{'a' * 64}"
    kept = {key: pod[key] for key in ("containers", "volumes", "securityContext") if key in pod}
    metadata = {"name": "served", "namespace": NAMESPACE["metadata"]["name"]}
    wanted = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": kept}
    until = time.monotonic() + PATIENCE
    while said := tried(kubernetes, wanted):
        assert time.monotonic() < until, said


# -- images by way of a registry that keeps copies -------------------------------------------------

CACHE = TEMPLATE / "argocd/components/image-cache/image-cache.yaml"


def test_new_pods_pull_from_the_registry_that_keeps_copies(delivered: Delivered) -> None:
    """In one namespace only, so that no other test's pods come from there."""
    kubernetes, namespace = delivered.kubernetes, "image-cache-tried"
    policy, binding = yaml.safe_load_all(CACHE.read_text())
    policy["spec"]["variables"][0]["expression"] = '"copies.example"'
    where = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    binding["spec"]["matchResources"] = {"namespaceSelector": where}
    metadata = {"name": namespace}
    kubernetes.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    account = f"serviceaccount/default -n {namespace}".split()
    kubernetes.run("wait", "--for=create", "--timeout=60s", *account)
    kubernetes.apply([policy, binding])
    images = ["docker.io/library/traefik:v3", "quay.io/a/b@sha256:" + "a" * 64, "nvcr.io/a:1"]
    wanted = pod(*images, initContainers=others("registry.k8s.io/pause:3.10"))
    wanted["metadata"]["namespace"] = namespace
    until = time.monotonic() + PATIENCE
    try:
        while True:
            made = kubernetes.run(
                *("create", "--dry-run=server", "-o", "json", "-f", "-"), content=json.dumps(wanted)
            )
            spec = json.loads(made.stdout or "{}").get("spec")
            if spec and spec["containers"][0]["image"] != images[0]:
                break
            assert time.monotonic() < until, f"nothing is rewritten {made.stderr}"
    finally:
        kinds = "mutatingadmissionpolicybinding,mutatingadmissionpolicy"
        kubernetes.run("delete", kinds, policy["metadata"]["name"])
    assert [each["image"] for each in spec["containers"] + spec["initContainers"]] == [
        "copies.example/docker-hub/library/traefik:v3",
        "copies.example/quay/a/b@sha256:" + "a" * 64,
        "nvcr.io/a:1",
        "copies.example/kubernetes/pause:3.10",
    ]
