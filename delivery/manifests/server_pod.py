"""What the manifests say about the server: model, arguments, probe, end. For one machine."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from delivery.errors import DeliveryError
from delivery.manifests.rendering import SERVER, VERSION, Container, Documents, pod_of
from delivery.proposals.release_file import Count
from workspace.errors import shown
from workspace.settings import check

COMMAND = ("tritonserver",)
MODEL_REPOSITORY = "--model-repository="
# Where a model stands together with a monitor; this machine's server answers without one.
MONITORED = "/monitored"
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
    """Read the server's pod out of rendered manifests. Raises UserError for another one."""
    pod = pod_of(documents)
    servers = [each for each in pod.containers if each.name == SERVER]
    volumes = [each for each in pod.volumes if each.image]
    if len(servers) != 1 or len(volumes) != 1:
        raise DeliveryError(
            f"The pod has {len(servers)} containers named {SERVER} and {len(volumes)} images as "
            "volumes; it needs one of each."
        )
    (container,), (volume,) = servers, volumes
    check_command(container)
    check_mount(container, volume.name)
    if not container.start_path:
        raise DeliveryError("The container has no startupProbe with httpGet; give it one.")
    return ServerPod(
        version=check(Count, pod.version, "the Rollout", *VERSION),
        image=str(volume.image),
        arguments=container.args,
        settings=tuple(settings(container)),
        ready_path=container.start_path,
        starting=container.failures * container.period,
        grace=pod.grace,
    )


def settings(container: Container) -> Iterator[tuple[str, str | None]]:
    """Yield the variables of a container that its arguments may name on this machine."""
    for each in container.env:
        if each.source is None:
            yield each.name, each.value
        elif "secretKeyRef" in each.source:
            yield each.name, None


def check_command(container: Container) -> None:
    """Raise DeliveryError unless the container runs Triton itself."""
    if container.command != COMMAND:
        raise DeliveryError(
            f"The container's command is {shown(container.command)}; this machine can stand in for "
            f"{' '.join(COMMAND)} only."
        )


def check_mount(container: Container, volume: str) -> None:
    """Raise DeliveryError unless the server reads its models from where the image is mounted."""
    mounted = [mount.path for mount in container.mounts if mount.name == volume]
    read = [
        argument.removeprefix(MODEL_REPOSITORY)
        for argument in container.args
        if argument.startswith(MODEL_REPOSITORY)
    ]
    if mounted != read and (len(mounted) != 1 or read != [MONITORED]):
        raise DeliveryError(
            f"The model image is mounted at {shown(mounted)} and Triton reads {shown(read)}; make "
            "them the same."
        )
