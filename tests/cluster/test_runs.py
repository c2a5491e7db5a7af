"""A training run beside two environments that serve, which it leaves alone.

KubeRay cannot be had as a Go module, so the kind's definition here takes any fields and nobody acts
on it: what is tried is what Argo CD makes of a merged run, and what it says of its states.
"""

import json
from pathlib import Path

import images
from cluster_project import NAME
from delivered import Delivered
from delivery.oci.image import REVISION
from local_cluster import REGISTRY

NAMESPACE = f"{NAME}-training"
ANY = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "rayjobs.ray.io"},
    "spec": {
        "group": "ray.io",
        "scope": "Namespaced",
        "names": {"kind": "RayJob", "plural": "rayjobs", "singular": "rayjob"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": ANY},
            }
        ],
    },
}
ENDS = {
    "Healthy": {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
    "Degraded": {"jobDeploymentStatus": "Failed", "message": "out of memory"},
    "Progressing": {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"},
}


def test_a_merged_run_is_one_application_whose_health_is_the_runs(
    delivered: Delivered, tmp_path: Path
) -> None:
    kubernetes, project = delivered.kubernetes, delivered.project
    served = delivered.serving()
    delivered.deploy(served, "production")
    kubernetes.apply(DEFINITION)
    kubernetes.until("customresourcedefinition/rayjobs.ray.io", established, "default")
    labels = {REVISION: project.git("rev-parse", "HEAD")}
    empty = images.file_layer(tmp_path / "empty.tar", {"nothing": b""}, {})
    digest = images.push(f"{NAME}-training:1", [empty], tmp_path, Labels=labels)
    project.delivery("train-on-cluster", f"{REGISTRY}/{NAME}-training@{digest}", "--nodes", "2")
    project.merge("training/run-1")
    delivered.see_all("training")
    kubernetes.until("rayjob/train-1", lambda seen: seen["spec"], NAMESPACE)
    for health, status in ENDS.items():
        kubernetes.kubectl(
            *("patch", "rayjob/train-1", "-n", NAMESPACE, "--subresource=status"),
            *("--type=merge", "-p", json.dumps({"status": status})),
        )
        kubernetes.until(
            f"application/{NAMESPACE}",
            lambda seen, health=health: seen["status"]["health"]["status"] == health,
        )
    for environment in ("staging", "production"):
        delivered.answers(served, environment)


def established(definition: dict) -> bool:
    """Whether the API server has taken a kind up."""
    conditions = definition.get("status", {}).get("conditions", [])
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)
