"""An image built by the tool that is there, and pushed."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.oci.origin import LOOPBACK
from workspace.errors import shown
from workspace.settings import check, parse_json, read_text


@dataclass(frozen=True)
class Build:
    """What is to be built: from the folder `context`, whose Dockerfile says how.

    `epoch` is the time of all files in it, in seconds since 1970; `label` is a `name=value`.
    """

    context: Path
    name: str
    tag: str
    epoch: str
    label: str
    push: bool

    @property
    def reference(self) -> str:
        """The image by its tag."""
        return f"{self.name}:{self.tag}"


def find_builder() -> str:
    """Return the program that builds images here. Raises DeliveryError."""
    builder = next(filter(shutil.which, BUILDERS), None)
    if builder is None:
        raise DeliveryError(f"no program to build images is here: install {' or '.join(BUILDERS)}")
    return builder


def check_name(name: str) -> None:
    """Raise DeliveryError unless an image can be pushed to this name."""
    if not re.fullmatch(r"[^/@\s]+/[^:@\s]+", name):
        raise DeliveryError(f"{name!r} is not a registry: give <host>/<name>, without a tag")


def build_image(wanted: Build, builder: str) -> str:
    """Build an image and push it if that is wanted; return it by digest. Raises DeliveryError."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        for command in BUILDERS[builder](wanted, answer):
            _tool(wanted, command)
        return f"{wanted.name}@{_digest(read_text(answer))}"


def docker(wanted: Build, answer: Path) -> list[list[str]]:
    """Return docker's commands; without attestations, so that one digest names one image."""
    output = f"type=image,rewrite-timestamp=true,push={str(wanted.push).lower()}"
    command = ["docker", "buildx", "build", "--provenance=false", "--sbom=false"]
    command += ["--label", wanted.label, "--tag", wanted.reference]
    return [[*command, "--output", output, "--metadata-file", str(answer), "."]]


def buildah(tool: str, wanted: Build, answer: Path) -> list[list[str]]:
    """Return buildah's commands, which are also podman's."""
    built = [tool, "build", "--timestamp", wanted.epoch, "--label", wanted.label]
    # A push into a folder tells the digest, too; blobs are compressed as for a registry.
    target = f"docker://{wanted.reference}" if wanted.push else f"dir:{answer.parent / 'image'}"
    plain = LOOPBACK.fullmatch(wanted.name.partition("/")[0])
    told = [*(["--tls-verify=false"] if plain else []), "--digestfile", str(answer)]
    return [
        [*built, "--tag", wanted.reference, "."],
        [tool, "push", *told, wanted.reference, target],
    ]


# Those that need no server come first: docker's command may be there without one.
BUILDERS: dict[str, Callable[[Build, Path], list[list[str]]]] = {
    "buildah": partial(buildah, "buildah"),
    "podman": partial(buildah, "podman"),
    "docker": docker,
}


def _tool(wanted: Build, command: list[str]) -> None:
    """Run a builder's command; its progress goes to standard error, where it does not disturb."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": wanted.epoch}
    with open(2, "wb", closefd=False) as progress:
        result = subprocess.run(command, cwd=wanted.context, env=environment, stdout=progress)
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
