"""What a cluster says of an environment: which versions serve, and why it is not what Git wants.

kubectl asks it, in its current context unless another is named. Where nothing can be asked, that is
an UnknownError, and never an answer.
"""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.analysis import HASH, Analysis, curves, failed, worse
from delivery.manifests.rendering import Part, Pod, at
from delivery.proposals.live_figures import Curve
from delivery.proposals.release_file import Release
from delivery.proposals.releases import ENVIRONMENTS
from delivery.triton.loopback import HOST
from delivery.triton.server import reason_in
from workspace.errors import said
from workspace.settings import SettingsError, check, parse_json, parse_yaml

ARGOCD = "argocd"  # the namespace of Applications
PODS = "--selector=app.kubernetes.io/name in (triton,golden-answers)"
KINDS = "rollouts.argoproj.io,analysisruns.argoproj.io,pods"
PATIENCE = 30  # seconds of one question to the cluster
VERSION = "app.kubernetes.io/version"
PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
CREATING = ("", "ContainerCreating", "PodInitializing")
Objects = tuple[dict[str, Any], ...]
FORWARDED = re.compile(rf"Forwarding from ({re.escape(HOST)}:\d+) ->")


class UnknownError(DeliveryError):
    """The cluster cannot be asked, or does not know the environment."""


class Condition(Part):
    """What an Application or a pod says of itself."""

    type: str
    status: str = ""
    message: str = ""


class Application(Part):
    """An environment's Application."""

    sync: str = at("status", "sync", "status", default="Unknown")
    conditions: tuple[Condition, ...] = at("status", "conditions", default=())
    phase: str = at("status", "operationState", "phase", default="")
    message: str = at("status", "operationState", "message", default="")


class RolloutState(Part):
    """How far the Rollout is."""

    phase: str = at("status", "phase", default="")
    message: str = at("status", "message", default="")
    current: str = at("status", "currentPodHash", default="")
    was_aborted: bool = at("status", "abort", default=False)
    generation: int = at("metadata", "generation", default=0)
    observed: str = at("status", "observedGeneration", default="")
    deadline: int = at("spec", "progressDeadlineSeconds", default=600)

    @property
    def aborted(self) -> bool:
        """Whether the newest version was taken away; for a moment it has the mark of one before."""
        return self.was_aborted and self.phase == "Degraded"


class Container(Part):
    """A container of a pod, and how the one before it ended."""

    ready: bool = False
    restarts: int = at("restartCount", default=0)
    waits: str = at("state", "waiting", "reason", default="")
    waits_for: str = at("state", "waiting", "message", default="")
    status: int | None = at("lastState", "terminated", "exitCode", default=None)
    ended: str = at("lastState", "terminated", "reason", default="")
    words: str = at("lastState", "terminated", "message", default="")
    result: str = at("state", "terminated", "message", default="")


class Server(Part):
    """A pod that serves, or tries to; or one that asks it for its golden answers."""

    version: str = at("metadata", "labels", VERSION, default="")
    template: str = at("metadata", "labels", HASH, default="")
    asks: str = at("metadata", "labels", "answers-of", default="")  # the template whose pods
    leaving: str = at("metadata", "deletionTimestamp", default="")
    conditions: tuple[Condition, ...] = at("status", "conditions", default=())
    first: tuple[Container, ...] = at("status", "initContainerStatuses", default=())
    main: tuple[Container, ...] = at("status", "containerStatuses", default=())

    @property
    def containers(self) -> tuple[Container, ...]:
        """All of them, those first that the others wait for."""
        return self.first + self.main

    @property
    def ready(self) -> bool:
        """Whether requests are sent to it."""
        known = {each.type: each.status for each in self.conditions}
        return known.get("Ready") == "True" and not self.leaving


class Listed(Part):
    """A list of objects, of whatever kinds."""

    items: tuple[dict[str, Any], ...] = ()


class Overlay(Part):
    """An environment's kustomization."""

    namespace: str


