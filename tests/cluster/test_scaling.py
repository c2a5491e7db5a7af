"""KEDA changes the number of replicas, and Argo CD does not correct it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import images
import installation
import measuring
from cluster_project import NAME, patch
from delivered import Delivered, healthy_with, servers, synced
from delivery.proposals.release_file import Release
from kubernetes_api import PATIENCE, Object
from traffic import Traffic

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


@pytest.fixture(scope="module")
def keda(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """KEDA, by the manifests of its module, with images under the names that they give."""
    work = tmp_path_factory.mktemp("keda")
    for program, name in (("keda-operator", "keda"), ("keda-adapter", "keda-metrics-apiserver")):
        binary = f"keda{'-adapter' if program.endswith('adapter') else ''}"
        content = {binary: installation.optional(delivered.here, program)}
        layer = images.file_layer(work / f"{name}.tar", content, {})
        images.push(f"kedacore/{name}:main", [layer], work, User="1000")
    config = installation.module("keda-operator") / "config"
    rendered = "---\n".join(
        delivered.kubernetes.kubectl("kustomize", str(config / part))
        for part in ("crd", "general", "service_account", "rbac", "manager", "metrics-server")
    )
    # It starts anew once it has made its certificate, and would wait for a lease of its own; and
    # nobody asks for 20 seconds whether it is ready.
    rendered = rendered.replace("--leader-elect", "--leader-elect=false")
    rendered = rendered.replace("initialDelaySeconds: 20", "initialDelaySeconds: 1")
    delivered.kubernetes.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f", "-", content=rendered
    )
    for name in ("keda-operator", "keda-metrics-apiserver"):
        delivered.kubernetes.until(
            f"deployment/{name}", lambda seen: seen["status"].get("availableReplicas"), "keda"
        )
    # The API server asks the adapter for kinds, and cannot tell them all until it is answered.
    served = "apiservice/v1beta1.external.metrics.k8s.io"
    delivered.kubernetes.until(served, lambda seen: condition(seen, "Available") == "True")
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
        limit = f"--timeout={PATIENCE}s"
        kubernetes.kubectl("delete", "scaledobject/triton", "-n", STAGING, limit)
        keda.scale(1)


# -- by load ---------------------------------------------------------------------------------------

SLOW = 0.6  # seconds of a batch, so that requests wait
FEW, MANY = 2, 32  # callers: of these about half wait, and two at a server are enough
QUICKER = {
    "/spec/pollingInterval": 2,
    "/spec/minReplicaCount": 1,
    "/spec/fallback": {
        "failureThreshold": 1,
        "replicas": 1,
        "behavior": "currentReplicasIfHigher",
    },
    "/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown": {
        "stabilizationWindowSeconds": 5,
        "policies": [{"type": "Pods", "value": 2, "periodSeconds": 5}],
        "tolerance": 0,
    },
    "/spec/triggers/0/metadata/threshold": "2",
    "/spec/triggers/1/metadata/threshold": "2",
}


@contextmanager
def scaled_by(keda: Delivered, component: str, changes: dict[str, Any]) -> Iterator[None]:
    """Staging has a component's line, with changes, and a Prometheus measures it."""
    changed = patch("ScaledObject", "triton", changes)
    with measuring.prometheus(keda.here, keda.kubernetes):
        try:
            with keda.having(changed, component=component):
                keda.kubernetes.until("scaledobject/triton", is_ready, STAGING)
                yield
        finally:
            gone = ("scaledobject/triton", "-n", STAGING, "--for=delete", f"--timeout={PATIENCE}s")
            keda.kubernetes.kubectl("wait", *gone)


@pytest.fixture
def autoscaled(keda: Delivered) -> Iterator[Delivered]:
    """Staging serves a slow model with as many servers as requests need."""
    release = keda.serving()
    quick = [*keda.good]
    try:
        keda.deploy(slow_version(keda, release.accuracy - 0.01))
        with scaled_by(keda, "autoscale", QUICKER):
            yield keda
    finally:
        keda.good[:] = quick  # no other test goes back to a slow one
        keda.scale(1)
        keda.deploy(release)


