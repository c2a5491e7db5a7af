"""A Prometheus beside the cluster, at the address that Argo Rollouts and KEDA ask.

It is Debian's, which cannot ask Kubernetes what there is to scrape. So a file tells it, with the
labels that Prometheus' operator makes of the PodMonitors. It has the platform's own rules.
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
KIND, HASH = "app.kubernetes.io/name", "rollouts-pod-template-hash"
# Where a pod tells its figures, by its kind.
PORTS = {"triton": 8002, "argo-rollouts": 8090, "argocd-application-controller": 8082}
RULES, AWAKE = ("model-rules.yaml", "delivery-rules.yaml"), "60s"


@contextmanager
def prometheus(here: LocalCluster, kubernetes: Kubernetes) -> Iterator[None]:
    """A Prometheus that scrapes every two seconds, as long as the context lasts.

    What rules look at for a minute is for ten seconds here, and what a version is new for an hour
    is so for AWAKE.
    """
    need("prometheus")
    groups = [group for name in RULES for group in quicker(name)]
    targets = here.write("prometheus/targets.json", "[]")
    settings = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [here.write("prometheus/rules.json", {"groups": groups})],
        "scrape_configs": [
            {
                "job_name": "pods",
                "honor_labels": True,  # Argo Rollouts says whose Rollout it tells of
                "file_sd_configs": [{"files": [targets], "refresh_interval": "1s"}],
            }
        ],
    }
    options = {
        "config.file": here.write("prometheus/settings.json", settings),
        "storage.tsdb.path": here.folder / "prometheus/data",
        "web.listen-address": f"{network.address(1)}:{PORT}",
    }
    kubernetes.apply(service())
    with followed(kubernetes, Path(targets)):
        here.start(NAME, 1, [NAME, *(f"--{key}={value}" for key, value in options.items())])
        try:
            here.wait_for(f"http://{network.address(1)}:{PORT}/-/ready", NAME)
            yield
        finally:
            if NAME in here.running:
                here.stop(NAME)


def quicker(name: str) -> list[Object]:
    """The groups of a file of the platform's rules, which look back less far."""
    text = (TEMPLATE / "argocd/platform/configs" / name).read_text()
    rules = text.replace("[1m]", "[10s]").replace("offset 1h", f"offset {AWAKE}")
    return yaml.safe_load(rules)["spec"]["groups"]


@contextmanager
def followed(kubernetes: Kubernetes, file: Path) -> Iterator[None]:
    """Have a file hold the pods of the cluster that are scraped, as they come and go."""
    kinds = f"--selector={KIND} in ({','.join(PORTS)})"
    process = subprocess.Popen(
        [
            *("kubectl", f"--kubeconfig={kubernetes.kubeconfig}", "get", "pods", kinds),
            *("--all-namespaces", "--watch", "--output=json"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    thread = threading.Thread(target=write_targets, args=(process, file))
    thread.start()
    try:
        yield
    finally:
        process.kill()
        thread.join()
        process.wait()


def write_targets(process: "subprocess.Popen[str]", file: Path) -> None:
    """Write every change that kubectl prints, until it ends."""
    assert process.stdout
    pods: dict[str, Object] = {}
    for pod in documents(process.stdout):
        pods[pod["metadata"]["uid"]] = pod
        part = file.with_suffix(".part")
        part.write_text(json.dumps([target(each) for each in pods.values() if there(each)]))
        part.replace(file)


def there(pod: Object) -> bool:
    """Whether a pod has an address and is not about to end."""
    return "podIP" in pod.get("status", {}) and "deletionTimestamp" not in pod["metadata"]


def target(pod: Object) -> Object:
    """A pod as Prometheus scrapes it."""
    known, labels = pod["metadata"], pod["metadata"]["labels"]
    return {
        "targets": [f"{pod['status']['podIP']}:{PORTS[labels[KIND]]}"],
        "labels": {
            "namespace": known["namespace"],
            "pod": known["name"],
            "rollouts_pod_template_hash": labels.get(HASH, ""),
        },
    }


def service() -> list[Object]:
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
