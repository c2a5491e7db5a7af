"""The parts of the time from merge to served, told from recorded states of a cluster's objects."""

import copy
import json
from typing import Any
from xml.etree import ElementTree

import pytest

from merge_timeline import PARTS, Record, draw, durations, moments

COMMIT, BEFORE = "c" * 40, "b" * 40


def application(revision: str, synced: str, health: str, phase: str = "Succeeded") -> dict:
    status = {
        "sync": {"revision": revision, "status": "Synced" if revision == synced else "OutOfSync"},
        "health": {"status": health},
        "operationState": {"phase": phase, "syncResult": {"revision": synced}},
    }
    return {"kind": "Application", "metadata": {"name": "digits-staging"}, "status": status}


def pod(version: int, *conditions: str, **container: Any) -> dict:
    status: dict[str, Any] = {
        "conditions": [{"type": each, "status": "True"} for each in conditions]
        + [{"type": "ContainersReady", "status": "False"}]
    }
    if container:
        status["containerStatuses"] = [{"name": "triton", **container}]
    labels = {"app.kubernetes.io/version": str(version)}
    return {"kind": "Pod", "metadata": {"labels": labels}, "status": status}


def rollout(version: int, step: int, generation: int = 2, observed: str = "2") -> dict:
    labels = {"app.kubernetes.io/version": str(version)}
    return {
        "kind": "Rollout",
        "metadata": {"generation": generation},
        "spec": {
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {"duration": "60s"}}]}},
            "template": {"metadata": {"labels": labels}},
        },
        "status": {"currentStepIndex": step, "observedGeneration": observed},
    }


RUNNING = {"running": {"startedAt": "2026-11-26T08:00:00Z"}}
STATES = [
    (100.0, application(BEFORE, BEFORE, "Healthy")),
    (100.0, pod(7, "PodScheduled", "Ready", state=RUNNING, started=True)),
    (100.0, rollout(7, 2)),
    (112.0, application(COMMIT, BEFORE, "Healthy")),
    (112.5, application(COMMIT, BEFORE, "Healthy", "Running")),
    (113.0, application(COMMIT, COMMIT, "Healthy")),
    (113.1, rollout(8, 2, generation=3)),  # the controller has not looked yet
    (113.2, rollout(8, 0, generation=3, observed="3")),
    (113.5, pod(8)),
    (114.0, pod(8, "PodScheduled")),
    (114.5, application(COMMIT, COMMIT, "Progressing")),
    (115.0, pod(8, "PodScheduled", state={"waiting": {}}, started=False)),
    (120.0, pod(8, "PodScheduled", state=RUNNING, started=False)),
    (123.0, pod(8, "PodScheduled", state=RUNNING, started=True)),
    (124.0, pod(8, "PodScheduled", "Ready", state=RUNNING, started=True)),
    (185.0, rollout(8, 2, generation=3, observed="3")),
    (190.0, application(COMMIT, COMMIT, "Healthy")),
]
ENDS = {
    "seen": 110.0,
    "rendered": 112.0,
    "applied": 113.0,
    "scheduled": 114.0,
    "pulled": 120.0,
    "loaded": 123.0,
    "ready": 124.0,
    "step": 185.0,
    "done": 190.0,
}


def recorded(states: list[tuple[float, dict]]) -> list[Record]:
    return [Record(at, each) for at, each in states]


def found(states: list[tuple[float, dict]], asked: tuple[float, ...] = (95, 110, 111)) -> dict:
    return moments(recorded(states), asked, 101.0, COMMIT, 8)


def test_every_part_ends_when_its_sign_is_first_seen() -> None:
    assert found(STATES) == ENDS and [*ENDS] == [*PARTS]


def test_the_parts_sum_up_to_the_whole() -> None:
    parts = durations(101.0, ENDS)
    assert parts["seen"] == 9 and parts["step"] == 61 and parts["done"] == 5
    assert sum(parts.values()) == 190 - 101


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_was_never_seen_is_left_out(name: str) -> None:
    states = [(at, each) for at, each in STATES if at != ENDS[name]]
    if name == "applied":
        states = [(at, each) for at, each in states if not synced(each)]
    elif name == "scheduled":
        states = [(at, each) for at, each in states if each["kind"] != "Pod"]
    elif name in ("pulled", "loaded", "ready"):
        states = [(at, each) for at, each in states if at not in (120.0, 123.0, 124.0)]
    elif name == "rendered":
        states = [(at, each) for at, each in states if each["kind"] != "Application"]
    assert name not in found(states, () if name == "seen" else (110,))


def synced(each: dict) -> bool:
    state = each["status"].get("operationState", {})
    return state.get("syncResult", {}).get("revision") == COMMIT


def test_a_failed_sync_has_applied_nothing() -> None:
    states = copy.deepcopy(STATES)
    for _, each in states:
        if synced(each):
            each["status"]["operationState"]["phase"] = "Failed"
    assert "applied" not in found(states)


def test_what_was_heard_of_late_makes_no_part_negative() -> None:
    states = [(at + 5 if synced(each) else at, each) for at, each in STATES]
    assert found(states)["applied"] == found(states)["scheduled"] == 118.0
    assert min(durations(101.0, found(states)).values()) == 0


def test_what_another_commit_or_version_did_does_not_count() -> None:
    elsewhere = moments(recorded(STATES), (110,), 101.0, "d" * 40, 9)
    assert elsewhere == {"seen": 110}


def test_the_picture_has_each_part_as_long_as_it_took() -> None:
    parts = durations(101.0, ENDS)
    root = ElementTree.fromstring(draw({"webhook": parts, "polling": parts | {"seen": 98.0}}))
    bars = [each for each in root.findall(".//{*}rect") if each.get("height") == "32"]
    assert len(bars) == 2 * len(PARTS)
    told = [each.findtext("{*}title") for each in bars]
    assert "seen: 9.0 s" in told and "seen: 98.0 s" in told
    lengths = {text: float(each.get("width", 0)) for text, each in zip(told, bars, strict=True)}
    assert lengths["seen: 98.0 s"] == pytest.approx(lengths["seen: 9.0 s"] * 98 / 9, abs=0.5)
    assert "178 s" in json.dumps([each.text for each in root.findall(".//{*}text")])