def slow_version(keda: Delivered, accuracy: float) -> Release:
    """Build a version that lets requests wait."""
    return keda.project.build_faulty(keda.next_version(), accuracy, SECONDS=SLOW)


def is_ready(scaler: Object) -> bool:
    """Whether KEDA has taken a scaler up."""
    return condition(scaler, "Ready") == "True"


def condition(seen: Object, name: str) -> str:
    """What an object says of itself, as KEDA of a scaler."""
    found = seen.get("status", {}).get("conditions", [])
    return next((each["status"] for each in found if each["type"] == name), "")


def unanswered(scaler: Object, times: int) -> bool:
    """Whether each question to Prometheus had no answer so many times in a row."""
    health = scaler["status"].get("health", {}).values()
    failures = [each.get("numberOfFailures", 0) for each in health]
    return condition(scaler, "Fallback") == "True" and min(failures) >= times


def available(autoscaled: Delivered, number: int) -> None:
    """Wait until so many servers are asked for and there."""

    def are_there(rollout: Object) -> bool:
        return rollout["spec"]["replicas"] == servers(rollout) == number

    autoscaled.rollout(are_there)


def test_servers_follow_the_load_and_none_goes_unseen(autoscaled: Delivered) -> None:
    address, kubernetes = {"http": autoscaled.address("http")}, autoscaled.kubernetes
    slow = slow_version(autoscaled, autoscaled.project.released().accuracy - 0.01)
    with Traffic(address, {"http": FEW}, keep=False) as few:
        available(autoscaled, 1)
        with Traffic(address, {"http": MANY}, keep=False) as many:
            available(autoscaled, 3)
            fewest = fewest_meanwhile(autoscaled, slow)
            autoscaled.here.stop(measuring.NAME)
            kubernetes.until("scaledobject/triton", lambda seen: unanswered(seen, 2), STAGING)
        kubernetes.until("scaledobject/triton", lambda seen: unanswered(seen, 8), STAGING)
        available(autoscaled, 3)
        autoscaled.here.restart(measuring.NAME)
        available(autoscaled, 1)
    assert fewest == 3, "none went while versions changed"
    for each in (few, many):
        assert each.answered and not each.lost["http"], each.lost
    assert few.versions["http"][slow.version]


def fewest_meanwhile(autoscaled: Delivered, release: Release) -> int:
    """Deploy a release; the fewest servers that were asked for until all are of its version."""
    asked = []

    def is_there(rollout: Object) -> bool:
        asked.append(rollout["spec"]["replicas"])
        return healthy_with(rollout, release.version)

    autoscaled.project.deploy_release(release)
    autoscaled.see()
    autoscaled.rollout(is_there)
    return min(asked)


# -- by the clock ----------------------------------------------------------------------------------

NIGHT = {
    "/spec/pollingInterval": 1,
    "/spec/cooldownPeriod": 1,
    "/spec/triggers/0/metadata/start": "58 23 * * *",  # all day but its last minute
    "/spec/triggers/0/metadata/end": "59 23 * * *",
}


def test_staging_sleeps_and_a_merge_wakes_it_for_a_while(keda: Delivered) -> None:
    keda.serving()
    with scaled_by(keda, "asleep", NIGHT):
        available(keda, 0)
        keda.application(synced)
        merged = keda.merge_the_other()
        keda.see()
        rollout = keda.rollout(lambda seen: healthy_with(seen, merged.version) and is_awake(seen))
        keda.answers_alone(merged, rollout)
        available(keda, 0)
    keda.rollout(is_awake)  # by itself, without the line


def is_awake(rollout: Object) -> bool:
    """Whether a server is there."""
    return servers(rollout) == 1
