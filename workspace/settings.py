"""Settings that people and programs write: read from YAML or JSON, checked by pydantic.

A setting that is wrong is one sentence: the file, the key, its value, what would do, an example.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workspace.errors import UserError

Kind = TypeVar("Kind")

# LibYAML's safe loader is ten times as fast as PyYAML's own, which it equals otherwise.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SHOWN = 80  # characters of a value that a sentence repeats


class SettingsError(UserError):
    """A file that is missing, cannot be read, or holds a key or value that nobody understands."""


class Settings(BaseModel):
    """Base of every model of settings: values that do not change, and no key that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read_yaml(path: Path) -> Any:
    """Read a YAML file. Raises SettingsError."""
    return parse_yaml(_content(path), str(path))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises SettingsError."""
    return parse_json(_content(path), str(path))


def parse_yaml(text: str | bytes, name: str) -> Any:
    """Read YAML; `name` appears in messages. Raises SettingsError with the line."""
    try:
        return yaml.load(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise SettingsError(f"{name}{line} is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{name} is not YAML: {' '.join(str(error).split())}") from None


def parse_json(text: str | bytes, name: str) -> Any:
    """Read JSON; `name` appears in messages. Raises SettingsError with the place."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {error}") from None


def check(kind: type[Kind], content: Any, name: str, *place: str) -> Kind:
    """Build a pydantic model, or another type, of what stands at a place of a file.

    What a field wants is its `description`, and `examples` has one that would do. Raises
    SettingsError for the first mistake.
    """
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        # A typo makes two mistakes, a key too many and one too few: the first explains both.
        mistakes = sorted(error.errors(), key=lambda mistake: mistake["type"] == "missing")
        raise SettingsError(_sentence(mistakes[0], kind, name, place)) from None


def shown(value: Any) -> str:
    """Return a value as a sentence repeats it: escaped, and not longer than a line."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def _sentence(mistake: Any, kind: Any, name: str, place: Sequence[str]) -> str:
    path = [str(part) for part in mistake["loc"]]
    key = ".".join([*place, *path])
    if mistake["type"] == "extra_forbidden":
        known = list(_fields(_at(kind, path[:-1])))
        close = difflib.get_close_matches(path[-1], known, n=1)
        listed = f"known are {', '.join(known)}" if known else "there are none here"
        hint = f"did you mean {close[0]!r}?" if close else listed
        return f"{name}: there is no {key!r}: {hint}"
    wanted = _wanted(kind, path)
    if mistake["type"] == "missing":
        return f"{name}: {key!r} is missing" + (f": give {wanted}" if wanted else "")
    cure = f"give {wanted}" if wanted else mistake["msg"].lower().removeprefix("value error, ")
    return f"{name}: {key or 'it'} is {shown(mistake['input'])}: {cure}"


def _wanted(kind: Any, path: Sequence[str]) -> str:
    """Say what the innermost field on a path wants, if it is described."""
    while path:
        field = _fields(_at(kind, path[:-1])).get(path[-1])
        if field is not None and field.description:
            example = f", for example {_written(field.examples[0])}" if field.examples else ""
            return field.description + example
        path = path[:-1]
    return ""


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _at(kind: Any, path: Sequence[str]) -> Any:
    """Return the kind of what stands at a path below another."""
    for name in path:
        field = _fields(kind).get(name)
        if field is None:
            return None
        kinds = [field.annotation, *get_args(field.annotation)]
        kind = next((each for each in kinds if _fields(each)), None)
    return kind


def _fields(kind: Any) -> dict[str, Any]:
    """Return pydantic's account of a model's fields by name; another kind has none."""
    is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
    return dict(kind.model_fields) if is_model else {}
