"""A version is judged by live requests where an overlay asks for it, and what that makes of it."""

import functools
import re
import subprocess
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import yaml

import rendering
import schemas
from conftest import TEMPLATE
from delivery.manifests.analysis import FIGURES
from delivery.manifests.rendering import check_keys
from registry_tools import need

JUDGED = TEMPLATE / "argocd/components/judged/live-figures.yaml"
CONTROLLERS = TEMPLATE / "argocd/platform/controllers"
SPEC = yaml.safe_load(JUDGED.read_text())["spec"]
THRESHOLDS = {each["name"]: each["value"] for each in SPEC["args"] if "value" in each}
METRICS = {each["name"]: each for each in SPEC["metrics"]}
GIVEN = {"namespace": "p-staging", "pods": "new", "stable": "old"}

Documents = dict[tuple[str, str], dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendering.released_project(tmp_path_factory.mktemp("judged"))


@functools.cache
def built(project: Path, *components: str) -> Documents:
    return rendering.by_name(rendering.build_with(project, "production", *components))


def canary(documents: Documents) -> dict:
    return documents["Rollout", "triton"]["spec"]["strategy"]["canary"]


# -- the lines -------------------------------------------------------------------------------------


def test_the_line_adds_an_analysis_and_a_pause(project: Path) -> None:
    before, after = built(project), built(project, "judged")
    assert set(after) - set(before) == {("AnalysisTemplate", "live-figures")}
    assert {name for name in before if before[name] != after[name]} == {("Rollout", "triton")}
    old, new = dict(canary(before)), dict(canary(after))
    assert new.pop("steps") == [*old.pop("steps"), {"pause": {"duration": "4m"}}]
    ours = {"templates": [{"templateName": "live-figures"}], "args": [new["analysis"]["args"][-1]]}
    assert ours["args"] == [{"name": "stable", "valueFrom": {"podTemplateHashValue": "Stable"}}]
    assert new.pop("analysis") == {key: old["analysis"][key] + ours[key] for key in ours}
    assert {**new, "analysis": ""} == {**old, "analysis": ""}


@pytest.mark.parametrize("order", [*permutations(["gateway", "judged"]), ["judged", "single"]])
def test_everything_is_valid_to_the_last_key(project: Path, order: list[str]) -> None:
    documents = built(project, *order)
    for each in documents.values():
        check_keys(each)
    assert canary(documents)["steps"][-1] == {"pause": {"duration": "4m"}}
    assert len(canary(documents)["analysis"]["templates"]) == 2
    for each in documents.values():
        if each["apiVersion"].startswith("argoproj.io/"):
            assert schemas.crd_errors(each) == []


def test_every_argument_is_given_and_used(project: Path) -> None:
    documents = built(project, "judged")
    given = {each["name"] for each in canary(documents)["analysis"]["args"]}
    wanted = {each["name"] for each in SPEC["args"]}
    has = given | THRESHOLDS.keys() | {"token"}
    assert wanted == has == set(re.findall(r"{{args\.([a-z]+)}}", JUDGED.read_text()))
    other = documents["AnalysisTemplate", "failed-starts"]["spec"]
    assert not METRICS.keys() & {each["name"] for each in other["metrics"]}, "one run has both"
    same = [each for each in SPEC["args"] if each in other["args"]]
    assert [each["name"] for each in same] == ["namespace", "pods", "token"]


def test_what_cannot_be_measured_takes_no_version_away() -> None:
    for metric in METRICS.values():
        assert "successCondition" not in metric, "with both, neither may be true: an endless pause"
        assert metric["failureCondition"].startswith("any(result, {"), "of nothing nothing is bad"
        assert metric["consecutiveErrorLimit"] == 1000000, "five errors would abort"
    assert set(FIGURES) == {name for name, each in METRICS.items() if "prometheus" in str(each)}
    for name in FIGURES:
        assert f"{{# > {{{{args.{name}}}}}}}" in METRICS[name]["failureCondition"], "it is drawn"


def test_argo_rollouts_knows_where_prometheus_is() -> None:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in CONTROLLERS.glob("*.yaml")}
    variables = read["argo-rollouts"]["settings"]["controller"]["extraEnv"]
    stack = read["kube-prometheus-stack"]
    name = f"{stack['settings']['fullnameOverride']}-prometheus.{stack['namespace']}"
    assert {
        "name": "ARGO_ROLLOUTS_PROMETHEUS_ADDRESS",
        "value": f"http://{name}.svc:9090",
    } in variables
    assert "address" not in str(SPEC)


