"""The search: spaces that are right, trials that outlive a kill, a diff that can be reviewed."""

import dataclasses
import difflib
import fcntl
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_project import PROJECT, fixed, prepared_project

from classifier import data, networks, params, training
from classifier.params import Params
from classifier.ray_cluster import cluster
from params_edit import complete, edit
from tuning import search, search_space
from tuning.search_space import Range
from tuning.trials import Record, Search, Trial, ranked, table
from workspace.errors import UserError
from workspace.machine import Machine
from workspace.params_file import write_train

pytestmark = pytest.mark.usefixtures("ray_with_its_settings")

SHIPPED = params.load_section(PROJECT, "tune", params.TuneParams)
TRIALS, EPOCHS = 6, 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A prepared project of the test's own."""
    return complete(prepared_project(tmp_path))


@pytest.fixture(scope="session")
def settings() -> Params:
    """The tests' parameters."""
    return params.parse(fixed())


# -- spaces ----------------------------------------------------------------------------------------


def test_every_network_has_a_space() -> None:
    assert set(search_space.parse(SHIPPED.space, params.load(PROJECT).train)) == set(
        networks.NETWORKS
    )


@pytest.mark.parametrize("network", networks.NETWORKS)
def test_every_network_can_be_searched(network: str, root: Path, settings: Params) -> None:
    spaces = search_space.parse(SHIPPED.space, settings.train)
    drawn = search_space.candidates(network, spaces[network], settings.train, seed=1)
    untuned, first = islice(drawn, 2)
    assert untuned.network == first.network == network
    candidate = settings.model_copy(update={"train": first.model_copy(update={"epochs": 1})})
    splits = data.load_split(root, "train"), data.load_split(root, "validation")
    shape = training.shape_of(splits[0], data.class_names(root))
    _, history, _ = training.fit(candidate, shape, *splits, root / "run")
    assert len(history.epochs) == 1


def test_draws_follow_from_the_seed_and_begin_with_what_is_there(settings: Params) -> None:
    cnn = search_space.parse(SHIPPED.space, settings.train)["cnn"]

    def draw(count: int, seed: int) -> list[Any]:
        return list(islice(search_space.candidates("cnn", cnn, settings.train, seed), count))

    five = draw(5, seed=1)
    assert five[0] == settings.train
    assert five == draw(9, seed=1)[:5] != draw(5, seed=2)
    for name, limits in search_space.ranges(cnn).items():
        values = [value_of(train, name) for train in draw(30, seed=1)[1:]]
        low, high = min(limits.values), max(limits.values)
        assert all(low <= value <= high for value in values) and len(set(values)) > 2


def value_of(train: Any, place: str) -> Any:
    section = train.model_dump()
    for name in place.split("."):
        section = section[name]
    return section


def test_a_small_space_is_drawn_from_once(settings: Params) -> None:
    two = {"batch_size": Range(choice=(16, 32))}  # 16 is what the untuned one has
    assert len(list(islice(search_space.candidates("cnn", two, settings.train, 1), 10))) == 2


