"""The training image: build it from this commit with the tool that is there, and push it."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.image import REVISION
from workspace.errors import shown
from workspace.settings import check, parse_json, read_text

LOCAL = "localhost/training"


ARGUMENTS = {
    "--push": {"metavar": "REGISTRY", "dest": "registry", "help": "<host>/<name> to push it to"},
}


def run(repository: Repository, registry: str | None = None) -> None:
    """Build the image of the commit that is checked out; print its reference by digest.

    The tag is the commit, the times in the image are the commit's. Without a registry the image
    stays on this machine. Raises DeliveryError.
    """
    builder = next(filter(shutil.which, BUILDERS), None)
    if builder is None:
        raise DeliveryError(f"no program to build images is here: install {' or '.join(BUILDERS)}")
    commit = repository.head()
    repository.check_clean("because the image names the commit that it is made from")
    if registry and not re.fullmatch(r"[^/@\s]+/[^:@\s]+", registry):
        raise DeliveryError(f"{registry!r} is not a registry: give <host>/<name>, without a tag")
    epoch = repository.ask("show", "--no-show-signature", "--no-patch", "--format=%ct")
    name = registry or LOCAL
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        for command in BUILDERS[builder](f"{name}:{commit[:12]}", commit, epoch, answer, registry):
            _tool(repository.folder, command, epoch)
        digest = _digest(read_text(answer))
    print(f"{name}@{digest}")


def docker(
    tag: str, commit: str, epoch: str, answer: Path, registry: str | None
) -> list[list[str]]:
    """Return docker's commands; without attestations, so that one digest names one image."""
    output = f"type=image,rewrite-timestamp=true,push={str(bool(registry)).lower()}"
    command = ["docker", "buildx", "build", "--provenance=false", "--sbom=false"]
    command += ["--label", f"{REVISION}={commit}", "--tag", tag]
    return [[*command, "--output", output, "--metadata-file", str(answer), "."]]


def buildah(
    tool: str, tag: str, commit: str, epoch: str, answer: Path, registry: str | None
) -> list[list[str]]:
    """Return buildah's commands, which are also podman's."""
    label = f"{REVISION}={commit}"
    built = [tool, "build", "--timestamp", epoch, "--label", label, "--tag", tag, "."]
    # A push into a folder tells the digest, too; blobs are compressed as for a registry.
    target = f"docker://{tag}" if registry else f"dir:{answer.parent / 'image'}"
    return [built, [tool, "push", "--digestfile", str(answer), tag, target]]


Commands = Callable[[str, str, str, Path, str | None], list[list[str]]]

# Those that need no server come first: docker's command may be there without one.
BUILDERS: dict[str, Commands] = {
    "buildah": partial(buildah, "buildah"),
    "podman": partial(buildah, "podman"),
    "docker": docker,
}


def _tool(folder: Path, command: list[str], epoch: str) -> None:
    """Run a builder's command; its progress goes to standard error, where it does not disturb."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": epoch}
    with open(2, "wb", closefd=False) as progress:
        result = subprocess.run(command, cwd=folder, env=environment, stdout=progress)
    if result.returncode:
        raise DeliveryError(f"{' '.join(command[:2])} failed: it says why above")


def _digest(answer: str) -> str:
    """Return the digest in what a builder answers: a digest, or docker's JSON around it."""
    text = answer.strip()
    if text.startswith("{"):
        name = "what the builder says"
        text = check(dict[str, Any], parse_json(text, name), name).get("containerimage.digest", "")
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", str(text)):
        raise DeliveryError(f"the builder gave no digest but {shown(answer)}: build again")
    return text
