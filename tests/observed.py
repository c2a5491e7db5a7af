"""Programs of this machine that watch: what they read besides servers, and what they answer."""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from conftest import TEMPLATE
from delivery.triton.loopback import HOST
from delivery.triton.server import Server
from demo.prometheus import started

CONFIGS = TEMPLATE / "argocd/platform/configs"
REPOSITORY = "https://github.example/o/p"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in CONFIGS.glob("dashboards/*.json")}


def read_rules(name: str) -> list[dict]:
    """The groups of a PrometheusRule."""
    return yaml.safe_load((CONFIGS / f"{name}-rules.yaml").read_text())["spec"]["groups"]


def kept() -> list[dict]:
    """What the PodMonitor keeps of a server with a monitor in the path, as Prometheus has it."""
    file = TEMPLATE / "argocd/components/monitor-in-path/pod-monitor.yaml"
    rules, _ = yaml.safe_load(file.read_text())
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{names.get(key, key): value for key, value in rule.items()} for rule in rules["value"]]


def target(server: Server, namespace: str, version: int, **labels: str) -> dict:
    """A server with a monitor in the path, as Prometheus finds its pod."""
    labels |= {"namespace": namespace, "app_kubernetes_io_version": str(version)}
    return {"targets": [f"{HOST}:{server.ports.metrics}"], "labels": labels}


@contextmanager
def exporter(tell: Callable[[], str]) -> Iterator[int]:
    """The port of what stands in for programs that do not run here: it tells a text."""

    class Exporter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(tell().encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Exporter) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield web.server_port
        web.shutdown()


@contextmanager
def prometheus(
    folder: Path, groups: list[dict], jobs: list[dict], every: str, told: Sequence[str] = ()
) -> Iterator[str]:
    """Where the interface is of a Prometheus that reads jobs and looks at rules."""
    with started(folder, groups, jobs, every, REPOSITORY, told) as address:
        yield f"http://{address}/api/v1"


def ask(address: str, path: str, **query: str) -> dict:
    """What Prometheus answers; nothing before it is ready."""
    answer = fetch(f"{address}/{path}?{urllib.parse.urlencode(query)}")
    return answer["data"] if answer else {}


def fetch(address: str) -> Any:
    """The JSON at an address; nothing before the program there is ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        assert error.code == 503, f"{address}: {error.read().decode()}"
        return None
    except OSError:
        return None
