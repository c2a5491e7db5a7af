"""What a search may change: the section `tune.space` of params.yaml, checked, and draws from it."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from scipy.stats import qmc

from classifier import networks, params
from classifier.networks import Shape
from classifier.params import TrainParams
from workspace.errors import UserError
from workspace.settings import Settings

DIGITS = 3  # of a number that was drawn: the rest is noise, and a reviewer reads it
ANY_SHAPE = Shape(8, 8, 1, 10)
SPACE = "tune.space"
FIXED = {  # what makes trials comparable, belongs to the machine, or is had once for all of them
    "network": "say which with NETWORK",
    "threads": "give train.threads",
    "pretrained": "give train.pretrained",
    "weights": "give train.weights",
    "weights_sha256": "give train.weights_sha256",
    "epochs": "give one value, as trials are compared at the same epoch of equal schedules",
}


def check_ends(ends: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
    """Take two finite numbers, the lower first; YAML's true and false are none."""
    numbers = [end for end in ends if type(end) in (int, float)]
    least = 0 if info.field_name == "log_uniform" else -math.inf
    if not (len(ends) == len(numbers) == 2 and least < numbers[0] < numbers[1] < math.inf):
        raise ValueError
    return ends


Ends = Annotated[tuple[Any, ...], AfterValidator(check_ends)]


class Range(Settings):
    """What a parameter may be: between two numbers, evenly or by their logarithm, or one of a list.

    Between whole numbers only whole ones are drawn.
    """

    uniform: Ends = Field((), description="[low, high], low < high", examples=[[0.0, 0.5]])
    log_uniform: Ends = Field((), description="[low, high], 0 < low < high", examples=[[0.1, 10]])
    choice: tuple[Any, ...] = Field((), description="a list", examples=[[16, 32]], min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> "Range":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give one value, or one of {', '.join(Range.model_fields)}")
        return self

    @property
    def values(self) -> tuple[Any, ...]:
        """Both ends, or the list."""
        return self.uniform or self.log_uniform or self.choice

    def at(self, share: float) -> Any:
        """The value at a share of the range, from 0 to below 1."""
        if self.choice:
            return self.choice[int(share * len(self.choice))]
        low, high = self.values
        whole = all(isinstance(value, int) for value in self.values)
        if self.log_uniform:
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
    if strangers := content.keys() - networks.NETWORKS:
        known = ", ".join(networks.NETWORKS)
        raise UserError(
            f"{params.FILE}: {SPACE}.{min(strangers)} is no network: use one of {known}"
        )
    return {network: parse_space(network, space, train) for network, space in content.items()}


def parse_space(network: str, content: Mapping[str, Any], train: TrainParams) -> Space:
    """Check the space of one network; raises UserError."""
    space = {}
    for name, value in content.items():
        is_range, key = isinstance(value, dict), f"{SPACE}.{network}.{name}"
        if name in FIXED and (is_range or name != "epochs"):
            raise UserError(f"{params.FILE}: {key} cannot be searched: {FIXED[name]}")
        space[name] = params.check(Range, value, key) if is_range else value
    start = untuned(network, space, train)
    for name, value in space.items():
        for example in value.values if isinstance(value, Range) else [value]:
            check(network, start, name, example)
    return space


def check(network: str, start: TrainParams, name: str, value: Any) -> None:
    """Raise UserError unless the parameter may have the value, in its section and its network."""
    place = f"{SPACE}.{network}"
    options = changed(start, {name: value}, place).options
    if not options:
        return  # all as it is by default; the large networks have none, and take long to build
    try:
        with torch.device("meta"):  # nothing is computed
            networks.build(network, ANY_SHAPE, options, place)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{params.FILE}: {place}.{name} cannot be {value!r}: {reason}") from None


def changed(train: TrainParams, values: Mapping[str, Any], place: str = "train") -> TrainParams:
    """The section with values, from a place of params.yaml, at places such as `options.width`.

    Raises UserError.
    """
    content = train.model_dump()
    for name, value in values.items():
        *path, last = name.split(".")
        section = content
        for part in path:
            if not isinstance(section.get(part), dict):
                section[part] = {}  # what is wrong with that, the check says
            section = section[part]
        section[last] = value
    return params.check(TrainParams, content, place)


def untuned(network: str, space: Space, train: TrainParams) -> TrainParams:
    """What a network is trained with before any search.

    For the network of params.yaml that is what the file says; for another one the file with the
    network's own options, and with what its space fixes.
    """
    if network == train.network:
        return train
    bare = changed(train, {"network": network, "options": {}})
    return changed(bare, fixed(space), f"{SPACE}.{network}")


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
        pairs = zip(ranges(space).items(), points.random()[0], strict=False)
        drawn = {name: limits.at(share) for (name, limits), share in pairs}
        candidate = changed(start, fixed(space) | drawn)
        if candidate in seen:
            repeats += 1
            continue
        repeats = 0
        seen.append(candidate)
        yield candidate
