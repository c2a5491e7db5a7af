"""Settings and documents that others wrote: read from YAML or JSON, checked by pydantic.

This is the one door for text that was not written by this very process. What comes through it is
texts, finite numbers, true, false, null, lists, and maps whose keys are texts: no tags, dates or
aliases, no key twice, nothing nested without end, no more bytes than the kind of file needs. All
else is a SettingsError: one sentence with the file, the key, its value, what would do, an example.
"""

import difflib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from workspace.errors import SHOWN, UserError, said, shown

Kind = TypeVar("Kind")

UNUSABLE = re.compile(r"[\0\ud800-\udfff]")  # in the names of files, and in UTF-8
LARGE = 2**63  # whole numbers from here are read differently elsewhere
SMALL = 64 * 1024  # bytes of a file with a few settings, such as a release file
LARGEST = 16 * 1024 * 1024  # of accounts of a pipeline, locks, manifests, lists of images
DEEPEST = 64  # lists and maps in one another
PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # LibYAML's is ten times as fast
# Plain scalars that are no text, as the core schema of YAML 1.2 has them; DVC reads them so, too.
CONSTANTS = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}
INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)


class SettingsError(UserError):
    """A file that is missing, cannot be read, or holds a key or value that nobody understands."""


class Settings(BaseModel):
    """Base of every model of settings: values that do not change, and no key that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Plain(str):
    """A text of YAML that is not in quotes, which another reader may take for a number."""


def read_text(path: Path, largest: int = LARGEST) -> str:
    """Read a text file in UTF-8 of at most `largest` bytes. Raises SettingsError."""
    return _text(_content(path, largest), str(path), largest)


def read_yaml(path: Path, largest: int = LARGEST) -> Any:
    """Read a YAML file of at most `largest` bytes. Raises SettingsError."""
    return parse_yaml(_content(path, largest), str(path), largest)


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Read a JSON file of at most `largest` bytes. Raises SettingsError."""
    return parse_json(_content(path, largest), str(path), largest)


def parse_yaml(text: str | bytes, name: str, largest: int = LARGEST) -> Any:
    """Read YAML; `name` appears in messages. Raises SettingsError with the line."""
    return _one(_yaml(text, name, largest, _typed), name)


def parse_texts(text: str | bytes, name: str, largest: int = SMALL) -> Any:
    """Read YAML whose scalars are all texts; those without quotes are Plain. As `parse_yaml`."""
    return _one(_yaml(text, name, largest, _untyped), name)


def parse_documents(text: str | bytes, name: str, largest: int = LARGEST) -> list[Any]:
    """Read YAML of several documents, as `parse_yaml` reads one."""
    return list(_yaml(text, name, largest, _typed))


def parse_json(text: str | bytes, name: str, largest: int = LARGEST) -> Any:
    """Read JSON; `name` appears in messages. Raises SettingsError with the place.

    What is not a number is one of Python's, which writes it so; Settings refuse it.
    """
    content = _text(text, name, largest)
    if not content.strip():
        raise SettingsError(f"{name} is empty")
    try:
        document = json.loads(
            content, object_pairs_hook=_map, parse_int=_integer, parse_float=_number
        )
    except RecursionError:
        raise SettingsError(f"{name} is not JSON that can be read: {TOO_DEEP}") from None
    except ValueError as error:
        raise SettingsError(f"{name} is not JSON: {said(str(error))}") from None
    _check_values(document, name)
    return document


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


# -- the door --------------------------------------------------------------------------------------

TOO_DEEP = f"more than {DEEPEST} lists and maps are in one another"


def _content(path: Path, largest: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(largest + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None


def check_size(size: int, name: str, largest: int) -> None:
    """Raise SettingsError for more bytes than are read, before they are if that can be."""
    if size > largest:
        raise SettingsError(f"{name} is too large: at most {largest:,} bytes are read")


def _text(content: str | bytes, name: str, largest: int) -> str:
    check_size(len(content), name, largest)
    try:
        text = content if isinstance(content, str) else content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{name} cannot be read: it is not UTF-8 at byte {error.start + 1}; save it as UTF-8"
        ) from None
    if text.startswith("\ufeff"):
        raise SettingsError(f"{name} begins with a byte order mark: save it without one")
    return text


def _one(documents: Iterator[Any], name: str) -> Any:
    document = next(documents, None)
    if next(documents, documents) is not documents:
        raise SettingsError(f"{name} is not YAML of one document: a line `---` begins another")
    return document


def _yaml(
    content: str | bytes, name: str, largest: int, scalar: Callable[[Any], Any]
) -> Iterator[Any]:
    """Yield the documents. Raises SettingsError with the line."""
    text = _text(content, name, largest)
    try:
        for document in _documents(yaml.parse(text, Loader=PARSER), scalar):
            _check_values(document, name)
            yield document
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}," if error.problem_mark else ""
        raise SettingsError(f"{name}{line} is not YAML: {said(str(error.problem))}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{name} is not YAML: {said(str(error))}") from None


