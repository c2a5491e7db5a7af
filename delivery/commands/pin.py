"""Write down the content behind tags and chart versions, so that a moved one is noticed.

The servers' images are then deployed by digest. Argo CD takes charts by version only; their
digests are there to be compared the next time.
"""

import re
from pathlib import Path
from typing import Any

import requests
import urllib3
from pydantic import Field
from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.image import digest_of
from delivery.oci.layout import MissingBlobError
from delivery.oci.remote import Remote, reason
from workspace.files import write
from workspace.settings import Settings, SettingsError, check, parse_texts, read_text

BASE = Path("argocd/base")
SERVERS = ("triton/rollout.yaml", "components/gateway/deployment.yaml")  # with an image each
DIGEST = r"sha256:[0-9a-f]{64}"
IMAGE = re.compile(rf"(?m)^( *image: )(\S+/\S+?):([\w.-]+)(?:@({DIGEST}))?$")
TIMEOUT = 60  # seconds without a word from a chart repository
LARGEST = 64 * 1024 * 1024  # bytes of a chart repository's index
VERSION = re.compile(rf"(?m)^(version: \S+\n)(?:digest: ({DIGEST})\n)?")


class Chart(Settings, extra="ignore"):
    """What a controller's file says of its chart."""

    repository: str = Field(description="the address of the chart's repository")
    chart: str = Field(description="the name of the chart")
    version: str = Field(description="a version of the chart")


class Published(Settings, extra="ignore"):
    """A version of a chart, as its repository lists it."""

    version: str = ""
    digest: str = ""


class ChartIndex(Settings, extra="ignore"):
    """The `index.yaml` of a chart repository; the charts that are not asked for are not read."""

    entries: dict[str, Any]


def run(repository: Repository) -> None:
    """Pin the manifests of this repository and print what was found."""
    for line in pin(repository.folder / BASE):
        print(line)


def pin(base: Path) -> list[str]:
    """Write digests into the servers' and the charts' files; return a line about each.

    All are resolved before the first is written. Raises DeliveryError.
    """
    servers = [base / name for name in SERVERS]
    charts = sorted((base / "platform/controllers").glob("*.yaml"))
    found = {
        path: pin_image(path) if path in servers else pin_chart(path)
        for path in tqdm([*servers, *charts], desc="pin", unit="file", leave=False, disable=None)
    }
    for path, (text, _) in found.items():
        write(path, text)
    return [line for _, line in found.values()]


def pin_image(path: Path) -> tuple[str, str]:
    """Return a manifest's text with its one image by digest, and a line about it."""
    text = read_text(path)
    images = list(IMAGE.finditer(text))
    if len(images) != 1:
        raise DeliveryError(
            f"{path} has {len(images)} lines `image: <name>:<tag>`; there must be one to pin."
        )
    prefix, name, tag, old = images[0].groups()
    digest = unmoved(f"{name}:{tag}", old, image_digest(name, tag), path)
    return IMAGE.sub(f"{prefix}{name}:{tag}@{digest}", text), f"{name}:{tag} {digest}"


def pin_chart(path: Path) -> tuple[str, str]:
    """Return a controller's text with its chart's digest, and a line about it."""
    text = read_text(path)
    wanted = check(Chart, parse_texts(text, str(path)), str(path))
    match = VERSION.search(text)
    if not match:
        raise DeliveryError(f"{path} lacks a line `version: {wanted.version}`: add it.")
    label = f"{wanted.chart} {wanted.version}"
    digest = unmoved(label, match.group(2), chart_digest(wanted), path)
    text = VERSION.sub(rf"\g<1>digest: {digest}\n", text, count=1)
    return text, f"{label} {digest}"


def unmoved(label: str, old: str | None, new: str, path: Path) -> str:
    """Return the digest found, or raise DeliveryError when another one was pinned before."""
    if old not in (None, new):
        raise DeliveryError(
            f"{label} was {old} when it was pinned and is {new} now: take another version, or, if "
            f"you know why, remove the digest from {path} and pin again."
        )
    return new


def image_digest(name: str, tag: str) -> str:
    """Return the digest of what a tag names now."""
    try:
        return digest_of(Remote(name).read_manifest(tag))
    except MissingBlobError:
        raise DeliveryError(f"{name} has no tag {tag}: take one that was published.") from None


def chart_digest(wanted: Chart) -> str:
    """Return the digest of a chart's archive, as its repository's index states it."""
    repository = wanted.repository
    listed = chart_index(repository).entries.get(wanted.chart, [])
    published = check(list[Published], listed, f"{repository}/index.yaml", wanted.chart)
    digests = [each.digest for each in published if each.version == wanted.version]
    digest = f"sha256:{''.join(digests).removeprefix('sha256:')}"
    if not re.fullmatch(DIGEST, digest):
        raise DeliveryError(
            f"{repository} lists no digest of {wanted.chart} {wanted.version}: "
            "take a version that it lists."
        )
    return digest


def chart_index(repository: str) -> ChartIndex:
    """Fetch the list of a chart repository's charts and their versions."""
    name = f"{repository}/index.yaml"
    try:
        with requests.get(name, timeout=TIMEOUT, stream=True) as response:
            response.raise_for_status()
            content = response.raw.read(LARGEST + 1, decode_content=True)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise DeliveryError(f"no answer from {name} ({reason(str(error))}): try again") from error
    if len(content) > LARGEST:
        raise DeliveryError(f"{name} is larger than {LARGEST:,} bytes: give a chart repository")
    try:
        return check(ChartIndex, parse_texts(content, name, LARGEST), name)
    except SettingsError as error:
        raise DeliveryError(f"{error}: give the index of a chart repository") from None
