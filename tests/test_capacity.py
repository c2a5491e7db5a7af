"""Servers as load needs them, where an overlay asks for it."""

import functools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

import rendering
import schemas
from conftest import TEMPLATE, UNBAKED
from delivery.manifests.rendering import check_keys
from registry_tools import need

CONFIGS = TEMPLATE / "argocd/platform/configs"
NAMESPACE = "digit-classifier-{}"
RECORDED = {
    rule["record"]: rule["expr"]
    for file in CONFIGS.glob("*-rules.yaml")
    for group in yaml.safe_load(file.read_text())["spec"]["groups"]
    for rule in group["rules"]
    if "record" in rule
}

Documents = dict[tuple[str, str], dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendering.released_project(tmp_path_factory.mktemp("capacity"))


@functools.cache
def built(project: Path, environment: str, *components: str) -> Documents:
    return rendering.by_name(rendering.build_with(project, environment, *components))


def scaler(documents: Documents) -> dict:
    return documents["ScaledObject", "triton"]["spec"]


@pytest.mark.parametrize(
    ("environment", "component"), [("production", "autoscale"), ("staging", "asleep")]
)
def test_the_line_adds_a_scaler_that_asks_for_its_own_namespace(
    project: Path, environment: str, component: str
) -> None:
    before, after = built(project, environment), built(project, environment, component)
    assert {name: each for name, each in after.items() if name[0] != "ScaledObject"} == before
    check_keys(after["ScaledObject", "triton"])
    rollout, target = after["Rollout", "triton"], scaler(after)["scaleTargetRef"]
    assert target == {
        "apiVersion": rollout["apiVersion"],
        "kind": "Rollout",
        "name": rollout["metadata"]["name"],
    }
    queries = [
        each["metadata"]["query"] for each in scaler(after)["triggers"] if "query" in str(each)
    ]
    asked = {query.partition("{")[0] for query in queries}
    assert asked and asked <= RECORDED.keys()
    where = f'{{namespace="{NAMESPACE.format(environment)}"}}'
    assert all(query.endswith(where) and query.count('"') == 2 for query in queries)
    assert schemas.crd_errors(after["ScaledObject", "triton"]) == []


def test_no_gpu_is_given_away_unseen(project: Path) -> None:
    spec = scaler(built(project, "production", "autoscale"))
    assert spec["minReplicaCount"] == spec["fallback"]["replicas"] >= 1
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    for trigger in spec["triggers"]:
        assert trigger["metadata"]["ignoreNullValues"] == "false", "nothing found is 0 otherwise"
        assert trigger["metricType"] == "AverageValue", "others multiply by the pods of a change"


def test_gpu_nodes_are_enough_for_the_most_servers_and_for_no_more(project: Path) -> None:
    """All that serve at most, and one more of each environment while versions change."""
    staging, production = built(project, "staging"), built(project, "production", "autoscale")
    rollouts = [each["Rollout", "triton"]["spec"] for each in (staging, production)]
    surges = sum(each["strategy"]["canary"]["maxSurge"] for each in rollouts)
    most = rollouts[0]["replicas"] + scaler(production)["maxReplicaCount"] + surges
    settings = (UNBAKED / "infra/cluster/terraform.tfvars").read_text()
    (nodes,) = re.findall(r"max = (\d+)", settings)  # of one GPU each
    assert most == int(nodes)


def test_argo_cd_may_keep_a_scaler_and_leaves_it_the_replicas(project: Path) -> None:
    apps = {
        (each["kind"], each["metadata"]["name"]): each
        for each in rendering.build(project / "argocd/apps")
    }
    allowed = apps["AppProject", "models"]["spec"]["namespaceResourceWhitelist"]
    for component in ("autoscale", "judged"):
        for document in built(project, "production", component).values():
            group = document["apiVersion"].rpartition("/")[0]
            if document["kind"] != "Namespace":
                assert {"group": group, "kind": document["kind"]} in allowed
    template = apps["ApplicationSet", "models"]["spec"]["template"]["spec"]
    assert {
        "group": "argoproj.io",
        "kind": "Rollout",
        "jsonPointers": ["/spec/replicas"],
    } in template["ignoreDifferences"]


def test_the_scaler_asks_the_prometheus_that_the_platform_installs(project: Path) -> None:
    rollouts = yaml.safe_load(
        (TEMPLATE / "argocd/platform/controllers/argo-rollouts.yaml").read_text()
    )
    variables = rollouts["settings"]["controller"]["extraEnv"]
    (address,) = (each["value"] for each in variables if "PROMETHEUS" in each["name"])
    for environment, component in (("production", "autoscale"), ("staging", "asleep")):
        for trigger in scaler(built(project, environment, component))["triggers"]:
            assert trigger["metadata"].get("serverAddress", address) == address


# -- what Prometheus finds -------------------------------------------------------------------------

HELD, MERGED = "rollout:held_replicas:max", "delivery:version_in_git:new1h"
WAITING, QUEUE = "model:waiting_requests:mean1m", "model:queue_seconds:rate1m"


def rollout(phase: str, desired: int, updated: int) -> dict[str, str]:
    """What two controllers tell of a Rollout, a sample each quarter of a minute."""
    told = {
        f'rollout_info{{phase="{phase}", ': 1,
        "rollout_info_replicas_desired{": desired,
        "rollout_info_replicas_updated{": updated,
    }
    return {
        f'{name}namespace="p", name="triton", pod="{pod}"}}': f"{value}x300"
        for name, value in told.items()
        for pod in "ab"
    }


def waiting(pod: str, requests: int) -> dict[str, str]:
    """What a server tells while so many requests wait, of two seconds each."""
    who = f'namespace="p", model="classifier", pod="{pod}"'
    return {
        f"nv_inference_pending_request_count{{{who}}}": f"{requests}x300",
        f"nv_inference_queue_duration_us{{{who}}}": f"0+{requests * 15_000_000}x300",
    }


VERSION = 'delivery:version_in_git:info{namespace="p", name="p", version="%s"}'
# What is told, what is asked, and the answer after an hour and a minute.
TOLD: list[tuple[dict[str, str], str, float]] = [
    (rollout("Completed", 3, 3), HELD, 0),
    (rollout("Paused", 3, 1), HELD, 3),
    (rollout("Progressing", 3, 1), HELD, 3),
    (rollout("Progressing", 3, 3), HELD, 0),  # as many more start for load
    (rollout("Abort", 3, 0), HELD, 0),
    (waiting("a", 5) | waiting("b", 2), WAITING, 7),
    (waiting("a", 5) | waiting("b", 2), QUEUE, 7),
    (waiting("a", 0), QUEUE, 0),
    ({VERSION % 8: "1x300"}, MERGED, 0),
    ({VERSION % 8: "1x200", VERSION % 9: "_x200 1x100"}, MERGED, 1),
]


def test_how_many_servers_load_and_versions_ask_for(tmp_path: Path) -> None:
    need("prometheus")
    tests = [
        {
            "interval": "15s",
            "input_series": [{"series": name, "values": each} for name, each in series.items()],
            "promql_expr_test": [
                {
                    "expr": RECORDED[name],
                    "eval_time": "61m",
                    "exp_samples": [{"labels": '{namespace="p"}', "value": value}],
                }
            ],
        }
        for series, name, value in TOLD
    ]
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"tests": tests}))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
