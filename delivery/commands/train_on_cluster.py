"""Train on the cluster: propose the run that Argo CD starts when its pull request is merged."""

import re

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.image import REVISION
from delivery.oci.remote import NAME, Remote
from delivery.proposals.proposal import Proposal, propose
from delivery.proposals.run_file import RUN_FILE, Run, next_run

PLATFORM = ("linux", "amd64")  # of the GPU nodes


ARGUMENTS = {
    "image": {"help": "<host>/<name>@sha256:<64 hex>, as `make image` prints"},
    "--nodes": {"type": int, "default": 2, "help": "machines; default: 2"},
}


def run(repository: Repository, image: str, nodes: int) -> None:
    """Propose the next run: this image on this number of machines. Raises UserError."""
    if not 1 <= nodes <= 1000:
        raise DeliveryError(f"NODES is {nodes}: give a whole number of machines from 1 to 1000")
    commit = revision(image)
    base = repository.fetch()
    candidate = Run(run=next_run(repository, base), image=image, nodes=nodes, commit=commit)
    propose(repository, base, proposal(candidate))


def revision(image: str) -> str:
    """Return the commit that an image in a registry was built from. Raises DeliveryError."""
    if not re.fullmatch(rf"{NAME.pattern}@sha256:[0-9a-f]{{64}}", image):
        raise DeliveryError(
            f"IMAGE is {image!r}: give <host>/<name>@sha256:<64 hex>, as `make image` prints"
        )
    name, _, digest = image.partition("@")
    commit = Remote(name).read_labels(digest, *PLATFORM).get(REVISION, "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise DeliveryError(
            f"{image} does not say which commit it was built from: build it with `make image`"
        )
    return commit


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
        command=f"make train-on-cluster IMAGE={candidate.image} NODES={candidate.nodes}",
    )
