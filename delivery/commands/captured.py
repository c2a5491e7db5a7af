"""Captured: fetch the pictures that an environment's monitor has kept for people to label."""

import io
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.cluster import Cluster, UnknownError, find_cluster, namespace_of
from delivery.proposals.releases import check_environment
from workspace.errors import said
from workspace.root import CAPTURED

ARGUMENTS: dict[str, Any] = {
    "environment": {"help": "such as staging"},
    "--context": {"help": "of kubectl; default: the current one"},
}
MONITOR = ("--selector=app.kubernetes.io/name=monitor", "--field-selector=status.phase=Running")
TAR = ("tar", "--create", "--directory=/captured", "--exclude=.partial", ".")
PATIENCE = 600  # seconds of all pictures of a pod


def run(repository: Repository, environment: str, context: str | None = None) -> None:
    """Put what all pods have into a new folder, by the class that the model answered.

    Raises DeliveryError: there are no pictures, or the cluster cannot be asked.
    """
    check_environment(repository, "HEAD", environment)
    namespace = namespace_of(repository, "HEAD", environment)
    found = dict(fetch(find_cluster(context), namespace, environment))
    if not found:
        raise DeliveryError(f"no picture of {environment} is kept so far: try again later")
    name = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{environment}"  # the last one is the newest
    folder = repository.folder / CAPTURED / name
    for path, content in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    print(
        f"{len(found)} pictures are in {CAPTURED / name}, by the class that the model answered: "
        "`make ingest FROM=captured` asks about each"
    )


def fetch(
    cluster: Cluster, namespace: str, environment: str
) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Give the pictures of all monitors, by class and name. Raises DeliveryError."""
    inside = ("--namespace", namespace)
    try:
        pods = cluster.ask("get", "pods", *inside, *MONITOR, "--output=name").decode().split()
        archives = [
            cluster.ask("exec", *inside, pod, "--container=triton", "--", *TAR, patience=PATIENCE)
            for pod in pods
        ]
    except UnknownError as error:
        raise DeliveryError(
            f"{error}: name the component capture in the kustomization.yaml of {environment}, and "
            "a context of kubectl that may exec there"
        ) from None
    if not pods:
        raise DeliveryError(
            f"nothing of {environment} is kept: name the component capture in its "
            "kustomization.yaml"
        )
    for archive in archives:
        yield from pictures(archive)


def pictures(archive: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Give the files `<class>/<name>.png` of a tar archive, and nothing else of it."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
            for member in opened:
                path = PurePosixPath(member.name)
                whole = opened.extractfile(member) if member.isfile() else None
                if whole and is_picture(path):
                    yield path, whole.read()
    except (tarfile.TarError, EOFError) as error:
        raise DeliveryError(
            f"what a monitor sent is no whole archive ({said(str(error))}): try again"
        ) from None


def is_picture(path: PurePosixPath) -> bool:
    """Whether a path is that of a picture in the folder of a class."""
    return len(path.parts) == 2 and path.suffix == ".png" and path.parts[0] not in ("..", "/")
