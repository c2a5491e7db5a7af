"""The text of a config.pbtxt, in which single fields are changed and all else stays as it is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from delivery.errors import DeliveryError
from workspace.errors import said

THREADS = "intra_op_thread_count"
# What is no bracket: blanks, comments, texts in quotes, names and numbers, other signs.
TOKEN = re.compile(r"""\s+|\#[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[\w.+-]+|.""", re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """How a server works through requests.

    Attributes:
        instances: of the model in each of its groups, each with a session of its own.
        threads: of one inference.
        delay: microseconds that a request waits for others to share a batch; None: no batches.
    """

    instances: int
    threads: int
    delay: int | None

    def __str__(self) -> str:
        """Say it in words."""
        waits = "no batches" if self.delay is None else f"batches, {self.delay} µs delay"
        return f"{self.instances} instance(s), {self.threads} thread(s), {waits}"


def parse(text: str) -> Any:
    """Read a config.pbtxt; fields that are newer than the library are passed over.

    Raises DeliveryError.
    """
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except text_format.ParseError as error:
        raise DeliveryError(
            f"config.pbtxt cannot be read ({said(str(error))}): correct it"
        ) from None


def largest_batch(text: str) -> int:
    """Read how many pictures a config.pbtxt lets a request have. Raises DeliveryError."""
    return max(1, parse(text).max_batch_size)


def settings(text: str) -> Settings:
    """Read the settings that a config.pbtxt has. Raises DeliveryError."""
    config = parse(text)
    threads = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    return Settings(
        instances=max([1, *(group.count for group in config.instance_group)]),
        threads=int(threads),
        delay=config.dynamic_batching.max_queue_delay_microseconds
        if config.HasField("dynamic_batching")
        else None,
    )


def changed(text: str, wanted: Settings) -> str:
    """Return a config.pbtxt with other settings; comments and other fields stay as they are.

    Raises DeliveryError.
    """
    parse(text)
    group, batching = f"count: {wanted.instances}", ""
    if wanted.delay:
        batching = f"max_queue_delay_microseconds: {wanted.delay}"
    text = edited(text, "instance_group", r"count\s*:\s*\d+", group, "[ { kind: KIND_AUTO } ]")
    delay = r"max_queue_delay_microseconds\s*:\s*\d+"
    if wanted.delay is None:
        text = removed(text, "dynamic_batching")
    else:
        text = edited(text, "dynamic_batching", delay, batching, "{ }")
    entry = rf'key\s*:\s*"{THREADS}"\s*,?\s*value\s*:?\s*{{[^}}]*}}'
    value = f'key: "{THREADS}" value: {{ string_value: "{wanted.threads}" }}'
    if re.search(entry, text):
        text = re.sub(entry, value, text)
    else:
        text += f"\nparameters [ {{ {value} }} ]\n"
    assert settings(text) == wanted
    return text


def edited(text: str, field: str, part: str, content: str, empty: str) -> str:
    """Put other content in the place of a part of a field, which is `empty` where it is not set."""
    if not list(places(text, field)):
        text += f"\n{field} {empty}\n"
    for start, end in reversed(list(places(text, field))):
        inside = text[start:end]
        if re.search(part, inside):
            inside = re.sub(part, content, inside)
        elif content:
            inside = inside.replace("{", f"{{ {content}", 1)
        text = text[:start] + inside + text[end:]
    return text


def removed(text: str, field: str) -> str:
    """Leave a field out."""
    for start, end in reversed(list(places(text, field))):
        text = text[:start] + text[end:]
    return text


def places(text: str, field: str) -> Iterator[tuple[int, int]]:
    """Give where a field of the outermost level begins and ends, each time that it is set."""
    depth, start = 0, None
    for token in TOKEN.finditer(text):
        if depth == 0 and token[0] == field:
            start = token.start()
        depth += (token[0] in "{[") - (token[0] in "}]")
        if depth == 0 and token[0] in "}]" and start is not None:
            yield start, token.end()
            start = None
