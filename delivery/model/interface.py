"""What clients of a model rely on: the input's name, type and shape, the output, the labels."""

import hashlib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from workspace.errors import printable, sentence
from workspace.settings import read_text

LONGEST = 300  # signs of the labels that a change names one by one


@dataclass(frozen=True)
class Interface:
    """The contract with the clients; its fields are named as a change names them."""

    input: str
    type: str
    shape: str  # 40x40x3 for pictures of that height, width and channels
    output: str
    labels: tuple[str, ...]  # in the order of the probabilities


def read_interface(model: Path) -> Interface:
    """Read what the model in a model repository says to its clients. Raises DeliveryError."""
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2  # brings gRPC, which is not needed otherwise

    folder = model / "classifier"
    try:
        text = read_text(folder / "config.pbtxt")
        config: Any = text_format.Parse(text, model_config_pb2.ModelConfig())
        labels = read_labels(folder, config)
    except Exception as error:  # what was written elsewhere may be of any form
        why = sentence(error).replace(f"{folder}/", "")  # pull requests tell no folders
        raise DeliveryError(f"the interface cannot be read ({why})") from None
    return Interface(
        input=", ".join(each.name for each in config.input),
        type=", ".join(type_name(each.data_type) for each in config.input),
        shape=", ".join("x".join(map(str, each.dims)) for each in config.input),
        output=", ".join(each.name for each in config.output),
        labels=labels,
    )


def type_name(number: int) -> str:
    """Return a type as clients name it: UINT8."""
    from tritonclient.grpc import model_config_pb2

    return str(model_config_pb2.DataType.Name(number)).removeprefix("TYPE_")


def read_labels(folder: Path, config: Any) -> tuple[str, ...]:
    """Return the labels of the first output that has some; they stand beside the configuration."""
    names = [each.label_filename for each in config.output if each.label_filename]
    if not names:
        return ()
    return tuple(read_text(folder / Path(names[0]).name).splitlines())


def change_between(before: Interface, after: Interface) -> str:
    """Return what changes for the clients, as params.yaml may accept it; "" if nothing does.

    `shape: 40x40x3 -> 64x64x3; labels: + otter`. It is exact: another change has another text.
    """
    changes = [
        f"{name}: {was} -> {now}"
        for name, was in vars(before).items()
        if name != "labels" and was != (now := getattr(after, name))
    ]
    if before.labels != after.labels:
        changes.append(f"labels: {', '.join(label_changes(before.labels, after.labels))}")
    return printable("; ".join(changes)).replace("`", "'")


def label_changes(before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    """Name what each place of the probabilities meant and means, where that differs."""
    named: list[str] = []
    length = 0
    pairs = [each for each in enumerate(zip_longest(before, after)) if each[1][0] != each[1][1]]
    for place, (was, now) in pairs:
        one = f"{place} {was} -> {now}"
        one = f"+ {now}" if was is None else f"- {was}" if now is None else one
        length += len(one)
        if length > LONGEST:
            rest = hashlib.sha256("\n".join(after).encode()).hexdigest()[:8]  # which they are
            return [*named, f"{len(pairs) - len(named)} more ({rest})"]
        named.append(one)
    return named
