"""The real Prometheus fires our alerts, and the real Alertmanager opens issues on GitHub of them.

Alertmanager has the configuration that Prometheus' operator makes of ours, with a shorter wait.
"""

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

import github_api
import programs
import rendering
from conftest import TEMPLATE
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports, choose
from demo.prometheus import running
from observed import REPOSITORY, exporter, fetch, prometheus, read_rules
from registry_tools import need

# What the chart in `kube-prometheus-stack.yaml` ships; its pages, at which nobody looks, are empty.
ALERTMANAGER = programs.Program(
    "alertmanager", "github.com/prometheus/alertmanager", "v0.34.2", embedded="ui/app/dist"
)
# What that chart has Alertmanager do with alerts, beside which ours is.
OF_THE_CHART = {
    "route": {
        "receiver": "null",
        "group_by": ["namespace"],
        "routes": [{"receiver": "null", "matchers": ['alertname = "Watchdog"']}],
    },
    "receivers": [{"name": "null"}],
}
OTHERS = {"Watchdog": "none", "KubePodCrashLooping": "warning", "etcdMembersDown": "critical"}
RECEIVER, ISSUES = "monitoring/issues/issue", "/repos/o/p/issues"
RUNBOOK = f"{REPOSITORY}/blob/main/argocd/base/operations.md"
GONE = "p-staging: no server is available, and one was within the last day"
DARK = r'"dark": yes, of C:\new'  # what YAML and JSON would read otherwise
# How far features of two environments are from those of the tests, and that servers are gone.
FIRING: list[tuple[str, dict[str, str], float]] = [
    ("ModelDrifting", {"namespace": "p-staging", "feature": "class"}, 0.314159),
    ("ModelDrifting", {"namespace": "p-staging", "feature": DARK}, 12.5),
    ("ModelDrifting", {"namespace": "p-production", "feature": "class"}, 0.25),
    ("ModelDown", {"namespace": "p-staging"}, 0),
]


@pytest.fixture(scope="module")
def program() -> Path:
    """Alertmanager, which is kept."""
    folder = TEMPLATE / ".cache/cluster/programs"
    if not (folder / ALERTMANAGER.file).exists() and not shutil.which("go"):
        pytest.skip("Alertmanager is built with Go, which is not here")
    return programs.build(ALERTMANAGER, folder)


def told() -> str:
    """What fires, as Prometheus reads it: by a series of the alert's name."""
    lines = ""
    for name, labels, value in FIRING:
        pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in labels.items())
        lines += f"{name}{{{pairs}}} {value}\n"
    return lines


def rules() -> list[dict]:
    """Our alerts as they are, but for when they fire, and alerts of others."""
    ours = {
        rule["alert"]: {key: rule[key] for key in ("labels", "annotations")}
        for group in (*read_rules("behaviour"), *read_rules("model"))
        for rule in group["rules"]
        if "alert" in rule
    }
    names = dict.fromkeys(name for name, *_ in FIRING)
    firing = [
        {"alert": name, "expr": f"last_over_time({name}[1h])", **ours[name]}  # a scrape may fail
        for name in names
    ]
    others = [
        {"alert": name, "expr": "vector(1)", "labels": {"severity": severity}}
        for name, severity in OTHERS.items()
    ]
    return [{"name": "alerts", "rules": firing + others}]


def as_the_operator_has_it(ours: dict, secret: dict[str, str]) -> dict:
    """Alertmanager's configuration with one of the kind AlertmanagerConfig."""
    place = "{namespace}/{name}".format(**ours["metadata"])
    made = translated(ours["spec"], secret)
    for each in made["receivers"]:
        each["name"] = f"{place}/{each['name']}"
    route = made["route"] | {"receiver": f"{place}/{made['route']['receiver']}", "continue": True}
    base = OF_THE_CHART["route"]
    return {
        "route": base | {"routes": [route, *base["routes"]]},
        "receivers": [*OF_THE_CHART["receivers"], *made["receivers"]],
    }


def translated(ours: Any, secret: dict[str, str]) -> Any:
    """The same in Alertmanager's words, with matchers as texts and what is in the Secret."""
    match ours:
        case {"name": name, "matchType": how, "value": value}:
            return f"{name}{how}{json.dumps(value)}"
        case {"name": "github-issues", "key": key}:
            return secret[key]
        case dict():
            return {alertmanagers(key): translated(each, secret) for key, each in ours.items()}
        case list():
            return [translated(each, secret) for each in ours]
    return ours


