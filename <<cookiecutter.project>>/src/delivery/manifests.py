"""What Argo CD would apply for an environment, and the release file that it follows."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from delivery.errors import DeliveryError

RELEASE_FILE = "model.yaml"
RELEASE_NAME = "model-release"
KUBERNETES = "1.36"  # the cluster's version, whose schemas judge the manifests

# What a Rollout's spec has that a Deployment's has not, or not in the same form.
ROLLOUT_ONLY = {
    "analysis",
    "progressDeadlineAbort",
    "restartAt",
    "rollbackWindow",
    "strategy",
    "workloadRef",
}

Document = dict[str, Any]

# LibYAML's safe loader is ten times as fast as PyYAML's own, which it equals otherwise.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ReleaseFileError(DeliveryError):
    """A release file that is missing or says something that cannot be served."""


class RenderError(DeliveryError):
    """Manifests that Kustomize cannot build."""


class ManifestError(DeliveryError):
    """Manifests that can be built, but that a cluster would refuse or misread."""


@dataclass(frozen=True)
class Release:
    """One released model: what `model.yaml` says, as values.

    `image` is a reference by digest; the three figures before `loss` lie in 0 to 1; `support`
    counts test images; `data`, `test_data` and `code` are SHA-256 sums in hexadecimal.
    """

    version: int
    image: str
    accuracy: float
    macro_f1: float
    calibration_error: float
    loss: float
    support: int
    data: str
    test_data: str
    code: str
    commit: str

    def to_yaml(self) -> str:
        """Return the text of the release file; equal releases give equal text."""
        values = {name: str(value) for name, value in asdict(self).items()}
        lines = [f"  {name}: {json.dumps(value)}\n" for name, value in values.items()]
        head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {RELEASE_NAME}\ndata:\n"
        return head + "".join(lines)


def pattern(expression: str) -> Callable[[str], str]:
    """Return a reader of texts that match the whole expression; it raises ValueError on others."""

    def read(text: str) -> str:
        if not re.fullmatch(expression, text):
            raise ValueError(text)
        return text

    return read


def count(text: str) -> int:
    """Return the whole number from 1, written without leading zeros; raise ValueError on others."""
    return int(pattern(r"[1-9][0-9]{0,8}")(text))


def figure(highest: float) -> Callable[[str], float]:
    """Return a reader of numbers from 0 to `highest`; it raises ValueError on others."""

    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and 0 <= value <= highest):
            raise ValueError(text)
        return value

    return read


SHA256 = (pattern(r"[0-9a-f]{64}"), "the 64 hexadecimal digits of a SHA-256")
SHARE = (figure(1.0), "a number from 0 to 1")

# key: (reader, what a good value is)
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "version": (count, 'a whole number from 1 without leading zeros, such as "8"'),
    "image": (pattern(r"\S+@sha256:[0-9a-f]{64}"), "an image by digest: <name>@sha256:<64 digits>"),
    "accuracy": SHARE,
    "macro_f1": SHARE,
    "calibration_error": SHARE,
    "loss": (figure(math.inf), "a number from 0"),
    "support": (count, "a whole number from 1"),
    "data": SHA256,
    "test_data": SHA256,
    "code": SHA256,
    "commit": (pattern(r"[0-9a-f]{40}"), "the 40 hexadecimal digits of a Git commit"),
}


def read_release(path: Path) -> Release:
    """Read a release file.

    Raises ReleaseFileError when it is missing, unreadable or not a ConfigMap of this form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReleaseFileError(
            f"{path} is missing: nothing is released there; make and merge a release first."
        ) from None
    except (OSError, UnicodeError) as error:
        raise ReleaseFileError(f"{path} cannot be read: {error}; restore it from Git.") from None
    return parse_release(text, str(path))


def parse_release(text: str, name: str) -> Release:
    """Read the text of a release file, such as an earlier commit's; `name` appears in messages.

    Raises ReleaseFileError when the text is not a ConfigMap of this form.
    """
    data = release_data(text, name)
    known = [field.name for field in fields(Release)]
    if missing := [key for key in known if key not in data]:
        raise ReleaseFileError(
            f"{name} has no {', '.join(missing)} under data; add what is missing."
        )
    if unknown := [str(key) for key in data if key not in known]:
        raise ReleaseFileError(
            f"{name} has {', '.join(unknown)} under data, which no release has; remove it."
        )
    return Release(**{key: read_value(key, data[key], name) for key in known})


def release_data(text: str, name: str) -> dict[Any, Any]:
    """Return the `data` of the ConfigMap in the text, or raise ReleaseFileError."""
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ReleaseFileError(
            f"{name}, line {line}, is not YAML: {error.problem}; restore the file from Git."
        ) from None
    except yaml.YAMLError as error:
        raise ReleaseFileError(f"{name} is not YAML: {one_line(str(error))}; restore it.") from None
    match document:
        case {"kind": "ConfigMap", "metadata": {"name": str(found)}, "data": dict(data)}:
            if found == RELEASE_NAME:
                return data
    raise ReleaseFileError(
        f"{name} is not one ConfigMap named {RELEASE_NAME} with data; restore it from Git."
    )


