"""A page of Grafana as a picture: a dashboard's panels, filled with Prometheus' answers."""

import math
import re
from dataclasses import dataclass
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

LENGTH = 360  # seconds that are shown; each is a minute of the dashboards
CHOSEN = {"$namespace": "digits-production", "$price": "1.0064"}  # by who looks at it
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
