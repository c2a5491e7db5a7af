"""Servers as load needs them, where an overlay asks for it."""

import functools
import re
from pathlib import Path

import pytest
import yaml

import rendering
import schemas
from conftest import TEMPLATE, UNBAKED, cookiecutter
from delivery.manifests.rendering import check_keys

CONFIGS = TEMPLATE / "argocd/platform/configs"
NAMESPACE = "digit-classifier-{}"

Documents = dict[tuple[str, str], dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("capacity")
    assert cookiecutter(output).returncode == 0
    rendering.release_everywhere(output / "digit-classifier" / "argocd")
    return output / "digit-classifier"


@functools.cache
def built(project: Path, environment: str, *components: str) -> Documents:
    found = rendering.build_with(project, environment, *components)
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


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
    assert schemas.crd_errors(after["ScaledObject", "triton"]) == []
    rollout, target = after["Rollout", "triton"], scaler(after)["scaleTargetRef"]
    assert target == {
        "apiVersion": rollout["apiVersion"],
        "kind": "Rollout",
        "name": rollout["metadata"]["name"],
    }
    recorded = {
        rule["record"]
        for file in CONFIGS.glob("*-rules.yaml")
        for group in yaml.safe_load(file.read_text())["spec"]["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    queries = [
        each["metadata"]["query"] for each in scaler(after)["triggers"] if "query" in str(each)
    ]
    asked = {query.partition("{")[0] for query in queries}
    assert asked and asked <= recorded
    where = f'{{namespace="{NAMESPACE.format(environment)}"}}'
    assert all(query.endswith(where) and query.count('"') == 2 for query in queries)


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
