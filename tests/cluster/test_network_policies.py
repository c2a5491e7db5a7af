"""Who reaches a model, and whom it reaches, while something has NetworkPolicies hold."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import yaml

import images
import installation
import network
from cluster_project import NAME
from delivered import Delivered
from kubernetes_api import Object

STAGING = f"{NAME}-staging"
PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
QUEUE = "98"  # by the module's own manifest
CALLER = {"triton-client": "allowed"}
PROMETHEUS = {"app.kubernetes.io/name": "prometheus"}
ASKING = {"app.kubernetes.io/name": "golden-answers"}
# Pods that try: the labels of their namespace, their own, and the ports that they may reach.
WHO: dict[str, tuple[str, dict, dict, set[str]]] = {
    "a stranger": ("strangers", {}, {}, set()),
    "a caller": ("callers", CALLER, {}, {"http", "grpc"}),
    "a stranger who calls itself prometheus": ("strangers", {}, PROMETHEUS, set()),
    "prometheus": ("monitoring", {}, PROMETHEUS, {"metrics"}),
    "a neighbour of prometheus": ("monitoring", {}, {}, set()),
    "who asks for golden answers": (STAGING, {}, ASKING, {"http"}),
    "another pod beside the model": (STAGING, {}, {}, set()),
}
# Prints which of the addresses given take a connection. All are tried at once.
TRY = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def taken(place):
    host, port = place.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=4).close()
        return True
    except OSError:
        return False
places = sys.argv[1:]
with ThreadPoolExecutor() as threads:
    for place, found in zip(places, threads.map(taken, places)):
        if found:
            print(place)
"""
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def enforced(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivered]:
    """NetworkPolicies hold: kind's own program for it runs, by the manifest of its module."""
    program = installation.optional(delivered.here, "kube-network-policies")
    delivered.serving()
    code = installation.module("kube-network-policies")
    documents = list(yaml.safe_load_all((code / "install.yaml").read_text()))
    daemons = next(each for each in documents if each and each["kind"] == "DaemonSet")
    without_runtime(daemons["spec"]["template"]["spec"])
    work = tmp_path_factory.mktemp("policies")
    image = daemons["spec"]["template"]["spec"]["containers"][0]["image"].partition("/")[2]
    images.push(image, [images.file_layer(work / "netpol.tar", {"bin/netpol": program}, {})], work)
    kubernetes = delivered.kubernetes
    try:
        kubernetes.apply([each for each in documents if each])
        kubernetes.until("daemonset/kube-network-policies", all_ready, "kube-system")
        with network.diverted(1, int(QUEUE)):
            yield delivered
    finally:
        kubernetes.kubectl("delete", "-f", str(code / "install.yaml"))


def without_runtime(pod: Object) -> None:
    """Have it learn the addresses of pods from the API server alone, not from the runtime, too."""
    (container,) = pod["containers"]
    assert f"--nfqueue-id={QUEUE}" in container["args"]
    container["args"].append("--disable-nri")
    del pod["volumes"], container["volumeMounts"]


def all_ready(daemons: Object) -> bool:
    """Whether a pod of a DaemonSet is ready on every node."""
    status = daemons.get("status", {})
    return 0 < status.get("numberReady", 0) == status["desiredNumberScheduled"]


@pytest.fixture(scope="module")
def trying(enforced: Delivered) -> Iterator[dict[str, tuple[str, str]]]:
    """A pod of each kind that tries, by whom it stands for: its namespace and name."""
    kubernetes, image = enforced.kubernetes, server(enforced)["spec"]["containers"][0]["image"]
    made = {}
    with ExitStack() as stack:
        for number, (who, (namespace, labels, own, _)) in enumerate(WHO.items()):
            if namespace in ("strangers", "callers"):
                kubernetes.apply(namespaced(namespace, labels))
                delete = ["delete", "--wait=false", f"namespace/{namespace}", "--ignore-not-found"]
            else:
                delete = ["delete", "--wait=false", f"pod/tries-{number}", "-n", namespace]
            stack.callback(kubernetes.run, *delete)
            account = f"serviceaccount/default -n {namespace}".split()
            kubernetes.kubectl("wait", "--for=create", "--timeout=60s", *account)
            kubernetes.apply(sleeping(f"tries-{number}", namespace, own, image))
            made[who] = (namespace, f"tries-{number}")
        for namespace, name in made.values():
            kubernetes.until(f"pod/{name}", is_ready, namespace)
        yield made


def namespaced(name: str, labels: dict[str, str]) -> Object:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def sleeping(name: str, namespace: str, labels: dict[str, str], image: str) -> Object:
    """A pod that does nothing by itself."""
    container = {"name": "tries", "image": image, "command": ["sleep", "infinity"]}
    container["securityContext"] = RESTRICTED
    spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    spec["containers"] = [container]
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def is_ready(pod: Object) -> bool:
    """Whether a pod's containers run."""
    return all(each.get("ready") for each in pod["status"].get("containerStatuses", [{}]))


def server(delivered: Delivered) -> Object:
    """The pod that serves staging."""
    return delivered.pods()[0]


def reached(delivered: Delivered, pod: tuple[str, str], places: list[str]) -> list[str]:
    """Which places a pod can open connections to."""
    command = ["exec", "-n", pod[0], pod[1], "--", "python3", "-c", TRY]
    return delivered.kubernetes.kubectl(*command, *places).split()


@pytest.mark.parametrize("who", WHO)
def test_a_model_is_reached_by_those_who_may(
    enforced: Delivered, trying: dict[str, tuple[str, str]], who: str
) -> None:
    address = server(enforced)["status"]["podIP"]
    places = {name: f"{address}:{port}" for name, port in PORTS.items()}
    found = reached(enforced, trying[who], list(places.values()))
    assert {name for name, place in places.items() if place in found} == WHO[who][3]


def test_a_model_reaches_no_pod(enforced: Delivered, trying: dict[str, tuple[str, str]]) -> None:
    # A pod that anybody may call. What runs on the node itself is not judged: the API server here.
    (pod,) = enforced.kubernetes.items("pods", "argocd", "app.kubernetes.io/name=argocd-server")
    service = enforced.kubernetes.get("service/argocd-server")["spec"]["clusterIP"]
    places = [f"{pod['status']['podIP']}:8080", f"{service}:443"]
    assert reached(enforced, trying["a stranger"], places) == places
    name = server(enforced)["metadata"]["name"]
    assert reached(enforced, (STAGING, name), places) == []
