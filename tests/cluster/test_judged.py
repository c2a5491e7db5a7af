"""Versions that are judged by live requests: which of them pass, and what takes the others away.

Staging and production are judged at the same time, with shorter windows and pauses than a team's.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml

import github_api
import measuring
import notifications
from cluster_project import GOLDEN, add_component, add_patches, patch
from conftest import TEMPLATE
from delivered import Delivered, aborted, healthy_with
from delivery.manifests.analysis import curves, worse
from delivery.manifests.told_analysis import TASK, Told
from delivery.proposals.release_file import Release
from traffic import Traffic
from workspace.settings import check

TEMPLATE_FILE = TEMPLATE / "argocd/components/judged/live-figures.yaml"
ENVIRONMENTS = ("staging", "production")
# A machine with much to do is slower for longer than a moment, so only what is very slow counts.
SHORTER = {"window": "12s", "requests": "40", "slowness": "3"}
INTERVAL, PAUSE = "3s", "35s"
CALLERS = 6  # so that a slow version gets its requests within a window on a slow machine, too
COUNTED = "30s"  # what a monitor counted for so long is compared
# So that figures take versions away here, also where starts take long.
AS_A_TEAM = patch("AnalysisTemplate", "failed-starts", {"/spec/metrics/0/interval": "10s"})


def figures() -> list[dict]:
    """An overlay's patches that shorten what is judged."""
    places = {f"/spec/{name}": each for name, each in spec().items()}
    return [patch("AnalysisTemplate", "live-figures", places), AS_A_TEAM]


def quicker() -> list[dict]:
    """And for how long."""
    pause = {"/spec/strategy/canary/steps/3/pause/duration": PAUSE}
    return [*figures(), patch("Rollout", "triton", pause)]


def spec() -> dict:
    """What the component judges by, in less time."""
    found = yaml.safe_load(TEMPLATE_FILE.read_text().replace("[5m]", f"[{COUNTED}]"))["spec"]
    for each in found["args"]:
        each |= {"value": SHORTER[each["name"]]} if each["name"] in SHORTER else {}
    for each in found["metrics"]:
        each["interval"] = INTERVAL
        # One slow moment is in the four measurements that a window holds, so it takes a fifth.
        if each["name"] == "slowness":
            each["failureLimit"] = 4
    return found


@pytest.fixture(scope="module")
def judged(delivered: Delivered) -> Iterator[Delivered]:
    """Both environments serve, have the component's line, and a Prometheus measures them.

    Staging has a monitor in its path, too.
    """
    release, project = delivered.serving(), delivered.project
    delivered.deploy(release, "production")
    overlays = {each: project.path(each).with_name("kustomization.yaml") for each in ENVIRONMENTS}
    before = {name: overlay.read_text() for name, overlay in overlays.items()}
    try:
        add_component(overlays["staging"], "monitor-in-path")
        add_patches(overlays["staging"], AS_A_TEAM)
        project.commit("Look at what staging answers")
        delivered.see()
        delivered.rollout(lambda seen: is_watched(seen) and healthy_with(seen, release.version))
        for overlay in overlays.values():
            add_component(overlay, "judged")
            add_patches(overlay, *quicker())
        project.commit("Judge by live requests")
        for name in ENVIRONMENTS:
            delivered.see(name)
            delivered.rollout(is_judged, name)
        with measuring.prometheus(delivered.here, delivered.kubernetes):
            yield delivered
    finally:
        for name, overlay in overlays.items():
            overlay.write_text(before[name])
            project.path(name).write_text(release.to_yaml())
        project.commit("Judge by live requests no more")
        for name in ENVIRONMENTS:
            delivered.see(name)
            delivered.rollout(lambda seen: not is_judged(seen), name)
            delivered.served(release, name)


def is_judged(rollout: dict) -> bool:
    """Whether a Rollout has the component's analysis."""
    templates = rollout["spec"]["strategy"]["canary"]["analysis"]["templates"]
    return {"templateName": "live-figures"} in templates


def is_watched(rollout: dict) -> bool:
    """Whether a Rollout has a monitor in its path."""
    first = rollout["spec"]["template"]["spec"].get("initContainers", [])
    return "monitor" in [each["name"] for each in first]


@contextmanager
def called(delivered: Delivered, *environments: str) -> Iterator[list[Traffic]]:
    """Callers of environments, who connect anew for each request."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Traffic({"http": delivered.address("http", each)}, {"http": CALLERS}, keep=False)
            )
            for each in environments
        ]


def release_both(delivered: Delivered, staging: Release, production: Release) -> None:
    """Merge both, and have Argo CD see them."""
    for name, release in zip(ENVIRONMENTS, (staging, production), strict=True):
        delivered.project.deploy_release(release, name)
        delivered.see(name)


def taken_away(delivered: Delivered, environment: str, release: Release) -> str:
    """Wait until a release was taken away again; what Argo Rollouts says of it."""
    rollout = delivered.rollout(lambda seen: aborted(seen, release.version), environment)
    return rollout["status"]["message"]


def passes(delivered: Delivered, environment: str, release: Release) -> list[dict]:
    """Wait until a release is served; the figures of its analysis of live requests."""
    rollout = delivered.rollout(lambda seen: healthy_with(seen, release.version), environment)
    runs = delivered.kubernetes.items(
        "analysisruns",
        delivered.namespace(environment),
        f"rollouts-pod-template-hash={rollout['status']['stableRS']}",
    )
    figures = [each for run in runs for each in run["status"]["metricResults"]]
    return [each for each in figures if each["name"] in ("failing", "slowness")]


def measured(figures: list[dict]) -> list[str]:
    """What was measured of figures, where a question had an answer."""
    measurements = [each for figure in figures for each in figure["measurements"]]
    return [each["value"] for each in measurements if each["phase"] != "Error"]


@pytest.fixture(scope="module")
def told(judged: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a GitHub is told, which Argo Rollouts knows from now on."""
    file, address = notifications.listen(judged.here, tmp_path_factory.mktemp("github"))
    ours = notifications.figures(address)
    judged.kubernetes.apply(ours)
    yield file
    for each in ours:
        name = f"{each['kind']}/{each['metadata']['name']}"
        judged.kubernetes.kubectl("delete", name, "-n", each["metadata"]["namespace"])
    judged.here.stop("github")


