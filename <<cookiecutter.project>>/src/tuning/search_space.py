"""What a search may change: the section `tune.space` of params.yaml, checked, and draws from it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import qmc

from classifier import networks, params
from classifier.networks import Shape
from classifier.params import TrainParams
from workspace.errors import UserError

KINDS = ("uniform", "log_uniform", "choice")
DIGITS = 3  # of a number that was drawn: the rest is noise, and a reviewer reads it
ANY_SHAPE = Shape(8, 8, 1, 10)

# What makes a trial comparable with the others, or belongs to the machine.
FIXED = {"network": "say which with NETWORK", "threads": "give train.threads"}
NOT_RANGES = {"epochs": "trials stop early by comparing them at the same epoch of equal schedules"}


@dataclass(frozen=True)
class Range:
    """What a parameter may be: between two numbers, evenly or by their logarithm, or one of a list.

    Between whole numbers only whole ones are drawn.
    """

    kind: str
    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the range, from 0 to below 1."""
        if self.kind == "choice":
            return self.values[int(share * len(self.values))]
        low, high = self.values
        whole = all(isinstance(value, int) for value in self.values)
        if self.kind == "log_uniform":
            value = low * (high / low) ** share
        elif whole:
            return low + int(share * (high - low + 1))  # as likely at the ends as between
        else:
            value = low + (high - low) * share
        return round(value) if whole else min(max(float(f"{value:.{DIGITS}g}"), low), high)


Space = dict[str, Any]  # the parameter's place in the section `train`: a Range, or the only value


def ranges(space: Space) -> dict[str, Range]:
    """What is drawn, without what is fixed."""
    return {name: value for name, value in space.items() if isinstance(value, Range)}


def fixed(space: Space) -> dict[str, Any]:
    """What is set, without what is drawn."""
    return {name: value for name, value in space.items() if not isinstance(value, Range)}


def parse(content: Mapping[str, Mapping[str, Any]], train: TrainParams) -> dict[str, Space]:
    """Check the spaces of all networks, to be drawn from beside the other parameters of `train`.

    Raises UserError, which names the key, the value and what would do.
    """
    for network in content:
        if network not in networks.NETWORKS:
            known = ", ".join(networks.NETWORKS)
            raise UserError(f"tune.space.{network} is of no network: use one of {known}.")
    return {network: parse_space(network, space, train) for network, space in content.items()}


def parse_space(network: str, content: Mapping[str, Any], train: TrainParams) -> Space:
    """Check the space of one network; raises UserError."""
    space = {}
    for name, value in content.items():
        key = f"tune.space.{network}.{name}"
        if name in FIXED:
            raise UserError(f"{key} cannot be searched: {FIXED[name]}.")
        if name in NOT_RANGES and isinstance(value, dict):
            raise UserError(f"{key} is {value!r}: give one value, as {NOT_RANGES[name]}.")
        space[name] = parse_range(key, value) if isinstance(value, dict) else value
    start = untuned(network, space, train)
    for name, value in space.items():
        examples = value.values if isinstance(value, Range) else (value,)
        for example in examples:
            check(f"tune.space.{network}.{name}", start, name, example)
    return space


def parse_range(key: str, content: dict[str, Any]) -> Range:
    """Check the range of one parameter; raises UserError."""
    kind, values = next(iter(content.items())) if len(content) == 1 else ("", None)
    if kind not in KINDS or not isinstance(values, list) or not values:
        raise UserError(
            f"{key} is {content!r}: give {{uniform: [low, high]}}, {{log_uniform: [low, high]}}, "
            "{choice: [...]} or one value."
        )
    if kind == "choice":
        return Range(kind, tuple(values))
    if len(values) != 2 or not all(is_number(value) for value in values):
        raise UserError(f"{key} is {content!r}: {kind} takes two numbers, [low, high].")
    low, high = values
    if low >= high:
        raise UserError(f"{key} is {content!r}: {low} must be below {high}.")
    if kind == "log_uniform" and low <= 0:
        raise UserError(f"{key} is {content!r}: log_uniform takes numbers above 0, unlike {low}.")
    return Range(kind, (low, high))


def is_number(value: Any) -> bool:
    """Whether it is a finite number; YAML's true and false are not."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def check(key: str, start: TrainParams, name: str, value: Any) -> None:
    """Raise UserError unless the parameter may have the value, in its section and its network."""
    try:
        train = changed(start, {name: value})
        with torch.device("meta"):  # nothing is computed
            networks.build(train.network, ANY_SHAPE, train.options)
    except (UserError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{key} cannot be {value!r}: {' '.join(str(error).split())}") from None


def changed(train: TrainParams, values: Mapping[str, Any]) -> TrainParams:
    """The section with values at their places, such as `options.width`; raises UserError."""
    content = train.model_dump()
    for name, value in values.items():
        *path, last = name.split(".")
        section = content
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise UserError(f"{params.FILE}: train.{part} holds no parameters.")
        section[last] = value
    return params.check(TrainParams, content, "train")


def untuned(network: str, space: Space, train: TrainParams) -> TrainParams:
    """What a network is trained with before any search.

    For the network of params.yaml that is what the file says; for another one the file with the
    network's own options, and with what its space fixes.
    """
    if network == train.network:
        return train
    bare = changed(train, {"network": network, "options": {}})
    return changed(bare, fixed(space))


def candidates(network: str, space: Space, train: TrainParams, seed: int) -> Iterator[TrainParams]:
    """Yield the untuned, then an endless sequence of different draws, the same for the same seed.

    The draws fill the space evenly: they are a scrambled Halton sequence. Source: Owen, A
    Randomized Halton Algorithm in R, arXiv:1706.02808. A space of a few choices ends early.
    """
    start = untuned(network, space, train)
    yield start
    points = qmc.Halton(max(len(ranges(space)), 1), seed=seed)
    seen, repeats = [start], 0
    while repeats < 300:
        candidate = changed(start, fixed(space) | drawn(space, points.random()[0]))
        if candidate in seen:
            repeats += 1
            continue
        repeats = 0
        seen.append(candidate)
        yield candidate


def drawn(space: Space, shares: Iterable[float]) -> dict[str, Any]:
    """The values at the shares of the ranges, one for each."""
    pairs = zip(ranges(space).items(), shares, strict=False)
    return {name: limits.at(share) for (name, limits), share in pairs}
