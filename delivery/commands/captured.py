"""Captured: fetch the pictures that an environment's monitor has kept for people to label."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
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
RUNNING = ("--selector=app.kubernetes.io/name=monitor", "--field-selector=status.phase=Running")
FOLDER = "/captured"  # of component `capture`
TAR = ("tar", "--create", f"--directory={FOLDER}", "--exclude=.partial", ".")
PATIENCE = 600  # seconds of all pictures of a pod


def run(repository: Repository, environment: str, context: str | None = None) -> None:
    """Move what all pods have into a new folder, by the class that the model answered.

    Raises DeliveryError: there are no pictures, or the cluster cannot be asked.
    """
    check_environment(repository, "HEAD", environment)
    namespace = namespace_of(repository, "HEAD", environment)
    try:
        pods = monitors(find_cluster(context), namespace)
        kept = {pod: dict(pictures(pod.ask(*TAR))) for pod in pods}
        if not any(kept.values()):
            raise DeliveryError(f"no picture of {environment} is kept so far: try again later")
        name = f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}-{environment}"  # the last is the newest
        for each in kept.values():
            write(each, repository.folder / CAPTURED / name)
        count = sum(map(len, kept.values()))
        print(
            f"{count} pictures are in {CAPTURED / name}, by the class that the model answered: "
            "`make ingest FROM=captured` asks about each"
        )
        for pod, each in kept.items():  # which makes room for others
            pod.ask("rm", "--force", "--", *(f"{FOLDER}/{path}" for path in each))
    except UnknownError as error:
        raise DeliveryError(
            f"{error}: name the component capture in the kustomization.yaml of {environment}, and "
            "a context of kubectl that may exec there"
        ) from None


@dataclass(frozen=True)
class Monitor:
    """A monitor's pod."""

    cluster: Cluster
    place: tuple[str, ...]

    def ask(self, *command: str) -> bytes:
        """Return what a command prints there. Raises UnknownError."""
        return self.cluster.ask("exec", *self.place, "--", *command, patience=PATIENCE)


def monitors(cluster: Cluster, namespace: str) -> list[Monitor]:
    """Find the pods that run. Raises UnknownError: there is none, or the cluster does not say."""
    inside = ("--namespace", namespace)
    pods = cluster.ask("get", "pods", *inside, *RUNNING, "--output=name").decode().split()
    if not pods:
        raise UnknownError(f"no monitor runs in {namespace}")
    return [Monitor(cluster, (*inside, pod, "--container=triton")) for pod in pods]


def write(found: dict[PurePosixPath, bytes], folder: Path) -> None:
    """Write pictures by class and name."""
    for path, content in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


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
