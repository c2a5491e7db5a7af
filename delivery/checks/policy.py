"""The fixed policy: what no change of the manifests may do, unless the base accepts it by name."""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from delivery.checks.pod_security import pod_templates, violations
from delivery.manifests.rendering import SERVER, Document, Documents
from delivery.manifests.server_pod import read_server_pod
from delivery.model.pipeline_outputs import leaves
from delivery.triton import restricted
from workspace.errors import UserError, sentence, shown
from workspace.settings import SettingsError, parse_documents

ARGUMENTS = {  # that Triton must have, and what would be without
    "--model-control-mode=none": "models would change without a merge",
    **dict.fromkeys(map(restricted.argument, restricted.FLAGS), "callers could administer"),
    "--allow-client-shm=false": "a client on its machine could end it",
}
ENFORCE = "pod-security.kubernetes.io/enforce"
SERVERS = "nvcr.io/nvidia/tritonserver"
# Kinds without a namespace; those of controllers cannot be told by their name.
CLUSTER = re.compile(
    r"Namespace|ClusterRole|ClusterRoleBinding|CustomResourceDefinition|APIService|Node"
    r"|PersistentVolume|PriorityClass|RuntimeClass|StorageClass|IngressClass|GatewayClass|CSIDriver"
    r"|CertificateSigningRequest|DeviceClass|FlowSchema|PriorityLevelConfiguration"
    r"|(Validating|Mutating)(WebhookConfiguration|AdmissionPolicy|AdmissionPolicyBinding)"
    r"|Cluster[A-Z]\w*"
)
# Where manifests come from, and what follows them: keys whose values the base must have.
SOURCES = ("repoURL", "repository", "chart", "targetRevision", "revision", "sourceRepos", "project")
GRANTS = ("destinations", "clusterResourceWhitelist")
TAKEN = ("resources", "components", "bases", "crds", "generators", "transformers", "validators")
ADDRESS = re.compile(r"^\s*(\w+::)?[a-z+]+://|^git@|^\w+::", re.IGNORECASE)  # in any field
REMOTE = re.compile(r"//|[?&](ref|version)=|\.git(/|$)|^[^/.][^/]*\.[a-z]+[:/]", re.IGNORECASE)
NAMES = re.compile(r"^\s*-?\s*(?:image|newName):\s*[\"']?([^\s\"'#@]+)", re.MULTILINE)


@dataclass(frozen=True)
class Breach:
    """What breaks the policy: a sentence, the text to find its line by, a name to accept it by."""

    sentence: str
    needle: str
    name: str = ""


# -- files as they are, before anything is built of them -------------------------------------------


def in_files(base: dict[str, str], head: dict[str, str]) -> Iterator[tuple[str, Breach]]:
    """Compare the YAML files of two commits' manifests, text by path; give path and breach."""
    known = {pair for path, text in base.items() for pair in claims(path, text)}
    remote = {each for path, text in base.items() for each in remotes(path, text)}
    for path, text in head.items():
        if base.get(path) == text:
            continue
        try:
            parse_documents(text, path)
        except SettingsError as error:
            line = re.search(r", line (\d+)", str(error))
            yield path, Breach(sentence(error), f"line {line[1]}" if line else "")
            continue
        for key, value in claims(path, text):
            if (key, value) not in known:
                yield path, foreign(key, value)
        for each in remotes(path, text):
            if each not in remote:
                what = f"the Kustomization takes {shown(each)}, which is not in this repository"
                yield path, Breach(what, each, f"source {each}")
        for breach in privileged(path, base.get(path, ""), text):
            yield path, breach


def foreign(key: str, value: str) -> Breach:
    """Say what a value that the base does not have lets in."""
    if key in GRANTS:
        what = f"an AppProject would allow {value} ({key}), and none of the base does"
        return Breach(what, key, f"{key} {value}")
    what = f"{key} is {shown(value)}, a source that no manifest of the base has"
    return Breach(what, value, f"source {value}")


def claims(path: str, text: str) -> Iterator[tuple[str, str]]:
    """Give what a file says of sources and of what projects allow: key and value."""
    for document in documents(path, text):
        yield from claims_of(document)


def claims_of(value: Any) -> Iterator[tuple[str, str]]:
    """Give what a document says of sources and of what projects allow."""
    if isinstance(value, list):
        for each in value:
            yield from claims_of(each)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in SOURCES and isinstance(inner, str):
            yield key, inner
        elif key in (*GRANTS, "sourceRepos") and isinstance(inner, list):
            for each in inner:
                yield key, each if isinstance(each, str) else flat(each)
        elif key != "settings":  # of a chart
            yield from claims_of(inner)


def flat(value: Any) -> str:
    """Write a map of a project's list on one line."""
    pairs = sorted(value.items()) if isinstance(value, dict) else [("", value)]
    return ", ".join(f"{key}: {each}" for key, each in pairs)


def remotes(path: str, text: str) -> Iterator[str]:
    """Give what a Kustomization takes from elsewhere: any field may be an address."""
    for document in documents(path, text):
        if document.get("kind") in ("Kustomization", "Component") or "ustomization" in path:
            for key in ("helmCharts", "helmChartInflationGenerator"):
                yield from (flat(each) for each in document.get(key) or [])
            for place, value in leaves(document):
                taken = place.partition(".")[0] in TAKEN and REMOTE.search(str(value))
                if isinstance(value, str) and (taken or ADDRESS.search(value)):
                    yield value


