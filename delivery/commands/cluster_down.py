"""Take away all that `make cluster` made, and nothing else."""

import shutil

from delivery.cluster import git_server, kind_cluster
from delivery.cluster.installation import ARGO_CD, ARGO_ROLLOUTS, remove, remove_environments
from delivery.cluster.programs import Kubectl, answer, check_programs
from delivery.cluster.state import FOLDER, GIT_SERVER, SETTINGS
from delivery.git import Repository

ARGUMENTS = {"name": {"help": "the project's name, which the cluster has"}}


def run(repository: Repository, name: str) -> None:
    """Take it away, a line for each step; run it again after an interruption.

    Raises DeliveryError.
    """
    kubectl = Kubectl(SETTINGS)
    context = answer("kubectl", "config", "current-context", **kubectl.variables)
    if context and context != f"kind-{name}":
        leave(name, context, kubectl)
    else:
        remove_all(name, kubectl)
    print("the server of the Git repository", flush=True)
    git_server.stop(GIT_SERVER)
    shutil.rmtree(FOLDER, ignore_errors=True)
    print("nothing of `make cluster` is left")


def leave(name: str, context: str, kubectl: Kubectl) -> None:
    """Take out of somebody's cluster what was put there."""
    print(f"environments in the cluster of the context {context}", flush=True)
    remove_environments(name, kubectl)
    for part in (ARGO_ROLLOUTS, ARGO_CD):
        print(part.name, flush=True)
        remove(part, kubectl)


def remove_all(name: str, kubectl: Kubectl) -> None:
    """Remove the cluster on this machine and its registry."""
    check_programs("docker", "kind")
    kind_cluster.check_docker()
    print(f"the cluster {name}", flush=True)
    kind_cluster.remove_kind(name, kubectl)
    print("its registry", flush=True)
    kind_cluster.remove_registry(name)
