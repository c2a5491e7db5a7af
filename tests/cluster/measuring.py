"""A Prometheus beside the cluster, at the address that Argo Rollouts and KEDA ask.

It scrapes the servers' pods under the names that Prometheus' operator makes of the PodMonitor, and
has the rules that the platform installs.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

import network
from conftest import TEMPLATE
from kubernetes_api import Kubernetes, Object, documents
from local_cluster import LocalCluster
from registry_tools import need

NAME, PORT = "prometheus", 9090
SERVICE = "prometheus-prometheus"  # as the chart names it
PORTS = {"triton": 8002, "argo-rollouts": 8090}  # of metrics, by the name of what runs in a pod
HASH = "rollouts-pod-template-hash"


@contextmanager
def prometheus(here: LocalCluster, kubernetes: Kubernetes) -> Iterator[str]:
    """A Prometheus that scrapes every two seconds, as long as the context lasts; its address.

    What rules look at for a minute is for ten seconds here.
    """
    need("prometheus")
    found = {name: here.folder / "prometheus" / f"{name}.json" for name in PORTS}
    rules = TEMPLATE / "argocd/platform/configs/model-rules.yaml"
    groups = yaml.safe_load(rules.read_text().replace("[1m]", "[10s]"))["spec"]["groups"]
    settings = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [here.write("prometheus/rules.json", {"groups": groups})],
        "scrape_configs": [
            {"job_name": name, "file_sd_configs": [{"files": [str(file)]}], "honor_labels": True}
            for name, file in found.items()
        ],
    }
    options = {
        "config.file": here.write("prometheus/settings.json", settings),
        "storage.tsdb.path": here.folder / "prometheus/data",
        "web.listen-address": f"{network.address(1)}:{PORT}",
    }
    with discovered(kubernetes, found):
        here.start(NAME, 1, [NAME, *(f"--{key}={value}" for key, value in options.items())])
        try:
            here.wait_for(f"http://{network.address(1)}:{PORT}/-/ready", NAME)
            kubernetes.apply(service())
            yield f"http://{network.address(1)}:{PORT}"
        finally:
            if NAME in here.running:
                here.stop(NAME)


@contextmanager
def discovered(kubernetes: Kubernetes, files: dict[str, Path]) -> Iterator[None]:
    """Keep up with the pods: Debian's Prometheus is built without finding them by itself.

    Each file has the pods of one name, in the form that Prometheus reads again when it changes.
    """
    watch = ["get", "pods", "--all-namespaces", "--watch", "--output-watch-events", "-o", "json"]
    process = subprocess.Popen(
        ["kubectl", f"--kubeconfig={kubernetes.kubeconfig}", *watch],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    thread = threading.Thread(target=keep_up, args=(documents(process.stdout), files))
    thread.start()
    try:
        yield
    finally:
        process.kill()
        process.wait()
        thread.join()


def keep_up(events: Iterator[Object], files: dict[str, Path]) -> None:
    """Write the targets of each file anew whenever a pod comes, changes or goes."""
    pods: dict[str, Object] = {}
    for event in events:
        pod = event["object"]
        pods.pop(pod["metadata"]["uid"], None)
        if event["type"] != "DELETED" and pod["status"].get("podIP"):
            pods[pod["metadata"]["uid"]] = pod
        for name, file in files.items():
            targets = [target(each, PORTS[name]) for each in pods.values() if called(each) == name]
            half = file.with_suffix(".part")
            half.write_text(json.dumps(targets))
            half.replace(file)


def called(pod: Object) -> str:
    """What runs in a pod, by its label."""
    return pod["metadata"].get("labels", {}).get("app.kubernetes.io/name", "")


def target(pod: Object, port: int) -> dict:
    """Where a pod is scraped, with the labels that a PodMonitor of ours leads to."""
    metadata = pod["metadata"]
    labels = {"namespace": metadata["namespace"], "pod": metadata["name"]}
    labels["rollouts_pod_template_hash"] = metadata["labels"].get(HASH, "")
    return {"targets": [f"{pod['status']['podIP']}:{port}"], "labels": labels}


def service() -> list[dict]:
    """The Service under the chart's name, which leads out of the cluster's pods."""
    where = {"name": SERVICE, "namespace": "monitoring"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": where,
            "spec": {"ports": [{"name": "web", "port": PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": where | {"labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": PORT}],
            "endpoints": [{"addresses": [network.address(1)]}],
        },
    ]
