"""Drift: how far what an environment's model sees and answers is from what it was tested with."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import requests
from pydantic import Field

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests.cluster import namespace_of
from delivery.model.drift import DRIFT, FEWEST, Behaviour, Feature
from delivery.proposals.releases import check_environment
from workspace.errors import printable, said, sentence, shown
from workspace.settings import Settings, SettingsError, check, parse_json

ARGUMENTS: dict[str, Any] = {
    "environment": {"help": "such as staging"},
    "--prometheus": {"help": "a Prometheus, such as http://127.0.0.1:9090: the last hour"},
    "--metrics": {"help": "one server's metrics, such as 127.0.0.1:8002: since its start"},
}
PATIENCE = 30  # seconds of one question
COUNTED = "behaviour_pictures_total"
SHARE = "behaviour_reference_share"
OF_VERSION = ("pictures", "labelled", "accuracy")
# What is recorded of a version against the one before it, which a server's metrics cannot tell.
BEFORE = tuple(f"behaviour:{name}:before1h" for name in ("psi", "psi_by_chance", "js"))
LINE = re.compile(r"(?P<name>behaviour_\w+)\{(?P<labels>.*)\} (?P<value>[-+.\w]+)(?: \d+)?")
LABEL = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*")')
Series = dict[str, list[tuple[dict[str, str], float]]]  # by name: labels and value
HEAD = f"{'feature':<14}{'PSI':>7}{'by chance':>11}{'JS':>7}"


class Sample(Settings, extra="ignore"):
    """One of the series that Prometheus answers with."""

    metric: dict[str, str]
    value: tuple[float, str]  # when, and what


class Result(Settings, extra="ignore"):
    """What it found."""

    result: tuple[Sample, ...]


class Answer(Settings, extra="ignore"):
    """What Prometheus answers."""

    data: Result = Field(description="what a Prometheus says")


def run(
    repository: Repository,
    environment: str,
    prometheus: str | None = None,
    metrics: str | None = None,
) -> None:
    """Print the report of each version that is looked at.

    Raises DeliveryError: nobody answers there, or nobody looks at what is served.
    """
    if bool(prometheus) == bool(metrics):
        raise DeliveryError(
            "give one place that the figures are at: PROMETHEUS=http://127.0.0.1:9090, or "
            "METRICS=127.0.0.1:8002 of a server"
        )
    check_environment(repository, "HEAD", environment)
    if prometheus:
        series = ask(prometheus, namespace_of(repository, "HEAD", environment))
    else:
        series = parse(get(f"http://{metrics}/metrics"))
    versions = read(series)
    if not versions:
        raise DeliveryError(
            f"nobody looks at what {environment} answers: name the component monitor or "
            "monitor-in-path in its kustomization.yaml"
        )
    since = "in the last hour" if prometheus else "since the server's start"
    for version, behaviour in versions.items():
        print("\n".join(report(f"{environment}, model {version}", behaviour, since)))
        print("".join(f"{line}\n" for line in against_before(series, version)), end="")


# -- where the figures are -------------------------------------------------------------------------


def ask(address: str, namespace: str) -> Series:
    """Ask a Prometheus what was counted in a namespace in the last hour. Raises DeliveryError."""
    chosen = f"{{namespace={json.dumps(namespace)}}}"
    by = "by (version, feature, bin)"
    asked = {COUNTED: f"sum {by} (increase({COUNTED}{chosen}[1h]))"}
    gauges = [SHARE, *(f"behaviour_reference_{name}" for name in OF_VERSION)]
    asked |= {name: f"max {by} ({name}{chosen})" for name in gauges}
    asked |= {name: f"{name}{chosen}" for name in BEFORE}
    url = f"{address.rstrip('/')}/api/v1/query"
    return {name: samples(get(url, query=query), url) for name, query in asked.items()}


def samples(text: str, url: str) -> list[tuple[dict[str, str], float]]:
    """Read an answer of Prometheus. Raises DeliveryError."""
    try:
        found = check(Answer, parse_json(text, url), url)
    except SettingsError as error:
        raise DeliveryError(f"what answers at {url} is no Prometheus ({error})") from None
    return [(each.metric, number(each.value[1])) for each in found.data.result]


def parse(text: str) -> Series:
    """Read the monitor's part of a server's metrics. Raises DeliveryError."""
    found: Series = defaultdict(list)
    for line in map(LINE.fullmatch, text.splitlines()):
        if line:
            labels = {name: unquoted(value) for name, value in LABEL.findall(line["labels"])}
            found[line["name"]].append((labels, number(line["value"])))
    return found


def unquoted(text: str) -> str:
    """Return the value of a label; its escapes are among those of JSON."""
    try:
        return str(json.loads(text))
    except ValueError:
        return text


def number(text: str) -> float:
    """Read a figure. Raises DeliveryError."""
    try:
        return float(text)
    except ValueError:
        raise DeliveryError(
            f"{shown(text)} is no figure of a monitor: give the address of another server"
        ) from None


def get(url: str, **query: str) -> str:
    """Ask an address directly, whatever the environment says of proxies. Raises DeliveryError."""
    session = requests.Session()
    session.trust_env = False
    try:
        answer = session.get(url, params=query, timeout=PATIENCE)
        answer.raise_for_status()
    except (requests.RequestException, ValueError) as error:
        refused = isinstance(error, requests.ConnectionError)  # of which the library says a lot
        why = "no connection" if refused else sentence(error)
        raise DeliveryError(
            f"{shown(url)} does not answer ({why}): forward its port, or give another"
        ) from None
    return answer.text


# -- what they say ---------------------------------------------------------------------------------


def read(series: Series) -> dict[str, Behaviour | None]:
    """Return what each version saw; None of one whose image says nothing of held-out pictures."""
    counted, shares = (nested(series.get(name, [])) for name in (COUNTED, SHARE))
    found: dict[str, Behaviour | None] = {}
    for version in sorted(counted, key=lambda text: (len(text), text)):
        features = {
            name: Feature(counted[version].get(name, {}), reference)
            for name, reference in shares.get(version, {}).items()
        }
        about = [of_version(series, name, version) for name in OF_VERSION]
        complete = {"class", "sure"} <= features.keys()
        found[version] = Behaviour(features, *about) if complete else None
    return found


def nested(found: list[tuple[dict[str, str], float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return values by version, feature and bin."""
    made: dict[str, dict[str, dict[str, float]]] = {}
    for labels, value in found:
        version, feature, place = (labels.get(each, "") for each in ("version", "feature", "bin"))
        made.setdefault(version, {}).setdefault(feature, {})[place] = value
    return made