def privileged(path: str, before: str, text: str) -> Iterator[Breach]:
    """Say which namespace gets a lower level of Pod Security than it had."""
    levels = [levels_of(path, each) for each in (before, text)]
    for name, level in levels[1].items():
        if level != "restricted" and levels[0].get(name) != level:
            what = f"the namespace of {name} gets the Pod Security level {shown(level)}"
            yield Breach(f"{what}, and not restricted", level, f"level {level} {name}")


def levels_of(path: str, text: str) -> dict[str, str]:
    """Return Pod Security levels in a file: of namespaces by name, of a chart's namespace."""
    found = {}
    for document in documents(path, text):
        labels = (document.get("metadata") or {}).get("labels") or {}
        if ENFORCE in labels:
            found[str(document["metadata"].get("name"))] = str(labels[ENFORCE])
        if "podSecurity" in document:
            found[str(document.get("chart"))] = str(document["podSecurity"])
    return found


@functools.lru_cache(maxsize=512)  # most files are those of both commits
def documents(path: str, text: str) -> list[dict[str, Any]]:
    """Read a file's maps; one that is no YAML has none."""
    try:
        return [each for each in parse_documents(text, path) if isinstance(each, dict)]
    except SettingsError:
        return []


def image_names(files: Iterable[str]) -> set[str]:
    """Return the names of all images in files of manifests, without tags and digests."""
    found = {name for text in files for name in NAMES.findall(text)}
    return {untagged(name) for name in found if "/" in name} | {SERVERS}


def untagged(image: str) -> str:
    """Return an image's name without tag and digest."""
    name = image.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}"


# -- what is built ---------------------------------------------------------------------------------


def in_documents(built: Documents, known: set[str], is_environment: bool) -> Iterator[Breach]:
    """Judge the objects of one place: pods, server, namespaces; `known` are names of images."""
    for (kind, name), document in built.items():
        for part, pod in pod_templates(document).items():
            place = f"{kind} {name}{f' ({part})' if part else ''}"
            for field in sorted(violations(pod["spec"])):
                what = f"{place} breaks the Pod Security level restricted by {field}"
                yield Breach(what, field.split(".")[-1])
            if is_environment:
                yield from bad_images(place, pod["spec"], known | arguments(built))
        if kind == "Namespace" and level(document) != "restricted":
            what = f"Namespace {name} enforces {shown(level(document))} and not restricted"
            yield Breach(what, ENFORCE, f"level {level(document)} {name}")
    if is_environment:
        yield from bad_server(built)


def arguments(built: Documents) -> set[str]:
    """Return how an analysis calls the images that are given to it, if all come from the Rollout.

    One that is written out is no longer the Rollout's, which is judged.
    """
    given: dict[str, list[Any]] = {}
    rollouts = [each for (kind, _), each in built.items() if kind == "Rollout"]
    for place, value in (pair for each in rollouts for pair in leaves(each)):
        if found := re.fullmatch(r"(.*\.args\.\d+)\.(name|valueFrom\.fieldRef\.fieldPath)", place):
            given.setdefault(found[1], []).append(value)
    both = [pair for pair in given.values() if len(pair) == 2]
    return {f"{{{{args.{name}}}}}" for name, path in both if str(path).startswith("spec.template.")}


def level(namespace: Document) -> str:
    """Return the Pod Security level that a namespace enforces."""
    return str((namespace["metadata"].get("labels") or {}).get(ENFORCE, "none"))


def bad_images(place: str, pod: dict[str, Any], known: set[str]) -> Iterator[Breach]:
    """Say which containers run images of unknown registries, or by a tag that moves."""
    for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
        image = str(container.get("image"))
        name, tag = untagged(image), image.partition("@")[0].removeprefix(untagged(image))
        if name not in known:
            what = f"{place} runs {shown(image)}, whose name no manifest of the base has"
            yield Breach(what, name, f"image {name}")
        elif "/" in name and "@" not in image and tag in ("", ":latest"):
            what = f"{place} runs {shown(image)}, which is another image tomorrow: name its version"
            yield Breach(what, name)


def bad_server(built: Documents) -> Iterator[Breach]:
    """Say what callers, or anybody but Git, could change of the server."""
    try:
        pod = read_server_pod(built)
    except UserError as error:
        yield Breach(sentence(error), SERVER)
        return
    for wanted, harm in ARGUMENTS.items():
        flag = wanted.partition("=")[0]  # Triton takes shorter forms, too, and the last one counts
        given = [each for each in pod.arguments if flag.startswith(each.partition("=")[0])]
        if given != [wanted]:
            what = f"Triton gets {shown(given)} and not `{wanted}` alone: {harm}"
            yield Breach(what, next((each for each in given if each != wanted), flag))
    if [value for name, value in pod.settings if name == restricted.SECRET] != [None]:
        what = f"{restricted.SECRET} is not of a Secret alone: callers could administer"
        yield Breach(what, restricted.SECRET)


def cluster_kinds(built: Documents) -> set[str]:
    """Return the kinds without a namespace among the objects."""
    return {kind for kind, _ in built if CLUSTER.fullmatch(kind)}