@pytest.mark.parametrize(
    ("limits", "values"),
    [
        (Range(uniform=(0.0, 0.5)), [0.0, 0.25, 0.5]),
        (Range(log_uniform=(0.001, 0.1)), [0.001, 0.01, 0.1]),
        (Range(uniform=(1, 3)), [1, 2, 3]),
        (Range(log_uniform=(4, 64)), [4, 16, 64]),
        (Range(choice=("a", None, "b")), ["a", None, "b"]),
    ],
    ids=str,
)
def test_a_range_is_drawn_from_end_to_end(limits: Range, values: list[Any]) -> None:
    assert [limits.at(share) for share in (0.0, 0.5, 1 - 1e-12)] == values


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a network that is none": ("cnm", {}, r"tune\.space\.cnm .*linear_regression"),
    "a typo": ("cnn", {"learning_rat": 0.1}, r"cnn\.learning_rat'.*did you mean 'learning_rate'"),
    "a typo in a section": ("cnn", {"optoins.width": 8}, r"cnn\.optoins': did you mean 'options'"),
    "a section that is none": (
        "cnn",
        {"epochs.first": 8},
        r"cnn\.epochs is \{'first': 8\}: give a whole",
    ),
    "an option that is none": ("cnn", {"options.widht": 8}, r"cnn\.options\.widht'.* mean 'width'"),
    "an option's type": (
        "cnn",
        {"options.width": {"choice": [8, "a"]}},
        r"cnn\.options\.width is 'a'",
    ),
    "a value out of bounds": (
        "cnn",
        {"learning_rate": {"uniform": [-1, 1]}},
        "rate is -1: give a number above 0, for",
    ),
    "an augmentation out of bounds": (
        "cnn",
        {"augmentation.scale": {"uniform": [0.0, 1.0]}},
        r"cnn\.augmentation\.scale is 1\.0: give a share from 0 to below 1, for",
    ),
    "an unknown range": (
        "cnn",
        {"batch_size": {"normal": [0, 1]}},
        r"no '.*size\.normal': did you mean 'uniform'",
    ),
    "no choice": ("cnn", {"batch_size": {"choice": []}}, r"choice is \[\]: give a list, for"),
    "one end": ("cnn", {"learning_rate": {"uniform": [1]}}, r"give \[low, high\], low <"),
    "text": (
        "cnn",
        {"learning_rate": {"uniform": ["a", "b"]}},
        r"uniform is .*'b'.*: give .*low, high",
    ),
    "no number": ("cnn", {"learning_rate": {"uniform": [True, 2]}}, r"is .*: give .*low, high"),
    "no end": ("cnn", {"learning_rate": {"uniform": [1, math.inf]}}, r"is .*: give .*low, high"),
    "nothing": ("cnn", {"batch_size": {}}, r"size is \{\}: give one value, or one of uniform, log"),
    "two ranges": ("cnn", {"batch_size": {"choice": [1], "uniform": [1, 2]}}, "give one value, or"),
    "what torch refuses": ("cnn", {"options.dropout": 2}, r"dropout cannot be 2: dropout probab"),
    "a typo for another network": ("mlp", {"option.depth": 2}, r"tune\.space\.mlp\.option'"),
    "the wrong order": (
        "cnn",
        {"learning_rate": {"uniform": [2, 1]}},
        r"uniform is .*low < high, for",
    ),
    "an empty range": (
        "cnn",
        {"learning_rate": {"uniform": [1, 1]}},
        r"uniform is .*low < high, for",
    ),
    "no logarithm": (
        "cnn",
        {"weight_decay": {"log_uniform": [0, 1]}},
        r"0 < low < high, for example \[0\.1, 10\]",
    ),
    "another network": ("cnn", {"network": "mlp"}, "network cannot be searched: .*NETWORK"),
    "threads": ("cnn", {"threads": {"choice": [1, 2]}}, r"threads cannot be .*train\.threads"),
    "weights for some": (
        "resnet18",
        {"pretrained": {"choice": [False, True]}},
        r"resnet18\.pretrained cannot be searched: give train\.pretrained",
    ),
    "weights for the search alone": ("resnet18", {"pretrained": True}, r"give train\.pretrained"),
    "several weights": (
        "resnet18",
        {"weights": {"choice": ["a.pth", "b.pth"]}},
        r"resnet18\.weights cannot be searched: give train\.weights",
    ),
    "a checksum": ("resnet18", {"weights_sha256": "0" * 64}, r"give train\.weights_sha256"),
    "several lengths": ("cnn", {"epochs": {"choice": [1, 2]}}, r"cnn\.epochs cannot .*one value"),
}


