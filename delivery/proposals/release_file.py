"""The release file of an environment: which model it serves."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from delivery.errors import DeliveryError

RELEASE_FILE = "model.yaml"
RELEASE_NAME = "model-release"
FIGURES = ["accuracy", "macro_f1", "calibration_error", "loss", "support"]


class ReleaseFileError(DeliveryError):
    """A release file that is missing or says something that cannot be served."""


@dataclass(frozen=True)
class Release:
    """One released model: what `model.yaml` says, as values.

    `image` is a reference by digest; the three figures before `loss` lie in 0 to 1; `support`
    counts test images; `data`, `test_data` and `code` are SHA-256 sums in hexadecimal.
    """

    version: int
    image: str
    accuracy: float
    macro_f1: float
    calibration_error: float
    loss: float
    support: int
    data: str
    test_data: str
    code: str
    commit: str

    def to_yaml(self) -> str:
        """Return the text of the release file; equal releases give equal text."""
        values = {name: str(value) for name, value in asdict(self).items()}
        lines = [f"  {name}: {json.dumps(value)}\n" for name, value in values.items()]
        head = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {RELEASE_NAME}\ndata:\n"
        return head + "".join(lines)


def pattern(expression: str) -> Callable[[str], str]:
    """Return a reader of texts that match the whole expression; it raises ValueError on others."""

    def read(text: str) -> str:
        if not re.fullmatch(expression, text):
            raise ValueError(text)
        return text

    return read


def count(text: str) -> int:
    """Return the whole number from 1, written without leading zeros; raise ValueError on others."""
    return int(pattern(r"[1-9][0-9]{0,8}")(text))


def figure(highest: float) -> Callable[[str], float]:
    """Return a reader of numbers from 0 to `highest`; it raises ValueError on others."""

    def read(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and 0 <= value <= highest):
            raise ValueError(text)
        return value

    return read


SHA256 = (pattern(r"[0-9a-f]{64}"), "the 64 hexadecimal digits of a SHA-256")
SHARE = (figure(1.0), "a number from 0 to 1")

# key: (reader, what a good value is)
READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "version": (count, 'a whole number from 1 without leading zeros, such as "8"'),
    "image": (pattern(r"\S+@sha256:[0-9a-f]{64}"), "an image by digest: <name>@sha256:<64 digits>"),
    "accuracy": SHARE,
    "macro_f1": SHARE,
    "calibration_error": SHARE,
    "loss": (figure(math.inf), "a number from 0"),
    "support": (count, "a whole number from 1"),
    "data": SHA256,
    "test_data": SHA256,
    "code": SHA256,
    "commit": (pattern(r"[0-9a-f]{40}"), "the 40 hexadecimal digits of a Git commit"),
}


def read_release(path: Path) -> Release:
    """Read a release file.

    Raises ReleaseFileError when it is missing, unreadable or not a ConfigMap of this form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReleaseFileError(
            f"{path} is missing: nothing is released there; make and merge a release first."
        ) from None
    except (OSError, UnicodeError) as error:
        raise ReleaseFileError(f"{path} cannot be read: {error}; restore it from Git.") from None
    return parse_release(text, str(path))


def parse_release(text: str, name: str) -> Release:
    """Read the text of a release file, such as an earlier commit's; `name` appears in messages.

    Raises ReleaseFileError when the text is not a ConfigMap of this form.
    """
    data = release_data(text, name)
    known = [field.name for field in fields(Release)]
    if missing := [key for key in known if key not in data]:
        raise ReleaseFileError(
            f"{name} has no {', '.join(missing)} under data; add what is missing."
        )
    if unknown := [str(key) for key in data if key not in known]:
        raise ReleaseFileError(
            f"{name} has {', '.join(unknown)} under data, which no release has; remove it."
        )
    return Release(**{key: read_value(key, data[key], name) for key in known})


def release_data(text: str, name: str) -> dict[Any, Any]:
    """Return the `data` of the ConfigMap in the text, or raise ReleaseFileError."""
    try:
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ReleaseFileError(
            f"{name}, line {line}, is not YAML: {error.problem}; restore the file from Git."
        ) from None
    except yaml.YAMLError as error:
        raise ReleaseFileError(
            f"{name} is not YAML: {' '.join(str(error).split())}; restore it."
        ) from None
    match document:
        case {"kind": "ConfigMap", "metadata": {"name": str(found)}, "data": dict(data)}:
            if found == RELEASE_NAME:
                return data
    raise ReleaseFileError(
        f"{name} is not one ConfigMap named {RELEASE_NAME} with data; restore it from Git."
    )


def read_value(key: str, value: Any, name: str) -> Any:
    """Return what the text under `key` means, or raise ReleaseFileError."""
    reader, good = READERS[key]
    if not isinstance(value, str):
        raise ReleaseFileError(f"{name}: {key} is {value!r}, not text; write it in double quotes.")
    try:
        return reader(value)
    except ValueError:
        raise ReleaseFileError(f"{name}: {key} is {value!r}; it must be {good}.") from None
