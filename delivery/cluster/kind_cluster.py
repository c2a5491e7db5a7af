"""A cluster of kind with a registry beside it, connected as kind documents it."""

from delivery.cluster.programs import Kubectl, answer, ask, tell
from delivery.errors import DeliveryError

# As the notes of kind 0.33 name it for the project's version of Kubernetes.
NODE = (
    "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"
)
REGISTRY = "registry:3.1.1@sha256:1be55279f18a2fe1a74edf2664cac61c1bea305b7b4642dab412e7affdcb3e33"
HOST = "localhost:5001"  # of the registry, for this machine and, by the file below, for the nodes
NETWORK = "kind"
PULLS = f"/etc/containerd/certs.d/{HOST}"
# How a cluster says where its registry is, for tools that ask.
HOSTING = f"""apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: "{HOST}"
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
"""


def registry_name(cluster: str) -> str:
    """Return the name of the container with the registry."""
    return f"{cluster}-registry"


def check_docker() -> None:
    """Raise DeliveryError where Docker's server does not answer."""
    if not answer("docker", "version", "--format", "{{.Server.Version}}"):
        raise DeliveryError(
            "Docker's server does not answer: start it with `sudo systemctl start docker`, "
            "and see that `docker ps` works for you"
        )


def make_registry(cluster: str) -> None:
    """Have the registry running. Raises DeliveryError."""
    name = registry_name(cluster)
    running = answer("docker", "container", "inspect", "--format", "{{.State.Running}}", name)
    if running == "false":
        ask("docker", "start", name)
    elif running != "true":
        reached = ("--publish", f"127.0.0.1:{HOST.partition(':')[2]}:5000", "--network", "bridge")
        tell("docker", "run", "--detach", "--restart=always", *reached, "--name", name, REGISTRY)


def make_kind(cluster: str, kubectl: Kubectl) -> None:
    """Have a cluster that answers; one that does not is made again. Raises DeliveryError.

    All that it holds comes from Git, so nothing is lost.
    """
    if cluster in clusters():
        if answers(cluster, kubectl):
            return
        remove_kind(cluster, kubectl)
    options = ("--name", cluster, "--image", NODE, "--wait", "5m")
    tell("kind", "create", "cluster", *options, **kubectl.variables)


def clusters() -> list[str]:
    """List kind's clusters. Raises DeliveryError."""
    return ask("kind", "get", "clusters").splitlines()


def answers(cluster: str, kubectl: Kubectl) -> bool:
    """Tell whether a cluster of kind answers; write its settings."""
    answer("kind", "export", "kubeconfig", "--name", cluster, **kubectl.variables)
    return answer(
        "kubectl", "get", "--raw=/readyz", "--request-timeout=30s", **kubectl.variables
    ).endswith("ok")


def connect_registry(cluster: str, kubectl: Kubectl) -> None:
    """Have the nodes take from the registry what this machine pushes. Raises DeliveryError."""
    registry = registry_name(cluster)
    for node in ask("kind", "get", "nodes", "--name", cluster).splitlines():
        write = f"mkdir -p {PULLS} && cat > {PULLS}/hosts.toml"
        there = f'[host."http://{registry}:5000"]\n'
        ask("docker", "exec", "--interactive", node, "sh", "-c", write, stdin=there)
    network = "{{json .NetworkSettings.Networks.%s}}" % NETWORK  # noqa: UP031
    if ask("docker", "container", "inspect", "--format", network, registry) == "null":
        ask("docker", "network", "connect", NETWORK, registry)
    kubectl.apply(HOSTING)


def gateway() -> str:
    """Return the address by which the cluster's pods reach this machine. Raises DeliveryError."""
    listed = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    found = ask("docker", "network", "inspect", "--format", listed, NETWORK).split()
    return next(address for address in found if "." in address)


def remove_kind(cluster: str, kubectl: Kubectl) -> None:
    """Remove the cluster, also one that is half made. Raises DeliveryError."""
    tell("kind", "delete", "cluster", "--name", cluster, **kubectl.variables)


def remove_registry(cluster: str) -> None:
    """Remove the registry with all that was pushed to it. Raises DeliveryError."""
    if answer("docker", "container", "inspect", "--format", "{{.Id}}", registry_name(cluster)):
        ask("docker", "rm", "--force", "--volumes", registry_name(cluster))