@dataclass(frozen=True)
class Standing:
    """How an environment stands on a cluster.

    Attributes:
        versions: those of the pods that get requests, the oldest first.
        trouble: why it is not well with what Git wants, without a full stop; empty if it is.
        curves: what was measured of the live requests of what Git wants, as far as it was.
    """

    versions: tuple[str, ...]
    trouble: str
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """A cluster behind one of kubectl's contexts."""

    context: str

    def ask(self, *arguments: str, patience: int = PATIENCE) -> bytes:
        """Return what kubectl prints. Raises UnknownError."""
        limit = f"--request-timeout={patience // 3}s"
        command = ["kubectl", "--context", self.context, limit, *arguments]
        try:
            result = subprocess.run(command, capture_output=True, timeout=patience)
        except subprocess.TimeoutExpired:
            raise UnknownError(f"{self.context} does not answer") from None
        if result.returncode:
            raise UnknownError(f"{self.context} does not tell ({said(result.stderr)})")
        return result.stdout

    def standing(self, namespace: str, release: Release) -> Standing:
        """Say how the environment of a namespace stands. Raises UnknownError."""
        place = ["applications.argoproj.io", namespace, "--namespace", ARGOCD]
        application = self.ask("get", *place, "--output=json")
        listed = self.ask("get", KINDS, "--namespace", namespace, PODS, "--output=json")
        try:
            owner = check(Application, parse_json(application, namespace), namespace)
            objects = check(Listed, parse_json(listed, namespace), namespace).items
            pods = [check(Server, each, "a pod") for each in of_kind("Pod", objects)]
            pods = [each for each in pods if not each.asks]
            found = sorted({each.version for each in pods if each.ready}, key=by_number)
            why = trouble(owner, objects, pods, release)
            return Standing(tuple(found), why, measured(objects, release))
        except SettingsError as error:
            raise UnknownError(f"{self.context} does not tell ({error})") from None

    @contextmanager
    def address(self, namespace: str) -> Iterator[str]:
        """Give an address on this machine behind which one of its servers answers over HTTP.

        Raises UnknownError.
        """
        command = ["kubectl", "--context", self.context, "-n", namespace, "port-forward"]
        process = subprocess.Popen(
            [*command, f"--address={HOST}", "service/triton", ":http"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = FORWARDED.match(line)
            if not found:
                raise UnknownError(f"{self.context} forwards no port ({said(line)})")
            yield found[1]
        finally:
            process.kill()
            process.wait()


def find_cluster(context: str | None) -> Cluster:
    """Return the cluster of a context, or of kubectl's current one. Raises UnknownError."""
    if context:
        return Cluster(context)
    try:
        result = subprocess.run(["kubectl", "config", "current-context"], capture_output=True)
    except FileNotFoundError:
        raise UnknownError("kubectl is not installed") from None
    if result.returncode:
        raise UnknownError("kubectl has no current context")
    return Cluster(result.stdout.decode(errors="replace").strip())


def namespace_of(repository: Repository, commit: str, environment: str) -> str:
    """Return where an environment runs, which is its Application's name. Raises UnknownError."""
    path = f"{ENVIRONMENTS}/{environment}/kustomization.yaml"
    try:
        content = repository.read(commit, path) or b""
        return check(Overlay, parse_yaml(content, path), path).namespace
    except SettingsError as error:
        raise UnknownError(str(error)) from None


def standing(
    repository: Repository, commit: str, environment: str, release: Release, context: str | None
) -> Standing:
    """Say how an environment stands with a release of a commit, and whether it answers as that.

    Raises UnknownError where no cluster tells.
    """
    cluster = find_cluster(context)
    namespace = namespace_of(repository, commit, environment)
    found = cluster.standing(namespace, release)
    if found.trouble:
        return found
    from delivery.manifests.answers import serving  # which brings Triton's client

    with cluster.address(namespace) as address:
        running = serving(address, release)
    well = running == f"model {release.version}"
    return found if well else Standing(found.versions, f"it runs, but what answers is {running}")


# -- why -------------------------------------------------------------------------------------------


def trouble(
    application: Application, objects: Objects, pods: list[Server], release: Release
) -> str:
    """Say why an environment is not well with a release; nothing if it is. Raises SettingsError."""
    errors = [each.message for each in application.conditions if each.type.endswith("Error")]
    if errors:
        return f"Argo CD cannot apply it ({said(errors[0])})"
    rollouts = of_kind("Rollout", objects)
    if not rollouts or not is_of(release, rollouts[0]):
        failed = application.phase in ("Failed", "Error")
        return (
            f"its sync failed ({said(application.message)})" if failed else "it is not synced yet"
        )
    state = check(RolloutState, rollouts[0], "the Rollout")
    if state.observed != str(state.generation):
        return "Argo Rollouts has not taken it up yet"
    return "" if state.phase == "Healthy" else not_healthy(state, objects, pods)


def not_healthy(state: RolloutState, objects: Objects, pods: list[Server]) -> str:
    """Say why a Rollout is not healthy. Raises SettingsError."""
    new = [each for each in pods if each.template == state.current and not each.leaving]
    seen = analyses(objects, state.current)
    cause = failed_start(new) or failed_start(last_seen("starts", seen))
    cause = cause or wrong_answers(seen, objects, state.current)
    cause = cause or restarted(last_seen("restarts", seen))
    cause = cause or worse(seen)
    if state.aborted:
        if "timed out progressing" in state.message:
            cause = cause or f"it was not ready within {state.deadline} s"
        return f"it was taken away again, because {cause or said(state.message)}"
    return cause or unscheduled(new) or f"it is under way ({said(state.message or state.phase)})"


def is_of(release: Release, rollout: dict[str, Any]) -> bool:
    """Tell whether a Rollout is to serve a release. Raises SettingsError."""
    pod = check(Pod, rollout, "the Rollout")
    images = [each.image for each in pod.volumes if each.image]
    return (pod.version, images) == (str(release.version), [release.image])


def last_seen(metric: str, analyses: list[Analysis]) -> list[Server]:
    """Return the pods of a version as the metric that failed saw them. Raises SettingsError."""
    seen = [each.value for each in failed(metric, analyses)]
    found = [pod for text in seen for pod in parse_json(text, "the analysis")]
    return [check(Server, each, "a pod") for each in found]


def wrong_answers(analyses: list[Analysis], objects: Objects, template: str) -> str:
    """Say how a template's pods answered otherwise than recorded; nothing if they did not.

    Raises SettingsError.
    """
    if not failed("answers", analyses):
        return ""
    pods = [check(Server, each, "a pod") for each in of_kind("Pod", objects)]
    asked = [each for pod in pods if pod.asks == template for each in pod.containers]
    words = [each.result for each in asked if each.result] or ["whoever asked ended without a word"]
    return f"its golden requests were not answered as recorded ({said(words[0])})"


def measured(objects: Objects, release: Release) -> tuple[Curve, ...]:
    """Return the figures of a release's live requests over time. Raises SettingsError."""
    rollouts = [each for each in of_kind("Rollout", objects) if is_of(release, each)]
    states = [check(RolloutState, each, "the Rollout") for each in rollouts]
    return curves(each for state in states for each in analyses(objects, state.current))


def analyses(objects: Objects, template: str) -> list[Analysis]:
    """Return the analyses of a version's template. Raises SettingsError."""
    found = [check(Analysis, each, "the analysis") for each in of_kind("AnalysisRun", objects)]
    return [each for each in found if each.template == template]


def failed_start(pods: list[Server]) -> str:
    """Say why a container among the pods does not start; nothing if none fails to."""
    for each in (container for pod in pods for container in pod.containers):
        if each.ready:
            continue
        if each.waits in PULLING:
            return f"an image cannot be pulled ({said(each.waits_for)})"
        if each.status is not None:
            words = said(reason_in(each.words) or each.ended)
            return f"its container crashed with exit status {each.status} ({words})"
        if each.waits not in CREATING:
            return f"its container cannot be made ({each.waits}: {said(each.waits_for)})"
    return ""


def restarted(pods: list[Server]) -> str:
    """Say how a container among the pods ended that had served; nothing if none did."""
    for each in (container for pod in pods for container in pod.containers):
        if each.status is not None:
            words = said(reason_in(each.words) or each.ended)
            times = f"{each.restarts} times, at last with exit status {each.status} ({words})"
            return f"its container was started anew {times}"
    return ""


def unscheduled(pods: list[Server]) -> str:
    """Say what the pods wait for that have no node; nothing if none waits."""
    for each in (condition for pod in pods for condition in pod.conditions):
        if each.type == "PodScheduled" and each.status == "False":
            return f"its pod waits for a node ({said(each.message)})"
    return ""


def of_kind(kind: str, objects: Objects) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [each for each in objects if each.get("kind") == kind]


def by_number(version: str) -> tuple[int, str]:
    """Order versions by their number."""
    return len(version), version
