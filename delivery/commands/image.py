"""The training image: build it from this commit with the tool that is there, and push it."""

from delivery.git import Repository
from delivery.oci.build import Build, build_image, check_name, find_builder
from delivery.oci.image import REVISION

LOCAL = "localhost/training"

ARGUMENTS = {
    "--push": {"metavar": "REGISTRY", "dest": "registry", "help": "<host>/<name> to push it to"},
}


def run(repository: Repository, registry: str | None = None) -> None:
    """Build the image of the commit that is checked out; print its reference by digest.

    The tag is the commit, the times in the image are the commit's. Without a registry the image
    stays on this machine. Raises DeliveryError.
    """
    builder = find_builder()
    commit = repository.head()
    repository.check_clean("because the image names the commit that it is made from")
    if registry:
        check_name(registry)
    wanted = Build(
        context=repository.folder,
        name=registry or LOCAL,
        tag=commit[:12],
        epoch=repository.ask("show", "--no-show-signature", "--no-patch", "--format=%ct"),
        label=f"{REVISION}={commit}",
        push=bool(registry),
    )
    print(build_image(wanted, builder))
