"""A monitor in an overlay: one line more, in the path or beside it, and what it makes of it."""

from copy import deepcopy
from pathlib import Path

import pytest

import rendering
import schemas
from delivery.checks.pod_security import pod_templates, violations
from delivery.manifests.rendering import check_keys
from delivery.manifests.server_pod import MONITORED, read_server_pod
from monitored import PROGRAM
from test_capture import load

Documents = dict[tuple[str, str], dict]
BESIDE = ("gateway", "monitor")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendering.released_project(tmp_path_factory.mktemp("monitor"))


def built(project: Path, *components: str) -> Documents:
    return rendering.by_name(rendering.build_with(project, "staging", *components))


@pytest.fixture(scope="module")
def plain(project: Path) -> Documents:
    return built(project)


@pytest.fixture(scope="module")
def in_path(project: Path) -> Documents:
    return built(project, "monitor-in-path")


@pytest.fixture(scope="module")
def guarded(project: Path) -> Documents:
    return built(project, "gateway")


@pytest.fixture(scope="module")
def beside(project: Path) -> Documents:
    return built(project, *BESIDE)


def pod(documents: Documents, kind: str, name: str) -> dict:
    return documents[kind, name]["spec"]["template"]["spec"]


def program(documents: Documents) -> dict[str, str]:
    return documents["ConfigMap", "monitor"]["data"]


def test_everything_is_valid_to_the_last_key(in_path: Documents, beside: Documents) -> None:
    for documents in (in_path, beside):
        for each in documents.values():
            assert not schemas.core_errors(each), each["metadata"]["name"]
            check_keys(each)
            for template in pod_templates(each).values():
                assert violations(template["spec"]) == set()
        assert program(documents) == {each: (PROGRAM / each).read_text() for each in FILES}
        assert "set-by-the-" not in str(documents)
    for documents in (in_path, beside):
        monitor = [each for each in documents.values() if each["kind"] == "PodMonitor"]
        assert [schemas.crd_errors(each) for each in monitor] == [[]] * len(monitor)


def test_traefiks_kinds_are_valid_to_the_last_key(beside: Documents) -> None:
    routes = [
        each for (kind, _), each in beside.items() if kind in ("IngressRoute", "TraefikService")
    ]
    assert [schemas.crd_errors(each) for each in routes] == [[]] * 4


FILES = ("arrange.py", "behaviour.py", "capture.py", "monitor.py")


