"""What analyses of Argo Rollouts saw of a version: what ended it, and its figures over time."""

import math
from collections.abc import Iterable
from datetime import datetime

from delivery.manifests.rendering import Part, at
from delivery.proposals.live_figures import Curve
from workspace.errors import said

HASH = "rollouts-pod-template-hash"  # tells the pods of one version's template from another's
FIGURES = {  # of live requests, as `components/judged` has them; what each says of a version
    "failing": "{:.1%} more of its live requests failed than of the version before",
    "slowness": "its live requests took {:.1f} times as long as is promised or was usual",
    "classes": "{:.0%} more of its live answers than chance explains are of other classes than "
    "those of the version before",
    "confidence": "{:.0%} more of its live answers than of the version before's are surer, or less "
    "sure, than at its tests",
}


class Measurement(Part):
    """What an analysis saw at a moment: of starts the pods as JSON, otherwise `[0.05]`, or `[]`."""

    value: str = ""
    started: datetime | None = at("startedAt", default=None)


class Metric(Part):
    """One of the figures of an analysis."""

    name: str = ""
    phase: str = ""
    measurements: tuple[Measurement, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it ended the version; a last measurement is there then."""
        return self.phase == "Failed" and bool(self.measurements)


class Argument(Part):
    """What an analysis is given; a token has no value here."""

    name: str = ""
    value: str = ""


class Analysis(Part):
    """A look at the pods of one version's template."""

    template: str = at("metadata", "labels", HASH, default="")
    arguments: tuple[Argument, ...] = at("spec", "args", default=())
    phase: str = at("status", "phase", default="")
    message: str = at("status", "message", default="")
    metrics: tuple[Metric, ...] = at("status", "metricResults", default=())


def failed(metric: str, analyses: Iterable[Analysis]) -> list[Measurement]:
    """Return the last measurements of a metric that took a version away."""
    metrics = [each for analysis in analyses for each in analysis.metrics]
    return [each.measurements[-1] for each in metrics if each.failed and each.name == metric]


def worse(analyses: Iterable[Analysis]) -> str:
    """Say which figure of live requests took a version away; nothing if none did."""
    seen = tuple(analyses)
    for name, told in FIGURES.items():
        for measurement in failed(name, seen):
            return told.format(number(measurement.value))
    return ""


def ended(analyses: Iterable[Analysis]) -> str:
    """Say in Argo Rollouts' own words which metric took a version away; nothing if none did."""
    return next((said(each.message) for each in analyses if each.phase == "Failed"), "")


def curves(analyses: Iterable[Analysis]) -> tuple[Curve, ...]:
    """Return the figures of a version's live requests over time."""
    found = [
        curve(metric, analysis)
        for analysis in analyses
        for metric in analysis.metrics
        if metric.name in FIGURES
    ]
    return tuple(each for each in found if each.points)


def curve(metric: Metric, analysis: Analysis) -> Curve:
    """Return a figure over time; its limit is the analysis' argument of the same name."""
    limits = [number(each.value) for each in analysis.arguments if each.name == metric.name]
    points = [(each.started, number(each.value)) for each in metric.measurements if each.started]
    points = [each for each in points if math.isfinite(each[1])]
    return Curve(metric.name, next(filter(math.isfinite, limits), None), points)


def number(text: str) -> float:
    """Return what was measured, which Argo Rollouts writes as `[0.05]`; NaN of `[]`."""
    try:
        return float(text.strip("[]"))
    except ValueError:
        return math.nan
