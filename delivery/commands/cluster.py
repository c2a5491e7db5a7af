"""A cluster to try the project in, with Argo CD: made on this machine, or the one of a context."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

from delivery.cluster import kind_cluster
from delivery.cluster.applications import applications
from delivery.cluster.git_server import serve
from delivery.cluster.installation import (
    ARGO_CD,
    ARGO_ROLLOUTS,
    environment_namespaces,
    install,
    namespace_of,
    prepare_environments,
)
from delivery.cluster.programs import Kubectl, ask, check_programs
from delivery.cluster.remote import local_remote, public_address, this_machine
from delivery.cluster.server_image import build_server_image
from delivery.cluster.state import APPLIED, GIT_LOG, GIT_SERVER, SETTINGS
from delivery.git import Repository
from delivery.manifests.rendering import build
from delivery.parameters import read_parameters
from workspace.files import write

FIRST = Path("argocd/environments/staging/kustomization.yaml")  # where releases go first
COSTS = """\
A cluster on this machine: about 4 GB of disk and, the first time, 10 minutes, mostly of downloads
(kind's node, Argo CD, Argo Rollouts, a registry, the server image's packages). Ctrl-C interrupts;
`make cluster` goes on from there, `make cluster-down` takes all of it away."""
GIVEN = """\
In the cluster of the context {context}: Argo CD and Argo Rollouts, where they are not yet, and the
namespaces {namespaces}; 3 GB of images and some minutes{more}.
Ctrl-C interrupts; the same command goes on from there, and `make cluster-down` takes away what it
made, and nothing else."""
LARGE = """, and with the first
release NVIDIA's server image of 15 GB, unless IMAGE=<reference by digest> names a smaller one"""

ARGUMENTS = {
    "name": {"help": "the project's name, which the cluster gets"},
    "--context": {"help": "use the cluster of this context of kubectl's instead of making one"},
    "--host": {"help": "the address of this machine by which that cluster reaches it"},
    "--image": {"help": "the server image by digest, for that cluster"},
}

Say = Callable[[str], None]


def run(
    repository: Repository,
    name: str,
    context: str | None = None,
    host: str | None = None,
    image: str | None = None,
) -> None:
    """Make what is missing, step by step, and say how to go on. Raises DeliveryError."""
    check_programs("kubectl", *([] if context else ["docker", "kind"]))
    repository.fetch()
    spaces = ", ".join(environment_namespaces())
    kubectl = Kubectl(SETTINGS)
    if context:
        more = "" if image else LARGE
        print(GIVEN.format(context=context, namespaces=spaces, more=more), flush=True)
        say = steps(5)
        say("the settings of the context")
        keep_settings(context, kubectl)
    else:
        kind_cluster.check_docker()
        print(COSTS, flush=True)
        say = steps(8)
        image = make(repository, name, kubectl, say)
    for part in (ARGO_CD, ARGO_ROLLOUTS):
        say(part.name)
        install(part, kubectl)
    say(f"the namespaces {spaces}, and a Secret in each")
    prepare_environments(kubectl)
    say("what Argo CD is to follow")
    reach = (lambda: this_machine(kubectl)) if context else kind_cluster.gateway
    follow(name, kubectl, address(repository, host, reach), image)
    print(how_to_go_on(None if context else f"{kind_cluster.HOST}/{name}"))


def steps(total: int) -> Say:
    """Return what says that a step begins."""
    numbers = itertools.count(1)
    return lambda what: print(f"step {next(numbers)} of {total}: {what}", flush=True)


def make(repository: Repository, name: str, kubectl: Kubectl, say: Say) -> str:
    """Have a cluster and a registry on this machine; return the server image that is in it."""
    say("a registry, which keeps what is pushed to it")
    kind_cluster.make_registry(name)
    say("a cluster of kind")
    kind_cluster.make_kind(name, kubectl)
    say("the registry's name for the cluster")
    kind_cluster.connect_registry(name, kubectl)
    say("the server image for CPUs")
    server = f"{kind_cluster.HOST}/tritonserver-cpu"
    return build_server_image(repository.folder, server, "docker", push=True)


def keep_settings(context: str, kubectl: Kubectl) -> None:
    """Keep the settings of a context apart, for all that follows."""
    found = ask("kubectl", "config", "view", "--minify", "--flatten", "--context", context)
    write(SETTINGS, found + "\n", private=True)


def address(repository: Repository, host: str | None, reach: Callable[[], str]) -> str:
    """Return where the cluster reads the remote; one on this machine is served to it from now on.

    `host` is the address of this machine by which the cluster reaches it, or else `reach` finds it.
    """
    folder = local_remote(repository)
    if folder is None:
        return public_address(repository)
    return serve(folder, host or reach(), GIT_SERVER, GIT_LOG)


def follow(name: str, kubectl: Kubectl, repository: str, image: str | None) -> None:
    """Point Argo CD at a repository. Raises DeliveryError."""
    found = applications(build(Path("argocd/apps")), name, repository, image)
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": found}, indent=2)
    write(APPLIED, text + "\n")
    kubectl.apply(text)
    print(f"Argo CD follows main of {repository}, as {APPLIED} says", flush=True)


def how_to_go_on(registry: str | None) -> str:
    """Say how to open the dashboards and what to do first; `registry` is the one that was made."""
    named = read_parameters(Path()).release.registry
    lines = [
        f"export KUBECONFIG=$PWD/{SETTINGS}   # in each shell that calls kubectl",
        "Argo CD's dashboard, https://localhost:8080 (its certificate is its own), user admin:",
        "  kubectl --namespace argocd port-forward service/argocd-server 8080:443",
        "  kubectl --namespace argocd get secret argocd-initial-admin-secret "
        "--output go-template='{{.data.password | base64decode}}'   # the password",
        "Argo Rollouts' dashboard, http://localhost:3100/rollouts, without a password:",
        "  kubectl --namespace argo-rollouts port-forward service/argo-rollouts-dashboard 3100",
        "the model, as soon as the merge of its release is followed; then `make predict`:",
        f"  kubectl --namespace {namespace_of(FIRST)} port-forward service/triton 8000 8001",
    ]
    if named.startswith("oci:"):
        place = registry or "<host>/<name> that the cluster pulls from"
        lines.append(
            f"The cluster cannot pull from {named}: before the first release write `registry: "
            f"{place}` into params.yaml, commit and push."
        )
    return "\n".join(lines)