def test_scarce_takes_no_gpu_more_and_single_has_one_server(project: Path) -> None:
    before = built(project)
    scarce, single = built(project, "scarce"), built(project, "single")
    assert canary(scarce) == canary(before) | {"maxSurge": 0, "maxUnavailable": 1}
    assert canary(single) == canary(before)
    replicas = [each["Rollout", "triton"]["spec"]["replicas"] for each in (before, scarce, single)]
    assert replicas == [2, 2, 1]


# -- what is measured ------------------------------------------------------------------------------

WHO = 'namespace="p-staging", model="classifier", rollouts_pod_template_hash'
REQUESTS = 4 * 15  # the series: four of them a second, a sample each quarter of a minute


def counted(pods: str, answered: int, failed: int = 0, milliseconds: int = 10) -> dict[str, str]:
    """The series of pods, with so many requests in a quarter of a minute."""
    who = f'{WHO}="{pods}", pod="{pods}-a"'
    spent = answered * milliseconds * 1000
    return {
        f"nv_inference_request_success{{{who}}}": f"0+{answered}x40",
        f'nv_inference_request_failure{{{who}, reason="BACKEND"}}': f"0+{failed}x40",
        f'nv_inference_request_failure{{{who}, reason="CANCELED"}}': "0+50x40",
        f"nv_inference_request_duration_us{{{who}}}": f"0+{spent}x40",
    }


PROMISE = {"objective:latency_seconds:mean": "0.05x40"}
OLD = counted("old", REQUESTS) | PROMISE
# What is counted, the share that fails more than before, and how much too slow it is.
CASES: dict[str, tuple[dict[str, str], float | None, float | None]] = {
    "well": (OLD | counted("new", REQUESTS), 0, 0.2),
    "nobody calls": (OLD | counted("new", 0), None, None),
    "it has told nothing yet": (OLD, None, None),
    "few call": (OLD | counted("new", 20, failed=1), None, None),
    "nobody calls the other": (
        PROMISE | counted("old", 0) | counted("new", REQUESTS, failed=20),
        0.25,
        0.2,
    ),
    "a first release": (PROMISE | counted("new", REQUESTS), 0, 0.2),
    "one in twenty fails": (OLD | counted("new", 57, failed=3), 0.05, 0.2),
    "both fail": (
        PROMISE | counted("old", 45, failed=15) | counted("new", 45, failed=15),
        0,
        0.2,
    ),
    "all fail": (OLD | counted("new", 0, failed=REQUESTS), 1, None),
    "slow": (OLD | counted("new", REQUESTS, milliseconds=110), 0, 2.2),
    "both are slow": (
        PROMISE
        | counted("old", REQUESTS, milliseconds=100)
        | counted("new", REQUESTS, milliseconds=110),
        0,
        1.1,
    ),
    "nothing is promised": (
        counted("old", REQUESTS) | counted("new", REQUESTS, milliseconds=110),
        0,
        None,
    ),
}


def asked(metric: str) -> str:
    """The query of a metric as Argo Rollouts sends it."""
    query = METRICS[metric]["provider"]["prometheus"]["query"]
    for name, value in (THRESHOLDS | GIVEN).items():
        query = query.replace(f"{{{{args.{name}}}}}", value)
    return query


def question(query: str, moment: str, value: float | None) -> dict:
    """What promtool asks at a moment, and the answer; None where there is none."""
    samples = [] if value is None else [{"labels": "{}", "value": value}]
    return {"expr": query, "eval_time": moment, "exp_samples": samples}


def expected(metric: str, value: float | None) -> dict:
    """Ask promtool for a value after five minutes, which may be none, or one over nothing."""
    return question(f"round({asked(metric)}, 1e-6) >= 0", "5m", value)


