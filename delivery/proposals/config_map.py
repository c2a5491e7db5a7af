"""Files that people, Git and the cluster read: ConfigMaps whose values are all quoted text."""

import json
from typing import Any, TypeVar

from workspace.settings import Plain, Settings, SettingsError, check, parse_texts, shown

Kind = TypeVar("Kind", bound=Settings)


def write_config_map(name: str, values: Settings) -> str:
    """Return the text of a ConfigMap; equal values give equal text. What is None is left out."""
    lines = [f"  {key}: {json.dumps(value)}\n" for key, value in written(values).items()]
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n{''.join(lines)}"


def written(values: Settings) -> dict[str, str]:
    """Return the values as the text has them."""
    return {key: str(value) for key, value in values if value is not None}


def parse_config_map(kind: type[Kind], text: str | bytes, name: str, file: str) -> Kind:
    """Read the values in the text of the ConfigMap `name`; `file` appears in messages.

    Raises SettingsError when the text is not a ConfigMap of this form, in which every value is in
    quotes: what a plain one is depends on who reads it. Nor may lines end where not all see it, or
    signs hide what follows them.
    """
    values = _data(parse_texts(text, file), name, file)
    for key, value in values.items():
        if isinstance(value, Plain):
            raise SettingsError(f"{file}: {key} is {value}, not text: write it in double quotes")
    found = check(kind, values, file, "data")
    lines = (text if isinstance(text, str) else text.decode()).replace("\r\n", "\n").split("\n")
    if odd := next((line for line in lines if not line.isprintable()), None):
        raise SettingsError(f"{file} holds signs that cannot be seen, in {shown(odd)}: remove them")
    return found


def _data(document: Any, name: str, file: str) -> dict[Any, Any]:
    head = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
    match document:
        case {"data": dict(data)} if document == {**head, "data": data}:
            return data
    raise SettingsError(f"{file} is not one ConfigMap named {name} with data, and no more")
