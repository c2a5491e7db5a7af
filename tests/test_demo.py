"""The demo's report and its refusals; the demo as a whole is `make demo`."""

import sys
from pathlib import Path

import pytest

from conftest import TEMPLATE

sys.path.insert(0, str(TEMPLATE))

from demo import prometheus, report, workshop
from demo.report import Request


def request(end: float, version: int, latency: float = 0.01) -> Request:
    return Request(end, "grpc", version, latency)


def test_the_longest_gap_counts_answers_only() -> None:
    requests = [request(0.0, 1), request(0.1, 1), request(0.4, 0), request(0.6, 2)]
    assert report.longest_gap(requests) == pytest.approx(500)


def test_latencies_are_quantiles_in_milliseconds_without_failures() -> None:
    requests = [request(i, 1, latency=i / 1000) for i in range(101)] + [request(200, 0, 9.0)]
    assert report.latencies(requests) == [("grpc", 101, pytest.approx([50, 95, 99]))]


def test_the_chart_stacks_versions_and_shows_failures() -> None:
    requests = [request(0.0, 1), request(0.1, 2), request(0.2, 0), request(0.9, 2)]
    drawn = report.chart(requests, {"merged": 0.45})
    assert [round(bar["height"], 1) for bar in drawn["bars"]] == [33.3, 33.3, 33.3, 33.3]
    assert drawn["bars"][0]["fill"] == report.COLOURS[0] and set(drawn["versions"]) == {0, 1, 2}
    assert drawn["marks"] == [{"x": pytest.approx(45), "name": "merged"}]


def test_what_make_drift_prints_is_read() -> None:
    printed = """staging, model 2: 412 pictures were looked at since the server's start
feature           PSI  by chance     JS
brightness      0.012      0.071  0.004
class           2.510      0.090  0.310  drifting
as many answers seem right: 0.612, and it is 0.983 of held-out ones  less sure
"""
    assert report.drifts(printed) == [
        report.Drift("brightness", 0.012, 0.071, drifting=False),
        report.Drift("class", 2.51, 0.09, drifting=True),
    ]


def test_what_prometheus_raised_is_read() -> None:
    told = "ModelDrifting after 16 s: staging: class is another than at the tests"
    watched = "ModelDrifting was watched for"
    assert report.alerts("as many answers seem right\n") is None, "where there is no Prometheus"
    assert report.alerts(f"{watched}\n") == []
    assert report.alerts(f"{told}\n{watched}\n") == [told.removeprefix("ModelDrifting ")]


def test_a_minute_of_the_rules_is_a_second() -> None:
    query = "rate(behaviour_psi_1h[15m] offset 1h) > 5 and x[1d]"
    assert prometheus.quicker(query) == "rate(behaviour_psi_1h[15s] offset 1m) > 5 and x[24m]"
    assert prometheus.shorter("5m") == "5s"


def test_missing_programs_are_named_with_the_way_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workshop.shutil, "which", lambda name: None)
    with pytest.raises(workshop.DemoError, match=r"git \(apt-get install git\), kubectl"):
        workshop.check_prerequisites()


def test_a_failing_command_ends_the_demo_with_the_end_of_its_log(tmp_path: Path) -> None:
    place = workshop.Workshop(tmp_path / "demo")
    with pytest.raises(workshop.DemoError, match=r"`sh -c .*` failed .*01\.log.*\n.*went wrong"):
        place.run(tmp_path, "sh", "-c", "echo what went wrong; exit 3")
    with pytest.raises(workshop.DemoError, match="succeeded, which it should not"):
        place.run(tmp_path, "true", fails=True)


def test_a_process_beside_the_story_ends_with_it(tmp_path: Path) -> None:
    place = workshop.Workshop(tmp_path / "demo")
    with workshop.ended(place.start(tmp_path, "sleeper", "sleep", "600")) as process:
        assert process.poll() is None
    assert process.wait() == -15
