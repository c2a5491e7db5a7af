"""A real Prometheus on this machine, and the alert of drift that it raises of the project's rules.

A minute of the rules is a second here.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from delivery.commands import drift
from delivery.errors import DeliveryError
from delivery.triton.loopback import HOST
from delivery.triton.server import Ports, choose

RULES = Path("argocd/base/platform/configs/behaviour-rules.yaml")
ALERT = "ModelDrifting"
EVERY = "500ms"
UNITS = {"m": ("s", 1), "h": ("m", 1), "d": ("m", 24)}


def shorter(text: str) -> str:
    """A text whose lengths of time are as many seconds as they were minutes."""

    def replaced(found: re.Match[str]) -> str:
        unit, times = UNITS[found[2]]
        return f"{int(found[1]) * times}{unit}"

    return re.sub(r"(\d+)([mhd])", replaced, text)


def quicker(query: str) -> str:
    """A query whose windows are as many seconds as they are minutes."""
    return re.sub(r"\[[^\]]+\]|offset \w+", lambda window: shorter(window[0]), query)


@contextmanager
def running(program: str, options: dict[str, object], log: Path) -> Iterator[None]:
    """A program with options, until the end of the block."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in options.items())], stderr=file
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def started(
    folder: Path,
    groups: list[dict[str, Any]],
    jobs: list[dict[str, Any]],
    every: str,
    repository: str,
    told: Sequence[str] = (),
) -> Iterator[str]:
    """Host and port of a Prometheus that reads jobs, and looks at rules, at each such interval.

    It tells Alertmanagers, by host and port, of alerts, whose links lead to a repository.
    """
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    settings = {
        "global": {
            **dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), every),
            "external_labels": {"repository": repository},
        },
        "rule_files": [str((folder / "rules.yaml").resolve())],
        "scrape_configs": jobs,
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [*told]}]}]},
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    address = f"{HOST}:{choose(Ports()).http}"
    options = {
        "config.file": folder / "prometheus.yaml",
        "storage.tsdb.path": folder / "data",
        "web.listen-address": address,
        "rules.alert.resend-delay": every,  # it may have looked before it knows whom to tell
    }
    with running("prometheus", options, folder / "log"):
        yield address


def quick_rules() -> list[dict[str, Any]]:
    """The groups of the project's rules about behaviour, which look back less far."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule |= {"expr": quicker(rule["expr"])}
        rule |= {"for": shorter(rule["for"])} if "for" in rule else {}
    return groups


def raised(address: str) -> list[str]:
    """What the alert says of each feature of which it fires; nothing while Prometheus starts."""
    try:
        alerts = json.loads(drift.get(f"http://{address}/api/v1/alerts"))["data"]["alerts"]
    except DeliveryError:
        return []
    return sorted(
        each["annotations"]["summary"]
        for each in alerts
        if each["labels"]["alertname"] == ALERT and each["state"] == "firing"
    )
