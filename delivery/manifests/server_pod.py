"""What the manifests say about the server: model, arguments, probe, end. For one machine."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from delivery.errors import DeliveryError
from delivery.manifests.rendering import Documents, rollout

COMMAND = ["tritonserver"]
MODEL_REPOSITORY = "--model-repository="
# `$(NAME)` stands for a variable of the container, `$$` for the sign itself.
REFERENCE = re.compile(r"\$\$|\$\(([-._A-Za-z0-9]+)\)")


@dataclass(frozen=True)
class ServerPod:
    """The container `triton` of a Rollout, as far as a machine without Kubernetes can follow it.

    Attributes:
        version: the model version that the release names.
        image: reference of the model image, by digest.
        arguments: those of the container's command, as they are written.
        settings: name and value of the container's variables, None where a Secret holds the value.
        ready_path: the HTTP path that answers once the version can be called.
        starting: seconds that the start-up probe allows until then.
        grace: seconds from the decision to stop to the end by force.
    """

    version: int
    image: str
    arguments: tuple[str, ...]
    settings: tuple[tuple[str, str | None], ...]
    ready_path: str
    starting: float
    grace: float

    def expanded(self) -> list[str]:
        """Return the arguments as the kubelet fills them in; what a Secret holds is made up."""
        values = {
            f"$({name})": secrets.token_hex(32) if value is None else value
            for name, value in self.settings
        }
        signs = values | {"$$": "$"}
        return [
            REFERENCE.sub(lambda found: signs.get(found[0], found[0]), argument)
            for argument in self.arguments
        ]


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
        settings=tuple(settings(container)),
        ready_path=probe["httpGet"]["path"],
        starting=probe.get("failureThreshold", 3) * probe.get("periodSeconds", 10),
        grace=pod.get("terminationGracePeriodSeconds", 30),
    )


def settings(container: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the variables of a container that its arguments may name on this machine."""
    for each in container.get("env", []):
        source = each.get("valueFrom")
        if not source:
            yield each["name"], each.get("value", "")
        elif "secretKeyRef" in source:
            yield each["name"], None


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
