"""The way down on the real Argo CD: it ends, and nothing of the project is left."""

import os
import subprocess
import sys

from cluster_project import NAME
from conftest import TEMPLATE
from delivered import Delivered
from kubernetes_api import Kubernetes

KINDS = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings"


def left(kubernetes: Kubernetes) -> set[str]:
    """What is there of the project and of Argo CD, outside of their namespaces and themselves."""
    found = kubernetes.kubectl("get", KINDS, "-o", "name").split()
    ours = {each for each in found if NAME in each or "argocd" in each}
    return ours | {each for each in found if each.endswith("s.argoproj.io") and "/app" in each}


def take_down(delivered: Delivered) -> "subprocess.CompletedProcess[str]":
    """Do what `make take-down CONTEXT=here` does."""
    return subprocess.run(
        [sys.executable, TEMPLATE / "infra/commands/take_down.py", "here"],
        cwd=delivered.project.folder,
        env=os.environ | {"KUBECONFIG": str(delivered.here.kubeconfig)},
        capture_output=True,
        text=True,
    )


def test_nothing_is_left(delivered: Delivered) -> None:
    delivered.serving()
    assert len(left(delivered.kubernetes)) > 10
    # These are not from Git here, where their charts cannot be had; what stays is waited for.
    # While the API server asks KEDA for what it serves, and KEDA is gone, no namespace ends.
    served = ["apiservices/v1beta1.external.metrics.k8s.io"]
    for each in (served, ["namespaces/argo-rollouts", "namespaces/keda"]):
        delivered.kubernetes.kubectl("delete", "--ignore-not-found", *each)
    result = take_down(delivered)
    assert result.returncode == 0, result.stdout + result.stderr
    assert left(delivered.kubernetes) == set(), result.stdout
    assert f"-- nothing of {NAME} is left in here" in result.stdout
    again = take_down(delivered)
    assert (again.returncode, again.stdout) == (0, f"-- nothing of {NAME} is in here\n")
