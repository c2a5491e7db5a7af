"""params.yaml: the shipped one is right, and every mistake gets a sentence that names it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from classifier import networks, params
from classifier.networks import Shape

PROJECT = Path(__file__).parent.parent


def test_the_shipped_parameters_are_right() -> None:
    values = params.load(PROJECT)
    shape = Shape(8, 8, 1, 10)
    assert networks.build(values.train.network, shape, values.train.options)


MISTAKES = {
    "a typo in a key": ("train", "epoch", 3, "there is no parameter 'train.epoch'.*'epochs'"),
    "a key of a nested section": (
        "train",
        "augmentation",
        {"shfit": 1.0},
        "'train.augmentation.shfit'.*'shift'",
    ),
    "text for a number": ("train", "epochs", "many", "train.epochs is 'many'"),
    "a number out of range": ("train", "learning_rate", -1.0, "train.learning_rate is -1.0"),
    "an unknown choice": ("train", "optimizer", "adam", "train.optimizer is 'adam'.*adamw"),
    "an unknown precision": ("train", "precision", "8-bit", "train.precision is '8-bit'"),
    "a section that is no section": ("", "evaluate", 3, "evaluate is 3"),
}


def test_a_misspelt_key_is_named_rather_than_the_one_it_should_be(tmp_path: Path) -> None:
    text = (PROJECT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  epochs:", "  epoch:"))
    with pytest.raises(params.ParamsError, match=r"no parameter 'train\.epoch'.*'epochs'"):
        params.load(tmp_path)


@pytest.mark.parametrize(("section", "key", "value", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named(
    section: str, key: str, value: Any, message: str, tmp_path: Path
) -> None:
    content = yaml.safe_load((PROJECT / "params.yaml").read_text())
    (content[section] if section else content)[key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(params.ParamsError, match=message):
        params.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not in"),
        ("a: [", "not valid YAML"),
        ("", "holds no sections"),
        ("seed: 1", "prepare"),
    ],
    ids=["missing", "not YAML", "empty", "without sections"],
)
def test_an_unusable_file_is_named(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(params.ParamsError, match=message):
        params.load(tmp_path)
