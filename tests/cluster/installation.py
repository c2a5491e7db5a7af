"""What a cluster has before a project comes: Argo CD, Argo Rollouts and the kinds of the others.

Where images and charts can be had, the platform installs itself from them. Here manifests come out
of the programs' Go modules, and their images are made under the names that the manifests give.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import images
import network
import programs
from conftest import TEMPLATE
from local_cluster import PAUSE, LocalCluster
from server_image import server_root

# One program, which is what its name says.
ARGO_CD = """
argocd-server argocd-repo-server argocd-cmp-server argocd-application-controller argocd-dex
argocd-notifications argocd-applicationset-controller argocd-k8s-auth argocd-commit-server
""".split()
GPU = "nvidia.com/gpu"
# Servers ask for what a GPU node has; so that several fit on a small machine, a pod's first
# container asks for less here. Nothing in Git changes, and limits stay.
POLICY = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicy",
    "metadata": {"name": "modest"},
    "spec": {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "operations": ["CREATE"],
                    "resources": ["pods"],
                }
            ]
        },
        "matchConditions": [
            {
                "name": "asks",
                "expression": "has(object.spec.containers[0].resources.requests) && "
                "'cpu' in object.spec.containers[0].resources.requests",
            }
        ],
        "mutations": [
            {
                "patchType": "JSONPatch",
                "jsonPatch": {
                    "expression": "[JSONPatch{op: 'replace', "
                    "path: '/spec/containers/0/resources/requests/cpu', value: '10m'}, "
                    "JSONPatch{op: 'replace', "
                    "path: '/spec/containers/0/resources/requests/memory', value: '128Mi'}]"
                },
            }
        ],
    },
}
BINDING = {
    "apiVersion": "admissionregistration.k8s.io/v1",
    "kind": "MutatingAdmissionPolicyBinding",
    "metadata": {"name": "modest"},
    "spec": {"policyName": "modest"},
}
MODEST = {"apiVersion": "v1", "kind": "List", "items": [POLICY, BINDING]}
MONITORS = ("podmonitors", "servicemonitors", "prometheusrules")


def module(name: str) -> Path:
    """The folder with the code of a program's module."""
    return programs.source(programs.modules()[name])


def optional(cluster: LocalCluster, name: str) -> Path:
    """A program that the cluster does without; where it is not built, the test is skipped."""
    if name not in cluster.programs:
        pytest.skip(f"{name} is not built, which `make test-cluster` does without CORE=1")
    return cluster.programs[name]


def images_of(manifest: str) -> dict[str, str]:
    """The images that a manifest names: path and tag by the last word of their path."""
    found = re.findall(r"^\s*(?:- )?image: \S+?\.\S+?/(\S+)$", manifest, re.MULTILINE)
    return {name.rpartition(":")[0].rpartition("/")[2]: name for name in found}


def make_layers(cache: Path) -> None:
    """Make the layers for which the packages' registries are asked, unless they are there."""
    images.debian_layer(cache)
    images.root_layer(cache, server_root(cache))


def push_images(cluster: LocalCluster, cache: Path) -> None:
    """Make the platform's images and put them into the registry."""
    work = cluster.folder / "images"
    work.mkdir()
    names = images_of((module("argocd") / "manifests" / "install.yaml").read_text())
    names |= images_of((module("rollouts-controller") / "manifests" / "install.yaml").read_text())
    for manifest in ("triton/rollout.yaml", "components/gateway/deployment.yaml"):
        names |= images_of((TEMPLATE / "argocd" / manifest).read_text())
    debian = images.debian_layer(cache)
    authority = (cluster.folder / "authority.crt").read_bytes()
    scripts = {
        f"usr/local/bin/{name}": module("argocd") / folder / name
        for folder, name in (
            ("hack", "gpg-wrapper.sh"),
            ("hack", "git-verify-wrapper.sh"),
            (".", "entrypoint.sh"),
        )
    }
    # Dex signs people in where a team has set it up, which nobody has here.
    scripts_of_ours = {"usr/local/bin/dex": b"#!/bin/sh\nexec sleep infinity\n"}
    argo_cd = [
        debian,
        images.program_layer(work, cluster.programs["argocd"], "argocd", ARGO_CD),
        images.program_layer(work, cluster.programs["kustomize"], "kustomize"),
        images.file_layer(work / "scripts.tar", scripts | scripts_of_ours, {}),
        images.trusting(work, cache / "debian", authority),
    ]
    rollouts = images.program_layer(
        work, cluster.programs["rollouts-controller"], "rollouts-controller"
    )
    images.push(PAUSE.partition("/")[2], [debian], work, Entrypoint=["sleep", "infinity"])
    server = images.root_layer(cache, server_root(cache))
    images.push(names["tritonserver"], [server], work, User="1000:1000")
    for name in ("argocd", "dex"):
        images.push(names[name], argo_cd, work, User="999")
    images.push(names["redis"], [debian], work, User="999", Entrypoint=["redis-server"])
    if program := cluster.programs.get("traefik"):
        traefik = images.program_layer(work, program, "traefik")
        images.push(names["traefik"], [traefik], work, Entrypoint=["/usr/local/bin/traefik"])
    images.push(
        names["argo-rollouts"],
        [rollouts],
        work,
        User="999",
        Entrypoint=["/usr/local/bin/rollouts-controller"],
    )


