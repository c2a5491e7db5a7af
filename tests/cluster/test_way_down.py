"""The way down on the real Argo CD: it ends, and what was not there before is gone."""

import os
import subprocess
import sys

import cluster_project
import installation
from conftest import TEMPLATE
from delivered import Delivered
from kubernetes_api import Kubernetes

# What tests put there beside the project, as a platform's own charts would.
PLATFORM = {"argo-rollouts", "monitoring"}
OURS = ("argoproj.io",)  # groups of the kinds that only the way up brought


def objects(kubernetes: Kubernetes, kinds: str) -> set[str]:
    """The names of all objects of some kinds."""
    return set(kubernetes.kubectl("get", kinds, "-A", "-o", "name").split())


def take_down(delivered: Delivered) -> "subprocess.CompletedProcess[str]":
    """Run `make take-down` in the project, in the context of the cluster."""
    return subprocess.run(
        [sys.executable, TEMPLATE / "infra/commands/take_down.py", "here"],
        cwd=delivered.project.folder,
        env=os.environ | {"KUBECONFIG": str(delivered.here.kubeconfig)},
        capture_output=True,
        text=True,
    )


def test_nothing_is_left(delivered: Delivered) -> None:
    delivered.serving()
    kubernetes = delivered.kubernetes
    result = take_down(delivered)
    assert result.returncode == 0, result.stdout + result.stderr + kubernetes.account("argocd")
    names = objects(kubernetes, "namespaces")
    ours = {each for each in names if cluster_project.NAME in each or each.endswith("/argocd")}
    assert not ours, result.stdout
    kinds = "customresourcedefinitions,clusterroles,clusterrolebindings"
    assert not {each for each in objects(kubernetes, kinds) if "argocd" in each}
    left = objects(kubernetes, "customresourcedefinitions")
    assert not {each for each in left if "applications" in each or "appprojects" in each}
    steps = [line for line in result.stdout.splitlines() if line.startswith("-- ")]
    assert steps[-1] == f"-- nothing of {cluster_project.NAME} is left in here"
    again = take_down(delivered)
    assert (again.returncode, again.stdout) == (
        0,
        f"-- nothing of {cluster_project.NAME} is in here\n",
    )


def test_the_way_up_is_open_again(delivered: Delivered) -> None:
    """What is left does not stand in the way of the same project."""
    installation.apply  # noqa: B018