def alertmanagers(name: str) -> str:
    """A field's name there."""
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name.removesuffix("Secret"))


@dataclass(frozen=True)
class Seen:
    """What GitHub was told, and what Alertmanager says of the alerts that it has."""

    issues: list[dict]
    alerts: list[dict]


@pytest.fixture(scope="module")
def seen(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """What became of everything that fires."""
    need("prometheus")
    folder = tmp_path_factory.mktemp("alertmanager")
    (folder / "prometheus").mkdir()
    api = github_api.server(HOST, 0, folder / "told")
    threading.Thread(target=api.serve_forever, daemon=True).start()
    url = f"http://{HOST}:{api.server_address[1]}{ISSUES}"
    ours = rendering.configs_with(folder, "issues")["AlertmanagerConfig", "issues"]
    settings = as_the_operator_has_it(ours, {"token": github_api.TOKEN, "url": url})
    settings["route"]["routes"][0]["group_wait"] = "1s"
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(settings))
    place = f"{HOST}:{choose(Ports()).http}"
    options = {
        "config.file": folder / "alertmanager.yaml",
        "storage.path": folder / "data",
        "web.listen-address": place,
        "cluster.listen-address": "",
    }
    with exporter(told) as port, running(str(program), options, folder / "log"):
        jobs = [{"job_name": "told", "static_configs": [{"targets": [f"{HOST}:{port}"]}]}]
        with prometheus(folder / "prometheus", rules(), jobs, "1s", told=[place]):
            yield settled(f"http://{place}/api/v2", folder)
    api.shutdown()


def settled(address: str, folder: Path) -> Seen:
    """What is there once Alertmanager has every alert, and told of each group that it made."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alerts = fetch(f"{address}/alerts") or []
        groups = fetch(f"{address}/alerts/groups?receiver={RECEIVER}") or []
        issues = github_api.read(folder / "told")
        there = len(alerts), sum(len(each["alerts"]) for each in groups)
        if there == (len(FIRING) + len(OTHERS), len(FIRING)) and len(issues) >= len(groups):
            return Seen(issues, alerts)
        time.sleep(0.1)
    raise AssertionError((folder / "log").read_text())


def test_ours_are_for_the_issues_and_those_of_others_are_not(seen: Seen) -> None:
    receivers = {
        alert["labels"]["alertname"]: [each["name"] for each in alert["receivers"]]
        for alert in seen.alerts
    }
    ours = {name: [RECEIVER] for name, *_ in FIRING}
    assert receivers == ours | {name: ["null"] for name in OTHERS}


def test_there_is_one_issue_for_each_alert_of_an_environment(seen: Seen) -> None:
    """GitHub's stand-in writes down what comes with the right token only."""
    assert {each["path"] for each in seen.issues} == {ISSUES}
    titles = [
        drifting("p-production", "class", "0.25"),
        drifting("p-staging", DARK, "12.50"),
        GONE,
    ]
    assert sorted(each["body"]["title"] for each in seen.issues) == titles
    assert all(each["body"]["labels"] == ["alert"] for each in seen.issues)


def test_an_issue_says_since_when_and_what_to_do(seen: Seen) -> None:
    since = {
        (alert["labels"]["alertname"], alert["labels"].get("namespace")): alert["startsAt"]
        for alert in seen.alerts
    }
    bodies = {each["body"]["title"]: each["body"]["body"] for each in seen.issues}
    drifts = moment(since["ModelDrifting", "p-staging"])
    assert bodies[drifting("p-staging", DARK, "12.50")] == "".join(
        f"- {drifting('p-staging', *each)}, since {drifts} (ticket): "
        f"[what to do]({RUNBOOK}#modeldrifting)\n"
        "  `make drift ENV=staging PROMETHEUS=http://127.0.0.1:9090` says more\n"
        for each in ((DARK, "12.50"), ("class", "0.31"))
    )
    is_gone = moment(since["ModelDown", "p-staging"])
    assert bodies[GONE] == (
        f"- {GONE}, since {is_gone} (page): [what to do]({RUNBOOK}#modeldown)\n"
    )


def drifting(namespace: str, feature: str, value: str) -> str:
    """The summary of that alert."""
    where = f"{namespace}: {feature} is another than at the tests"
    return f"{where} (population stability index {value})"


def moment(text: str) -> str:
    """A moment that Alertmanager tells, as an issue has it."""
    return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