def compared(metric: str, value: float | None) -> dict:
    """Ask promtool how far a version is from the one before, of five minutes."""
    return question(f"round({asked(metric)}, 0.001) > -1", "9m", value)


def answered(folder: Path, tests: list[dict]) -> None:
    """Have a real Prometheus' engine answer as the tests of promtool expect."""
    need("prometheus")
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def of(series: dict[str, str], *questions: dict) -> dict:
    """A test of promtool: questions about series with a sample each quarter of a minute."""
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": each} for name, each in series.items()],
        "promql_expr_test": [*questions],
    }


def test_what_is_measured_of_live_requests(tmp_path: Path) -> None:
    tests = [
        of(series, expected("failing", failing), expected("slowness", slowness))
        for series, failing, slowness in CASES.values()
    ]
    answered(tmp_path, tests)


def seen(pods: str, *pictures: int) -> dict[str, str]:
    """The series of pods whose monitor counts so many pictures of each class."""
    return {
        f'behaviour_pictures_total{{{WHO}="{pods}", feature="{feature}", bin="{place}"}}': (
            f"0+{count}x40"
        )
        for feature, counts in (("class", pictures), ("sure", (sum(pictures), 0)))
        for place, count in enumerate(counts)
    }


@pytest.mark.parametrize(
    ("series", "value"),
    [
        (seen("old", 50, 50), None),
        (seen("old", 50, 50) | seen("new", 0, 0), None),
        (seen("old", 500, 500) | seen("new", 500, 500), -0.035),
        (seen("old", 500, 500) | seen("new", 900, 100), 0.365),
        (seen("old", 500, 500) | seen("new", 520, 480), -0.015),
        (seen("old", 5, 5) | seen("new", 10, 0), 0.15),
    ],
    ids=["no figures", "nobody calls", "the same", "others", "a few others", "few pictures"],
)
def test_classes_are_compared_with_those_of_the_version_before(
    tmp_path: Path, series: dict[str, str], value: float | None
) -> None:
    """Of 20,000 pictures in five minutes; chance explains 3.5 times the root of 1/n + 1/m."""
    answered(tmp_path, [of(series, compared("classes", value))])


def confident(pods: str, live: dict[str, int], shares: dict[str, float]) -> dict[str, str]:
    """The series of pods that count so many pictures of each confidence, and what they expect."""
    who = f'{WHO}="{pods}"'
    where = f'{who}, feature="confidence", bin'
    return (
        {f'behaviour_pictures_total{{{where}="{at}"}}': f"0+{each}x40" for at, each in live.items()}
        | {f'behaviour_reference_share{{{where}="{at}"}}': f"{x}x40" for at, x in shares.items()}
        | {f"behaviour_reference_pictures{{{who}}}": "10000x40"}
    )


HALVES = {"0.9": 0.5, "more": 0.5}
BEFORE = confident("old", {"0.9": 500, "more": 500}, HALVES)


@pytest.mark.parametrize(
    ("series", "value"),
    [
        (BEFORE, None),
        (BEFORE | confident("new", {"0.9": 0, "more": 0}, HALVES), None),
        (BEFORE | confident("new", {"0.5": 50, "more": 950}, {}), None),
        (BEFORE | confident("new", {"0.9": 500, "more": 500}, HALVES), None),
        (BEFORE | confident("new", {"0.99": 500, "more": 500}, {"0.99": 0.5, "more": 0.5}), None),
        (BEFORE | confident("new", {"0.9": 50, "more": 950}, HALVES), 0.45),
        (BEFORE | confident("new", {"0.9": 950, "more": 50}, HALVES), 0.45),
        (BEFORE | confident("new", {"0.9": 437, "more": 563}, HALVES), 0.063),
        (BEFORE | confident("new", {"0.9": 441, "more": 559}, HALVES), None),
        (BEFORE | confident("new", {"0.9": 1, "more": 19}, HALVES), 0.45),
        (BEFORE | confident("new", {"0.9": 0, "more": 1}, HALVES), None),
        (
            confident("old", {"0.9": 900, "more": 100}, HALVES)
            | confident("new", {"0.9": 950, "more": 50}, HALVES),
            None,
        ),
    ],
    ids=[
        *("no figures", "nobody calls", "nothing is known of its tests"),
        *("as at its tests", "better, and surer also at its tests"),
        *("too sure", "less sure", "more than by chance", "by chance", "few", "too few"),
        "callers ask otherwise than at the tests",
    ],
)
def test_confidence_is_compared_with_a_versions_own_tests_and_the_version_before(
    tmp_path: Path, series: dict[str, str], value: float | None
) -> None:
    """Of 20,000 pictures in five minutes, and 10,000 at tests: chance explains 0.061."""
    answered(tmp_path, [of(series, compared("confidence", value))])