@pytest.mark.parametrize(("network", "content", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_space_is_named(
    network: str, content: dict[str, Any], message: str, settings: Params
) -> None:
    with pytest.raises(UserError, match=message):
        search_space.parse({network: content}, settings.train)


@pytest.mark.parametrize(
    ("changes", "trials", "message"),
    [
        ({"trials": 0}, None, r"tune\.trials is 0"),
        ({}, 0, r"tune\.trials is 0"),
        ({"reduction_factor": 1}, None, r"tune\.reduction_factor is 1"),
        ({"objective": "test_loss"}, None, r"tune\.objective is 'test_loss'"),
        ({"grace_epoch": 1}, None, r"'tune\.grace_epoch': did you mean 'grace_epochs'"),
        ({"space": {"cnn": None}}, None, r"tune\.space\.cnn is None"),
        ({"space": {"cnn": {"epochs": 3}}}, None, r"tune\.space\.cnn .*names nothing to search"),
        ({"space": {}}, None, r"tune\.space\.cnn .*names nothing to search"),
    ],
)
def test_a_mistake_in_the_section_is_named(
    changes: dict[str, Any], trials: int | None, message: str, root: Path
) -> None:
    edit(root, tune=changes)
    with pytest.raises(UserError, match=message):
        search.tune(root, Machine(), trials=trials)


def test_a_network_with_a_range_is_searched(root: Path) -> None:
    edit(root, tune={"space": {}})
    with pytest.raises(UserError, match=r"names nothing to search: give a parameter \{choice: "):
        search.make_search(root, None, None)
    for given in ({"choice": [0.1, 0.2]}, {"uniform": [0.1, 0.2]}, {"log_uniform": [0.1, 0.2]}):
        edit(root, tune={"space": {"cnn": {"learning_rate": given}}})
        assert search.make_search(root, None, None).candidates


def test_targets_that_the_network_is_not_made_for_are_refused_before_the_search(root: Path) -> None:
    edit(root, train={"label_smoothing": 0.1})
    with pytest.raises(UserError, match=r"label_smoothing is 0\.1, but linear_svm has no cross"):
        search.make_search(root, "linear_svm", None)
    edit(root, train={"label_smoothing": 0.0})  # as it says
    assert search.make_search(root, "linear_svm", None).candidates


def test_a_network_without_weights_is_refused_before_the_search(root: Path) -> None:
    edit(root, train={"network": "resnet18", "options": {}, "pretrained": True})
    with pytest.raises(UserError, match=r"pretrained is true, but there are no weights of mlp"):
        search.make_search(root, "mlp", None)
    made = search.make_search(root, "mobilenet_v3", None)
    assert all(candidate.train.pretrained for candidate in made.candidates)
    edit(root, train={"pretrained": False})  # as it says
    assert search.make_search(root, "mlp", None).candidates


def test_what_lbfgs_cannot_do_is_refused_before_the_search(root: Path) -> None:
    edit(root, train={"augmentation": {"flip": True, "colour": 0.2, "mixup": 0.1}})
    assert search.make_search(root, "logistic_regression", None).candidates  # its space is right
    edit(root, train={"augmentation": {}})
    space = SHIPPED.space["logistic_regression"]
    for name, value, message in [
        ("schedule", "one_cycle", "schedule one_cycle: set schedule to constant"),
        ("weight_decay", 0.1, r"weight_decay 0\.1: set weight_decay to 0\.0"),
        ("augmentation.erase", {"choice": [0.0, 0.1]}, r"augmentation\.erase 0\.1: set"),
        ("batch_size", 59, "train.batch_size is 59, but"),
    ]:
        edit(root, tune={"space": {"logistic_regression": space | {name: value}}})
        with pytest.raises(UserError, match=message):
            search.make_search(root, "logistic_regression", None)


def test_the_search_is_no_part_of_a_models_parameters() -> None:
    assert "tune" not in params.SECTIONS and "tune" not in params.load(PROJECT).model_dump()


def test_only_code_that_trains_makes_another_search(root: Path) -> None:
    (root / "src").unlink()
    shutil.copytree(PROJECT / "src", root / "src")

    def name_after_a_comment_in(file: str) -> str:
        with (root / "src" / file).open("a") as code:
            code.write("# of no account\n")
        return search.fingerprint("cnn", SHIPPED, 1, root)

    before = search.fingerprint("cnn", SHIPPED, 1, root)
    assert name_after_a_comment_in("curation/ingest.py") == before
    assert name_after_a_comment_in("classifier/networks.py") != before


# -- what is written -------------------------------------------------------------------------------


def test_only_what_changed_is_in_the_diff(root: Path) -> None:
    before = params.load(root).train
    values = {"learning_rate": 1e-5, "options.width": 48, "augmentation.rotate": 12.5}
    after = search_space.changed(before, values)
    old = (root / "params.yaml").read_text().splitlines()
    write_train(root, before.model_dump(), after.model_dump())
    new = (root / "params.yaml").read_text().splitlines()
    changed = [line for line in difflib.ndiff(old, new) if line.startswith("+ ")]
    assert changed == [
        "+   options: {width: 48} # so narrow that it trains in seconds",
        "+   learning_rate: 0.00001 # the highest of the schedule",
        "+     rotate: 12.5 # degrees",
    ]
    assert len(old) == len(new) and params.load(root).train == after


def test_another_network_takes_its_options_along(root: Path) -> None:
    before = params.load(root).train
    after = search_space.changed(before, {"network": "mlp", "options": {"depth": 3}})
    write_train(root, before.model_dump(), after.model_dump())
    assert params.load(root).train == after


def test_what_was_edited_meanwhile_stays(root: Path) -> None:
    before = params.load(root).train
    edit(root, train={"epochs": 99})
    after = search_space.changed(before, {"batch_size": 8})
    write_train(root, before.model_dump(), after.model_dump())
    assert (params.load(root).train.epochs, params.load(root).train.batch_size) == (99, 8)


def trial(number: int, loss: float, train: Any, **changes: Any) -> Trial:
    epochs = [
        {"epoch": epoch, "train_loss": 0.5, "validation_loss": value, "validation_accuracy": 0.5}
        for epoch, value in enumerate((2 * loss, loss, 3 * loss), 1)
    ]
    return dataclasses.replace(Trial(number, train, "finished", epochs, ""), **changes)


def test_a_record_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path, settings: Params) -> None:
    candidates = [settings, settings.model_copy(update={"train": changed(settings, 8)})]
    file = tmp_path / "new/trials.jsonl"
    Record(file).add(trial(0, 0.5, settings.train))
    with file.open("a") as torn:
        torn.write('{"train": {"network": "cn')
    record = Record(file)
    assert [trial.number for trial in record.read(candidates)] == [0]
    record.add(trial(1, 0.25, candidates[1].train))
    assert [trial.figures["epoch"] for trial in record.read(candidates)] == [2, 2]
    assert [trial.number for trial in record.read(candidates[1:])] == [0]


def changed(settings: Params, batch_size: int) -> Any:
    return settings.train.model_copy(update={"batch_size": batch_size})


def test_trials_are_ranked_and_failures_come_last(settings: Params) -> None:
    failed = trial(0, 0.1, settings.train, ended="failed", epochs=[], reason="a | b")
    trials = [failed, trial(1, 0.5, settings.train), trial(2, 0.4, settings.train)]
    assert [each.number for each in ranked(trials, "validation_loss")] == [2, 1, 0]
    assert [each.number for each in ranked(trials, "validation_accuracy")] == [2, 1, 0]
    lines = table(trials, ["options.dropout"], "validation_loss").splitlines()
    assert lines[2] == "| **2** | 0.4000 | 50.00 | 3 | finished | 0.2 |"
    assert lines[4] == r"| **0 (untuned)** | – | – | 0 | failed: a \| b | 0.2 |"


def search_of(candidates: list[Params], folder: Path) -> Search:
    section = SHIPPED.model_copy(update={"grace_epochs": 1})
    return Search("cnn", candidates[0].train, {}, candidates, section, folder, [])


def test_all_trials_failing_is_an_error(root: Path, settings: Params) -> None:
    failed = trial(0, 0.1, settings.train, ended="failed", epochs=[], reason="no memory")
    before = (root / "params.yaml").read_text()
    with pytest.raises(UserError, match="all 1 trials failed; the untuned one: no memory"):
        search.conclude(search_of([settings], root), [failed], 21, root)
    assert (root / "params.yaml").read_text() == before and not (root / "tuning").exists()


# -- trials ----------------------------------------------------------------------------------------


def test_trials_that_lag_behind_are_stopped_but_for_the_untuned(
    tmp_path: Path, settings: Params
) -> None:
    from tuning.halving import Halving

    scheduler: Any = Halving(search_of([settings] * 5, tmp_path))
    scheduler.recall([trial(1, 0.1, settings.train), trial(2, 0.2, settings.train)])
    for number, loss, epoch, decision in [
        (0, 9.0, 1, "CONTINUE"),
        (3, 9.0, 1, "STOP"),
        (4, 0.01, 1, "CONTINUE"),
        (4, 9.0, 2, "STOP"),
        (3, 9.0, settings.train.epochs, "CONTINUE"),
    ]:
        known = SimpleNamespace(trial_id=str(number), config={"number": number})
        scheduler.on_trial_add(None, known)
        result = {"epoch": epoch, "score": loss}
        assert scheduler.on_trial_result(None, known, result) == decision, (number, epoch)


def test_a_second_search_in_the_same_folder_is_refused(root: Path) -> None:
    lock = root / search.RUNS / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another search is running"):
            search.tune(root, Machine())


@pytest.mark.parametrize("address", ["ray://10.0.0.1:10001", "127.0.0.1:1", "here"])
def test_an_address_where_no_cluster_is_is_refused(address: str, tmp_path: Path) -> None:
    machine = Machine(ray_address=address)
    message = f"at RAY_ADDRESS {address}: give its head"
    with pytest.raises(UserError, match=message), cluster(machine, tmp_path / "session"):
        pass


def test_the_head_of_a_cluster_is_connected_to(tmp_path: Path) -> None:
    script = "import sys; from classifier.ray_cluster import connect; connect(sys.argv[1], {})"
    with cluster(Machine(), tmp_path / "session") as ray:
        head = ray.get_runtime_context().gcs_address
        answers = [
            subprocess.run(
                [sys.executable, "-c", script, address],
                env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
                capture_output=True,
                text=True,
            )
            for address in ("127.0.0.1:1", head)
        ]
    assert "give its head, host:6379, and the token" in answers[0].stderr
    assert answers[1].returncode == 0, answers[1].stderr


def test_a_worker_without_our_disk_trains_in_a_folder_of_its_own(tmp_path: Path) -> None:
    from tuning.halving import folder_of

    with folder_of(tmp_path / "elsewhere/trial") as run:
        assert run.is_dir() and tmp_path not in run.parents
    assert not run.exists() and not (tmp_path / "elsewhere").exists()


SPACE = {
    "optimizer": "sgd",
    "learning_rate": {"choice": [0.001, 0.002, 1e30]},
    "batch_size": {"choice": [16, 20]},
}


def start(root: Path) -> "subprocess.Popen[str]":
    """Start the search as a user does."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "tuning"],
        cwd=root,
        env=environment | {"PYTHONPATH": str(PROJECT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclasses.dataclass
class Searched:
    root: Path
    settings: Params
    recorded: list[str]  # lines, when it was killed
    printed: str
    said: str


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """A search that was killed after its first trial and started again."""
    root = complete(prepared_project(tmp_path_factory.mktemp("searched")))
    train = {"network": "linear_regression", "options": {}, "epochs": EPOCHS, "batch_size": 16}
    section = {"trials": TRIALS, "grace_epochs": 1, "space": {"linear_regression": SPACE}}
    edit(root, train=train | {"learning_rate": 0.0003}, tune=section)
    settings = params.load(root)
    killed = start(root)
    assert killed.stderr
    line = next(line for line in killed.stderr if line.startswith("1/"))
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    recorded = next(root.glob("runs/tune/*/trials.jsonl")).read_text().splitlines()
    assert line and 1 <= len(recorded) < TRIALS
    again = start(root)
    printed, said = again.communicate()
    assert again.returncode == 0, said
    return Searched(root, settings, recorded, printed, said)


def lines(root: Path) -> list[str]:
    return next(root.glob("runs/tune/*/trials.jsonl")).read_text().splitlines()


def test_a_killed_search_is_taken_up_and_no_trial_is_trained_twice(searched: Searched) -> None:
    assert f"taking up the search: {len(searched.recorded)} of {TRIALS} trials" in searched.said
    record = lines(searched.root)
    assert record[: len(searched.recorded)] == searched.recorded
    trained = [json.dumps(json.loads(line)["train"]) for line in record]
    assert len(trained) == len(set(trained)) == TRIALS
    assert not list(searched.root.glob("runs/tune/**/*.ckpt"))
    assert not list(searched.root.glob("runs/tune/session"))


def test_a_trial_fails_by_itself(searched: Searched) -> None:
    ended = {json.loads(line)["reason"] for line in lines(searched.root)}
    assert any("exploded" in reason for reason in ended) and "" in ended


def test_the_logs_of_a_trial_have_a_name_for_people(searched: Searched) -> None:
    figures = [json.loads(line) for line in lines(searched.root)]
    named = [logs.parent.name for logs in searched.root.glob("runs/tune/*/*/events*")]
    pattern = r"\d{4}-\d\d-\d\d-\d{6}-linear_regression-trial-\d-\d+\.\d"
    assert len(set(named)) == sum(each["ended"] in ("finished", "stopped") for each in figures)
    assert named and all(re.fullmatch(pattern, name) for name in named)


def test_a_trial_trains_as_the_pipeline_does(searched: Searched) -> None:
    first = next(
        found
        for line in lines(searched.root)
        if (found := json.loads(line))["train"] == searched.settings.train.model_dump()
    )
    root, settings = searched.root, searched.settings
    splits = data.load_split(root, "train"), data.load_split(root, "validation")
    shape = training.shape_of(splits[0], data.class_names(root))
    _, history, _ = training.fit(settings, shape, *splits, root / "alone")
    assert first["epochs"] == history.epochs and first["ended"] == "finished"


def test_table_plot_and_the_best_parameters_are_written(searched: Searched) -> None:
    root = searched.root
    rows = (root / "tuning/linear_regression.md").read_text().splitlines()[4:]
    assert len(rows) == 2 + TRIALS and "(untuned)" in "".join(rows)
    assert (root / "plots/tuning.png").stat().st_size > 20_000
    found = [json.loads(line) for line in lines(root)]
    best = min(
        (trial for trial in found if trial["ended"] != "failed"),
        key=lambda trial: min(figures["validation_loss"] for figures in trial["epochs"]),
    )
    assert (
        params.load(root).train.model_dump()
        == best["train"]
        != searched.settings.train.model_dump()
    )
    assert "is better than the untuned parameters" in searched.printed


def test_a_search_that_is_done_is_not_done_again(
    searched: Searched, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lines(searched.root)
    search.tune(
        searched.root, Machine(), trials=TRIALS - 1
    )  # the best is the first now, and counts once
    assert "is better than the parameters as they are" in capsys.readouterr().out
    assert lines(searched.root) == before