def _documents(events: Iterable[Any], scalar: Callable[[Any], Any]) -> Iterator[Any]:
    """Build documents of a parser's events, without recursion: nothing in them can surprise."""
    begun: list[tuple[bool, list[Any]]] = []  # whether it is a map, and its nodes; innermost last
    for event in events:
        try:
            if isinstance(event, yaml.DocumentEndEvent):
                yield begun.pop()[1][0]
            elif isinstance(
                event, yaml.NodeEvent | yaml.CollectionEndEvent | yaml.DocumentStartEvent
            ):
                _take(event, begun, scalar)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=event.start_mark) from None


def _take(event: Any, begun: list[tuple[bool, list[Any]]], scalar: Callable[[Any], Any]) -> None:
    """Take an event into what has begun. Raises ValueError for what is more than data."""
    if getattr(event, "anchor", None) or getattr(event, "tag", None):
        raise ValueError("anchors, aliases and tags are not read: write the value out")
    if isinstance(event, yaml.CollectionStartEvent | yaml.DocumentStartEvent):
        begun.append((isinstance(event, yaml.MappingStartEvent), []))
        if len(begun) > DEEPEST + 1:
            raise ValueError(TOO_DEEP)
        return
    if isinstance(event, yaml.ScalarEvent):
        is_map, nodes = begun[-1]
        is_key = is_map and len(nodes) % 2 == 0
        nodes.append(event.value if is_key else scalar(event))
        return
    is_map, nodes = begun.pop()
    begun[-1][1].append(_map(list(zip(nodes[::2], nodes[1::2], strict=True))) if is_map else nodes)


def _map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    """Return a map of pairs. Raises ValueError for a key that is no text, or is there twice."""
    if not all(isinstance(key, str) for key, _ in pairs):
        raise ValueError("a key is not a text")
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _untyped(event: Any) -> str:
    return event.value if event.style else Plain(event.value)


def _typed(event: Any) -> Any:
    text = event.value
    if event.style:  # in quotes, or a block
        return text
    if text in CONSTANTS:
        return CONSTANTS[text]
    if INTEGER.fullmatch(text):
        return _integer(text)
    return _number(text) if NUMBER.fullmatch(text) else text


def _integer(text: str) -> int:
    """Read a whole number. Raises ValueError beyond 64 bits, where readers differ."""
    value = int(text) if len(text) < SHOWN else LARGE
    if abs(value) >= LARGE:
        raise ValueError(f"{shown(text)} is too large a number")
    return value


def _number(text: str) -> float:
    """Read a number. Raises ValueError where it has no finite value."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large a number")
    return value


def _check_values(document: Any, name: str) -> None:
    """Refuse what is nested too deeply, and texts that are no file's name and no line."""
    level = [document]
    for _ in range(DEEPEST + 1):
        for each in level:
            if isinstance(each, str) and UNUSABLE.search(each):
                raise SettingsError(
                    f"{name} holds {shown(each)}, with NUL or half of a character: correct it"
                )
        level = [below for each in level for below in _below(each)]
        if not level:
            return
    raise SettingsError(f"{name} cannot be read: {TOO_DEEP}")


def _below(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else []


# -- sentences -------------------------------------------------------------------------------------


def _sentence(mistake: Any, kind: Any, name: str, place: Sequence[str]) -> str:
    path = [str(part)[:SHOWN] for part in mistake["loc"]]
    key = ".".join([*place, *path])
    if mistake["type"] == "extra_forbidden":
        known = list(_fields(_at(kind, path[:-1])))
        close = difflib.get_close_matches(path[-1], known, n=1)
        listed = f"known are {', '.join(known)}" if known else "there are none here"
        hint = f"did you mean {close[0]!r}?" if close else listed
        return f"{name}: there is no {shown(key)}: {hint}"
    wanted = _wanted(kind, path)
    if mistake["type"] == "missing":
        return f"{name}: {shown(key)} is missing" + (f": give {wanted}" if wanted else "")
    why = said(mistake["msg"]).removeprefix("Value error, ").lower()
    cure = f"give {wanted}" if wanted else why
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