BINS = 10  # of confidence
TESTED = 3000  # pictures of the tests


def noisy(pods: str, random: np.random.Generator, sure: float = 0.1) -> dict[str, str]:
    """The series of a version that fails two requests in a thousand; callers come by chance.

    Of its answers a share is as sure as of its tests' pictures were a tenth, the surest.
    """
    who = f'{WHO}="{pods}", pod="{pods}-a"'
    asked = random.poisson(REQUESTS, 40)
    failed = random.binomial(asked, 0.002)
    spent = [random.lognormal(10.5, 0.5, count).sum() for count in asked - failed]  # microseconds
    classes = random.multinomial(1, [0.3, 0.2, *[0.0625] * 8], asked.sum()).cumsum(axis=0)
    ends = asked.cumsum() - 1
    spread = [*[(1 - sure) / (BINS - 1)] * (BINS - 1), sure]
    confidence = random.multinomial(1, spread, asked.sum()).cumsum(axis=0)
    tested = random.multinomial(TESTED, [1 / BINS] * BINS) / TESTED
    counts = {
        f"nv_inference_request_success{{{who}}}": (asked - failed).cumsum(),
        f'nv_inference_request_failure{{{who}, reason="BACKEND"}}': failed.cumsum(),
        f"nv_inference_request_duration_us{{{who}}}": np.cumsum(spent).round(),
    } | {
        f'behaviour_pictures_total{{{who}, feature="class", bin="{place}"}}': classes[ends, place]
        for place in range(classes.shape[1])
    }
    for place in range(BINS):
        which = f'{who}, feature="confidence", bin="{place}"'
        counts[f"behaviour_pictures_total{{{which}}}"] = confidence[ends, place]
        counts[f"behaviour_reference_share{{{which}}}"] = np.full(40, tested[place])
    counts[f"behaviour_reference_pictures{{{who}}}"] = np.full(40, TESTED)
    return {name: " ".join(map(str, values.tolist())) for name, values in counts.items()}


def test_of_thirty_good_versions_under_noise_none_is_taken_away(tmp_path: Path) -> None:
    """No measurement of any is bad, though two bad ones of three figures would be forgiven."""
    figures = ("failing", "slowness", "classes", "confidence")
    moments = [f"{seconds}s" for seconds in range(120, 600, 60)]
    tests = []
    for seed in range(30):
        series = noisy("old", random := np.random.default_rng(seed)) | noisy("new", random)
        bad = [f"{asked(name)} > {THRESHOLDS[name]}" for name in figures]
        never = [question(query, moment, None) for query in bad for moment in moments]
        # And they are measured; the last is no figure where chance explains it.
        measured = [question(f"count({asked(name)})", "5m", 1) for name in figures[:3]]
        tests.append(of(series | PROMISE, *never, *measured))
    answered(tmp_path, tests)


def test_a_version_that_is_surer_than_at_its_tests_is_taken_away_under_noise(
    tmp_path: Path,
) -> None:
    bad = f"count({asked('confidence')} > {THRESHOLDS['confidence']})"
    tests = []
    for seed in range(10):
        random = np.random.default_rng(seed)
        series = noisy("old", random) | noisy("new", random, sure=0.8)
        tests.append(of(series, question(bad, "6m", 1)))
    answered(tmp_path, tests)
