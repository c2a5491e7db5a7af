"""The demo's report: one HTML page that needs no other file."""

import base64
import datetime
import platform
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2

from demo.workshop import Step

PLOTS = {
    "data": "The data: classes, splits, examples",
    "learning_curves": "Learning curves",
    "confusion": "Confusion matrix of the test set",
    "per_class": "Precision, recall and F1 per class",
    "reliability": "Calibration",
    "predictions": "Mistakes and the least certain answers",
}
COLOURS = {0: "#b3261e", 1: "#8a8f98", 2: "#2f6db3", 3: "#7a3fb0"}  # by version; 0: a failure
BIN = 0.5  # seconds of a bar in the chart of requests


ROW = re.compile(r"(?m)^(?P<name>\S.*?) +(?P<psi>\d\S*) +(?P<chance>\d\S*) +\d\S*(?P<verdict>.*)$")


@dataclass(frozen=True)
class Drift:
    """How far a feature of live pictures or answers is from the tests': population stability index.

    `chance` is what pictures of the same kind would show.
    """

    name: str
    psi: float
    chance: float
    drifting: bool


def drifts(printed: str) -> list[Drift]:
    """Read what `make drift` printed."""
    return [
        Drift(row["name"], float(row["psi"]), float(row["chance"]), bool(row["verdict"].strip()))
        for row in ROW.finditer(printed)
    ]


def alerts(printed: str) -> list[str] | None:
    """Read what Prometheus raised; None where there was none."""
    if "ModelDrifting was watched for" not in printed:
        return None
    return re.findall(r"(?m)^ModelDrifting (after \d+ s: .*)$", printed)


@dataclass
class Story:
    """What happened, as the demo noted it.

    `plots` holds pictures by title. `requests` has a row for each request: its end in seconds
    since 1970, protocol, version (0: failed), latency in seconds, why it failed.
    """

    simple: dict[str, Any] = field(default_factory=dict)
    better: dict[str, Any] = field(default_factory=dict)
    plots: dict[str, str] = field(default_factory=dict)
    rehearsal: str = ""
    release: str = ""
    timeline: dict[str, float] = field(default_factory=dict)
    predictions: list[tuple[str, str]] = field(default_factory=list)
    refusal: str = ""
    degraded: str = ""
    proposal: str = ""
    again: str = ""
    rollback: str = ""
    events: dict[str, float] = field(default_factory=dict)
    requests: list[tuple[str, ...]] = field(default_factory=list)
    drift: dict[str, list[Drift]] = field(default_factory=dict)
    alerts: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Request:
    """One request of the callers."""

    end: float
    protocol: str
    version: int
    latency: float


def write_report(story: Story, project: Path, path: Path) -> None:
    """Write the page from the story and from what the project's pipeline drew."""
    requests = [Request(float(r[0]), r[1], int(r[2]), float(r[3])) for r in story.requests]
    first = min((r.end for r in requests if r.version == 2), default=None)
    moments = story.timeline | ({"first answer of version 2": first} if first else {})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True
    )
    page = environment.get_template("report.html.j2").render(
        story=story,
        samples=[(picture(project / file), file, answer) for file, answer in story.predictions],
        moments=since_first(moments),
        latencies=latencies(requests),
        failed=sum(r.version == 0 for r in requests),
        requests=requests,
        gap=longest_gap(requests),
        chart=chart(requests, story.events | {"version 2 merged": story.timeline["merged"]}),
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        date=datetime.date.today().isoformat(),
    )
    path.write_text(page)


def pictures(folder: Path) -> dict[str, str]:
    """The plots of a pipeline run, by title."""
    return {title: picture(folder / f"{name}.png") for name, title in PLOTS.items()}


def picture(path: Path) -> str:
    """A PNG file as an address that holds all of it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def since_first(moments: dict[str, float]) -> list[tuple[str, float]]:
    """Moments in their order, in seconds after the first."""
    ordered = sorted(moments.items(), key=lambda item: item[1])
    return [(name, moment - ordered[0][1]) for name, moment in ordered]


def latencies(requests: list[Request]) -> list[tuple[str, int, list[float]]]:
    """For each protocol: the number of requests, and p50, p95 and p99 of latency in ms."""
    rows = []
    for protocol in sorted({request.protocol for request in requests}):
        found = sorted(r.latency for r in requests if r.protocol == protocol and r.version)
        quantiles = [1000 * found[int(share * (len(found) - 1))] for share in (0.5, 0.95, 0.99)]
        rows.append((protocol, len(found), quantiles))
    return rows


def longest_gap(requests: list[Request]) -> float:
    """The longest time without an answer to anybody, in ms."""
    ends = [request.end for request in requests if request.version]
    return 1000 * max((b - a for a, b in pairwise(ends)), default=0.0)


def chart(requests: list[Request], events: dict[str, float]) -> dict[str, Any]:
    """Bars of the answers in each half second, stacked by version, and marks of events.

    Positions and sizes are in per cent of the chart, ready to be drawn.
    """
    start, end = requests[0].end, requests[-1].end
    count = int((end - start) / BIN) + 1
    counts = Counter((int((r.end - start) / BIN), r.version) for r in requests)
    tallest = max(sum(counts[bar, v] for v in COLOURS) for bar in range(count))
    bars = []
    for bar in range(count):
        below = 0.0
        for version, colour in COLOURS.items():
            height = 100 * counts[bar, version] / tallest
            if height:
                top = 100 - below - height
                bars.append({"x": 100 * bar / count, "y": top, "height": height, "fill": colour})
                below += height
    marks = [
        {"x": 100 * (moment - start) / (BIN * count), "name": name}
        for name, moment in sorted(events.items(), key=lambda item: item[1])
    ]
    return {
        "bars": bars,
        "width": 100 / count,
        "marks": marks,
        "seconds": end - start,
        "rate": tallest / BIN,
        "versions": {v: c for v, c in COLOURS.items() if any(r.version == v for r in requests)},
    }
