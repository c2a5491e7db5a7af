"""Draws `dashboard-<name>.png`: the three dashboards, of what a real Prometheus answers.

    TRITON_VENV=.venv-triton .venv/bin/python docs/draw_dashboards.py

Real servers with a monitor are called for six minutes, each of which stands for an hour: windows of
rules and dashboards are as much shorter. What Argo CD, Argo Rollouts and GPUs tell is made up.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.extend(
    str(Path(__file__).parent.parent / each)
    for each in (".", "tests", "tests/delivery", "<<cookiecutter.project>>/src")
)

from dashboard_page import CHOSEN, LENGTH, draw

import monitored
import observed
from delivery.triton.client import Client, connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start
from demo.prometheus import quicker

RELEASED, READY, ALONE = 120, 135, 150  # version 8 is merged, answers too, answers alone
DARKER = 240  # from now on callers send darker pictures
PLACES = {"digits-staging": 1, "digits-production": 8}  # how many call at once
EVERY = "500ms"


# -- what is called, and what is made up -----------------------------------------------------------


@dataclass
class World:
    """The servers of both environments, and the time since they all answered."""

    folder: Path
    begun: float = 0.0
    servers: dict[tuple[str, int], tuple[Server, Client]] = field(default_factory=dict)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def serve(self, place: str, version: int) -> None:
        """Start a server of a version, and have Prometheus read it."""
        laid_out = self.folder / f"{place}-{version}"
        laid_out.mkdir()
        models = monitored.write_model(laid_out, version)
        monitored.arrange(models, laid_out / "monitored")
        server = start(laid_out / "monitored", laid_out / "log")
        server.wait(ready_path(version), 120)
        self.servers[place, version] = server, connect("grpc", server.ports)
        self.tell()

    def end(self, place: str, version: int) -> None:
        """End a server, whose figures go."""
        server, _ = self.servers.pop((place, version))
        server.kill()
        self.tell()

    def tell(self) -> None:
        """Name the servers to Prometheus, each as the pod that it would be."""
        targets = [
            observed.target(server, place, version, pod=f"triton-{version}")
            for (place, version), (server, _) in self.servers.items()
        ]
        file = self.folder / "targets.json"
        file.with_suffix(".new").write_text(json.dumps(targets))
        file.with_suffix(".new").rename(file)

    def call(self, pool: ThreadPoolExecutor, turn: int) -> None:
        """Have callers of both environments send pictures, all at the same time."""
        dark = 0.5 if self.now > DARKER else 1.0
        asked = []
        for place, callers in PLACES.items():
            there = list(self.servers.items())  # one more may come meanwhile
            clients = [client for (name, _), (_, client) in there if name == place]
            busy = callers * (1 + math.sin(self.now / 60)) / 2
            for caller in range(1 + round(busy)):
                images = (monitored.pictures(4, turn * 10 + caller) * dark).astype("uint8")
                asked.append(pool.submit(clients[caller % len(clients)].infer, images))
        for each in asked:
            each.result()

    def exported(self) -> str:
        """What other programs would tell now."""
        series = {name: value for name, value in made_up(self.now).items() if value is not None}
        return "".join(f"{name} {value}\n" for name, value in series.items())


def made_up(now: float) -> dict[str, float | None]:
    """Series of Argo CD, Argo Rollouts, Kubernetes and GPUs, by the second; None are not there."""
    changing = int(RELEASED <= now < ALONE)
    production = 8 if now >= RELEASED else 7
    found: dict[str, float | None] = {
        'argocd_app_sync_total{name="digits-production", phase="Succeeded"}': production - 6,
        'argocd_app_sync_total{name="digits-staging", phase="Succeeded"}': 3,
        'analysis_run_info{namespace="digits-production", phase="Running"}': changing or None,
        'analysis_run_info{namespace="digits-production", phase="Successful"}': 1 + (now > ALONE),
        'analysis_run_info{namespace="digits-staging", phase="Successful"}': 2,
        'kube_node_status_capacity{node="a", resource="nvidia_com_gpu"}': 2,
        'kube_node_status_capacity{node="b", resource="nvidia_com_gpu"}': changing or None,
        'kube_pod_container_resource_requests{resource="nvidia_com_gpu"}': 2 + changing,
    }
    for place in PLACES:
        here = place == "digits-production"
        version, turning = (production, changing) if here else (8, False)
        synced = "OutOfSync" if here and RELEASED <= now < RELEASED + 3 else "Synced"
        health = "Progressing" if turning else "Healthy"
        state = f'sync_status="{synced}", health_status="{health}"'
        phase = ("Paused" if now > READY else "Progressing") if turning else "Completed"
        found |= {
            f'argocd_app_labels{{name="{place}", label_model_version="{version}"}}': 1,
            f'argocd_app_info{{name="{place}", {state}}}': 1,
            f'rollout_info{{namespace="{place}", name="triton", phase="{phase}"}}': 1,
            f'rollout_info_replicas_desired{{namespace="{place}"}}': 2 if here else 1,
            f'rollout_info_replicas_available{{namespace="{place}"}}': (2 if here else 1) + turning,
        }
    for gpu in (0, 1):
        use = max(0.0, 45 + 35 * math.sin(now / 25 + gpu)) if gpu == 0 or now > 60 else 0.0
        told = {"GPU_UTIL": use, "FB_USED": 3000 + 40 * use, "FB_FREE": 20000 - 40 * use}
        told |= {"POWER_USAGE": 18 + use / 2, "XID_ERRORS": 0}
        found |= {
            f'DCGM_FI_DEV_{name}{{Hostname="gpu-node", gpu="{gpu}"}}': value
            for name, value in told.items()
        }
    return found


def observe(folder: Path) -> dict[str, dict[str, Any]]:
    """Have it all happen; the answers to each dashboard's queries."""
    world = World(folder)
    groups = [each for name in ("behaviour", "delivery", "model") for each in rules(name)]
    with ExitStack() as stack:
        stack.callback(lambda: [server.kill() for server, _ in world.servers.values()])
        port = stack.enter_context(observed.exporter(world.exported))
        jobs: list[dict[str, Any]] = [
            {
                "job_name": "triton",
                "file_sd_configs": [{"files": [str(folder / "targets.json")]}],
                "metric_relabel_configs": observed.kept(),
            },
            {
                "job_name": "others",
                "honor_labels": True,
                "static_configs": [{"targets": [f"{HOST}:{port}"]}],
            },
        ]
        world.serve("digits-staging", 8)
        world.serve("digits-production", 7)
        world.begun = time.monotonic()
        began = time.time()
        address = stack.enter_context(observed.prometheus(folder, groups, jobs, EVERY))
        happen(world)
        return {
            name: answers(address, dashboard, began)
            for name, dashboard in observed.DASHBOARDS.items()
        }


