"""What Argo CD would apply for an environment."""

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from delivery.errors import DeliveryError
from delivery.proposals.release_file import RELEASE_FILE, Release, read_release
from workspace.settings import LOADER

KUBERNETES = "1.36"  # the cluster's version, whose schemas judge the manifests

# What a Rollout's spec has that a Deployment's has not, or not in the same form.
ROLLOUT_ONLY = {
    "analysis",
    "progressDeadlineAbort",
    "restartAt",
    "rollbackWindow",
    "strategy",
    "workloadRef",
}

Document = dict[str, Any]
Documents = dict[tuple[str, str], Document]  # by kind and name


def render(environment: Path) -> Documents:
    """Build an environment's folder as Argo CD does; return its documents by kind and name.

    Raises DeliveryError for a release file that cannot be read, when Kustomize fails, for a key or
    a type that Kubernetes does not know, and for a Rollout that does not follow the release.
    """
    release = read_release(environment / RELEASE_FILE)
    documents = build(environment)
    for document in documents.values():
        check_keys(document)
    check_release(documents, release)
    return documents


def build(folder: Path) -> Documents:
    """Run `kubectl kustomize`; return the documents by kind and name, or raise DeliveryError."""
    try:
        result = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        raise DeliveryError(
            "kubectl is not installed; install it to build the manifests."
        ) from None
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"{folder}: kubectl kustomize took two minutes; try again.") from None
    if result.returncode:
        raise DeliveryError(f"{folder} cannot be built: {reason(result.stderr)}; put it right.")
    documents = [document for document in yaml.load_all(result.stdout, LOADER) if document]
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def reason(stderr: str) -> str:
    """Return what kubectl complains of, without its log's decoration."""
    logged = re.search(r'err="(.*)"', stderr, re.DOTALL)
    text = logged.group(1).replace("\\", "") if logged else stderr.removeprefix("error: ")
    return one_line(text)


def one_line(text: str) -> str:
    """Return the text with every run of white space as one space."""
    return " ".join(text.split())


def check_keys(document: Document) -> None:
    """Raise DeliveryError for a key or type that the cluster's version does not know.

    A Rollout is judged as the Deployment that it otherwise is, since its pods are; of other kinds
    that come with a controller only the metadata is judged, the rest is left to that controller.
    """
    try:
        judge(as_deployment(document) if document["kind"] == "Rollout" else document)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(map(str, error.path)) or "its top level"
        raise DeliveryError(
            f"{document['kind']} {document['metadata']['name']}, {place}: "
            f"{one_line(error.message)}; Kubernetes {KUBERNETES} would refuse or ignore it."
        ) from None


def judge(document: Document) -> None:
    """Validate strictly, or the metadata alone where Kubernetes has no schema of the kind."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
        kubernetes_validate.validate(metadata, KUBERNETES, strict=True)


def as_deployment(rollout: Document) -> Document:
    """Return the Deployment that runs the same pods as the Rollout."""
    spec = rollout.get("spec")
    if isinstance(spec, dict):
        spec = {key: value for key, value in spec.items() if key not in ROLLOUT_ONLY}
    return rollout | {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}


def rollout(documents: Documents) -> Document:
    """Return the one Rollout, or raise DeliveryError."""
    rollouts = [document for (kind, _), document in documents.items() if kind == "Rollout"]
    if len(rollouts) != 1:
        raise DeliveryError(f"There are {len(rollouts)} Rollouts; an environment serves with one.")
    return rollouts[0]


def check_release(documents: Documents, release: Release) -> None:
    """Raise DeliveryError unless the Rollout serves exactly the released version and image."""
    pod = rollout(documents)["spec"]["template"]["spec"]
    images = [volume["image"].get("reference") for volume in pod["volumes"] if "image" in volume]
    servers = [container for container in pod["containers"] if container["name"] == "triton"]
    probes = ("startupProbe", "readinessProbe")
    paths = [probe_path(server, probe) for server in servers for probe in probes]
    version = f"/v2/models/classifier/versions/{release.version}/ready"
    if (images, paths) != ([release.image], [version, version]):
        raise DeliveryError(
            f"The Rollout mounts {images} and waits for {paths}, but the release is version "
            f"{release.version} of {release.image}; keep components/release in the overlay and the "
            "probes and the volume `model` as its replacements expect them."
        )


def probe_path(container: Document, probe: str) -> str | None:
    """Return the path that a probe asks for, None when it asks for none."""
    path: str | None = container.get(probe, {}).get("httpGet", {}).get("path")
    return path
