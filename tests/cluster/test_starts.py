"""What the analysis of starts takes for one that failed, of containers before the server's too."""

import json
from collections.abc import Iterator

import pytest
import yaml

from cluster_project import NAME
from conftest import TEMPLATE
from delivered import Delivered
from kubernetes_api import Object
from test_network_policies import RESTRICTED, sleeping

STAGING = f"{NAME}-staging"
FILE = TEMPLATE / "argocd/triton/failed-starts.yaml"
ALLOWED = 2  # failed measurements


@pytest.fixture
def staging(delivered: Delivered) -> Iterator[Delivered]:
    """Staging, from which what the tests made is taken away again."""
    delivered.serving()
    yield delivered
    for kind in ("analysisruns", "pods"):
        delivered.kubernetes.run("delete", kind, "-l", "tried", "-n", STAGING, "--wait=false")


def analysed(staging: Delivered, name: str, first: list[str]) -> None:
    """Start a pod whose first container runs a command, and look at it as at a new version's."""
    template = next(yaml.safe_load_all(FILE.read_text()))["spec"]
    image = staging.pods()[0]["spec"]["containers"][0]["image"]
    pod = sleeping(name, STAGING, {"tried": "", "rollouts-pod-template-hash": name}, image)
    before = {"name": "before", "image": image, "command": first, "securityContext": RESTRICTED}
    pod["spec"]["initContainers"] = [before]
    (metric,) = template["metrics"]
    values = {"namespace": STAGING, "pods": name}
    args = [
        each | ({"value": values[each["name"]]} if each["name"] in values else {})
        for each in template["args"]
    ]
    run = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisRun",
        "metadata": {"name": name, "namespace": STAGING, "labels": {"tried": ""}},
        "spec": {
            "args": args,
            "metrics": [metric | {"interval": "1s", "failureLimit": ALLOWED}],
        },
    }
    staging.kubernetes.apply(pod)
    staging.kubernetes.until(f"pod/{name}", states, STAGING)
    staging.kubernetes.apply(run)


def states(pod: Object) -> list[Object]:
    """What each container before the server's is at, as far as it is known."""
    return [each["state"] for each in pod.get("status", {}).get("initContainerStatuses", [])]


def figure(run: Object) -> Object:
    """What an analysis found."""
    (found,) = run.get("status", {}).get("metricResults") or [{}]
    return found


def test_a_container_before_the_server_may_take_its_time(staging: Delivered) -> None:
    analysed(staging, "slow", ["sleep", "infinity"])
    kubernetes = staging.kubernetes
    run = kubernetes.until(
        "analysisrun/slow", lambda seen: figure(seen).get("count", 0) > 2 * ALLOWED, STAGING
    )
    assert figure(run)["successful"] == figure(run)["count"], json.dumps(figure(run))
    waits = kubernetes.get("pod/slow", STAGING)["status"]["containerStatuses"][0]["state"]
    assert waits == {"waiting": {"reason": "PodInitializing"}}


def test_a_container_before_the_server_that_crashes_is_a_failed_start(staging: Delivered) -> None:
    analysed(staging, "crashing", ["false"])
    run = staging.kubernetes.until(
        "analysisrun/crashing", lambda seen: figure(seen).get("phase") == "Failed", STAGING
    )
    assert figure(run)["failed"] == ALLOWED + 1