def rules(name: str) -> Iterator[dict[str, Any]]:
    """The groups of rules that are recorded, with shorter windows."""
    for group in observed.read_rules(name):
        recorded = [each for each in group["rules"] if "record" in each]
        if recorded:
            yield group | {"rules": [each | {"expr": quicker(each["expr"])} for each in recorded]}


def happen(world: World) -> None:
    """Call both environments until the end; production gets a version meanwhile."""
    turn, coming = 0, None
    with ThreadPoolExecutor(16) as pool:
        while world.now < LENGTH:
            if coming is None and world.now > RELEASED:
                coming = pool.submit(world.serve, "digits-production", 8)
            if ("digits-production", 7) in world.servers and world.now > ALONE:
                assert coming
                coming.result()
                world.end("digits-production", 7)
            world.call(pool, turn)
            turn += 1
            time.sleep(0.15)
            print(f"\r{world.now:.0f} of {LENGTH} s", end="", flush=True)
    print()


def answers(address: str, dashboard: dict[str, Any], began: float) -> dict[str, Any]:
    """What Prometheus says to each query of a dashboard: of all seconds, or of the last one."""
    ends = {"start": str(began), "end": str(began + LENGTH), "step": "1"}
    found = {}
    asked = [target for panel in dashboard["panels"] for target in panel["targets"]]
    for query in [*asked, *dashboard["annotations"]["list"]]:
        text = quicker(query["expr"])
        for name, value in CHOSEN.items():
            text = text.replace(name, value)
        if query.get("instant"):
            told = observed.ask(address, "query", query=text, time=ends["end"])
            series = [each | {"values": [each["value"]]} for each in told["result"]]
        else:
            series = observed.ask(address, "query_range", query=text, **ends)["result"]
        found[query["expr"]] = [
            (each["metric"], [(float(at) - began, float(value)) for at, value in each["values"]])
            for each in series
        ]
    return found


TIME = "the last six hours, each of which took a minute"
NOTES = {
    "model": TIME,
    "delivery": f"{TIME}; the servers are real, what Argo CD and Argo Rollouts tell is made up",
    "gpu-and-cost": f"{TIME}; the GPUs are made up",
}


def main() -> None:
    """Have it happen, and draw the three pages."""
    with tempfile.TemporaryDirectory() as folder:
        found = observe(Path(folder))
    for name, note in NOTES.items():
        path = Path(__file__).with_name(f"dashboard-{name}.png")
        draw(observed.DASHBOARDS[name], found[name], note, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
