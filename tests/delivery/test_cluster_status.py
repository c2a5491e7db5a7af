"""What a cluster says of an environment reaches whoever asks, as one sentence that says why."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from delivery.__main__ import main
from delivery.manifests import answers, cluster
from delivery.manifests.preview_status import LOCK, PreviewStatus
from delivery.proposals.release_file import Release
from delivery.proposals.releases import released
from example_release import RELEASE
from fake_project import Project, make_project
from workspace.files import only_one

Object = dict[str, Any]
ABORTED = "RolloutAborted: Rollout aborted update to revision 2: "
DEADLINE = 'ReplicaSet "triton-new" has timed out progressing.'
LOG = """\
E1126 lifecycle.cc:1] failed to load 'classifier' version 2: Internal: no graph in it
error: creating server: Internal - failed to load all models
"""
GONE = 'Back-off pulling image "registry/digits@sha256:2": ErrImagePull: not found'


MODEL = RELEASE.model_copy(update={"version": 2, "image": f"registry/digits@sha256:{2:064x}"})


class World:
    """A cluster that runs staging, as kubectl shows it: model 2 is wanted, after model 1."""

    def __init__(self, release: Release):
        self.release = release
        self.context = "here"
        self.application: Object = {"status": {"sync": {"status": "Synced"}}}
        self.rollout = {
            "kind": "Rollout",
            "metadata": {"generation": 2},
            "spec": {
                "progressDeadlineSeconds": 1800,
                "template": {
                    "metadata": {"labels": {cluster.VERSION: str(release.version)}},
                    "spec": {
                        "containers": [{"name": "triton"}],
                        "volumes": [{"name": "model", "image": {"reference": release.image}}],
                    },
                },
            },
            "status": {"phase": "Healthy", "currentPodHash": "new", "observedGeneration": "2"},
        }
        self.others = [pod(release.version, "new", ready=True)]

    def ask(self, _: cluster.Cluster, *arguments: str) -> bytes:
        if "applications.argoproj.io" in arguments:
            return json.dumps(self.application).encode()
        objects = [self.rollout, *self.others] if self.rollout else self.others
        return json.dumps({"kind": "List", "items": objects}).encode()

    def fails(
        self, message: str, *pods: Object, seen: tuple[Object, ...] = (), **more: Any
    ) -> None:
        """The newest version does not serve; the one before does."""
        status = {"phase": "Degraded", "message": message, "abort": message.startswith(ABORTED)}
        self.rollout["status"] |= status | more
        self.others = [pod(1, "old", ready=True), *pods]
        if seen:
            self.others.append(analysis("starts", {"value": json.dumps(seen)}))

    def does_worse(self, metric: str, value: str) -> None:
        """The newest version was taken away by a figure; other figures of it were well."""
        self.fails(f'{ABORTED}Metric "{metric}" assessed Failed')
        self.others += [analysis(metric, {"value": "[0]"}, {"value": value}), analysis("answers")]

    def answers_wrongly(self, *words: str) -> None:
        """The newest version's golden answers were others, as the pod says that asked."""
        self.fails(f'{ABORTED}Metric "answers" assessed Failed')
        ended = [{"state": {"terminated": {"message": each}}} for each in words]
        self.others += [
            analysis("answers", {}),
            {
                "kind": "Pod",
                "metadata": {"labels": {"answers-of": "new"}},
                "status": {"containerStatuses": ended},
            },
        ]


def pod(version: int, template: str, ready: bool = False, **status: Any) -> Object:
    labels = {cluster.VERSION: str(version), cluster.HASH: template}
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    known = {"conditions": conditions} | status
    return {"kind": "Pod", "metadata": {"labels": labels}, "status": known}


def analysis(metric: str, *measurements: Object) -> Object:
    """A look at the new pods, which failed if it measured anything."""
    told = {"name": metric, "phase": "Failed" if measurements else "Successful"}
    return {
        "kind": "AnalysisRun",
        "metadata": {"labels": {cluster.HASH: "new"}},
        "status": {"metricResults": [told | {"measurements": measurements}]},
    }


def container(**state: Any) -> Object:
    """A container that is not ready, in a new pod."""
    return pod(2, "new", containerStatuses=[{"ready": False, "restartCount": 1} | state])