def of_version(series: Series, name: str, version: str) -> float:
    """Return a figure that a version has one of; NaN where it has none."""
    values = series.get(f"behaviour_reference_{name}", [])
    found = [value for labels, value in values if labels.get("version") == version]
    return found[0] if found else math.nan


def report(name: str, behaviour: Behaviour | None, since: str) -> Iterator[str]:
    """Give the lines of a report."""
    if behaviour is None:
        yield f"{name}: its image says nothing of held-out pictures, as older ones do not"
        return
    pictures = behaviour.features["class"].pictures
    yield f"{name}: {pictures:.0f} pictures were looked at {since}"
    if pictures < FEWEST:
        yield f"too few to tell: {FEWEST} are needed"
        return
    yield HEAD
    for feature, seen in sorted(behaviour.features.items()):
        figures = seen.psi(), behaviour.by_chance(seen), seen.js()
        yield row(feature, figures, "drifting" if behaviour.drifting(seen) else "")
    verdict = "  less sure" if behaviour.unsure() else ""
    estimate = f"{behaviour.estimate():.3f}, and it is {behaviour.accuracy:.3f} of held-out ones"
    yield f"as many answers seem right: {estimate}{verdict}"


def against_before(series: Series, version: str) -> Iterator[str]:
    """Give the lines of how else a version answers than those before it; none without figures."""
    told: dict[str, dict[str, float]] = {}
    for name in BEFORE:
        for labels, value in series.get(name, []):
            if labels.get("version") == version:
                told.setdefault(labels.get("feature", ""), {})[name] = value
    if told:
        yield f"against the version before, of the last six hours\n{HEAD}"
    for feature, values in sorted(told.items()):
        psi, chance, js = (values.get(name, math.nan) for name in BEFORE)
        yield row(feature, (psi, chance, js), "differs" if psi > max(DRIFT, chance) else "")


def row(feature: str, figures: tuple[float, float, float], verdict: str) -> str:
    """Return a line of a table: PSI, what chance exceeds once in 30,000, and JS."""
    psi, chance, js = figures
    line = f"{printable(said(feature)):<14}{psi:>7.3f}{chance:>11.3f}{js:>7.3f}"
    return f"{line}  {verdict}" if verdict else line
