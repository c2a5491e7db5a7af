"""Alerts fire, keep still and recover; they and the dashboards find what a real server tells.

Series are written in promtool's own way, a sample each minute: `1x3` is 1 four times, `0+6x3` is
0 6 12 18, `_x3` is nothing three times.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import combinations, count
from pathlib import Path

import numpy as np
import pytest
import yaml

import monitored
import observed
import rendering
from conftest import TEMPLATE, UNBAKED
from delivery.commands.drift import nested
from delivery.errors import DeliveryError
from delivery.manifests.told_analysis import TASK
from delivery.model.drift import Behaviour, Feature
from delivery.triton.client import connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start
from observed import CONFIGS, DASHBOARDS, REPOSITORY, ask, read_rules
from registry_tools import need
from tiny import SHAPE, write_repository

RUNBOOK = TEMPLATE / "argocd/operations.md"
FIRING = 'count by (alertname) (ALERTS{alertstate="firing"})'


OF_BEHAVIOUR = read_rules("behaviour")
OF_ONE_VERSION = [each for each in OF_BEHAVIOUR if each["name"] != "behaviour-before"]
OF_ALL_ELSE = [*read_rules("model"), *read_rules("delivery")]
GROUPS = [*OF_ALL_ELSE, *OF_BEHAVIOUR]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}

SERVED = 'namespace="p-staging", model="classifier"'
SUCCESS = f'nv_inference_request_success{{{SERVED}, version="8"}}'
FAILURE = f'nv_inference_request_failure{{{SERVED}, version="8", reason="BACKEND"}}'
DURATION = f'nv_inference_request_duration_us{{{SERVED}, version="8"}}'
ROLLOUT = 'namespace="p-staging", name="triton"'
AVAILABLE = f"rollout_info_replicas_available{{{ROLLOUT}}}"
IN_GIT = 'argocd_app_labels{name="p-staging", label_model_version="8"}'
APPLICATION = 'argocd_app_info{name="p-staging", autosync_enabled="true", sync_status="Synced"}'
GPU = 'Hostname="node", gpu="0"'
USED, FAULT = (f"DCGM_FI_DEV_{name}{{{GPU}}}" for name in ("GPU_UTIL", "XID_ERRORS"))
NODE = 'kube_node_status_capacity{node="node", resource="cpu", unit="core"}'
GPUS = 'kube_node_status_capacity{node="node", resource="nvidia_com_gpu", unit="integer"}'
PROBE = 'namespace="p-staging", cronjob="probe"'
ASKED, ANSWERED = (
    f"kube_cronjob_{name}{{{PROBE}}}" for name in ("created", "status_last_successful_time")
)
VERSION = 'namespace="p-staging", model="classifier", version="8"'
JUDGED = f'behaviour_seen_total{{{VERSION}, outcome="judged"}}'
WAITING = 'kube_pod_container_status_waiting_reason{namespace="p-staging", pod="triton-a"'


def bins(feature: str, **values: str) -> dict[str, str]:
    """Series of the pictures in the bins of a feature."""
    return {
        f'behaviour_pictures_total{{{VERSION}, feature="{feature}", bin="{name}"}}': series
        for name, series in values.items()
    }


def shares(feature: str, **values: float) -> dict[str, str]:
    """Series of the shares of held-out pictures there."""
    return {
        f'behaviour_reference_share{{{VERSION}, feature="{feature}", bin="{name}"}}': f"{value}x600"
        for name, value in values.items()
    }


# Ten requests a second, each of them 10 ms; callers who leave are nobody's failure.
HEALTHY = {
    SUCCESS: "0+600x600",
    FAILURE: "0x600",
    FAILURE.replace("BACKEND", "CANCELED"): "0+60x600",
    DURATION: "0+6000000x600",
    AVAILABLE: "2x600",
    f"rollout_info_replicas_desired{{{ROLLOUT}}}": "2x600",
    f'rollout_info{{{ROLLOUT}, phase="Completed"}}': "1x600",
    APPLICATION: "1x600",
    IN_GIT: "1x600",
    'argocd_app_sync_total{name="p-staging", phase="Succeeded"}': "1x600",
    'up{namespace="argo-rollouts"}': "1x600",
    USED: "40x600",
    FAULT: "0x600",
    NODE: "4x600",
    GPUS: "1x600",
    ASKED: "0x600",
    ANSWERED: "0+60x600",  # seconds
}
# What is otherwise, and which alerts fire after how many minutes; no others do.
CASES: dict[str, tuple[dict[str, str], dict[int, set[str]]]] = {
    "healthy": ({}, {minute: set() for minute in (5, 60, 200)}),
    "a tenth fails for an hour": (
        {FAILURE: "0x60 0+60x60 3600x480"},
        {
            60: set(),
            90: {"ModelErrorsFast", "ModelErrorsSlow"},
            200: {"ModelErrorsSlow"},
            590: set(),
        },
    ),
    "five times as many fail as may": (
        {FAILURE: "0+3x120 360x480"},
        {100: {"ModelErrorsSlow"}, 590: set()},
    ),
    "half as many fail as may": ({FAILURE: "0+0.3x600"}, {100: set(), 200: set()}),
    "one of few requests fails": (
        {SUCCESS: "0+0.1x600", FAILURE: "0x60 1x540"},
        {61: set(), 90: set(), 200: set()},
    ),
    "requests take ten times as long": (
        {DURATION: "0+6000000x60 420000000+60000000x60 4026000000+6000000x480"},
        {60: set(), 110: {"ModelSlow"}, 130: set()},
    ),
    "all servers go": (
        {AVAILABLE: "2x60 0x30 2x510"},
        {62: set(), 65: {"ModelDown"}, 95: set()},
    ),
    "a first release waits for its node": ({AVAILABLE: "0x600"}, {60: set(), 200: set()}),
    "a recorded request has no answer for a quarter of an hour": (
        {ANSWERED: "0+60x60 3600x15 4560+60x520"},
        {64: set(), 66: {"ModelUnanswered"}, 75: {"ModelUnanswered"}, 77: set()},
    ),
    "a recorded request never had an answer": (
        {ANSWERED: "_x120 7200+60x480"},
        {60: set(), 61: {"ModelUnanswered"}, 119: {"ModelUnanswered"}, 121: set()},
    ),
    "an environment sleeps": (
        {
            AVAILABLE: "2x59 0x399 2x140",
            f"rollout_info_replicas_desired{{{ROLLOUT}}}": "2x59 0x399 2x140",
            ANSWERED: "0+60x59 3540x402 27780+60x140",
        },
        {62: set(), 300: set(), 462: set(), 590: set()},
    ),
    "nobody asks": ({ASKED: "_x600", ANSWERED: "_x600"}, {5: set(), 200: set()}),
    "servers are not scraped": (
        {SUCCESS: "0+600x30 stale _x60 60000+600x500"},
        {38: set(), 60: {"ModelUnseen"}, 120: set()},
    ),
    "two syncs fail": (
        {'argocd_app_sync_total{name="p-staging", phase="Failed"}': "_x60 1x60 2x480"},
        {50: set(), 70: {"SyncFailed"}, 90: set(), 130: {"SyncFailed"}, 150: set()},
    ),
    "the cluster is not as Git says": (
        {APPLICATION.replace("Synced", "OutOfSync"): "_x60 1x60 stale"},
        {80: set(), 100: {"OutOfSync"}, 130: set()},
    ),
    "a version is aborted": (
        {f'rollout_info{{{ROLLOUT}, phase="Abort"}}': "_x60 1x30 stale"},
        {62: set(), 75: {"RolloutDegraded"}, 100: set()},
    ),
    "a rollout goes on, waits, and does not end": (
        {
            f'rollout_info{{{ROLLOUT}, phase="Progressing"}}': "_x60 1x30 stale",
            f'rollout_info{{{ROLLOUT}, phase="Paused"}}': "_x91 1x60 stale",
        },
        {100: set(), 140: {"RolloutStuck"}, 160: set()},
    ),
    "the next version does not come": (
        {
            IN_GIT: "1x60 stale",
            IN_GIT.replace('"8"', '"9"'): "_x61 1x539",
            SUCCESS: "0+600x120 stale",
            SUCCESS.replace('"8"', '"9"'): "_x121 0+600x480",
        },
        {60: set(), 90: set(), 110: {"VersionDiffers"}, 125: set()},
    ),
    "an image cannot be pulled": (
        {
            f'{WAITING}, reason="ErrImagePull"}}': "_x60 1x3 stale",
            f'{WAITING}, reason="ImagePullBackOff"}}': "_x64 1x10 stale",
            f'{WAITING}, reason="ContainerCreating"}}': "1x600",
        },
        {63: set(), 70: {"ImagePullFailing"}, 80: set()},
    ),
    "a GPU falls off its bus": (
        {FAULT: "0x60 79x30 0x500"},
        {60: set(), 65: {"GpuFault"}, 95: set()},
    ),
    "a program reads beyond its memory": (
        {FAULT: "31x600"},
        {60: set(), 90: set()},
    ),
    "a GPU does nothing": (
        {USED: "40x60 0x420 40x120"},
        {400: set(), 450: {"GpuIdle"}, 500: set()},
    ),
    "nobody sees Argo Rollouts": (
        {'up{namespace="argo-rollouts"}': "1x60 0x30 1x500"},
        {70: set(), 80: {"DeliveryUnseen"}, 95: set()},
    ),
    "nobody sees Argo CD": (
        {APPLICATION: "1x60 stale _x30 1x500"},
        {70: set(), 80: {"DeliveryUnseen"}, 95: set()},
    ),
    "nobody sees what Kubernetes holds": (
        {NODE: "4x60 stale _x30 4x500", GPUS: "1x60 stale _x30 1x500"},
        {70: set(), 80: {"ClusterUnseen"}, 95: set()},
    ),
    "nobody sees the GPUs": (
        {
            USED: "40x60 stale _x30 40x500",
            FAULT: "0x60 stale _x30 0x500",
        },
        {70: set(), 80: {"GpuUnseen"}, 95: set()},
    ),
    "nobody sees the GPUs of one node of two": (
        {GPUS.replace('"node"', '"other"'): "_x60 1x30 stale"},
        {70: set(), 80: {"GpuUnseen"}, 95: set()},
    ),
    "a node with GPUs comes, and its figures after it": (
        {
            GPUS.replace('"node"', '"other"'): "_x60 1x540",
            USED.replace("node", "other"): "_x70 40x530",
        },
        {70: set(), 80: set(), 200: set()},
    ),
    "no node has GPUs": (
        dict.fromkeys((GPUS, USED, FAULT), "_x600"),
        {5: set(), 60: set(), 200: set()},
    ),
}


# Twenty pictures a minute, as they were held out: of two classes, and 19 of 20 answers are sure.
BEHAVING = {
    SUCCESS: "0+600x600",
    JUDGED: "0+20x600",
    f"behaviour_reference_pictures{{{VERSION}}}": "600x600",
    f"behaviour_reference_labelled{{{VERSION}}}": "300x600",
    f"behaviour_reference_accuracy{{{VERSION}}}": "0.95x600",
    **shares("class", cat=0.5, dog=0.3, owl=0.2),
    **shares("sure", yes=0.95, no=0.05),
    **bins("class", cat="0+10x600", dog="0+6x600", owl="0+4x600"),
    **bins("sure", yes="0+19x600", no="0+1x600"),
}
# The same of it: rules of behaviour look at nothing else.
OTHER_BEHAVIOUR: dict[str, tuple[dict[str, str], dict[int, set[str]]]] = {
    "pictures as they were held out": ({}, {60: set(), 200: set()}),
    "most pictures are of one class for an hour": (
        bins(
            "class",
            cat="0+10x60 600+0x60 600+10x480",
            dog="0+6x60 360+1x60 420+6x480",
            owl="0+4x60 240+19x60 1380+4x480",
        ),
        {60: set(), 110: {"ModelDrifting"}, 140: set(), 200: set()},
    ),
    "a class has a few more pictures": (
        bins("class", cat="0+8x600", dog="0+7x600", owl="0+5x600"),
        {60: set(), 200: set()},
    ),
    "few pictures are of one class": (
        {
            JUDGED: "0+3x600",
            **bins("class", cat="0x600", dog="0x600", owl="0+3x600"),
            **bins("sure", yes="0+3x600", no="0x600"),
        },
        {60: set(), 200: set()},
    ),
    "three of ten answers are not sure for an hour": (
        bins("sure", yes="0+19x60 1140+14x60 1980+19x480", no="0+1x60 60+6x60 420+1x480"),
        {60: set(), 115: {"ModelDrifting", "ModelUnsure"}, 140: set(), 200: set()},
    ),
    "the monitor dies, and is there again": (
        {JUDGED: "0+20x60 1200x60 0+20x480"},
        {60: set(), 100: {"BehaviourUnseen"}, 140: set()},
    ),
    "requests are not looked at, as nobody asked for it": (
        dict.fromkeys(BEHAVING, "_x600"),
        {60: set(), 200: set()},
    ),
}


def promtool(folder: Path, series: dict[str, str], expected: dict, groups: list[dict]) -> None:
    """Have promtool evaluate groups of rules on series."""
    need("prometheus")
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"groups": groups}))
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    test = {"interval": "1m", "input_series": inputs, **expected}
    test["external_labels"] = {"repository": REPOSITORY}
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": [test]}))
    result = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def check(folder: Path, series: dict, moments: dict[int, set[str]], groups: list[dict]) -> None:
    """Have exactly these alerts fire at these minutes."""
    asked = [
        {
            "expr": FIRING,
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)
            ],
        }
        for minute, alerts in moments.items()
    ]
    promtool(folder, series, {"promql_expr_test": asked}, groups)


@pytest.mark.parametrize("case", CASES)
def test_alerts_fire_keep_still_and_recover(tmp_path: Path, case: str) -> None:
    series, moments = CASES[case]
    check(tmp_path, HEALTHY | series, moments, OF_ALL_ELSE)


@pytest.mark.parametrize("case", OTHER_BEHAVIOUR)
def test_alerts_of_behaviour_fire_keep_still_and_recover(tmp_path: Path, case: str) -> None:
    series, moments = OTHER_BEHAVIOUR[case]
    check(tmp_path, BEHAVING | series, moments, OF_ONE_VERSION)


# Git names version 8 from the 20th minute on; until then version 7 had the pictures.
TWO_VERSIONS = {
    IN_GIT.replace('"8"', '"7"'): "1x20 stale",
    IN_GIT: "_x20 1x80",
    **{
        series.replace('version="8"', 'version="7"'): values
        for series, values in {
            **bins("class", cat="0+10x20 200x80", dog="0+6x20 120x80"),
            **bins("sure", yes="0+15x20 300x80", no="0+1x20 20x80"),
            **bins("confidence", more="0+16x20 320x80"),
        }.items()
    },
    **bins("class", cat="_x20 0+10x80", dog="_x20 0+6x80", owl="_x20 0+4x80"),
    **bins("sure", yes="_x20 0+19x80", no="_x20 0+1x80"),
    **bins("confidence", more="_x20 0+20x80"),
}


def shifted(now: list[float], before: list[float]) -> tuple[Feature, Behaviour]:
    """A feature in the pictures of this version, and those of the version before it."""
    then = np.array(before) + 0.5
    names = [str(each) for each in range(len(now))]
    shares = dict(zip(names, then / then.sum(), strict=True))
    return Feature(dict(zip(names, now, strict=True)), shares), Behaviour({}, sum(before), 1, 1)


def test_a_version_is_compared_with_the_one_before_it(tmp_path: Path) -> None:
    wanted = {
        "class": shifted([600, 360, 240], [200, 120, 0]),
        "sure": shifted([1140, 60], [300, 20]),
    }
    asked = []
    for name, figure in {
        "psi": lambda seen, whole: seen.psi(),
        "js": lambda seen, whole: seen.js(),
        "psi_by_chance": lambda seen, whole: whole.by_chance(seen),
    }.items():
        samples = [
            {"labels": f'{{{VERSION}, feature="{feature}"}}', "value": round(figure(*each), 3)}
            for feature, each in wanted.items()
        ]
        query = f"round(behaviour:{name}:before1h, 0.001)"
        asked.append({"expr": query, "eval_time": "85m", "exp_samples": samples})
    for minute in (15, 25):  # no version before; few pictures yet
        none = {"expr": "behaviour:psi:before1h", "eval_time": f"{minute}m", "exp_samples": []}
        asked.append(none)
    groups = [*OF_BEHAVIOUR, *read_rules("delivery")]
    promtool(tmp_path, TWO_VERSIONS, {"promql_expr_test": asked}, groups)


def test_every_alert_is_seen_to_fire_and_to_recover() -> None:
    cases = CASES | OTHER_BEHAVIOUR
    fired = {
        name for _, moments in cases.values() for alerts in moments.values() for name in alerts
    }
    assert fired == set(ALERTS)
    for case, (_, moments) in cases.items():
        assert moments[max(moments)] == set(), f"{case}: say when it is over"


def test_an_alert_says_where_and_leads_to_its_runbook(tmp_path: Path) -> None:
    alert = {
        "exp_labels": {"severity": "page", "namespace": "p-staging", "name": "triton"},
        "exp_annotations": {
            "summary": "p-staging: no server is available, and one was within the last day",
            "runbook_url": f"{REPOSITORY}/blob/main/argocd/base/operations.md#modeldown",
        },
    }
    asked = [{"eval_time": "65m", "alertname": "ModelDown", "exp_alerts": [alert]}]
    series, _ = CASES["all servers go"]
    promtool(tmp_path, HEALTHY | series, {"alert_rule_test": asked}, OF_ALL_ELSE)


def test_an_alert_of_drift_says_by_how_much_and_what_prints_it(tmp_path: Path) -> None:
    alert = {
        "exp_labels": {
            **{"severity": "ticket", "namespace": "p-staging", "model": "classifier"},
            **{"version": "8", "feature": "class"},
        },
        "exp_annotations": {
            "summary": "p-staging: class is another than at the tests "
            "(population stability index 1.08)",
            "command": "make drift ENV=staging PROMETHEUS=http://127.0.0.1:9090",
            "runbook_url": f"{REPOSITORY}/blob/main/argocd/base/operations.md#modeldrifting",
        },
    }
    asked = [{"eval_time": "120m", "alertname": "ModelDrifting", "exp_alerts": [alert]}]
    series = bins("class", cat="0+2x600", dog="0+6x600", owl="0+12x600")
    promtool(tmp_path, BEHAVING | series, {"alert_rule_test": asked}, OF_ONE_VERSION)


def test_every_alert_has_its_part_of_the_runbook() -> None:
    text = RUNBOOK.read_text()
    assert set(re.findall(r"(?m)^### (\w+)$", text)) == set(ALERTS)
    table = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert set(re.findall(r"\(#(\w+)\)", table)) == {name.lower() for name in ALERTS}
    assert set(re.findall(r"\(#(\w+)\)", text)) == {name.lower() for name in ALERTS}
    for name, rule in ALERTS.items():
        assert rule["annotations"]["runbook_url"].endswith(f"/operations.md#{name.lower()}")
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_a_projects_promises_are_those_that_the_alerts_follow(tmp_path: Path) -> None:
    documents = yaml.safe_load_all((UNBAKED / "argocd/apps/platform.yaml").read_text())
    (source,) = (
        each["spec"]["source"]
        for each in documents
        if (each["kind"], each["metadata"]["name"]) == ("Application", "configs")
    )
    shutil.copytree(CONFIGS, tmp_path / "configs")
    file = tmp_path / "configs/kustomization.yaml"
    asked = yaml.safe_dump(source["kustomize"]).replace("vector(0.", "vector(0.4")
    file.write_text(file.read_text() + asked)
    (made,) = [each for each in rendering.build(file.parent) if each["metadata"]["name"] == "model"]
    before, after = (groups[0]["rules"] for groups in (GROUPS, made["spec"]["groups"]))
    for old, new in zip(before, after, strict=True):
        assert new == old | {"expr": old["expr"].replace("vector(0.", "vector(0.4")}
        used = f"scalar({new['record']})"
        assert any(used in rule["expr"] for rule in ALERTS.values()), used


def test_alerts_open_issues_that_say_what_they_say(tmp_path: Path) -> None:
    made = rendering.configs_with(tmp_path, "issues")
    spec = made["AlertmanagerConfig", "issues"]["spec"]
    (matcher,) = spec["route"]["matchers"]
    assert matcher["matchType"] == "=~"
    assert set(matcher["value"].split("|")) == {
        each["labels"]["severity"] for each in ALERTS.values()
    }
    (receiver,) = spec["receivers"]
    assert receiver["name"] == spec["route"]["receiver"]
    (webhook,) = receiver["webhookConfigs"]
    named = {webhook["urlSecret"]["name"]}
    named.add(webhook["httpConfig"]["authorization"]["credentials"]["name"])
    readme = (UNBAKED / "argocd/README.md").read_text()
    (secret,) = named
    assert f"create secret generic {secret} " in readme
    payload = webhook["payload"].replace("with .Annotations.command", "")  # which few have
    used = set(re.findall(r"\.(Annotations|Labels)\.(\w+)", payload))
    for alert in ALERTS.values():
        has = {("Annotations", name) for name in alert["annotations"]}
        assert used <= has | {("Labels", name) for name in alert["labels"]}
    chart = yaml.safe_load((CONFIGS.parent / "controllers/kube-prometheus-stack.yaml").read_text())
    strategy = chart["settings"]["alertmanager"]["alertmanagerSpec"]
    assert strategy == {"alertmanagerConfigMatcherStrategy": {"type": "None"}}, "of all namespaces"


def test_a_project_may_want_all_that_its_lines_offer(tmp_path: Path) -> None:
    made = rendering.configs_with(tmp_path, "issues", "figures", "image-cache")
    assert {
        ("AlertmanagerConfig", "issues"),
        ("ConfigMap", "argo-rollouts-notification-configmap"),
        ("MutatingAdmissionPolicy", "image-cache"),
        ("PrometheusRule", "model"),
    } <= made.keys()


def test_argo_rollouts_tells_of_models_what_whoever_reads_it_looks_for(tmp_path: Path) -> None:
    made = rendering.configs_with(tmp_path, "figures")
    settings = made["ConfigMap", "argo-rollouts-notification-configmap"]
    chart = yaml.safe_load((CONFIGS.parent / "controllers/argo-rollouts.yaml").read_text())
    assert settings["metadata"]["namespace"] == chart["namespace"]
    assert chart["settings"]["notifications"] == {"configmap": {"create": False}}, "one owner"
    known = settings["data"]
    readme = (UNBAKED / "argocd/README.md").read_text()
    (command,) = re.findall(r"create secret generic argo-rollouts-.*?--filename=-", readme, re.S)
    needed = re.findall(r"\$(github-\w+)", known["service.webhook.github"])
    assert set(needed) == set(re.findall(r"--from-literal=(\S+?)=", command))
    assert f"--namespace {chart['namespace']} create secret generic" in readme
    (subscription,) = yaml.safe_load(known["subscriptions"])
    (trigger,) = subscription["triggers"]
    (condition,) = yaml.safe_load(known[f"trigger.{trigger}"])
    (template,) = condition["send"]
    (service,) = yaml.safe_load(known[f"template.{template}"])["webhook"]
    assert f"service.webhook.{service}" in known and subscription["recipients"] == [service]
    rollout = yaml.safe_load((TEMPLATE / "argocd/triton/rollout.yaml").read_text())
    key, _, value = subscription["selector"].partition("=")
    assert rollout["metadata"]["labels"][key] == value
    assert f'"task" "{TASK}"' in known[f"template.{template}"]


# -- real figures ----------------------------------------------------------------------------------

# What Triton tells, and what is recorded of it; the other names are those of the series above.
OF_TRITON = re.compile(r"\b(?:nv|slo|model|objective)[_:][\w:]+(?:\{[^}]*\})?")


QUERIES = {
    f"{name}: {panel['title']} {target['refId']}": target["expr"]
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel["targets"]
} | {
    f"{name}: {each['name']}": each["expr"]
    for name, dashboard in DASHBOARDS.items()
    for each in dashboard["annotations"]["list"]
}
MANIFESTS = [
    each
    for path in (TEMPLATE / "argocd").rglob("*.yaml")
    for each in yaml.safe_load_all(path.read_text())
]
ANALYSES = {
    f"{each['metadata']['name']}: {metric['name']}": metric["provider"]["prometheus"]["query"]
    for each in MANIFESTS
    if isinstance(each, dict) and each.get("kind") == "AnalysisTemplate"
    for metric in each["spec"]["metrics"]
    if "prometheus" in metric["provider"]
}
SCALERS = {
    f"scaler: {trigger['name']}": trigger["metadata"]["query"].replace("triton", "p-staging")
    for each in MANIFESTS
    if isinstance(each, dict) and each.get("kind") == "ScaledObject"
    for trigger in each["spec"]["triggers"]
    if trigger["type"] == "prometheus"
}
QUERIES |= ANALYSES | SCALERS
PODS, STABLE = "9c8d7b6f5", "5f6b7d8c9"  # hashes
# What a person chooses, the step of what is summed over a week, and what an analysis is given.
CHOSEN = {"$namespace": "p-staging", "$price": "2", "[7d:1h]": "[7d:1s]"}
GIVEN = {"namespace": "p-staging", "pods": PODS, "stable": STABLE, "requests": "1", "window": "1m"}
# What other programs than Triton tell of, as Prometheus reads it of them.
EXPORTED = [series for series in HEALTHY if not series.startswith(("nv_", "up"))] + [
    f"rollout_info_replicas_updated{{{ROLLOUT}}}",
    f'behaviour_pictures_total{{{SERVED}, feature="class", rollouts_pod_template_hash="{PODS}"}}',
    f"DCGM_FI_DEV_FB_USED{{{GPU}}}",
    f"DCGM_FI_DEV_FB_FREE{{{GPU}}}",
    f"DCGM_FI_DEV_POWER_USAGE{{{GPU}}}",
    'analysis_run_info{namespace="p-staging", name="triton-1", phase="Successful"}',
    'kube_pod_container_resource_requests{namespace="p-staging", resource="nvidia_com_gpu"}',
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a monitor in the path, which tells what one without tells, and more."""
    folder = tmp_path_factory.mktemp("model")
    monitored.arrange(monitored.write_model(folder, version=8), folder / "monitored")
    running = start(folder / "monitored", folder / "triton.log")
    try:
        running.wait(ready_path(8), 300)
        yield running
    finally:
        running.kill()


