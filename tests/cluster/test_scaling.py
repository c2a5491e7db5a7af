"""KEDA changes the number of replicas, and Argo CD does not correct it."""

from pathlib import Path

import pytest

import images
import installation
from cluster_project import NAME
from delivered import Delivered, synced

STAGING = f"{NAME}-staging"
# Wants three replicas at every moment but the last minute of a day.
SCALER = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "triton", "namespace": STAGING},
    "spec": {
        "scaleTargetRef": {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "name": "triton",
        },
        "pollingInterval": 1,
        "minReplicaCount": 1,
        "maxReplicaCount": 3,
        "triggers": [
            {
                "type": "cron",
                "metadata": {
                    "timezone": "UTC",
                    "start": "0 0 * * *",
                    "end": "59 23 * * *",
                    "desiredReplicas": "3",
                },
            }
        ],
    },
}


@pytest.fixture
def keda(delivered: Delivered, tmp_path: Path) -> Delivered:
    """KEDA, by the manifests of its module, with images under the names that they give."""
    for program, name in (("keda-operator", "keda"), ("keda-adapter", "keda-metrics-apiserver")):
        binary = f"keda{'-adapter' if program.endswith('adapter') else ''}"
        layer = images.file_layer(
            tmp_path / f"{name}.tar", {binary: delivered.here.programs[program]}, {}
        )
        images.push(f"kedacore/{name}:main", [layer], tmp_path, User="1000")
    config = installation.module("keda-operator") / "config"
    for part in ("crd", "general", "service_account", "rbac", "manager", "metrics-server"):
        rendered = delivered.kubernetes.kubectl("kustomize", str(config / part))
        delivered.kubernetes.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", content=rendered
        )
    for name in ("keda-operator", "keda-metrics-apiserver"):
        delivered.kubernetes.until(
            f"deployment/{name}", lambda seen: seen["status"].get("availableReplicas"), "keda"
        )
    return delivered


def test_an_autoscaler_has_the_last_word_on_replicas(keda: Delivered) -> None:
    keda.serving()
    kubernetes = keda.kubernetes
    kubernetes.apply(SCALER)
    try:
        keda.rollout(lambda seen: seen["status"].get("availableReplicas") == 3)
        keda.toggle()  # a merge, after which all of Git's fields are applied again
        keda.application(synced)
        assert kubernetes.get("rollout/triton", STAGING)["spec"]["replicas"] == 3
    finally:
        kubernetes.kubectl("delete", "scaledobject/triton", "-n", STAGING)
        kubernetes.kubectl(
            *("patch", "rollout/triton", "-n", STAGING, "--subresource=scale", "--type=merge"),
            *("-p", '{"spec": {"replicas": 1}}'),
        )
        keda.rollout(lambda seen: seen["status"].get("availableReplicas") == 1)
