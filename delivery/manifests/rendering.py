"""What Argo CD would apply for an environment."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from pydantic import AliasPath, Field

from delivery.errors import DeliveryError
from delivery.proposals.release_file import RELEASE_FILE, Release, read_release
from workspace.errors import said, shown
from workspace.settings import Settings, check, parse_documents

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


class Metadata(Settings, extra="ignore"):
    """How a document is called."""

    name: str = Field(pattern="^[!-~]{1,253}$", description="a name of Kubernetes")


class Head(Settings, extra="ignore"):
    """What every document of Kubernetes has."""

    api_version: str = Field(
        alias="apiVersion",
        pattern=r"^[a-z0-9.-]{1,200}(/[a-z0-9]{1,60})?$",
        description="a version of Kubernetes' interface",
    )
    kind: str = Field(pattern="^[A-Za-z][A-Za-z0-9]{0,62}$", description="a kind of Kubernetes")
    metadata: Metadata


def at(*path: str, default: Any = ..., **limits: Any) -> Any:
    """A field whose value stands at a path of the document."""
    return Field(default, validation_alias=AliasPath(*path), **limits)


class Part(Settings, extra="ignore"):
    """A part of a Rollout, as far as it is read here; the cluster's schema judges the rest."""


class Mount(Part):
    """Where a container sees a volume."""

    name: str
    path: str = at("mountPath")


class Variable(Part):
    """A variable of a container's environment."""

    name: str
    value: str = ""
    source: dict[str, Any] | None = at("valueFrom", default=None)


class Container(Part):
    """A container of the pod; the numbers are Kubernetes' defaults."""

    name: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[Variable, ...] = ()
    mounts: tuple[Mount, ...] = at("volumeMounts", default=())
    start_path: str | None = at("startupProbe", "httpGet", "path", default=None)
    ready_path: str | None = at("readinessProbe", "httpGet", "path", default=None)
    failures: int = at("startupProbe", "failureThreshold", default=3, ge=1, le=10_000)
    period: int = at("startupProbe", "periodSeconds", default=10, ge=1, le=10_000)


class Volume(Part):
    """A volume of the pod, which may be an image."""

    name: str
    image: str | None = at("image", "reference", default=None)


POD = ("spec", "template", "spec")
VERSION = ("spec", "template", "metadata", "labels", "app.kubernetes.io/version")


class Pod(Part):
    """What a Rollout runs."""

    version: str = at(*VERSION, default="")
    containers: tuple[Container, ...] = at(*POD, "containers")
    volumes: tuple[Volume, ...] = at(*POD, "volumes", default=())
    grace: int = at(*POD, "terminationGracePeriodSeconds", default=30, ge=0, le=100_000)


SERVER = "triton"  # the container of the server
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
    """Run `kubectl kustomize`; return the documents by kind and name. Raises UserError."""
    try:
        result = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, timeout=120
        )
    except FileNotFoundError:
        raise DeliveryError(
            "kubectl is not installed; install it to build the manifests."
        ) from None
    except subprocess.TimeoutExpired:
        raise DeliveryError(f"{folder}: kubectl kustomize took two minutes; try again.") from None
    if result.returncode:
        raise DeliveryError(f"{folder} cannot be built: {reason(result.stderr)}; put it right.")
    return by_name(result.stdout, str(folder))


def by_name(content: bytes, name: str) -> Documents:
    """Read what Kustomize built; `name` appears in messages. Raises SettingsError."""
    found = {}
    for document in parse_documents(content, name):
        if document:
            head = check(Head, document, name)
            found[head.kind, head.metadata.name] = document
    return found


def reason(stderr: bytes) -> str:
    """Return what kubectl complains of, without its log's decoration."""
    logged = re.search(rb'err="(.*)"', stderr, re.DOTALL)
    return said(logged.group(1).replace(b"\\", b"") if logged else stderr.removeprefix(b"error: "))


PASSED: set[str] = set()  # what was judged in this process: two commits' documents are mostly equal


def check_keys(document: Document) -> None:
    """Raise DeliveryError for a key or type that the cluster's version does not know.

    A Rollout is judged as the Deployment that it otherwise is, since its pods are; of other kinds
    that come with a controller only the metadata is judged, the rest is left to that controller.
    """
    import kubernetes_validate  # only here, as it takes long, and most commands judge no manifest

    text = json.dumps(document, sort_keys=True, default=repr)
    if text in PASSED:
        return
    try:
        judge(as_deployment(document) if document["kind"] == "Rollout" else document)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(map(str, error.path)) or "its top level"
        raise DeliveryError(
            f"{document['kind']} {document['metadata']['name']}, {place}: "
            f"{said(error.message)}; Kubernetes {KUBERNETES} would refuse or ignore it."
        ) from None
    PASSED.add(text)


def judge(document: Document) -> None:
    """Validate strictly, or the metadata alone where Kubernetes has no schema of the kind."""
    import kubernetes_validate

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


def pod_of(documents: Documents) -> Pod:
    """Return what the one Rollout runs. Raises SettingsError for another form."""
    return check(Pod, rollout(documents), "the Rollout")


def check_release(documents: Documents, release: Release) -> None:
    """Raise DeliveryError unless the Rollout serves exactly the released version and image."""
    pod = pod_of(documents)
    images = [volume.image for volume in pod.volumes if volume.image]
    servers = [container for container in pod.containers if container.name == SERVER]
    paths = [path for each in servers for path in (each.start_path, each.ready_path)]
    version = f"/v2/models/classifier/versions/{release.version}/ready"
    if (images, paths) != ([release.image], [version, version]):
        raise DeliveryError(
            f"The Rollout mounts {shown(images)} and waits for {shown(paths)}, but the release is "
            f"version {release.version} of {release.image}; keep components/release in the overlay "
            "and the probes and the volume `model` as its replacements expect them."
        )
