"""params.yaml: the shipped one is right, and every mistake gets a sentence that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_project import PARAMS, PROJECT, fixed

from classifier import networks, params
from classifier.__main__ import CHECK, main
from classifier.networks import Shape
from classifier.params import IngestParams, TuneParams
from workspace.settings import SettingsError


def test_the_projects_parameters_are_right() -> None:
    values = params.load(PROJECT)
    shape = Shape(8, 8, 1, 10)
    assert networks.build(values.train.network, shape, values.train.options)
    params.load_section(PROJECT, "ingest", IngestParams)
    params.load_section(PROJECT, "tune", TuneParams)


MISTAKES = {
    "a typo in a key": ("train", "epoch", 3, "there is no 'train.epoch': did you mean 'epochs'"),
    "a key of a nested section": (
        "train",
        "augmentation",
        {"shfit": 1.0},
        "'train.augmentation.shfit'.*'shift'",
    ),
    "a shift beyond the picture": (
        "train",
        "augmentation",
        {"shift": 8},
        "train.augmentation.shift is 8: give a share from 0 to 1, for example 0.1",
    ),
    "a turn by more than half": (
        "train",
        "augmentation",
        {"rotate": 181},
        "train.augmentation.rotate is 181: give degrees from 0 to 180, for example 10",
    ),
    "a negative turn": (
        "train",
        "augmentation",
        {"rotate": -1},
        "rotate is -1: give degrees from 0",
    ),
    "a picture without a size": (
        "train",
        "augmentation",
        {"scale": 1.0},
        "train.augmentation.scale is 1.0: give a share from 0 to below 1, for example 0.1",
    ),
    "text for a number": (
        "train",
        "epochs",
        "many",
        "train.epochs is 'many': give a whole number from 1, for example 20",
    ),
    "a number out of range": (
        "train",
        "learning_rate",
        -1.0,
        "train.learning_rate is -1.0: give a number above 0",
    ),
    "an unknown choice": ("train", "optimizer", "adam", "train.optimizer is 'adam'.*adamw"),
    "an unknown precision": ("train", "precision", "8-bit", "train.precision is '8-bit'"),
    "a section that is no section": ("", "evaluate", 3, "evaluate is 3"),
}


def test_a_misspelt_key_is_named_rather_than_the_one_it_should_be(tmp_path: Path) -> None:
    text = PARAMS.read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  epochs:", "  epoch:"))
    with pytest.raises(SettingsError, match=r"params.yaml: there is no 'train\.epoch'.*'epochs'"):
        params.load(tmp_path)


@pytest.mark.parametrize(("section", "key", "value", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(
    section: str, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    content = fixed()
    (content[section] if section else content)[key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=message):
        params.load(tmp_path)


NO_NETWORK = ("train", "network", "cnm", "train.network is 'cnm': give one of ")


def mistaken(section: str, key: str, value: Any, folder: Path, **sections: Any) -> None:
    """Make a project whose parameters have one value that is wrong, and sections of its own."""
    content = yaml.safe_load((PROJECT / "params.yaml").read_text()) | fixed() | sections
    content[section][key] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(content))
    (folder / "dvc.yaml").touch()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        NO_NETWORK,
        ("train", "options", {"widht": 4}, "there is no 'train.options.widht': did you mean"),
        ("train", "pretrained", True, "train.pretrained is true, but there are no weights of cnn"),
        ("train", "optimizer", "lbfgs", "train.optimizer is 'lbfgs', which cannot train with sche"),
        ("tune", "trials", 0, "tune.trials is 0: give a whole number from 1"),
    ],
)
def test_a_mistake_for_a_later_stage_is_found(
    section: str,
    key: str,
    value: Any,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    mistaken(section, key, value, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([CHECK]) == 1
    assert f"error: params.yaml: {message}" in capfd.readouterr().err


def test_targets_that_the_network_is_not_made_for_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    linear = fixed()["train"] | {"network": "linear_svm", "options": {}}
    for smoothing, status in ((0.1, 1), (0.0, 0)):
        mistaken("train", "label_smoothing", smoothing, tmp_path, train=linear)
        monkeypatch.chdir(tmp_path)
        assert main([CHECK]) == status
    said = capfd.readouterr().err
    assert said.count("train.label_smoothing is 0.1, but linear_svm has no cross-entropy") == 1


def test_a_mistake_for_a_later_stage_is_named_before_the_first_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is looked for in a process of its own."""
    section, key, value, message = NO_NETWORK
    mistaken(section, key, value, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare"]) == 1
    assert f"error: params.yaml: {message}" in capfd.readouterr().err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "params.yaml cannot be read: No such file"),
        ("a: [", "params.yaml, line 2, is not YAML"),
        ("", "holds no sections"),
        ("seed: 1", "'prepare' is missing"),
    ],
    ids=["missing", "not YAML", "empty", "without sections"],
)
def test_an_unusable_file_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        params.load(tmp_path)
