"""The way down on the real Argo CD: it ends, and nothing of the project is left."""

import os
import signal
import subprocess
import sys
from typing import Any

from cluster_project import NAME
from conftest import TEMPLATE
from delivered import Delivered
from kubernetes_api import PATIENCE, Kubernetes

KINDS = "namespaces,customresourcedefinitions,clusterroles,clusterrolebindings"


def left(kubernetes: Kubernetes) -> set[str]:
    """What is there of the project and of Argo CD, outside of their namespaces and themselves."""
    found = kubernetes.kubectl("get", KINDS, "-o", "name").split()
    ours = {each for each in found if NAME in each or "argocd" in each}
    return ours | {each for each in found if each.endswith("s.argoproj.io") and "/app" in each}


def begin(delivered: Delivered, **options: Any) -> "subprocess.Popen[str]":
    """Begin on what `make take-down CONTEXT=here` does."""
    return subprocess.Popen(
        [sys.executable, TEMPLATE / "infra/commands/take_down.py", "here"],
        cwd=delivered.project.folder,
        env=os.environ | {"KUBECONFIG": str(delivered.here.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def take_down(delivered: Delivered) -> tuple[int, str]:
    """Take it down; the exit status, and what was printed."""
    process = begin(delivered)
    printed, _ = process.communicate()
    return process.returncode, printed


def interrupt(delivered: Delivered, step: str) -> None:
    """Begin, and have Ctrl-C end it while it waits in a step."""
    process = begin(delivered, start_new_session=True)
    assert process.stdout
    printed: list[str] = []
    for line in process.stdout:
        printed.append(line)
        if any(each.startswith(f"-- {step}: ") for each in printed) and " deleted" in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    process.communicate()
    assert process.returncode, "".join(printed)
    assert " deleted" in printed[-1], "".join(printed)


def test_nothing_is_left(delivered: Delivered) -> None:
    delivered.serving()
    assert len(left(delivered.kubernetes)) > 10
    # These are not from Git here, where their charts cannot be had; what stays is waited for.
    # While the API server asks KEDA for what it serves, and KEDA is gone, no namespace ends.
    served = ["apiservices/v1beta1.external.metrics.k8s.io"]
    for each in (served, ["namespaces/argo-rollouts", "namespaces/keda"]):
        limit = f"--timeout={PATIENCE}s"
        delivered.kubernetes.kubectl("delete", "--ignore-not-found", limit, *each)
    for step in ("what serves and trains", "the platform"):
        interrupt(delivered, step)
        assert left(delivered.kubernetes)
    status, printed = take_down(delivered)
    assert status == 0, printed
    assert left(delivered.kubernetes) == set(), printed
    assert f"-- nothing of {NAME} is left in here" in printed
    assert take_down(delivered) == (0, f"-- nothing of {NAME} is in here\n")
