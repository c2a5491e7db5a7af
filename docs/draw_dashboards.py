"""Draws `dashboard-<name>.png`: the three dashboards, of what a real Prometheus answers.

    TRITON_VENV=.venv-triton .venv/bin/python docs/draw_dashboards.py

Real servers with a monitor are called for six minutes, each of which stands for an hour: windows of
rules and dashboards are as much shorter. What Argo CD, Argo Rollouts and GPUs tell is made up.
"""

import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

sys.path.extend(
    str(Path(__file__).parent.parent / each)
    for each in (".", "tests", "tests/delivery", "<<cookiecutter.project>>/src")
)

import monitored
import observed
from delivery.triton.client import Client, connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start

LENGTH = 360  # seconds; each is a minute of the dashboards
RELEASED, READY, ALONE = 120, 135, 150  # version 8 is merged, answers too, answers alone
DARKER = 240  # from now on callers send darker pictures
PLACES = {"digits-staging": 1, "digits-production": 8}  # how many call at once
EVERY = "500ms"
CHOSEN = {"$namespace": "digits-production", "$price": "1.0064"}


def quicker(text: str) -> str:
    """A query whose windows are as many seconds as they are minutes."""
    shorter = {"m": ("s", 1), "h": ("m", 1), "d": ("m", 24)}

    def replaced(found: re.Match[str]) -> str:
        unit, times = shorter[found[2]]
        return f"{int(found[1]) * times}{unit}"

    return re.sub(
        r"\[[^\]]+\]|offset \w+",
        lambda window: re.sub(r"(\d+)([mhd])", replaced, window[0]),
        text,
    )


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


# -- the pages -------------------------------------------------------------------------------------

COLUMN, ROW, GAP = 0.64, 0.36, 0.09  # inches of the grid
MARGIN, TOP = 0.15, 0.75
COLOURS = [*plt.get_cmap("tab20").colors[::2], *plt.get_cmap("tab20").colors[1::2]]
PAGE, CARD, EDGE = "#f0f2f5", "#ffffff", "#d8dce3"
FAINT, GREEN, MARK = "#5f6875", "#299c46", "#3274d9"
SMALL = 6.5  # points
LETTER, LETTERS = 0.062, 0.135  # inches: how wide a letter of that size is, how high a line
Series = list[tuple[str, list[tuple[float, float]]]]  # a name, and values by second


@dataclass(frozen=True)
class Panel:
    """A card of a page, to be filled."""

    axes: Axes
    settings: dict[str, Any]
    series: Series
    releases: list[float]

    @property
    def defaults(self) -> dict[str, Any]:
        """How values are said, and from where to where they go."""
        return self.settings["fieldConfig"]["defaults"]

    @property
    def options(self) -> dict[str, Any]:
        """What else the panel is asked for."""
        return self.settings.get("options", {})

    def shrink(self, left: float = 0, right: float = 0, bottom: float = 0) -> None:
        """Leave inches free beside what is drawn."""
        figure, box = self.axes.figure, self.axes.get_position()
        width, height = figure.get_size_inches()
        x, y = box.x0 + left / width, box.y0 + bottom / height
        self.axes.set_position([x, y, box.x1 - right / width - x, box.y1 - y])

    def inches(self) -> tuple[float, float]:
        """Width and height of what is drawn."""
        box = self.axes.get_position()
        width, height = self.axes.figure.get_size_inches()
        return box.width * width, box.height * height


def draw(dashboard: dict[str, Any], found: dict[str, Any], note: str, path: Path) -> None:
    """Draw a dashboard's panels where its grid has them."""
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in dashboard["panels"])
    width, height = 24 * COLUMN + 2 * MARGIN, rows * ROW + TOP + MARGIN
    figure = plt.figure(figsize=(width, height), facecolor=PAGE)

    def write(x: float, y: float, text: str, size: float, **how: Any) -> None:
        figure.text(x / width, 1 - y / height, text, size=size, **how)

    write(MARGIN, 0.34, dashboard["title"], 15, weight="bold")
    variables = dashboard["templating"]["list"]
    chosen = [f"{each['label']}: {CHOSEN['$' + each['name']]}" for each in variables]
    write(MARGIN, 0.58, "   ".join([*chosen, note]), 8, color=FAINT)
    for settings in dashboard["panels"]:
        place = settings["gridPos"]
        x, y = MARGIN + place["x"] * COLUMN + GAP / 2, TOP + place["y"] * ROW + GAP / 2
        wide, high = place["w"] * COLUMN - GAP, place["h"] * ROW - GAP
        corner = (x / width, 1 - (y + high) / height)
        look = {"facecolor": CARD, "edgecolor": EDGE, "transform": figure.transFigure}
        figure.add_artist(Rectangle(corner, wide / width, high / height, zorder=-1, **look))
        write(x + 0.1, y + 0.2, settings["title"], 8.5, weight="bold")
        axes = figure.add_axes((*corner, wide / width, (high - 0.3) / height))
        panel = Panel(axes, settings, series(settings, found), releases(dashboard, found))
        DRAWN[settings["type"]](panel)
    figure.savefig(path, dpi=100)
    plt.close(figure)
    with Image.open(path) as drawn:  # as few colours as there are, which is a third of the bytes
        drawn.convert("RGB").quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)


