"""Serving goes on while parts of the cluster are away; what is merged meanwhile is taken up.

Production has two replicas; its clients open a connection for each request, as those that a node
takes away must.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import installation
from cluster_project import NAME
from delivered import Delivered, addresses, servers
from kubernetes_api import PATIENCE, Object
from traffic import Traffic

PRODUCTION = f"{NAME}-production"
AWAY = 60  # seconds: the fault is this long, it is not what is measured
LONG = 3 * PATIENCE  # a new node unpacks the server's image, and two servers go one after the other


@pytest.fixture(scope="module")
def serving(delivered: Delivered) -> Delivered:
    """Production serves what staging does."""
    release = delivered.serving()
    if not delivered.project.path("production").exists():
        delivered.deploy(release, "production")
    delivered.served(delivered.project.released("production"), "production")
    return delivered


@pytest.fixture
def traffic(serving: Delivered) -> Iterator[Traffic]:
    """Clients of production, none of whose requests may be lost."""
    with Traffic(serving.reachable("production"), {"http": 2, "grpc": 2}, keep=False) as made:
        yield made
        made.until_answered(100)
    assert not made.lost["http"] and not made.lost["grpc"], made.lost


def taken_up(serving: Delivered) -> None:
    """The next merge is served: staging goes back and forth between two versions."""
    serving.toggle()


def test_a_kubelet_that_starts_again_disturbs_nobody(serving: Delivered, traffic: Traffic) -> None:
    before = names(serving)
    serving.here.stop("kubelet-1")
    serving.here.restart("kubelet-1")
    serving.here.wait_for_node("mts-node-1", 1)
    assert names(serving) == before
    taken_up(serving)


def test_a_runtime_that_starts_again_disturbs_nobody(serving: Delivered, traffic: Traffic) -> None:
    before = names(serving)
    serving.here.stop("containerd-1", signal.SIGKILL)
    serving.here.restart("containerd-1")
    taken_up(serving)
    assert names(serving) == before


def test_serving_needs_no_registry(serving: Delivered, traffic: Traffic) -> None:
    serving.here.stop("registry-1")
    try:
        pod = serving.pods("production")[0]["metadata"]["name"]
        serving.kubernetes.kubectl("delete", "pod", pod, "-n", PRODUCTION, "--wait=false")
        serving.kubernetes.until(
            "endpoints/triton", lambda seen: two_without(seen, pod), PRODUCTION
        )
    finally:
        serving.here.restart("registry-1")
    taken_up(serving)


def test_serving_needs_no_argo_cd(serving: Delivered, traffic: Traffic) -> None:
    # One after the other: without what renders it, Argo CD does not heal itself meanwhile.
    kinds = ("deployment/argocd-repo-server", "statefulset/argocd-application-controller")
    serving.toggle()  # so there is another version, which no longer needs Argo CD to be released
    try:
        for each in kinds:
            serving.kubernetes.kubectl("scale", each, "-n", "argocd", "--replicas=0")
            pods = f"app.kubernetes.io/name={each.partition('/')[2]}"
            gone = ("--for=delete", f"--timeout={PATIENCE}s", "-n", "argocd")
            serving.kubernetes.kubectl("wait", "pod", "-l", pods, *gone)
        release = serving.merge_the_other()
    finally:
        for each in kinds:
            serving.kubernetes.kubectl("scale", each, "-n", "argocd", "--replicas=1")
    for each in kinds:
        serving.kubernetes.until(each, lambda seen: seen["status"].get("readyReplicas") == 1)
    serving.served(release)


def test_serving_needs_no_api_server(serving: Delivered, traffic: Traffic) -> None:
    before = names(serving)
    # Where several stand by, a controller manager or a scheduler that cannot renew its lease ends,
    # so none judges nodes by what it saw before, or waits ever longer before it asks again.
    led = ("kube-controller-manager", "kube-scheduler")
    for each in (*led, "kube-apiserver"):
        serving.here.stop(each, signal.SIGKILL)  # asked to end, it waits for those who watch
    time.sleep(AWAY)
    serving.here.restart("kube-apiserver")
    serving.here.wait_for_api()
    for each in led:
        serving.here.restart(each)
    assert names(serving) == before
    taken_up(serving)


def test_a_drained_node_hands_its_servers_over(serving: Delivered, traffic: Traffic) -> None:
    serving.here.add_node(2)
    try:
        installation.give_gpus(serving.here, 2)
        for drained, left in (("mts-node-1", "mts-node-2"), ("mts-node-2", "mts-node-1")):
            assert fewest_while_drained(serving, drained, left) >= 1
            serving.kubernetes.kubectl("uncordon", drained)
    finally:
        serving.kubernetes.kubectl("uncordon", "mts-node-1")
        serving.here.remove_node(2)
    taken_up(serving)


def fewest_while_drained(serving: Delivered, drained: str, left: str) -> int:
    """Drain a node; to how many servers the Service leads at least until all are on another.

    A server that ends answers for a while yet, so no request may tell.
    """
    there = []

    def moved(endpoints: Object) -> bool:
        nodes = [each["nodeName"] for each in addresses(endpoints)]
        there.append(len(nodes))
        return nodes == [left, left]

    with ThreadPoolExecutor() as beside:
        drain = ("drain", drained, "--delete-emptydir-data", f"--timeout={LONG}s")
        selected = "--pod-selector=app.kubernetes.io/name=triton"
        done = beside.submit(serving.kubernetes.kubectl, *drain, selected)
        serving.kubernetes.until("endpoints/triton", moved, PRODUCTION, patience=LONG)
        done.result()
    serving.rollout(two_available, "production")
    return min(there)


def two_available(rollout: Object) -> bool:
    """Whether production is whole."""
    return servers(rollout) == 2


def two_without(endpoints: Object, pod: str) -> bool:
    """Whether a Service leads to two servers, none of them the one named."""
    names = [each["targetRef"]["name"] for each in addresses(endpoints)]
    return len(names) == 2 and pod not in names


def names(serving: Delivered) -> list[str]:
    """Production's pods."""
    return sorted(each["metadata"]["name"] for each in serving.pods("production"))