@pytest.fixture(scope="module")
def taken(judged: Delivered, told: Path) -> dict[str, Release]:
    """By which figure a version that fails and one that is slow were taken away."""
    version = judged.next_version()
    failing = judged.project.build_faulty(version, 0.91, FAILS=20)
    slow = judged.project.build_faulty(version + 1, 0.92, SECONDS=0.3)
    with called(judged, *ENVIRONMENTS) as traffic:
        release_both(judged, failing, slow)
        found = {
            "failing": taken_away(judged, "staging", failing),
            "slowness": taken_away(judged, "production", slow),
        }
    for metric, message in found.items():
        assert f'Metric "{metric}" assessed Failed' in message
    before = judged.good[-1].version
    assert all(each.versions["http"][before] for each in traffic), "the one before went on"
    return {"failing": failing, "slowness": slow}


def test_a_version_that_fails_or_is_slow_is_taken_away_by_that_figure(
    judged: Delivered, taken: dict[str, Release]
) -> None:
    status = judged.command("status").stdout
    assert re.search(r"taken away again, because \d\S+ more of its live requests failed", status)
    assert re.search(r"its live requests took \d\S+ times as long as is promised", status)


@pytest.mark.parametrize(
    ("environment", "figure"), [("staging", "failing"), ("production", "slowness")]
)
def test_github_is_told_what_was_measured_of_a_version_that_was_taken_away(
    judged: Delivered, taken: dict[str, Release], told: Path, environment: str, figure: str
) -> None:
    deployments = [each["body"] for each in github_api.read(told)]
    wanted = {"task": TASK, "environment": judged.namespace(environment)}
    found = [each for each in deployments if wanted.items() <= each.items()]
    newest = check(Told, found[-1]["payload"], "a payload")
    assert newest.image == taken[figure].image
    assert number_in(worse(newest.analyses)) == pytest.approx(
        next(each.values[-1] for each in curves(newest.analyses) if each.name == figure), abs=0.06
    )
    limits = {each.name: each.limit for each in curves(newest.analyses)}
    assert limits[figure] == {"failing": 0.02, "slowness": 3}[figure]
    assert found[-1]["auto_merge"] is False and found[-1]["required_contexts"] == []


def number_in(sentence: str) -> float:
    """The number that a sentence names; of percent the share."""
    (text, percent) = re.findall(r"([\d.]+)(%?)", sentence)[0]
    return float(text) / (100 if percent else 1)


@pytest.mark.parametrize(
    ("metric", "fault"), [("confidence", {"SURE": 0.99}), ("classes", {"OTHER": 1})]
)
def test_a_version_that_answers_callers_otherwise_than_at_its_tests_is_taken_away(
    judged: Delivered, metric: str, fault: dict[str, float]
) -> None:
    bad = judged.project.build_faulty(judged.next_version(), 0.91, **fault, FROM=GOLDEN)
    with called(judged, "staging") as traffic:
        judged.project.deploy_release(bad)
        judged.see()
        message = taken_away(judged, "staging", bad)
    assert f'Metric "{metric}" assessed Failed' in message
    assert traffic[0].versions["http"][judged.good[-1].version], "the one before went on"


def test_a_good_version_passes_whether_it_is_called_or_not(judged: Delivered) -> None:
    version = judged.next_version()
    good = [judged.project.build(version + each, 0.93 + each / 100) for each in range(2)]
    with called(judged, "staging"):
        release_both(judged, *good)
        figures = passes(judged, "staging", good[0])
    silent = passes(judged, "production", good[1])
    for figure in figures + silent:  # a question may have had no answer, but not the last one
        assert figure.get("count", 0) > 0 and not figure.get("consecutiveError"), figure
    assert len(figures) == 2 and any(value != "[]" for value in measured(figures))
    assert len(silent) == 2 and {*measured(silent)} == {"[]"}


def test_without_prometheus_a_good_version_passes_and_a_restarting_one_does_not(
    judged: Delivered,
) -> None:
    version = judged.next_version()
    good = judged.project.build(version, 0.96)
    ending = judged.project.build_faulty(version + 1, 0.94, LIVES=8)
    judged.here.stop(measuring.NAME)
    with called(judged, "staging"):
        release_both(judged, good, ending)
        figures = passes(judged, "staging", good)
    assert all(each["error"] and not each.get("failed") for each in figures) and figures
    assert 'Metric "restarts" assessed Failed' in taken_away(judged, "production", ending)
    told = r"its container (was started anew 2 times|crashed)"  # until its pod is gone
    assert re.search(told, judged.command("status").stdout)
