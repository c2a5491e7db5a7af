"""A probe in an overlay: one line more, and what it makes of an environment."""

from pathlib import Path

import pytest
import yaml

import rendering
import schemas
from delivery.checks.pod_security import pod_templates, violations

Documents = dict[tuple[str, str], dict]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rendering.released_project(tmp_path_factory.mktemp("probe"))


@pytest.fixture(scope="module")
def built(project: Path) -> Documents:
    return rendering.by_name(rendering.build_with(project, "staging", "probe"))


@pytest.fixture(scope="module")
def probe(built: Documents) -> dict:
    return built["CronJob", "probe"]


def test_it_asks_with_the_images_of_the_server_and_the_release(
    built: Documents, probe: dict
) -> None:
    release = yaml.safe_load(rendering.RELEASE)["data"]
    pod = pod_templates(probe)[""]["spec"]
    (server,) = built["Rollout", "triton"]["spec"]["template"]["spec"]["containers"]
    (container,) = pod["containers"]
    assert container["image"] == server["image"]
    assert container["args"] == ["/models/classifier/golden.npz", release["version"]]
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["model"]["image"]["reference"] == release["image"]
    named = [each["configMap"]["name"] for each in volumes["scripts"]["projected"]["sources"]]
    files = {file for each in named for file in built["ConfigMap", each]["data"]}
    assert files == {"probe.py", "golden_answers.py"}


def test_nothing_else_changes(project: Path, built: Documents) -> None:
    plain = rendering.build_with(project, "staging")
    before = {(each["kind"], each["metadata"]["name"]): each for each in plain}
    assert {key: each for key, each in built.items() if key in before} == before
    assert built.keys() - before.keys() == {("CronJob", "probe"), ("ConfigMap", "probe")}


def test_it_keeps_the_restricted_level_and_may_ask_the_servers_only(
    built: Documents, probe: dict
) -> None:
    assert schemas.core_errors(probe) == []
    template = pod_templates(probe)[""]
    assert violations(template["spec"]) == set()
    labels = template["metadata"]["labels"].items()
    policies = [each["spec"] for (kind, _), each in built.items() if kind == "NetworkPolicy"]
    own = [
        each
        for each in policies
        if (each["podSelector"].get("matchLabels") or {}).items() <= labels
    ]
    ways = [way for each in own for way in each.get("egress", [])]
    servers = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "triton"}}}
    assert ways == [{"to": [servers], "ports": [{"port": "http"}]}]


def test_a_minute_without_an_answer_takes_no_version_back(project: Path, probe: dict) -> None:
    """Argo CD would have it Degraded, of which notifications make a proposal to go back."""
    assert probe["metadata"]["annotations"] == {"argocd.argoproj.io/ignore-healthcheck": "true"}
    job = probe["spec"]["jobTemplate"]["spec"]
    assert (job["backoffLimit"], probe["spec"]["concurrencyPolicy"]) == (0, "Forbid")
    assert job["activeDeadlineSeconds"] < 60, "the next comes a minute later"
    (models,) = (
        each
        for each in rendering.build(project / "argocd/apps")
        if (each["kind"], each["metadata"]["name"]) == ("AppProject", "models")
    )
    allowed = models["spec"]["namespaceResourceWhitelist"]
    assert {"group": "batch", "kind": "CronJob"} in allowed
