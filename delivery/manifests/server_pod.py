"""What the manifests say about the server: model, arguments, probe, end. For one machine."""

from dataclasses import dataclass
from typing import Any

from delivery.errors import DeliveryError
from delivery.manifests.rendering import Documents, rollout

COMMAND = ["tritonserver"]
MODEL_REPOSITORY = "--model-repository="


@dataclass(frozen=True)
class ServerPod:
    """The container `triton` of a Rollout, as far as a machine without Kubernetes can follow it.

    Attributes:
        version: the model version that the release names.
        image: reference of the model image, by digest.
        arguments: those of the container's command.
        ready_path: the HTTP path that answers once the version can be called.
        starting: seconds that the start-up probe allows until then.
        grace: seconds from the decision to stop to the end by force.
    """

    version: int
    image: str
    arguments: tuple[str, ...]
    ready_path: str
    starting: float
    grace: float


def read_server_pod(documents: Documents) -> ServerPod:
    """Read the server's pod out of rendered manifests. Raises DeliveryError for another one."""
    template = rollout(documents)["spec"]["template"]
    pod = template["spec"]
    (container,) = (each for each in pod["containers"] if each["name"] == "triton")
    (volume,) = (each for each in pod["volumes"] if "image" in each)
    check_command(container)
    check_mount(container, volume["name"])
    probe = container["startupProbe"]
    return ServerPod(
        version=int(template["metadata"]["labels"]["app.kubernetes.io/version"]),
        image=volume["image"]["reference"],
        arguments=tuple(container["args"]),
        ready_path=probe["httpGet"]["path"],
        starting=probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10),
        grace=pod.get("terminationGracePeriodSeconds", 30),
    )


def check_command(container: dict[str, Any]) -> None:
    """Raise DeliveryError unless the container runs Triton itself."""
    if container.get("command") != COMMAND:
        raise DeliveryError(
            f"The container's command is {container.get('command')}; this machine can stand in for "
            f"{COMMAND} only."
        )


def check_mount(container: dict[str, Any], volume: str) -> None:
    """Raise DeliveryError unless the server reads its models from where the image is mounted."""
    mounted = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == volume]
    read = [
        argument.removeprefix(MODEL_REPOSITORY)
        for argument in container["args"]
        if argument.startswith(MODEL_REPOSITORY)
    ]
    if mounted != read:
        raise DeliveryError(
            f"The model image is mounted at {mounted} and Triton reads {read}; make them the same."
        )
