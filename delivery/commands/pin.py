"""Write down the content behind tags and chart versions, so that a moved one is noticed.

The server image is then deployed by digest. Argo CD takes charts by version only; their digests are
there to be compared the next time.
"""

import argparse
import re
from pathlib import Path
from urllib.parse import urlsplit

import requests
import yaml
from tqdm import tqdm

from delivery.errors import DeliveryError
from delivery.oci.image import ANY_MANIFEST, digest_of
from delivery.oci.layout import MissingBlobError
from delivery.oci.registry_client import TIMEOUT, Remote, check, retry, unavailable

BASE = Path("argocd/base")
DIGEST = r"sha256:[0-9a-f]{64}"
IMAGE = re.compile(rf"(?m)^( *image: )(\S+/\S+?):([\w.-]+)(?:@({DIGEST}))?$")
VERSION = re.compile(rf"(?m)^(version: \S+\n)(?:digest: ({DIGEST})\n)?")


def add_arguments(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `pin`."""
    parser = subparsers.add_parser("pin", help="resolve image tag and chart versions to digests")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Pin the manifests of this repository and print what was found."""
    for line in pin(BASE):
        print(line)


def pin(base: Path) -> list[str]:
    """Write digests into the server's and the charts' files; return a line about each.

    All are resolved before the first is written. Raises DeliveryError.
    """
    server = base / "triton/rollout.yaml"
    charts = sorted((base / "platform/controllers").glob("*.yaml"))
    found = {
        path: pin_image(path) if path == server else pin_chart(path)
        for path in tqdm([server, *charts], desc="pin", unit="file", leave=False)
    }
    for path, (text, _) in found.items():
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(text)
        partial.rename(path)
    return [line for _, line in found.values()]


def pin_image(path: Path) -> tuple[str, str]:
    """Return a manifest's text with its one image by digest, and a line about it."""
    text = path.read_text()
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
    text = path.read_text()
    match = VERSION.search(text)
    try:
        wanted = yaml.safe_load(text)
        repository, chart, version = (wanted[key] for key in ("repository", "chart", "version"))
    except (yaml.YAMLError, KeyError, TypeError):
        match = None
    if not match:
        raise DeliveryError(f"{path} lacks a line for `repository`, `chart` or `version`; add it.")
    digest = unmoved(
        f"{chart} {version}", match.group(2), chart_digest(repository, chart, str(version)), path
    )
    text = VERSION.sub(rf"\g<1>digest: {digest}\n", text, count=1)
    return text, f"{chart} {version} {digest}"


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
        return digest_of(Remote(name).read_manifest(tag, ANY_MANIFEST))
    except MissingBlobError:
        raise DeliveryError(f"{name} has no tag {tag}: take one that was published.") from None


def chart_digest(repository: str, chart: str, version: str) -> str:
    """Return the digest of a chart's archive, as its repository's index states it."""
    entries = retry(lambda: chart_index(repository)).get("entries", {}).get(chart, [])
    digests = [each.get("digest", "") for each in entries if str(each.get("version")) == version]
    digest = f"sha256:{''.join(digests).removeprefix('sha256:')}"
    if not re.fullmatch(DIGEST, digest):
        raise DeliveryError(
            f"{repository} lists no digest of {chart} {version}: take a version that it lists."
        )
    return digest


def chart_index(repository: str) -> dict:
    """Fetch a chart repository's index, a file `index.yaml` that maps charts to their versions."""
    host = urlsplit(repository).netloc
    with unavailable(host):
        response = requests.get(f"{repository}/index.yaml", timeout=TIMEOUT)
    check(response, repository, "index.yaml")
    try:
        index = yaml.load(response.content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        index = None
    if not isinstance(index, dict):
        raise DeliveryError(f"{repository}/index.yaml is not the index of a chart repository.")
    return index
