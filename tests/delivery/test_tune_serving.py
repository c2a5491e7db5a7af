"""Settings of a server: tried on the real Triton, and changed in a text that stays the owner's."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import UNBAKED, mark_root
from delivery.__main__ import main
from delivery.commands import tune_serving
from delivery.errors import DeliveryError
from delivery.triton import config_text, load
from delivery.triton.config_text import Settings, changed, settings
from delivery.triton.load import Load, Speed
from tiny import INTERFACE, write_repository

SHIPPED = (UNBAKED / "serving/classifier/config.pbtxt").read_text()
PRESENT = Settings(1, 1, 0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an exported model."""
    mark_root(tmp_path)
    write_repository(tmp_path / "artifacts/model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(project: Path) -> str:
    return (project / "serving/classifier/config.pbtxt").read_text()


def report(project: Path) -> str:
    return (project / "tuning/serving.md").read_text()


def pretend(monkeypatch: pytest.MonkeyPatch, rate: Callable[[Settings], float]) -> None:
    """Measure nothing: settings have rates, and a millisecond less of latency for each 100."""

    def speeds(_: object, tried: list[Settings], load: Load, turns: int) -> list[Speed]:
        return [
            Speed(
                [0.02 - rate(each) / 1e5] * 9,
                [rate(each) * (1 + turn % 2 / 10) for turn in range(turns)],
            )
            for each in tried
        ]

    monkeypatch.setattr(tune_serving.Trial, "speeds", speeds)


def test_settings_are_tried_on_the_real_server(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "SECONDS", 0.1)
    monkeypatch.setattr(tune_serving, "progress", lambda present: [present, Settings(2, 1, 500)])
    monkeypatch.setattr(tune_serving, "is_better", lambda best, present, p99: True)
    assert main(["tune-serving", "--p99", "0.001", "--clients", "2"]) == 1
    told = capsys.readouterr().err
    assert "with 2 clients no setting keeps to 0.001 ms, the lowest is " in told
    assert "give a higher P99 or fewer CLIENTS" in told and report(project).count("too late") == 2
    assert main(["tune-serving", "--p99", "60000", "--clients", "2"]) == 0
    rows = re.findall(
        r"(?m)^\| (\d) \| 1 \| (\d+) µs delay \| [\d.]+ \| [\d.]+ \|", report(project)
    )
    assert {("1", "0"), ("2", "500")} == set(rows)
    assert settings(config(project)) in (PRESENT, Settings(2, 1, 500))
    assert not list((project / ".local").glob("tune-serving-*"))


def test_the_best_within_the_limit_takes_its_place_in_the_owners_text(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {PRESENT: 100.0, Settings(2, 1, 500): 300.0}
    pretend(monkeypatch, lambda each: rates.get(each, 50.0))
    assert main(["tune-serving", "--p99", "18"]) == 0
    printed = capsys.readouterr().out
    assert "has now 2 instance(s), 1 thread(s), batches, 500 µs delay: look at" in printed
    assert settings(config(project)) == Settings(2, 1, 500)
    assert [line for line in SHIPPED.splitlines() if line.startswith("#")] == [
        line for line in config(project).splitlines() if line.startswith("#")
    ]
    assert "better beyond chance: written" in report(project)
    assert "| 2 | 1 | 500 µs delay | 315.0 | 17.0 | 17.0 |  |" in report(project)


@pytest.mark.parametrize("gain", [-50.0, 0.0])
def test_settings_that_are_no_better_are_kept(
    gain: float, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, lambda each: 100.0 if each == PRESENT else 100.0 + gain)
    before = config(project)
    assert main(["tune-serving", "--p99", "60000"]) == 0
    assert config(project) == before and "present" in report(project)


def test_an_advantage_by_chance_is_none() -> None:
    present = Speed([0.01], [100.0, 120.0, 90.0, 110.0])
    assert not tune_serving.is_better(Speed([0.01], [119.0, 101.0, 111.0, 92.0]), present, 20)
    faster = [turn + 20 + turn / 100 for turn in present.turns]
    assert tune_serving.is_better(Speed([0.01], faster), present, 20)
    assert not tune_serving.is_better(Speed([0.03], faster), present, 20)  # but too late


def test_an_interruption_leaves_all_as_it_was(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object, tried: list[Settings], load: Load, turns: int) -> list[Speed]:
        if turns == tune_serving.FINAL:
            raise KeyboardInterrupt
        return [Speed([0.01], [1.0 if tried == [PRESENT] else 2.0])]

    before = config(project)
    monkeypatch.setattr(tune_serving.Trial, "speeds", interrupted)
    assert main(["tune-serving", "--p99", "20"]) == 130
    assert config(project) == before and not (project / "tuning").exists()
    assert not list((project / ".local").glob("tune-serving-*"))


def test_what_cannot_be_tried_is_refused_and_the_cures_work(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, lambda each: 100.0)
    for odd in (["--p99", "0"], ["--p99", "nan"], ["--p99", "9", "--clients", "65"]):
        assert main(["tune-serving", *odd]) == 1
        assert "give a time above 0, and 1 to 64 clients" in capsys.readouterr().err
    assert main(["tune-serving", "--p99", "99", "--clients", "64"]) == 0
    own, made = project / "serving/classifier/config.pbtxt", project / "artifacts/model/classifier"
    own.write_text(changed(SHIPPED, Settings(2, 1, 0)))
    assert main(["tune-serving", "--p99", "99"]) == 1
    assert "has other settings than serving/classifier/config.pbtxt: run `make pipeline`" in (
        capsys.readouterr().err
    )
    (made / "config.pbtxt").write_text(own.read_text() + INTERFACE)  # what the pipeline does
    assert main(["tune-serving", "--p99", "99"]) == 0
    own.write_text("dynamic_batching {")
    assert main(["tune-serving", "--p99", "99"]) == 1
    assert "config.pbtxt cannot be read (1:18" in capsys.readouterr().err
    own.write_text(changed(SHIPPED, Settings(2, 1, 0)))
    assert main(["tune-serving", "--p99", "99"]) == 0


TEXTS = {
    "as generated": SHIPPED,
    "of nothing": "",
    "with fields of its own": (
        'parameters { key: "intra_op_thread_count" value { string_value: "4" } } # four {\n'
        'parameters { key: "x" value { string_value: "dynamic_batching { " } }\n'
        "dynamic_batching { preferred_batch_size: 8 max_queue_delay_microseconds: 100\n"
        "  # kept\n  newer_than_this: 7 }\n"
        "instance_group [ { kind: KIND_CPU gpus: [ ] } ]\n"
        "optimization { priority: PRIORITY_MAX }\n"
    ),
}
KEPT = ["# kept", "newer_than_this: 7", "preferred_batch_size: 8", "KIND_CPU", "# four {", '"x"']


@pytest.mark.parametrize("name", TEXTS)
def test_any_text_takes_any_settings_and_keeps_the_rest(name: str) -> None:
    text = TEXTS[name]
    every = [Settings(2, 1, 500), PRESENT, Settings(1, 3, None), Settings(4, 2, 9)]
    for wanted in every:
        assert settings(changed(text, wanted)) == wanted
        assert changed(changed(text, wanted), wanted) == changed(text, wanted)
    if name == "with fields of its own":
        made = changed(text, every[0])
        assert all(each in made for each in [*KEPT, "PRIORITY_MAX"])
    else:
        back = changed(changed(text, every[0]), PRESENT)
        assert config_text.parse(back) == config_text.parse(changed(text, PRESENT))


def test_a_text_that_is_none_is_refused() -> None:
    with pytest.raises(DeliveryError, match=r"cannot be read .*: correct it$"):
        changed("name: 'a' {", PRESENT)