def waiting(reason: str, message: str = "") -> Object:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(status: int, reason: str, words: str) -> Object:
    last = {"exitCode": status, "reason": reason, "message": words}
    return {"lastState": {"terminated": last}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose staging has models 1 and 2, one after the other."""
    project = make_project(tmp_path, monkeypatch)
    for environment in ("staging", "production"):
        file = project.folder / f"argocd/environments/{environment}/kustomization.yaml"
        file.write_text(f"namespace: digits-{environment}\n")
    project.commit("Name the namespaces")
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    return project


@pytest.fixture
def world(project: Project, monkeypatch: pytest.MonkeyPatch) -> World:
    release = released(project.repository, project.repository.fetch(), "staging")
    assert release
    world = World(release)
    monkeypatch.setattr(cluster.Cluster, "ask", lambda self, *words: world.ask(self, *words))
    monkeypatch.setattr(cluster.Cluster, "address", address)
    monkeypatch.setattr(answers, "serving", lambda *_: "model 2")
    return world


@contextmanager
def address(*_: Any) -> Iterator[str]:
    yield "127.0.0.1:1"


def status(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """What `make status` says of staging, and how it ends."""
    capsys.readouterr()
    ends = main(["status", "--context", "here"])
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("staging"))
    return ends, lines[place:]


def promote(project: Project, capsys: pytest.CaptureFixture[str]) -> str:
    """Try to promote; what it said when it refused, or nothing."""
    capsys.readouterr()
    ends = main(["promote", "--context", "here"])
    assert ("release/production-v2" in project.branches()) == (ends == 0)
    return capsys.readouterr().err


def test_what_is_served_well_agrees_and_is_promoted(
    project: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ends, lines = status(capsys)
    assert ends == 0 and len(lines) == 1
    assert lines[0].endswith("running: model 2   agree")
    assert promote(project, capsys) == ""
    assert "is not known" not in project.git(
        "log", "-1", "--format=%B", "origin/release/production-v2"
    )


BAD: dict[str, tuple[Callable[[World], None], str]] = {
    "image": (
        lambda world: world.fails(
            f"{ABORTED}Metric", seen=(container(**waiting("ImagePullBackOff", GONE)),)
        ),
        f"it was taken away again, because an image cannot be pulled ({GONE})",
    ),
    "graph": (
        lambda world: world.fails(
            f"{ABORTED}Metric",
            seen=(container(**waiting("CrashLoopBackOff"), **ended(1, "Error", LOG)),),
        ),
        "it was taken away again, because its container crashed with exit status 1 "
        "(no graph in it)",
    ),
    "container before": (
        lambda world: world.fails(
            f"{ABORTED}Metric",
            seen=(
                pod(
                    2,
                    "new",
                    initContainerStatuses=[
                        {"ready": False, "restartCount": 3, **ended(1, "Error", "error: no key")}
                    ],
                    containerStatuses=[{"ready": False, **waiting("PodInitializing")}],
                ),
            ),
        ),
        "it was taken away again, because its container crashed with exit status 1 (error: no key)",
    ),
    "memory": (
        lambda world: world.fails("more", container(**ended(137, "OOMKilled", ""))),
        "its container crashed with exit status 137 (OOMKilled)",
    ),
    "answers": (
        lambda world: world.answers_wrongly("3 of 64 answers are not as recorded"),
        "it was taken away again, because its golden requests were not answered as recorded "
        "(3 of 64 answers are not as recorded)",
    ),
    "answers without words": (
        lambda world: world.answers_wrongly(),
        "it was taken away again, because its golden requests were not answered as recorded "
        "(whoever asked ended without a word)",
    ),
    "failing": (
        lambda world: world.does_worse("failing", "[0.0513]"),
        "it was taken away again, because 5.1% more of its live requests failed than of the "
        "version before",
    ),
    "slow": (
        lambda world: world.does_worse("slowness", "[2.31e0]"),
        "it was taken away again, because its live requests took 2.3 times as long as is promised "
        "or was usual",
    ),
    "slow without end": (
        lambda world: world.does_worse("slowness", "[+Inf]"),
        "it was taken away again, because its live requests took inf times as long as is promised "
        "or was usual",
    ),
    "classes": (
        lambda world: world.does_worse("classes", "[0.314]"),
        "it was taken away again, because 31% more of its live answers than chance explains are of "
        "other classes than those of the version before",
    ),
    "confidence": (
        lambda world: world.does_worse("confidence", "[0.314]"),
        "it was taken away again, because 31% more of its live answers than of the version "
        "before's are surer, or less sure, than at its tests",
    ),
    "restarts": (
        lambda world: world.does_worse(
            "restarts",
            json.dumps([container(**ended(137, "OOMKilled", "") | {"ready": True})]),
        ),
        "it was taken away again, because its container was started anew 1 times, at last with "
        "exit status 137 (OOMKilled)",
    ),
    "secret": (
        lambda world: world.fails(
            "more", container(**waiting("CreateContainerConfigError", 'secret "x" not found'))
        ),
        'its container cannot be made (CreateContainerConfigError: secret "x" not found)',
    ),
    "deadline": (
        lambda world: world.fails(f"{ABORTED}{DEADLINE}"),
        "it was taken away again, because it was not ready within 1800 s",
    ),
    "somebody": (
        lambda world: world.fails(f"{ABORTED}by hand"),
        f"it was taken away again, because {ABORTED}by hand",
    ),
    "node": (
        lambda world: world.fails(
            "more",
            pod(
                2, "new", conditions=[{"type": "PodScheduled", "status": "False", "message": "0/3"}]
            ),
            phase="Progressing",
        ),
        "its pod waits for a node (0/3)",
    ),
    "mark of the one before": (
        lambda world: world.fails(
            "more replicas need to be updated", phase="Progressing", abort=True
        ),
        "it is under way (more replicas need to be updated)",
    ),
    "pause": (
        lambda world: world.fails("CanaryPauseStep", pod(2, "new", ready=True), phase="Paused"),
        "it is under way (CanaryPauseStep)",
    ),
    "generation": (
        lambda world: world.rollout["metadata"].update(generation=3),
        "Argo Rollouts has not taken it up yet",
    ),
    "behind": (
        lambda world: world.rollout["spec"]["template"]["metadata"]["labels"].update(
            {cluster.VERSION: "1"}
        ),
        "it is not synced yet",
    ),
    "another image": (
        lambda world: world.rollout["spec"]["template"]["spec"].update(volumes=[]),
        "it is not synced yet",
    ),
    "sync": (
        lambda world: (
            world.application["status"].update(
                operationState={"phase": "Failed", "message": "namespaces is forbidden"}
            ),
            world.rollout.clear(),
        ),
        "its sync failed (namespaces is forbidden)",
    ),
    "manifest": (
        lambda world: world.application["status"].update(
            conditions=[{"type": "ComparisonError", "message": "kustomize build failed"}]
        ),
        "Argo CD cannot apply it (kustomize build failed)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_why_a_version_does_not_serve_is_one_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(MODEL)
    monkeypatch.setattr(cluster.Cluster, "ask", lambda self, *words: world.ask(self, *words))
    befall, why = BAD[name]
    befall(world)
    assert cluster.Cluster("here").standing("digits-staging", MODEL).trouble == why


def test_a_version_that_was_taken_away_is_told_and_not_promoted(
    project: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    befall, why = BAD["graph"]
    befall(world)
    ends, lines = status(capsys)
    assert ends == 1 and lines[0].endswith("running: model 1   DISAGREE")
    assert lines[1:] == [f"            model 2: {why}"]
    refused = promote(project, capsys)
    assert refused.startswith(f"error: staging does not serve model 2: {why}: `make rollback ENV=")


DRAWN = """
    x-axis UTC ["08:00:30", "08:01:00"]
    y-axis "failing" -0.0010 --> 0.0564
    bar [-0.0010, 0.0513]
    line [0.0200, 0.0200]
```
`failing` of model 2 as its analysis measured it: -0.001, 0.0513; red: above 0.02 it is taken away.
"""


def test_a_rollback_draws_what_was_measured_of_live_requests(
    project: Project, world: World
) -> None:
    world.does_worse("failing", "[0.0513]")
    values = {"08:00:00": "[]", "08:00:30": "[-0.001]", "08:01:00": "[0.0513]"}
    seen = [{"startedAt": f"2026-11-26T{at}Z", "value": each} for at, each in values.items()]
    known = {"args": [{"name": "token", "valueFrom": {}}, {"name": "failing", "value": "0.02"}]}
    of_another = analysis("slowness", *seen)
    of_another["metadata"]["labels"][cluster.HASH] = "old"
    world.others += [analysis("failing", *seen) | {"spec": known}, of_another]
    assert main(["rollback", "staging", "--context", "here"]) == 0
    branch = "rollback/staging-v2-to-v1"
    text = project.git("log", "-1", "--format=%B", branch, folder=project.origin)
    assert "**Model 2 is not served well:** it was taken away again, because 5.1% more" in text
    assert DRAWN in text and text.count("```mermaid") == 1


def test_what_a_refused_promotion_says_helps(
    project: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    BAD["graph"][0](world)
    assert promote(project, capsys)
    assert main(["rollback", "staging"]) == 0, "it never will"
    assert "rollback/staging-v2-to-v1" in project.branches()
    world.__init__(world.release)  # or it serves after all
    assert status(capsys)[0] == 0 and promote(project, capsys) == ""


def test_other_answers_than_recorded_are_not_promoted(
    project: Project,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    running = "model 2, with other answers (3 of 8 have the recorded class)"
    monkeypatch.setattr(answers, "serving", lambda *_: running)
    why = f"it runs, but what answers is {running}"
    ends, lines = status(capsys)
    assert ends == 1 and lines[1] == f"            model 2: {why}"
    assert why in promote(project, capsys)


@pytest.mark.parametrize(
    ("kubectl", "why"),
    [
        (None, "kubectl is not installed"),
        ("exit 1", "kubectl has no current context"),
        (
            "[ $1 = config ] && echo far || { echo no route >&2; exit 1; }",
            "far does not tell (no route)",
        ),
        ("echo far", "far does not tell (digits-staging is not JSON: "),
        ('[ $1 = config ] && echo far || echo "[]"', "far does not tell (digits-staging: "),
    ],
    ids=["no kubectl", "no context", "no answer", "no JSON", "another form"],
)
def test_what_no_cluster_tells_is_for_the_approver_to_judge(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kubectl: str | None,
    why: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for path in map(Path, os.get_exec_path()):  # all that there is but kubectl
        if (path / "git").exists():
            (programs / "git").symlink_to(path / "git")
            break
    if kubectl:
        (programs / "kubectl").write_text(f"#!/bin/sh\n{kubectl}\n")
        (programs / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin" if kubectl else str(programs))
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].endswith("running: unknown, no address   -") and why in lines[-1]
    assert main(["promote"]) == 0
    assert f"whether staging serves model 2 is not known here ({why}" in capsys.readouterr().out
    proposed = project.git("log", "-1", "--format=%B", "origin/release/production-v2")
    assert f"**Whether staging serves model 2 is not known here ({why}" in proposed


def test_an_environment_without_a_namespace_is_not_known(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.folder / "argocd/environments/staging/kustomization.yaml").write_text(
        "resources: []\n"
    )
    project.commit("Lose the namespace")
    assert main(["status", "--context", "here"]) == 0
    assert "kustomization.yaml: 'namespace' is missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "health", "refused"),
    [
        (2, "Healthy", ""),
        (1, "Degraded", "its preview says no graph"),
        (1, "Healthy", "its preview"),
    ],
)
def test_a_preview_stands_for_the_cluster(
    project: Project, version: int, health: str, refused: str, capsys: pytest.CaptureFixture[str]
) -> None:
    preview = PreviewStatus("staging", "127.0.0.1:1", "127.0.0.1:2", version=version, health=health)
    preview.message = "no graph"
    folder = project.folder / ".local/preview/staging"
    folder.mkdir(parents=True)
    preview.write(folder)
    with only_one(folder / LOCK, "a preview runs"):
        said = promote(project, capsys)
    assert bool(said) == bool(refused) and refused in said


def test_a_preview_that_was_killed_does_not(
    project: Project, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project.folder / ".local/preview/staging"
    PreviewStatus("staging", "127.0.0.1:1", "127.0.0.1:2", version=1).write(folder)
    (folder / LOCK).touch()
    assert promote(project, capsys) == ""


def test_a_server_is_reached_through_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('#!/bin/sh\necho "$@" > "$0.log"; cat "$0.says"; exec sleep 60\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "kubectl.says").write_text("Forwarding from 127.0.0.1:4711 -> 8000\n")
    with cluster.Cluster("here").address("digits-staging") as found:
        assert found == "127.0.0.1:4711"
    asked = (tmp_path / "kubectl.log").read_text()
    assert asked.startswith("--context here -n digits-staging port-forward")
    assert subprocess.run(["pgrep", "-f", f"{kubectl} "], capture_output=True).returncode == 1
    (tmp_path / "kubectl.says").write_text("error: pods is forbidden\n")
    refused = pytest.raises(cluster.UnknownError, match="error: pods is forbidden")
    with refused, cluster.Cluster("here").address("digits-staging"):
        pass