def series(settings: dict[str, Any], found: dict[str, Any]) -> Series:
    """What a panel's queries found, by the names that its legend has."""
    return [
        (named(target["legendFormat"], labels), values)
        for target in settings["targets"]
        for labels, values in found[target["expr"]]
    ]


def named(legend: str, labels: dict[str, str]) -> str:
    """Return a legend with the labels that it names."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels.get(name[1], ""), legend)


def releases(dashboard: dict[str, Any], found: dict[str, Any]) -> list[float]:
    """The seconds of the first signs of each release, but for those that were there at first."""
    (query,) = dashboard["annotations"]["list"]
    return [values[0][0] for _, values in found[query["expr"]] if values[0][0] > 10]


def draw_lines(panel: Panel) -> None:
    """Draw a line for each series, with a gap where it has no value."""
    axes, unit = panel.axes, panel.defaults["unit"]
    panel.shrink(left=0.55, right=0.12, bottom=0.24)
    place_legend(panel)
    for index, (name, values) in enumerate(panel.series):
        known = dict(values)
        times = [at for at, _ in values]
        every = [times[0] + step for step in range(round(times[-1] - times[0]) + 1)]
        numbers = [known.get(at, math.nan) for at in every]
        axes.plot(every, numbers, color=COLOURS[index % len(COLOURS)], linewidth=1.1, label=name)
    mark_time(panel)
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=panel.defaults.get("decimals") == 0))
    if "min" in panel.defaults:
        highest = max((value for _, values in panel.series for _, value in values), default=0)
        axes.set_ylim(bottom=panel.defaults["min"], top=None if highest > 0 else FLAT)
    if "max" in panel.defaults:
        axes.set_ylim(top=panel.defaults["max"])
    axes.yaxis.set_major_formatter(lambda value, _: in_unit(value, unit))
    axes.grid(axis="y", color="#eceef2", linewidth=0.7)


FLAT = 1.05  # how high a panel is in which nothing is more than 0


def place_legend(panel: Panel) -> None:
    """Put the names below or beside a panel's lines, in as many columns as there is room for."""
    names = [name for name, _ in panel.series]
    longest = LETTER * max(map(len, names)) + 0.2
    handles = [
        Line2D([], [], color=COLOURS[index % len(COLOURS)], label=name)
        for index, name in enumerate(names)
    ]
    look = {"fontsize": SMALL, "frameon": False, "handlelength": 1, "handletextpad": 0.4}
    look |= {"columnspacing": 1, "labelspacing": 0.15, "borderpad": 0, "handles": handles}
    if panel.options.get("legend", {}).get("placement") == "right":
        panel.shrink(right=longest)
        panel.axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), **look)
    else:
        columns = max(1, int(panel.inches()[0] / (longest + 0.15)))
        panel.shrink(bottom=0.02 + LETTERS * math.ceil(len(names) / columns))
        below = (0, -0.2 / panel.inches()[1])
        panel.axes.legend(loc="upper left", bbox_to_anchor=below, ncols=columns, **look)


def mark_time(panel: Panel) -> None:
    """Mark the hours and the releases."""
    axes = panel.axes
    axes.set_xlim(0, LENGTH)
    axes.set_xticks(range(0, LENGTH + 1, 60), [f"{each} h" for each in range(LENGTH // 60 + 1)])
    axes.tick_params(labelsize=SMALL, length=0, colors=FAINT)
    axes.spines[:].set_visible(False)
    for at in panel.releases:
        axes.axvline(at, color=MARK, linestyle=(0, (3, 3)), linewidth=0.9)


def draw_states(panel: Panel) -> None:
    """Draw a band for each series, as long as it has a value, with the last one if it is asked."""
    axes, rows = panel.axes, sorted(panel.series)
    panel.shrink(left=LETTER * max(len(name) for name, _ in rows) + 0.2, right=0.15, bottom=0.28)
    for index, (_, values) in enumerate(rows):
        there = [at for at, number in values if number]
        bands = [(at, 1.02) for at in there]
        axes.broken_barh(bands, (index - 0.36, 0.72), color=COLOURS[index % len(COLOURS)])
        if panel.options["showValue"] == "auto":
            middle, last = (there[0] + there[-1]) / 2, values[-1][1]
            how = {"ha": "center", "va": "center", "color": "white"}
            axes.text(middle, index, in_unit(last, panel.defaults["unit"]), size=8, **how)
    mark_time(panel)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def draw_numbers(panel: Panel) -> None:
    """Draw the last value of each series, large."""
    panel.axes.axis("off")
    centred: dict[str, Any] = {"ha": "center", "va": "center"}
    for index, (name, values) in enumerate(panel.series):
        x, said = (index + 0.5) / len(panel.series), in_unit(values[-1][1], panel.defaults["unit"])
        panel.axes.text(x, 0.55, said, size=21, color=GREEN, **centred)
        panel.axes.text(x, 0.2, name, size=8, color=FAINT, **centred)


DRAWN = {"timeseries": draw_lines, "state-timeline": draw_states, "stat": draw_numbers}


def in_unit(value: float, unit: str) -> str:
    """A value as Grafana says it."""
    if unit == "s":
        parts = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))
        size, name = next((each for each in parts if abs(value) >= each[0]), parts[-1])
        return f"{value / size:.3g} {name}" if value else "0 s"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    signs = {"reqps": " req/s", "percent": " %", "watt": " W", "h": " h"}
    return f"${value:.2f}" if unit == "currencyUSD" else f"{value:.3g}{signs.get(unit, '')}"


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