def apply(cluster: LocalCluster, file: Path, *options: str) -> None:
    """Apply a file on the server's side, which large definitions need."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file), *options)


def serve_git(cluster: LocalCluster, folder: Path, address: str) -> None:
    """Serve bare repositories, and Argo CD's manifest at the address that our base names."""
    certificate, key = cluster.issue("git", "github.com", "raw.githubusercontent.com")
    server = str(Path(__file__).parent / "git_server.py")
    cluster.start("git", 1, ["python3", server, str(folder), address, certificate, key])
    cluster.wait_for_port(address, 443, "git")


def place_upstream(folder: Path, base: Path) -> None:
    """Lay what is not in the repository where the kustomizations below `base` look for it."""
    for name, program in (("argo-cd", "argocd"), ("platform/gateway", "traefik")):
        kustomization = (base / name / "kustomization.yaml").read_text()
        (url,) = re.findall(r"https://(raw\.githubusercontent\.com/\S+)", kustomization)
        path = Path(*Path(url).parts[4:])  # after the host, owner, name and commit
        place = folder / url
        place.parent.mkdir(parents=True)
        place.write_text(fitted((module(program) / path).read_text()))


def fitted(manifest: str) -> str:
    """Return an upstream manifest as the tests' cluster needs it.

    AppProjects may name what they allow, as in Argo CD 3.3 and later: without the field in the
    definition the API server refuses Argo CD's own trial of a change. And pods are asked each
    second whether they are ready: the dashboard, asked too soon, would be half a minute late.
    """
    documents = [each for each in yaml.safe_load_all(manifest) if each]
    for each in documents:
        if each["metadata"]["name"] == "appprojects.argoproj.io":
            schema = each["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            allowed = schema["properties"]["spec"]["properties"]["clusterResourceWhitelist"]
            allowed["items"]["properties"]["name"] = {"type": "string"}
        pod = each.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", []):
            if probe := container.get("readinessProbe"):
                probe["periodSeconds"] = 1
    return yaml.safe_dump_all(documents)


def in_the_cluster(cluster: LocalCluster, hosts: dict[str, str], *command: str) -> str:
    """Run a command on the first node's network, which finds the names that pods find.

    Raises:
        subprocess.CalledProcessError: with what the command said on its standard error.
    """
    listed = "".join(f"{where} {name}\n" for name, where in hosts.items())
    known = cluster.write("hosts", f"127.0.0.1 localhost\n{listed}")
    trusted = cluster.folder / "authority.crt"
    return subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c", f'mount --bind {known} /etc/hosts && exec "$@"'),
            *("sh", "nsenter", f"--net=/run/netns/{network.namespace(1)}", "env"),
            *(f"SSL_CERT_FILE={trusted}", f"KUBECONFIG={cluster.kubeconfig}", *command),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def install_platform(cluster: LocalCluster) -> None:
    """What the charts would install: Argo Rollouts, the monitors' kinds; and room for the pods."""
    kinds = module("prometheus-operator") / "example" / "prometheus-operator-crd"
    for name in MONITORS:
        apply(cluster, kinds / f"monitoring.coreos.com_{name}.yaml")
    for name in ("argo-rollouts", "monitoring"):
        cluster.kubectl("create", "namespace", name)
    manifest = module("rollouts-controller") / "manifests" / "install.yaml"
    apply(cluster, manifest, "--namespace=argo-rollouts")
    set_as_the_chart_does(cluster)
    cluster.kubectl("apply", "-f", "-", content=json.dumps(MODEST))
    give_gpus(cluster, 1)


def set_as_the_chart_does(cluster: LocalCluster) -> None:
    """Give the controller of Rollouts the arguments and variables of our chart."""
    chart = yaml.safe_load(
        (TEMPLATE / "argocd/platform/controllers/argo-rollouts.yaml").read_text()
    )
    settings = chart["settings"]["controller"]
    container = {
        "name": "argo-rollouts",
        "args": settings.get("extraArgs", []),
        "env": settings.get("extraEnv", []),
    }
    patch = json.dumps({"spec": {"template": {"spec": {"containers": [container]}}}})
    cluster.kubectl("patch", "deployment/argo-rollouts", "-n", "argo-rollouts", "--patch", patch)


def give_gpus(cluster: LocalCluster, number: int) -> None:
    """Have a node offer GPUs that nobody has: pods are scheduled by number only."""
    name = network.namespace(number)
    offered = {"capacity": {GPU: "8"}, "allocatable": {GPU: "8"}}
    patch = ["patch", "node", name, "--patch"]
    cluster.kubectl(*patch, json.dumps({"status": offered}), "--subresource=status")
    cluster.kubectl("label", "node", name, "nvidia.com/gpu.present=true")
