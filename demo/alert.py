"""The alert of drift, raised by a real Prometheus: a minute of its rules is a second here."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

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
def prometheus(folder: Path, port: int, namespace: str, metrics: str) -> Iterator[str]:
    """The address of a Prometheus that reads a server's metrics, and the rules about behaviour."""
    folder.mkdir()
    groups = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        rule |= {"expr": quicker(rule["expr"])}
        rule |= {"for": shorter(rule["for"])} if "for" in rule else {}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    target = {"targets": [metrics], "labels": {"namespace": namespace}}
    settings = {
        "global": {
            **dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), EVERY),
            "external_labels": {"repository": "https://github.com/acme/digit-classifier"},
        },
        "rule_files": [str((folder / "rules.yaml").resolve())],
        "scrape_configs": [{"job_name": "triton", "static_configs": [target]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={folder / 'prometheus.yaml'}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield address
    finally:
        process.kill()
        process.wait()


def raised(address: str) -> list[str]:
    """What the alert says of each feature of which it fires; nothing while Prometheus starts."""
    plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with plain.open(f"http://{address}/api/v1/alerts", timeout=10) as answer:
            alerts = json.load(answer)["data"]["alerts"]
    except OSError:
        return []
    return sorted(
        each["annotations"]["summary"]
        for each in alerts
        if each["labels"]["alertname"] == ALERT and each["state"] == "firing"
    )
