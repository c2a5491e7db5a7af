"""A Prometheus beside the cluster, at the address that Argo Rollouts and KEDA ask.

It scrapes the servers' pods under the names that Prometheus' operator makes of the PodMonitor, and
has the rules that the platform installs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import yaml

import network
from conftest import TEMPLATE
from kubernetes_api import Kubernetes
from local_cluster import LocalCluster
from registry_tools import need

NAME, PORT = "prometheus", 9090
SERVICE = "prometheus-prometheus"  # as the chart names it
POD = "__meta_kubernetes_pod"
LABELS = {
    "namespace": "__meta_kubernetes_namespace",
    "pod": f"{POD}_name",
    "rollouts_pod_template_hash": f"{POD}_label_rollouts_pod_template_hash",
}
SERVERS = {
    "action": "keep",
    "source_labels": [f"{POD}_label_app_kubernetes_io_name", f"{POD}_container_port_name"],
    "regex": "triton;metrics",
}
ROLLOUTS = {
    "action": "keep",
    "source_labels": [f"{POD}_label_app_kubernetes_io_name"],
    "regex": "argo-rollouts",
}


@contextmanager
def prometheus(here: LocalCluster, kubernetes: Kubernetes) -> Iterator[str]:
    """A Prometheus that scrapes every two seconds, as long as the context lasts; its address.

    What rules look at for a minute is for ten seconds here.
    """
    need("prometheus")
    rules = TEMPLATE / "argocd/platform/configs/model-rules.yaml"
    groups = yaml.safe_load(rules.read_text().replace("[1m]", "[10s]"))["spec"]["groups"]
    settings = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [here.write("prometheus/rules.json", {"groups": groups})],
        "scrape_configs": [
            job(here, "triton", SERVERS, named(LABELS)),
            job(here, "argo-rollouts", ROLLOUTS, at_port(8090)) | {"honor_labels": True},
        ],
    }
    options = {
        "config.file": here.write("prometheus/settings.json", settings),
        "storage.tsdb.path": here.folder / "prometheus/data",
        "web.listen-address": f"{network.address(1)}:{PORT}",
    }
    here.start(NAME, 1, [NAME, *(f"--{key}={value}" for key, value in options.items())])
    try:
        here.wait_for(f"http://{network.address(1)}:{PORT}/-/ready", NAME)
        kubernetes.apply(service())
        yield f"http://{network.address(1)}:{PORT}"
    finally:
        if NAME in here.running:
            here.stop(NAME)


def job(here: LocalCluster, name: str, kept: dict, relabelled: list[dict]) -> dict:
    """Scrape those pods of the cluster that are kept."""
    found = {"role": "pod", "kubeconfig_file": str(here.kubeconfig)}
    return {
        "job_name": name,
        "kubernetes_sd_configs": [found],
        "relabel_configs": [kept, *relabelled],
    }


def named(labels: dict[str, str]) -> list[dict]:
    """Give targets labels of what is known of them."""
    return [{"source_labels": [source], "target_label": label} for label, source in labels.items()]


def at_port(port: int) -> list[dict]:
    """Scrape a pod at one port, whatever its containers declare, and once."""
    return [
        {
            "source_labels": [f"{POD}_ip"],
            "target_label": "__address__",
            "replacement": f"$1:{port}",
        }
    ]


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