def read_value(key: str, value: Any, name: str) -> Any:
    """Return what the text under `key` means, or raise ReleaseFileError."""
    reader, good = READERS[key]
    if not isinstance(value, str):
        raise ReleaseFileError(f"{name}: {key} is {value!r}, not text; write it in double quotes.")
    try:
        return reader(value)
    except ValueError:
        raise ReleaseFileError(f"{name}: {key} is {value!r}; it must be {good}.") from None


def render(environment: Path) -> dict[tuple[str, str], Document]:
    """Build an environment's folder as Argo CD does; return its documents by kind and name.

    Raises ReleaseFileError, RenderError when Kustomize fails, and ManifestError for a key or a type
    that Kubernetes does not know, or a Rollout that does not follow the release.
    """
    release = read_release(environment / RELEASE_FILE)
    documents = build(environment)
    for document in documents.values():
        check_keys(document)
    check_release(documents, release)
    return documents


def build(folder: Path) -> dict[tuple[str, str], Document]:
    """Run `kubectl kustomize`; return the documents by kind and name, or raise RenderError."""
    try:
        result = subprocess.run(
            ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=120
        )
    except FileNotFoundError:
        raise RenderError("kubectl is not installed; install it to build the manifests.") from None
    except subprocess.TimeoutExpired:
        raise RenderError(f"{folder}: kubectl kustomize took two minutes; try again.") from None
    if result.returncode:
        raise RenderError(f"{folder} cannot be built: {reason(result.stderr)}; put it right.")
    documents = [document for document in yaml.load_all(result.stdout, LOADER) if document]
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def reason(stderr: str) -> str:
    """Return what kubectl complains of, without its log's decoration."""
    logged = re.search(r'err="(.*)"', stderr, re.DOTALL)
    text = logged.group(1).replace("\\", "") if logged else stderr.removeprefix("error: ")
    return one_line(text)


def one_line(text: str) -> str:
    """Return the text with every run of white space as one space."""
    return " ".join(text.split())


def check_keys(document: Document) -> None:
    """Raise ManifestError for a key or type that the cluster's version does not know.

    A Rollout is judged as the Deployment that it otherwise is, since its pods are; of other kinds
    that come with a controller only the metadata is judged, the rest is left to that controller.
    """
    try:
        judge(as_deployment(document) if document["kind"] == "Rollout" else document)
    except kubernetes_validate.ValidationError as error:
        place = ".".join(map(str, error.path)) or "its top level"
        raise ManifestError(
            f"{document['kind']} {document['metadata']['name']}, {place}: "
            f"{one_line(error.message)}; Kubernetes {KUBERNETES} would refuse or ignore it."
        ) from None


def judge(document: Document) -> None:
    """Validate strictly, or the metadata alone where Kubernetes has no schema of the kind."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        metadata = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
        kubernetes_validate.validate(metadata, KUBERNETES, strict=True)


def as_deployment(rollout: Document) -> Document:
    """Return the Deployment that runs the same pods as the Rollout."""
    spec = rollout.get("spec")
    if isinstance(spec, dict):
        spec = {key: value for key, value in spec.items() if key not in ROLLOUT_ONLY}
    return rollout | {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}


def rollout(documents: dict[tuple[str, str], Document]) -> Document:
    """Return the one Rollout, or raise ManifestError."""
    rollouts = [document for (kind, _), document in documents.items() if kind == "Rollout"]
    if len(rollouts) != 1:
        raise ManifestError(f"There are {len(rollouts)} Rollouts; an environment serves with one.")
    return rollouts[0]


def check_release(documents: dict[tuple[str, str], Document], release: Release) -> None:
    """Raise ManifestError unless the Rollout serves exactly the released version and image."""
    pod = rollout(documents)["spec"]["template"]["spec"]
    images = [volume["image"].get("reference") for volume in pod["volumes"] if "image" in volume]
    servers = [container for container in pod["containers"] if container["name"] == "triton"]
    probes = ("startupProbe", "readinessProbe")
    paths = [probe_path(server, probe) for server in servers for probe in probes]
    version = f"/v2/models/classifier/versions/{release.version}/ready"
    if (images, paths) != ([release.image], [version, version]):
        raise ManifestError(
            f"The Rollout mounts {images} and waits for {paths}, but the release is version "
            f"{release.version} of {release.image}; keep components/release in the overlay and the "
            "probes and the volume `model` as its replacements expect them."
        )


def probe_path(container: Document, probe: str) -> str | None:
    """Return the path that a probe asks for, None when it asks for none."""
    path: str | None = container.get(probe, {}).get("httpGet", {}).get("path")
    return path
