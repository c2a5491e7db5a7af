"""What a project needs in a cluster to be tried: Argo CD, Argo Rollouts, namespaces, the Secret.

What was there before stays as it is and is used; what comes from here has a label, by which it is
taken away again.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from delivery.cluster.programs import Kubectl, tell
from delivery.errors import DeliveryError
from workspace.errors import shown
from workspace.settings import read_text

LABEL = "app.kubernetes.io/managed-by=make-cluster"
PATIENCE = "15m"  # for a workload, whose images are downloaded meanwhile
ADMINISTRATION = "argocd/base/administration.sh"


@dataclass(frozen=True)
class Part:
    """Something to install: the Kustomization in a folder, in a namespace of its own."""

    name: str
    namespace: str
    folder: Path


ARGO_CD = Part("Argo CD", "argocd", Path("argocd/base/argo-cd"))
ARGO_ROLLOUTS = Part(
    "Argo Rollouts", "argo-rollouts", Path(__file__).with_name("argo-rollouts").resolve()
)


def install(part: Part, kubectl: Kubectl) -> None:
    """Have a part running. Raises DeliveryError."""
    if not own_namespace(part.namespace, kubectl):
        print(f"{part.name} is there already, and stays as it is", flush=True)
        return
    forced = ("--server-side", "--force-conflicts")
    kubectl.tell("apply", *forced, "--kustomize", str(part.folder))
    inside = ("--namespace", part.namespace)
    for workload in kubectl.names("deployments,statefulsets", *inside):
        kubectl.tell("rollout", "status", *inside, workload, "--timeout", PATIENCE)


def own_namespace(name: str, kubectl: Kubectl) -> bool:
    """Have a namespace; tell whether it comes from here. Raises DeliveryError."""
    if not kubectl.names("namespaces", name):
        key, _, value = LABEL.partition("=")
        kubectl.apply(
            "apiVersion: v1\nkind: Namespace\n"
            f"metadata: {{name: {name}, labels: {{{key}: {value}}}}}\n"
        )
    return is_own(name, kubectl)


def is_own(namespace: str, kubectl: Kubectl) -> bool:
    """Tell whether a namespace is there and comes from here. Raises DeliveryError."""
    own = kubectl.names("namespaces", "--selector", LABEL)
    return f"namespace/{namespace}" in own


def environment_namespaces() -> list[str]:
    """Return the namespaces that the overlays name. Raises DeliveryError."""
    return [
        namespace_of(overlay)
        for overlay in sorted(Path("argocd/environments").glob("*/kustomization.yaml"))
    ]


def namespace_of(overlay: Path) -> str:
    """Return the namespace that an overlay names. Raises DeliveryError."""
    named = re.search(r'(?m)^namespace: *"?([a-z0-9-]+)"? *$', read_text(overlay))
    if not named:
        raise DeliveryError(f"{overlay} has no line `namespace: <name>`: add it")
    return named[1]


def prepare_environments(kubectl: Kubectl) -> None:
    """Have the environments' namespaces and the Secret in each.

    Raises DeliveryError for one that was there before: that cluster is in use.
    """
    for namespace in environment_namespaces():
        if not own_namespace(namespace, kubectl):
            raise DeliveryError(
                f"the namespace {shown(namespace)} of this cluster was not made for trying: "
                "take another cluster with CONTEXT=<context>, or remove the namespace yourself"
            )
    tell("sh", ADMINISTRATION, **kubectl.variables)


def remove(part: Part, kubectl: Kubectl) -> None:
    """Remove a part that was installed from here. Raises DeliveryError."""
    if is_own(part.namespace, kubectl):
        quietly = ("--ignore-not-found", "--wait=true")
        kubectl.tell("delete", "--kustomize", str(part.folder), *quietly)


def remove_environments(project: str, kubectl: Kubectl) -> None:
    """Remove the environments' Applications and namespaces made here. Raises DeliveryError.

    The ApplicationSet goes first, or it would make its Applications again.
    """
    own = [each for each in environment_namespaces() if is_own(each, kubectl)]
    if own:
        quietly = ("--namespace", ARGO_CD.namespace, "--ignore-not-found")
        kubectl.tell("delete", f"applicationsets.argoproj.io/{project}", *quietly)
        kubectl.tell("delete", "applications.argoproj.io", *own, *quietly)
        kubectl.tell("delete", f"appprojects.argoproj.io/{project}", *quietly)
        kubectl.tell("delete", "namespaces", *own, "--ignore-not-found")
