"""From a merge to the version that serves: the moments of it, and one picture of them.

    python benchmarks/merge_timeline.py            # draws docs/merge_to_served.svg from the results
    python benchmarks/merge_timeline.py --check    # fails if the picture is another

What a cluster shows over time is recorded by `merge_to_served.py`; here nothing is asked.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "merge_to_served.json"
PICTURE = Path(__file__).parents[1] / "docs" / "merge_to_served.svg"
Object = Mapping[str, Any]

# Each part ends when something is seen for the first time.
PARTS = {
    "seen": "Argo CD asks Git",
    "rendered": "its comparison knows the commit",
    "applied": "the sync succeeded",
    "scheduled": "a pod of the version has a node",
    "pulled": "its images are there, the server runs",
    "loaded": "the model answers",
    "ready": "the pod may be called",
    "step": "all steps of the Rollout are done",
    "done": "the Application is Healthy",
}


@dataclass(frozen=True)
class Record:
    """A state of an object, and when it was heard of, in seconds since 1970."""

    at: float
    object: Object


def moments(
    records: Sequence[Record], asked: Iterable[float], merged: float, commit: str, version: int
) -> dict[str, float]:
    """Return when each part ended, in seconds since 1970; what never ended is left out.

    `asked` are the times at which Git was asked for its branches. A part ends no sooner than the
    one before: an account of it may be heard of later than what it led to.
    """
    after = [each for each in records if each.at >= merged]
    tests = signs(commit, version)
    found = {"seen": min((at for at in asked if at >= merged), default=None)}
    found |= {
        name: min((each.at for each in after if test(each.object)), default=None)
        for name, test in tests.items()
    }
    if found["step"] is not None:  # the old version is Healthy until the new one is there
        late = [each.at for each in after if each.at >= found["step"] and healthy(each.object)]
        found["done"] = min(late, default=None)
    return in_order({name: found.get(name) for name in PARTS}, merged)


def in_order(found: Mapping[str, float | None], start: float) -> dict[str, float]:
    """Return the moments without those that never were, none before the one that comes first."""
    result: dict[str, float] = {}
    for name, at in found.items():
        if at is not None:
            start = result[name] = max(start, at)
    return result


def signs(commit: str, version: int) -> dict[str, Callable[[Object], bool]]:
    """Return what shows the end of each part, but for the first and the last."""

    def pod(sign: Callable[[Object], bool]) -> Callable[[Object], bool]:
        return lambda seen: is_pod_of(seen, version) and sign(seen)

    return {
        "rendered": lambda seen: value(seen, "status.sync.revision") == commit,
        "applied": lambda seen: applied(seen, commit),
        "scheduled": pod(lambda seen: condition(seen, "PodScheduled")),
        "pulled": pod(lambda seen: any("running" in each for each in containers(seen, "state"))),
        "loaded": pod(lambda seen: any(containers(seen, "started"))),
        "ready": pod(lambda seen: condition(seen, "Ready")),
        "step": lambda seen: stepped(seen, version),
    }


def value(seen: Object, path: str) -> Any:
    """Return what lies at a path of names, None where a name is missing."""
    for name in path.split("."):
        seen = (seen or {}).get(name)  # type: ignore[assignment]
    return seen


def is_pod_of(seen: Object, version: int) -> bool:
    """Tell whether an object is a pod that serves a version."""
    labels = value(seen, "metadata.labels") or {}
    return seen["kind"] == "Pod" and labels.get("app.kubernetes.io/version") == str(version)


def condition(seen: Object, kind: str) -> bool:
    """Tell whether a condition of an object is true."""
    found = value(seen, "status.conditions") or []
    return any(each["type"] == kind and each["status"] == "True" for each in found)


def containers(seen: Object, name: str) -> list[Any]:
    """Return a field of each container's status, of those that have it."""
    found = value(seen, "status.containerStatuses") or []
    return [each[name] for each in found if each.get(name)]


def applied(seen: Object, commit: str) -> bool:
    """Tell whether an Application's last sync is that of a commit, and succeeded."""
    state = value(seen, "status.operationState") or {}
    synced = value(state, "syncResult.revision")
    return seen["kind"] == "Application" and state.get("phase") == "Succeeded" and synced == commit


