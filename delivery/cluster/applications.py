"""What Argo CD is told in a cluster to try things in: the project's environments, and no platform.

These are the documents of `argocd/apps` that deploy models. Git's address is the one that this
cluster reaches; pods need no GPU and no Prometheus.
"""

import copy
from typing import Any

from delivery.manifests.rendering import Document, Documents

DEPLOY = "models"  # the ApplicationSet and its AppProject in `argocd/apps`
SERVER = "nvcr.io/nvidia/tritonserver"  # the image that the base names
NO_MONITOR = """\
$patch: delete
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata: {name: triton}
"""


def applications(found: Documents, name: str, address: str, server: str | None) -> list[Document]:
    """Return what to apply of the documents of `argocd/apps`.

    Args:
        found: what Kustomize builds of that folder.
        name: the project's, by which they are called: another project may be in that cluster.
        address: by which the cluster reads the repository.
        server: the server image by digest; None leaves the base's.
    """
    project = copy.deepcopy(found["AppProject", DEPLOY])
    models = copy.deepcopy(found["ApplicationSet", DEPLOY])
    project["metadata"]["name"] = models["metadata"]["name"] = name
    models["spec"]["template"]["spec"]["project"] = name
    project["spec"]["sourceRepos"] = [address]
    for generator in models["spec"]["generators"]:
        generator["git"]["repoURL"] = address
    source = models["spec"]["template"]["spec"]["source"]
    source |= {"repoURL": address, "kustomize": changes(server)}
    return [project, models]


def changes(server: str | None) -> dict[str, Any]:
    """Return what is changed of every overlay, whatever it says itself."""
    target = {"kind": "PodMonitor", "name": "triton"}
    found: dict[str, Any] = {
        "components": ["../../base/components/cpu"],
        "patches": [{"target": target, "patch": NO_MONITOR}],
    }
    return found | ({"images": [f"{SERVER}={server}"]} if server else {})