# The version before had so many pictures, more each time that it is asked.
BEFORE = [
    f'behaviour_pictures_total{{{SERVED}, version="7", feature="{feature}", bin="{name}"}}'
    for feature, names in {"class": monitored.NAMES, "sure": ("yes", "no")}.items()
    for name in names
]


# Its pods were asked as at its tests, and counted as many more.
ITS_PODS = f'{SERVED}, rollouts_pod_template_hash="{STABLE}"'
HALVES = [f'{{{ITS_PODS}, feature="confidence", bin="{name}"}}' for name in ("0.9", "more")]
BEFORE += [f"behaviour_pictures_total{each}" for each in HALVES]
BEFORE += [f'behaviour_pictures_total{{{ITS_PODS}, feature="class", bin="{monitored.NAMES[0]}"}}']
TESTED = {f"behaviour_reference_share{each}": 0.5 for each in HALVES}
TESTED[f"behaviour_reference_pictures{{{ITS_PODS}}}"] = 600
COUNTED = count(0, 400)  # pictures in each of these bins


def told() -> str:
    """Of each series that it is 1, and of those of the version before what is counted."""
    values = dict.fromkeys(EXPORTED, 1) | dict.fromkeys(BEFORE, next(COUNTED)) | TESTED
    return "".join(f"{series} {value}\n" for series, value in values.items())


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that scrapes the server as in the namespace of staging."""
    need("prometheus")
    target = observed.target(server, "p-staging", 8, rollouts_pod_template_hash=PODS)
    with observed.exporter(told) as port:
        jobs = [
            {
                "job_name": "triton",
                "static_configs": [target],
                "metric_relabel_configs": observed.kept(),
            },
            {
                "job_name": "others",
                "honor_labels": True,
                "static_configs": [{"targets": [f"{HOST}:{port}"]}],
            },
        ]
        folder = tmp_path_factory.mktemp("prometheus")
        with observed.prometheus(folder, GROUPS, jobs, "1s") as address:
            yield address


def chosen(query: str) -> str:
    """A query as Grafana or Argo Rollouts asks it."""
    given = {f"{{{{args.{name}}}}}": value for name, value in GIVEN.items()}
    for name, value in (CHOSEN | given).items():
        query = query.replace(name, value)
    return query


def test_every_expression_finds_what_the_real_server_tells(server: Server, prometheus: str) -> None:
    missing = {found for rule in RULES for found in OF_TRITON.findall(rule["expr"])}
    missing |= {rule["expr"] for rule in RULES if "record" in rule} | set(QUERIES.values())
    assert len(missing) > 50 and (len(ANALYSES), len(SCALERS)) == (4, 4)
    deadline = time.monotonic() + 120
    with connect("http", server.ports) as client:
        while missing and time.monotonic() < deadline:
            client.infer(np.zeros((16, *SHAPE), np.uint8))  # 200 are needed
            missing -= {
                each
                for each in missing
                if ask(prometheus, "query", query=chosen(each)).get("result")
            }
            time.sleep(0.1)
    assert not missing
    groups = ask(prometheus, "rules")["groups"]
    assert len(groups) == len(GROUPS)
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert "err" not in health.values(), health


def test_requests_count_as_those_of_the_version_that_answers_them(
    server: Server, prometheus: str
) -> None:
    query = "sum by (version) (nv_inference_request_success{namespace='p-staging'})"
    found: list[dict] = []
    deadline = time.monotonic() + 60
    with connect("http", server.ports) as client:
        while not any(float(each["value"][1]) for each in found):
            assert time.monotonic() < deadline, found
            client.infer(np.zeros((1, *SHAPE), np.uint8))
            found = ask(prometheus, "query", query=query).get("result", [])
    assert [each["metric"] for each in found] == [{"version": "8"}]


def test_drift_is_what_numpy_makes_of_the_same_pictures(server: Server, prometheus: str) -> None:
    series = "behaviour:pictures:increase1h", "behaviour_reference_share"
    with connect("http", server.ports) as client:
        deadline, found, told = time.monotonic() + 60, {}, {}
        while not (found and found["class"].pictures > 100 and all(told.values())):
            assert time.monotonic() < deadline
            client.infer(monitored.pictures(8, seed=9) // 2)
            moment = str(time.time() - 5)  # all of a moment that is over
            values = [
                [(each["metric"], float(each["value"][1])) for each in answer.get("result", [])]
                for answer in (ask(prometheus, "query", query=name, time=moment) for name in series)
            ]
            counted, shares = (nested(each).get("8", {}) for each in values)
            found = {name: Feature(counted.get(name, {}), each) for name, each in shares.items()}
            asked = {
                name: ask(prometheus, "query", query=f"behaviour:{name}:1h", time=moment)
                for name in ("psi", "js", "psi_by_chance")
            }
            told = {
                name: {
                    each["metric"]["feature"]: float(each["value"][1])
                    for each in answer.get("result", [])
                }
                for name, answer in asked.items()
            }
            time.sleep(0.1)
    whole = Behaviour(found, 600, 300, 0.9)
    assert found.keys() == told["psi"].keys() >= {"class", "sure", "brightness", "saturation"}
    for name, feature in found.items():
        assert told["psi"][name] == pytest.approx(feature.psi(), rel=1e-6, abs=1e-9)
        assert told["js"][name] == pytest.approx(feature.js(), rel=1e-6, abs=1e-9)
        chance = pytest.approx(whole.by_chance(feature), rel=1e-6)
        assert told["psi_by_chance"][name] == chance
    assert found["brightness"].psi() > 0.2


BUCKETS = """
model_metrics { metric_control: [ {
  metric_identifier: { family: "nv_inference_first_response_histogram_ms" }
  histogram_options: { buckets: [ 1, 9, 49, 99 ] }
} ] }
"""


def test_triton_takes_no_buckets_here_so_what_is_promised_is_a_mean(tmp_path: Path) -> None:
    repository = write_repository(tmp_path / "model")
    with (repository / "classifier/config.pbtxt").open("a") as file:
        file.write(BUCKETS)
    refused = start(repository, tmp_path / "log")
    with refused, pytest.raises(DeliveryError, match="failed to read text proto"):
        refused.wait(ready_path(1), 300)
    assert 'no field named "model_metrics"' in (tmp_path / "log").read_text()
    asked = [*(rule["expr"] for rule in RULES), *QUERIES.values()]
    newer = ("nv_inference_first_response_histogram_ms", "nv_model_load_duration_secs")
    assert not [each for each in asked if any(name in each for name in newer)]


# -- dashboards ------------------------------------------------------------------------------------

# Written by hand after Grafana's published model (grafana-foundation-sdk 11.6): the fields that a
# part of a dashboard must have, and may, as far as they are used here. `step` and `titleFormat` are
# what Grafana's Prometheus data source reads of an annotation.
FIELDS = {
    "dashboard": (
        "uid title tags schemaVersion editable timezone refresh time annotations templating panels",
        "description links",
    ),
    "time": ("from to", ""),
    "panel": ("id type title datasource gridPos fieldConfig targets", "description options"),
    "gridPos": ("x y w h", ""),
    "fieldConfig": ("defaults overrides", ""),
    "defaults": ("unit", "min max decimals"),
    "options": ("legend", "showValue"),
    "legend": ("displayMode placement showLegend calcs", ""),
    "target": ("refId datasource expr legendFormat", "instant range"),
    "annotation": ("name enable datasource iconColor expr step titleFormat", ""),
    "query": ("name label type datasource query refresh sort", ""),
    "textbox": ("name label type query", ""),
}
REFRESHES, SORTS = range(3), range(9)  # of a variable
UNITS = set("currencyUSD h none percent percentunit reqps s short watt".split())
KINDS = {"stat", "state-timeline", "timeseries"}
SOURCE = {"type": "prometheus", "uid": "prometheus"}


def overlap(one: dict, other: dict) -> bool:
    """Whether two panels lie on each other."""
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


def parts(dashboard: dict) -> Iterator[tuple[str, dict]]:
    """Each part of a dashboard, with the name of its kind."""
    yield "dashboard", dashboard
    yield "time", dashboard["time"]
    yield from (("annotation", each) for each in dashboard["annotations"]["list"])
    yield from ((each["type"], each) for each in dashboard["templating"]["list"])
    for panel in dashboard["panels"]:
        yield "panel", panel
        yield "gridPos", panel["gridPos"]
        yield "fieldConfig", panel["fieldConfig"]
        yield "defaults", panel["fieldConfig"]["defaults"]
        if "options" in panel:
            yield "options", panel["options"]
            yield "legend", panel["options"]["legend"]
        yield from (("target", each) for each in panel["targets"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_the_fields_that_are_listed_and_no_others(name: str) -> None:
    dashboard = DASHBOARDS[name]
    for kind, part in parts(dashboard):
        must, may = (set(each.split()) for each in FIELDS[kind])
        assert must <= part.keys() <= must | may, f"{kind}: {part}"
        if kind in ("annotation", "query"):
            assert part["datasource"] == SOURCE
        if kind == "query":
            assert part["refresh"] in REFRESHES and part["sort"] in SORTS
            assert part["query"].keys() == {"query", "refId"}
        if kind == "options":
            assert part.get("showValue", "auto") in ("auto", "always", "never")
        if kind == "legend":
            assert part["displayMode"] in ("list", "table")
            assert part["placement"] in ("bottom", "right")
        if kind == "gridPos":
            assert all(type(each) is int and each >= 0 for each in part.values())
            assert part["w"] > 0 and part["h"] > 0
    for each in ("annotations", "templating"):
        assert dashboard[each].keys() == {"list"}
    assert re.fullmatch(r"now-\d+[hd]", dashboard["time"]["from"])
    assert dashboard["time"]["to"] == "now" and dashboard["schemaVersion"] == 39


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_one_screen_of_panels_side_by_side(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 5
    places = [panel["gridPos"] for panel in panels]
    assert all(each["x"] + each["w"] <= 24 and each["y"] + each["h"] <= 24 for each in places)
    assert not any(overlap(*pair) for pair in combinations(places, 2))
    for panel in panels:
        assert panel["type"] in KINDS and panel["fieldConfig"]["defaults"]["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) >= 1
        asked = [panel, *panel["targets"]]
        assert all(each["datasource"] == SOURCE for each in asked)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_asks_with_the_variables_that_it_has_and_shows_releases(name: str) -> None:
    dashboard = DASHBOARDS[name]
    has = {each["name"] for each in dashboard["templating"]["list"]}
    text = json.dumps([panel["targets"] for panel in dashboard["panels"]])
    assert set(re.findall(r"\$(\w+)", text)) == has <= {each[1:] for each in CHOSEN}
    assert [each["name"] for each in dashboard["annotations"]["list"]] == ["Releases"]


def test_the_dashboard_says_nothing_of_fewer_pictures_than_the_alerts() -> None:
    enough = re.compile(r"behaviour:counted:increase1h[^>]*>= (\d+)")
    (fewest,) = {each for rule in ALERTS.values() for each in enough.findall(rule["expr"])}
    of_an_hour = re.compile(r"behaviour:(?:accuracy:estimate|psi:|share:)1h")
    asked = [query for query in QUERIES.values() if of_an_hour.search(query)]
    assert len(asked) == 4
    assert {(*enough.findall(query),) for query in asked} == {(fewest,)}


def test_grafana_takes_in_every_dashboard_and_each_has_its_own_address() -> None:
    (made,) = [each for each in rendering.build(CONFIGS) if each["kind"] == "ConfigMap"]
    assert made["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert {name: json.loads(text) for name, text in made["data"].items()} == {
        f"{name}.json": dashboard for name, dashboard in DASHBOARDS.items()
    }
    assert len({each["uid"] for each in DASHBOARDS.values()}) == len(DASHBOARDS) == 3


def test_hours_of_gpus_are_weighed_by_how_many_there_were(tmp_path: Path) -> None:
    """Six without work for an hour, then one with work for nine."""
    name = "DCGM_FI_DEV_GPU_UTIL"
    series = {f'{name}{{gpu="{each}"}}': "0x59 stale" for each in range(6)}
    series[f'{name}{{gpu="busy"}}'] = "_x60 50x539"
    panels = {"GPU hours in seven days": 15, "Of these hours, with work": 9 / 15}
    asked = [
        {
            "expr": QUERIES[f"gpu-and-cost: {title} A"],
            "eval_time": "599m",
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for title, value in panels.items()
    ]
    promtool(tmp_path, series, {"promql_expr_test": asked}, [])


def test_the_price_of_a_gpu_is_the_one_that_a_new_project_pays() -> None:
    prices = json.loads((TEMPLATE / "infra/commands/prices.json").read_text())
    paid = prices["regions"]["eu-central-1"]["instance_hour"]["g6.xlarge"]
    (price,) = DASHBOARDS["gpu-and-cost"]["templating"]["list"]
    assert (price["type"], float(price["query"])) == ("textbox", paid)
