"""What a search found, written into `params.yaml` with its comments left as they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from workspace import files

FILE = Path("params.yaml")


def write_train(root: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Write into params.yaml what differs between two sections `train`; all else stays as it is."""
    file = YAML()
    file.preserve_quotes = True
    file.width = 1000  # no line is broken
    file.representer.add_representer(float, plain_float)
    file.representer.add_representer(type(None), plain_null)
    text = (root / FILE).read_text()
    content = file.load(text)
    overwrite(content["train"], before, after, text.splitlines())
    with files.replacing(root / FILE) as stream:
        file.dump(content, stream)


def overwrite(
    section: Any, before: Mapping[str, Any], after: Mapping[str, Any], lines: Sequence[str]
) -> None:
    """Change in a section of those lines what differs between two of its contents."""
    for name in before.keys() - after.keys():
        section.pop(name, None)
    for name, value in after.items():
        if name in before and before[name] == value:
            continue
        if isinstance(value, dict) and isinstance(section.get(name), dict):
            overwrite(section[name], before.get(name, {}), value, lines)
        else:
            section[name] = value
        _, _, comment, *_ = section.ca.items.get(name) or [None] * 3
        if comment and not lines[comment.start_mark.line][: comment.column].endswith("  "):
            comment.start_mark.column = 0  # no column of comments: it follows its value


def plain_float(representer: Any, value: float) -> Any:
    """A number without an exponent, which readers of YAML 1.1 would take for text."""
    text = np.format_float_positional(value, trim="0")
    return representer.represent_scalar("tag:yaml.org,2002:float", text)


def plain_null(representer: Any, _: None) -> Any:
    """A null that can be seen."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")