def test_in_the_path_the_same_release_is_laid_out_otherwise(
    plain: Documents, in_path: Documents
) -> None:
    changed = {name for name, each in plain.items() if each != in_path[name]}
    assert changed == {("Rollout", "triton"), ("PodMonitor", "triton")}
    before, after = (pod(each, "Rollout", "triton") for each in (plain, in_path))
    (server,), (was,) = deepcopy(after["containers"]), before["containers"]
    assert server["args"].pop(0) == f"--model-repository={MONITORED}"
    assert server["args"] == was["args"][1:]
    assert server["livenessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    (first,) = after["initContainers"]
    assert first["image"] == server["image"] == was["image"]
    mounts = {each["mountPath"]: each["name"] for each in first["volumeMounts"]}
    assert set(mounts) == {each["value"] for each in first["env"]}
    assert {each["name"] for each in after["volumes"]} >= set(mounts.values())
    assert {each["mountPath"] for each in server["volumeMounts"]} >= {"/models", MONITORED}


def test_the_server_is_rehearsed_without_a_monitor(plain: Documents, in_path: Documents) -> None:
    before, after = (read_server_pod(each) for each in (plain, in_path))
    assert after.image == before.image and after.ready_path == before.ready_path


def test_beside_the_path_callers_are_answered_as_without_it(
    guarded: Documents, beside: Documents
) -> None:
    changed = {name for name, each in guarded.items() if each != beside[name]}
    assert changed == {("IngressRoute", "model")}
    http, grpc = beside["IngressRoute", "model"]["spec"]["routes"]
    assert http["services"] == [{"kind": "TraefikService", "name": "watched"}]
    assert grpc == guarded["IngressRoute", "model"]["spec"]["routes"][1]
    mirroring = beside["TraefikService", "watched"]["spec"]["mirroring"]
    assert (mirroring["kind"], mirroring["name"]) == ("TraefikService", "triton")
    (mirror,) = mirroring["mirrors"]
    assert ("Service", mirror["name"]) in beside and 0 < mirror["percent"] <= 100
    allowed = guarded["Middleware", "request"]["spec"]["buffering"]["maxRequestBodyBytes"]
    assert mirroring["maxBodySize"] == allowed


def test_the_copies_go_to_the_release_that_serves(beside: Documents) -> None:
    rollout, monitor = pod(beside, "Rollout", "triton"), pod(beside, "Deployment", "monitor")
    (server,), (copies,) = rollout["containers"], monitor["containers"]
    assert copies["image"] == monitor["initContainers"][0]["image"] == server["image"]
    volumes = [{each["name"]: each for each in one["volumes"]} for one in (rollout, monitor)]
    assert volumes[0]["model"] == volumes[1]["model"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert copies[probe] == server[probe]
    assert "nvidia.com/gpu" not in str(monitor["containers"])
    restricted = [each for each in server["args"] if each.startswith("--http-restricted-api")]
    assert restricted and set(restricted) <= set(copies["args"])
    labels = beside["Deployment", "monitor"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/name": "monitor", "app.kubernetes.io/version": "8"}


def test_pictures_are_kept_only_where_an_overlay_says_so(project: Path, beside: Documents) -> None:
    keeping = built(project, "gateway", "capture")
    changed = {name for name, each in beside.items() if each != keeping[name]}
    assert changed == {("Deployment", "monitor")} and keeping.keys() == beside.keys()
    assert "CAPTURED" not in str(beside["Deployment", "monitor"])
    seen = pod(keeping, "Deployment", "monitor")
    (first,), (server,) = seen["initContainers"], seen["containers"]
    assert {"name": "CAPTURED", "value": "/captured"} in first["env"]
    assert {"name": "captured", "mountPath": "/captured"} in server["volumeMounts"]
    (volume,) = [each for each in seen["volumes"] if each["name"] == "captured"]
    limit = volume["emptyDir"]["sizeLimit"]
    assert limit.endswith("Mi") and int(limit[:-2]) * 2**20 > 2 * load().BYTES
    assert not schemas.core_errors(keeping["Deployment", "monitor"])
    assert violations(seen) == set()


def test_copies_count_for_nobody_else(beside: Documents) -> None:
    labels = beside["Deployment", "monitor"]["spec"]["template"]["metadata"]["labels"]
    for (kind, name), document in beside.items():
        if kind in ("Service", "PodMonitor") and name != "monitor":
            chosen = document["spec"]["selector"]
            chosen = chosen.get("matchLabels", chosen)
            assert not chosen.items() <= labels.items(), f"{kind} {name}"
    (endpoint,) = beside["PodMonitor", "monitor"]["spec"]["podMetricsEndpoints"]
    (rule,) = endpoint["metricRelabelings"]
    assert (rule["action"], rule["regex"]) == ("keep", "behaviour_.+")


def test_only_the_gateway_and_prometheus_reach_the_monitor(beside: Documents) -> None:
    own = beside["NetworkPolicy", "monitor"]["spec"]
    assert own["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "monitor"}
    callers = [
        each["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for rule in own["ingress"]
        for each in rule["from"]
    ]
    assert callers == ["gateway", "prometheus"] and own["policyTypes"] == ["Ingress"]
    way = beside["NetworkPolicy", "copies-for-the-monitor"]["spec"]
    assert way["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "gateway"}


def test_a_project_may_have_both_components_with_a_verified_model(project: Path) -> None:
    verified = rendering.build_with(project, "staging", "monitor-in-path", "cpu")
    rollout = next(each for each in verified if each["kind"] == "Rollout")
    assert [each["name"] for each in rollout["spec"]["template"]["spec"]["initContainers"]] == [
        "monitor"
    ]
    models = project / "argocd/apps/models.yaml"
    kinds = {each["kind"] for each in rendering.build_with(project, "staging", *BESIDE)}
    assert all(f"kind: {kind}}}" in models.read_text() for kind in kinds - {"Namespace"})
