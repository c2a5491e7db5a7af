"""`make cluster CONTEXT=…`: a project whose remote is on this machine, tried in a given cluster."""

import subprocess
from pathlib import Path

import pytest

import cluster_project
import network
from delivered import Delivered, healthy_with, synced

NAME = "trial"


def test_a_project_is_tried_in_a_cluster_that_is_there_and_taken_away_again(
    delivered: Delivered, remotes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = delivered.here.kubeconfig
    monkeypatch.setattr(cluster_project, "NAME", NAME)
    monkeypatch.setattr(cluster_project, "ADDRESS", f"{NAME}.git")
    monkeypatch.setenv("KUBECONFIG", str(settings))
    project = cluster_project.make_project(tmp_path, remotes)
    trial = Delivered(project, delivered.kubernetes, delivered.here, delivered.hosts)
    before = namespaces(trial)
    context = subprocess.check_output(["kubectl", "config", "current-context"], text=True).strip()
    command = ("cluster", NAME, "--context", context, "--host", network.MACHINE)
    try:
        said = project.delivery(*command)
        assert "Argo CD is there already" in said and "Argo Rollouts is there already" in said
        assert f"Argo CD follows main of http://{network.MACHINE}:" in said
        assert project.delivery(*command) == said, "again, and nothing is made twice"
        release = project.build(1)
        project.deploy_release(release)
        trial.see_all(NAME)
        rollout = trial.rollout(lambda seen: healthy_with(seen, 1))
        assert "nvidia.com/gpu" not in str(rollout["spec"]), "whatever the overlay says"
        trial.application(synced)
        trial.answers(release)
    finally:
        project.delivery("cluster-down", NAME)
    assert not namespaces(trial) - before, "of those before some may be about to end"
    left = trial.kubernetes.items("applications,applicationsets,appprojects", "argocd")
    assert not [each for each in left if each["metadata"]["name"].startswith(NAME)]


def namespaces(delivered: Delivered) -> set[str]:
    """The namespaces that the cluster has."""
    return {each["metadata"]["name"] for each in delivered.kubernetes.items("namespaces", "argocd")}
