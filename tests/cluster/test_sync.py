"""From an empty cluster to what Git says, and back to it when somebody changes the cluster."""

import json
import re
from urllib.request import urlopen

import pytest

from delivered import Delivered, synced
from kubernetes_api import Object

NAMESPACE = "digit-classifier-staging"


@pytest.mark.parametrize("name", ["root", "argo-cd", "configs", "gateway-kinds"])
def test_what_can_be_installed_here_is_synced_and_healthy(delivered: Delivered, name: str) -> None:
    # Kinds are established a moment after they were made, of which Argo CD hears at its next look.
    delivered.kubernetes.until(f"application/{name}", bool)
    delivered.look_at(name)
    delivered.kubernetes.until(f"application/{name}", synced)


def test_the_first_sync_finds_everything_in_its_order(delivered: Delivered) -> None:
    delivered.kubernetes.until("application/root", synced)
    assert "Degraded" not in delivered.seen["root"]


def test_every_chart_has_an_application(delivered: Delivered) -> None:
    charts = delivered.project.folder / "argocd/base/platform/controllers"
    found = delivered.kubernetes.items("applications", "argocd")
    names = {each["metadata"]["name"] for each in found}
    assert {path.stem for path in charts.glob("*.yaml")} <= names


@pytest.fixture
def serving(delivered: Delivered) -> Delivered:
    """Staging serves some release."""
    delivered.serving()
    return delivered


def test_a_changed_pod_template_is_taken_back(serving: Delivered) -> None:
    kubernetes = serving.kubernetes
    before = kubernetes.get("rollout/triton", NAMESPACE)["spec"]["template"]
    patch = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 7}}}}
    kubernetes.kubectl(
        *("patch", "rollout/triton", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch))
    )
    serving.rollout(lambda seen: seen["spec"]["template"] == before)


def test_a_deleted_service_comes_back(serving: Delivered) -> None:
    kubernetes = serving.kubernetes
    before = kubernetes.get("service/triton", NAMESPACE)["metadata"]["uid"]
    kubernetes.kubectl("delete", "service/triton", "-n", NAMESPACE)
    kubernetes.until("service/triton", lambda seen: uid(seen) != before, NAMESPACE)


def test_a_changed_label_is_taken_back(serving: Delivered) -> None:
    label = "app.kubernetes.io/version"
    wanted = serving.kubernetes.get("rollout/triton", NAMESPACE)["metadata"]["labels"][label]
    serving.kubernetes.kubectl(
        *("label", "rollout/triton", "-n", NAMESPACE, "--overwrite", f"{label}=evil")
    )
    serving.rollout(lambda seen: seen["metadata"]["labels"][label] == wanted)


def test_replicas_stay_as_whoever_scales_sets_them(serving: Delivered) -> None:
    serving.scale(2)
    # A sync that applies the Rollout itself; of others it is left out, as it is not out of sync.
    limit = "revisionHistoryLimit"
    serving.project.change("argocd/base/triton/rollout.yaml", f"{limit}: 5", f"{limit}: 6")
    serving.see()
    rollout = serving.rollout(lambda seen: seen["spec"][limit] == 6)
    assert rollout["spec"]["replicas"] == 2
    serving.application(synced)
    serving.scale(1)


def test_what_git_no_longer_has_goes(serving: Delivered) -> None:
    budget = "argocd/base/triton/disruption-budget.yaml"
    without, field = "spec:\n", "unhealthyPodEvictionPolicy"
    more = f"{without}  {field}: AlwaysAllow\n"
    for old, new, wanted in ((without, more, "AlwaysAllow"), (more, without, None)):
        serving.project.change(budget, old, new)
        serving.see()
        serving.kubernetes.until(
            "poddisruptionbudget/triton",
            lambda seen, wanted=wanted: seen["spec"].get(field) == wanted,
            NAMESPACE,
        )


def test_what_git_never_had_is_left_alone(serving: Delivered) -> None:
    kubernetes = serving.kubernetes
    kubernetes.kubectl("create", "configmap", "of-somebody", "-n", NAMESPACE, "--from-literal=a=b")
    before = kubernetes.get("configmap/of-somebody", NAMESPACE)
    service = kubernetes.get("service/triton", NAMESPACE)["metadata"]["uid"]
    kubernetes.kubectl("delete", "service/triton", "-n", NAMESPACE)
    kubernetes.until("service/triton", lambda seen: uid(seen) != service, NAMESPACE)
    assert kubernetes.get("configmap/of-somebody", NAMESPACE) == before


def test_argo_tells_prometheus_what_the_alerts_ask_for(serving: Delivered) -> None:
    version = serving.application(synced)["metadata"]["labels"]["model-version"]
    told = metrics(serving, "argocd", "argocd-application-controller", 8082)
    assert {"name": NAMESPACE, "label_model_version": version} in seen_of(
        told["argocd_app_labels"], "name", "label_model_version"
    )
    state = {"name": NAMESPACE, "autosync_enabled": "true", "sync_status": "Synced"}
    assert state in seen_of(told["argocd_app_info"], *state)
    told = metrics(serving, "argo-rollouts", "argo-rollouts", 8090)
    server = {"namespace": NAMESPACE, "name": "triton"}
    for name in ("info", "info_replicas_available", "info_replicas_desired"):
        assert server in seen_of(told[f"rollout_{name}"], *server)
    assert all("phase" in each for each in told["rollout_info"])


def metrics(serving: Delivered, namespace: str, name: str, port: int) -> dict[str, list[Object]]:
    """The labels of every series that a program tells, by the metric's name."""
    selector = f"app.kubernetes.io/name={name}"
    (pod,) = serving.kubernetes.items("pods", namespace, selector)
    with urlopen(f"http://{pod['status']['podIP']}:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, list[Object]] = {}
    for line in lines:
        name, _, rest = line.partition("{")
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', rest)))
    return found


def seen_of(series: list[Object], *names: str) -> list[Object]:
    """The labels of these names only."""
    return [{name: each.get(name) for name in names} for each in series]


def uid(seen: Object) -> str:
    """Which object it is, among all that ever had its name."""
    return seen["metadata"]["uid"]