def stepped(seen: Object, version: int) -> bool:
    """Tell whether a Rollout is through with all steps for a version."""
    if seen["kind"] != "Rollout":
        return False
    labels = value(seen, "spec.template.metadata.labels") or {}
    steps = value(seen, "spec.strategy.canary.steps") or []
    current = labels.get("app.kubernetes.io/version") == str(version)
    known = value(seen, "status.observedGeneration") == str(value(seen, "metadata.generation"))
    return current and known and value(seen, "status.currentStepIndex") == len(steps)


def healthy(seen: Object) -> bool:
    """Tell whether an Application is as Git says, and well."""
    status = (value(seen, "status.sync.status"), value(seen, "status.health.status"))
    return seen["kind"] == "Application" and status == ("Synced", "Healthy")


def durations(merged: float, ends: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds that each part took."""
    return {
        name: end - start
        for name, (start, end) in zip(ends, pairwise([merged, *ends.values()]), strict=True)
    }


# -- the picture -----------------------------------------------------------------------------------

WIDTH, LEFT, RIGHT, TOP, ROW = 900, 170, 60, 40, 46
COLOURS = (  # of the parts, in their order
    *("#7847d1", "#2f6feb", "#3fa9f5", "#8592a3", "#bb4a12"),
    *("#e0a030", "#7fb83c", "#c9d1dc", "#14833b"),
)
STYLE = """<style>text{font:14px sans-serif;fill:#1c2733}.page{fill:#f6f8fb}
@media(prefers-color-scheme:dark){text{fill:#e8edf3}.page{fill:#10151d}}</style>"""


def draw(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return an SVG with a bar for each row, in which each part is as long as it took."""
    longest = max(sum(parts.values()) for parts in rows.values())
    scale = (WIDTH - LEFT - RIGHT) / longest
    legend = TOP + ROW * len(rows) + 10
    height = legend + 24 * ((len(PARTS) + 1) // 2) + 10
    drawn = [bar(name, parts, TOP + ROW * k, scale) for k, (name, parts) in enumerate(rows.items())]
    drawn += [entry(k, name, legend) for k, name in enumerate(PARTS)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="Seconds from merge to served, part by part">\n{STYLE}\n'
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>\n'
        f"{text(LEFT, 24, 'seconds from the merge to the version that serves')}\n"
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def bar(name: str, parts: Mapping[str, float], top: int, scale: float) -> str:
    """Draw one row: its name, its parts, their sum."""
    drawn, at = [text(LEFT - 10, top + 21, name, "end")], float(LEFT)
    for part, seconds in parts.items():
        colour = COLOURS[[*PARTS].index(part)]
        drawn.append(
            f'<rect x="{at:.1f}" y="{top}" width="{seconds * scale:.1f}" height="32" '
            f'fill="{colour}"><title>{part}: {seconds:.1f} s</title></rect>'
        )
        at += seconds * scale
    drawn.append(text(at + 6, top + 21, f"{sum(parts.values()):.0f} s"))
    return "\n".join(drawn)


def entry(k: int, part: str, top: int) -> str:
    """Draw what a colour means."""
    x, y = 30 + (k % 2) * 440, top + 24 * (k // 2)
    square = f'<rect x="{x}" y="{y}" width="14" height="14" fill="{COLOURS[k]}"/>'
    return f"{square}\n{text(x + 22, y + 12, f'{part}: {PARTS[part]}')}"


def text(x: float, y: float, content: str, anchor: str = "start") -> str:
    """Draw a line of text."""
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}">{content}</text>'


def main() -> None:
    """Draw the picture of the results, or compare it with the one that is there."""
    drawn = draw(json.loads(RESULTS.read_text())["figures"]["medians"])
    if "--check" not in sys.argv[1:]:
        PICTURE.write_text(drawn)
    elif drawn != PICTURE.read_text():
        sys.exit(f"error: {PICTURE.name} is not of its results: python {sys.argv[0]}")


if __name__ == "__main__":
    main()
