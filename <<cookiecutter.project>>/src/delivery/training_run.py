"""Train on the cluster: propose the run that Argo CD starts when its pull request is merged."""

import argparse
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.image import checked_digest, digest_of
from delivery.manifests import LOADER
from delivery.pin import MANIFESTS
from delivery.proposal import Proposal, propose
from delivery.remote import Remote

RUN_FILE = "argocd/training/run.yaml"
RUN_NAME = "training-run"
REVISION = "org.opencontainers.image.revision"
PLATFORM = {"architecture": "amd64", "os": "linux"}  # of the GPU nodes


class RunFileError(DeliveryError):
    """A run file that does not say what to run."""


class BadNodesError(DeliveryError):
    """The number of machines is none."""


class TrainingImageError(DeliveryError):
    """A reference that names no training image by its digest."""


@dataclass(frozen=True)
class Run:
    """One training run: what `run.yaml` says, as values.

    `run` counts from 1 and names the job; `image` is a reference by digest; `nodes` is the number
    of machines; `commit` is what the image was built from.
    """

    run: int
    image: str
    nodes: int
    commit: str

    def to_yaml(self) -> str:
        """Return the text of the run file; equal runs give equal text."""
        lines = [f"  {name}: {json.dumps(str(value))}\n" for name, value in asdict(self).items()]
        head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {RUN_NAME}\ndata:\n"
        return head + "".join(lines)


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `train-on-cluster`."""
    parser = subparsers.add_parser(
        "train-on-cluster", help="propose a training run with an image on the cluster"
    )
    parser.add_argument("image", help="<host>/<repository>@sha256:<64 hex>, as `make image` prints")
    parser.add_argument("--nodes", type=int, default=2, help="machines; default: 2")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Propose from the current folder."""
    train_on_cluster(Repository(Path.cwd()), arguments.image, arguments.nodes)


def train_on_cluster(repository: Repository, image: str, nodes: int) -> None:
    """Propose the next run: this image on this number of machines.

    Raises BadNodesError, TrainingImageError, RunFileError, what reading the image's registry raises
    and what proposing raises.
    """
    if not 1 <= nodes <= 1000:
        raise BadNodesError(f"NODES is {nodes}: give a whole number of machines from 1 to 1000")
    commit = revision(image)
    base = repository.fetch()
    candidate = Run(next_run(repository, base), image, nodes, commit)
    propose(repository, base, proposal(candidate))


def revision(image: str) -> str:
    """Return the commit that an image in a registry says it was built from.

    Raises TrainingImageError and what reading from the registry raises.
    """
    name, _, digest = image.rpartition("@")
    host, _, path = name.partition("/")
    try:
        checked_digest(digest)
    except ValueError:
        host = ""
    if not host or not path or ":" in path:
        raise TrainingImageError(
            f"IMAGE is {image!r}: give <host>/<repository>@sha256:<64 hex>, as `make image` prints"
        )
    remote = Remote(name)
    manifest = document(remote, digest)
    if "manifests" in manifest:
        manifest = document(remote, for_the_nodes(manifest, image))
    with remote.read(manifest["config"]["digest"]) as stream:
        labels = json.load(stream).get("config", {}).get("Labels") or {}
    if not re.fullmatch(r"[0-9a-f]{40}", commit := labels.get(REVISION, "")):
        raise TrainingImageError(
            f"{image} does not say which commit it was built from: build it with `make image`"
        )
    return commit


def document(remote: Remote, digest: str) -> dict[str, Any]:
    """Read a manifest and check that it is the one asked for. Raises TrainingImageError."""
    content = remote.read_manifest(digest, MANIFESTS)
    if digest_of(content) != digest:
        raise TrainingImageError(f"{remote.name} gave something else than {digest}: ask again")
    return json.loads(content)


def for_the_nodes(index: dict[str, Any], image: str) -> str:
    """Return the digest of the image for the GPU nodes in an index. Raises TrainingImageError."""
    for each in index["manifests"]:
        if PLATFORM.items() <= each.get("platform", {}).items():
            return each["digest"]
    raise TrainingImageError(f"{image} has no image for linux/amd64, which the GPU nodes are")


def read_run(repository: Repository, commit: str) -> int | None:
    """Return the number of the run in the run file at a commit, or None where there is none.

    Raises RunFileError.
    """
    content = repository.read(commit, RUN_FILE)
    if content is None:
        return None
    try:
        number = yaml.load(content, Loader=LOADER)["data"]["run"]
        if not re.fullmatch(r"[1-9][0-9]{0,8}", number):
            raise ValueError(number)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise RunFileError(
            f'{RUN_FILE} at {commit[:12]} has no number of a run, such as run: "3": put it right '
            "on main, or remove the file"
        ) from error
    return int(number)


def next_run(repository: Repository, commit: str) -> int:
    """Return one more than the highest run ever merged: a name that was used would not run again.

    Raises RunFileError for the newest file; one that could not be read in the past ran nothing.
    """
    numbers = [read_run(repository, commit) or 0]
    for each in repository.history(commit, RUN_FILE):
        with suppress(RunFileError):
            numbers.append(read_run(repository, each) or 0)
    return 1 + max(numbers)


def proposal(candidate: Run) -> Proposal:
    """Return the pull request for a run."""
    machines = "one machine" if candidate.nodes == 1 else f"{candidate.nodes} machines"
    return Proposal(
        branch=f"training/run-{candidate.run}",
        path=RUN_FILE,
        content=candidate.to_yaml(),
        title=f"Train on the cluster: run {candidate.run} on {machines}",
        description=(
            f"- image: `{candidate.image}`\n- commit: `{candidate.commit[:12]}`\n"
            f"- machines: {candidate.nodes}, each with one GPU\n\n"
            "Merging starts it and takes away the run before, finished or not.\n"
        ),
    )
