"""Data and parameters: what changed, in words, and whether the pipeline's outputs belong to it."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

from delivery.checks.changes import Changes
from delivery.checks.findings import LONGEST, Part
from delivery.dvc import LOCK, Lock, Tracked, parse_lock
from delivery.model.new_pictures import LEDGER
from delivery.model.pipeline_outputs import leaves
from delivery.parameters import Parameters
from workspace.errors import shown
from workspace.markdown import block, code, cut
from workspace.settings import check, parse_json, parse_yaml

PARAMS = "params.yaml"
MOST = 30  # changes that are told one by one
DEALT = "splits dealt anew"


def judge_data(changes: Changes, part: Part) -> None:
    """Add what is wrong with data, parameters and outputs; tell what changed."""
    content = changes.after(PARAMS)
    if content is None:
        part.refuse(PARAMS, 1, ["params.yaml would be gone: put it back"])
        return
    check(Parameters, parse_yaml(content, PARAMS), PARAMS)
    told = [
        f"{code(each.path)} changes: where data come from and go to"
        for each in changes.files
        if each.path == ".dvc/config"
    ]
    told += [*changed_parameters(changes), *changed_pictures(changes), *changed_classes(changes)]
    if told:
        more = [f"and {len(told) - MOST} more"] if len(told) > MOST else []
        part.told.append("\n".join(f"- {each}" for each in [*told[:MOST], *more]))
    for path, line, sentence in moved_pictures(changes):
        part.refuse(path, line, [sentence])
    check_outputs(changes, part)
    for each in changes.files:
        is_review = each.path.startswith("reviews/") and each.path.endswith(".md")
        if is_review and (content := changes.after(each.path)):
            text = cut(content.decode(errors="replace"), LONGEST)
            part.folded[f"review of the batch: {each.path}"] = block(text, "markdown")


def changed_parameters(changes: Changes) -> Iterator[str]:
    """Say which parameters differ, from what to what."""
    was, will = (
        dict(leaves(parse_yaml(content or b"{}", PARAMS) or {}))
        for content in (changes.before(PARAMS), changes.after(PARAMS))
    )
    for key in sorted(was.keys() | will.keys()):
        if was.get(key) != will.get(key):
            pair = (shown(each[key]) if key in each else "nothing" for each in (was, will))
            yield f"{code(key)}: {' → '.join(map(code, pair))}"


def changed_pictures(changes: Changes) -> Iterator[str]:
    """Say how many pictures there are, in all and in each split."""
    for path in {each.path for each in changes.files if re.fullmatch(r"data/.*\.dvc", each.path)}:
        counts = [
            outs(content).get("nfiles") for content in (changes.before(path), changes.after(path))
        ]
        yield f"{code(path)}: {counts[0] or 0} → {counts[1] or 0} files"
    was, will = (ledger(content) for content in (changes.before(LEDGER), changes.after(LEDGER)))
    for split in sorted({*was.values(), *will.values()}):
        pair = [sum(place == split for place in each.values()) for each in (was, will)]
        if pair[0] != pair[1]:
            yield f"pictures of the split {code(split)}: {pair[0]} → {pair[1]}"


def changed_classes(changes: Changes) -> Iterator[str]:
    """Say how many test pictures each class has."""
    was, will = (
        {str(name): value.get("support") for name, value in per_class(content).items()}
        for content in (changes.before("metrics.json"), changes.after("metrics.json"))
    )
    for name in sorted(was.keys() | will.keys()):
        if was.get(name) != will.get(name):
            yield f"test pictures of class {code(name)}: {was.get(name, 0)} → {will.get(name, 0)}"


def per_class(content: bytes | None) -> dict[str, dict[str, Any]]:
    """Return the figures of each class in a metrics.json."""
    found = parse_json(content, "metrics.json") if content else {}
    return check(
        dict[str, dict[str, Any]], found.get("per_class") or {}, "metrics.json", "per_class"
    )


def outs(content: bytes | None) -> dict[str, Any]:
    """Return what a .dvc file says of its one output."""
    found = parse_yaml(content, "a .dvc file") if content else {}
    return dict((found.get("outs") or [{}])[0])


def ledger(content: bytes | None) -> dict[str, str]:
    """Return the split of each picture."""
    lines = (content or b"").decode(errors="replace").splitlines()
    return {key: split for key, _, split in (line.partition(",") for line in lines)}


def moved_pictures(changes: Changes) -> Iterator[tuple[str, int, str]]:
    """Say that pictures would change their split: then a model is tested on what it learnt."""
    if DEALT in changes.parameters.check.accept:
        return
    was, will = (ledger(content) for content in (changes.before(LEDGER), changes.after(LEDGER)))
    moved = [
        (number, key)
        for number, (key, split) in enumerate(will.items(), 1)
        if was.get(key, split) != split
    ]
    if moved:
        number, key = moved[0]
        more = f", and {len(moved) - 1} more" if len(moved) > 1 else ""
        yield (
            LEDGER,
            number,
            f"picture {key} goes from {was[key]} to {will[key]}{more}: a picture keeps its split, "
            f"or no figure compares with earlier ones; if it is meant, add {DEALT!r} to "
            "`check.accept` in params.yaml, merged before",
        )


# -- outputs ---------------------------------------------------------------------------------------


def check_outputs(changes: Changes, part: Part) -> None:
    """Add what of the outputs belongs to something else, where the head changes outputs.

    Where it changes only what makes them, that is told: a release asks for new ones anyway.
    """
    lock = parse_lock(changes.after(LOCK))
    made = {each.path for stage in lock.stages.values() for each in stage.outs}
    wrong = list(foreign_outputs(changes, lock))
    if {each.path for each in changes.files} & {LOCK, *made}:
        for needle, sentence in wrong:
            number = line_with(changes.after(LOCK) or b"", needle)
            part.refuse(
                LOCK, number, [f"{sentence}: run `make pipeline` and commit what it writes"]
            )
        if not wrong:
            part.told.append("The pipeline's outputs belong to these parameters, code and data.")
    elif wrong:
        part.told.append(
            f"The pipeline's outputs are of something else ({wrong[0][1]}): `make pipeline` comes "
            "before the next release."
        )


def foreign_outputs(changes: Changes, lock: Lock) -> Iterator[tuple[str, str]]:
    """Say what dvc.lock notes otherwise than the head has it: text in the lock, sentence."""
    noted = parse_yaml(changes.after(LOCK) or b"{}", LOCK) or {}
    there = set(changes.repository.files(changes.tree))
    parameters = parse_yaml(changes.after(PARAMS) or b"{}", PARAMS) or {}
    made = {out.path: out.md5 for stage in lock.stages.values() for out in stage.outs}
    for name, stage in lock.stages.items():
        for key, value in (noted["stages"][name].get("params") or {}).get(PARAMS, {}).items():
            if (now := at(parameters, key)) != value:
                yield key, f"stage {name} ran with other values of {key}{differing(value, now)}"
        for tracked in (*stage.deps, *stage.outs):
            now = md5_of(changes, tracked, there)
            if now and now != tracked.md5:
                verb = "wrote" if tracked in stage.outs else "read"
                yield f"path: {tracked.path}", f"{tracked.path} is not what stage {name} {verb}"
        for tracked in stage.deps:
            if made.get(tracked.path, tracked.md5) != tracked.md5:
                yield (
                    f"path: {tracked.path}",
                    f"stage {name} read another {tracked.path} than was made",
                )


def at(parameters: Any, key: str) -> Any:
    """Return the value of a dotted key, None where there is none."""
    for name in key.split("."):
        parameters = parameters.get(name) if isinstance(parameters, dict) else None
    return parameters


def differing(value: Any, now: Any) -> str:
    """Name the first leaf that differs between two values."""
    was, is_ = dict(leaves(value)), dict(leaves(now))
    for place in sorted(was.keys() | is_.keys()):
        if was.get(place) != is_.get(place):
            named = f"{place} " if place else ""
            return f" ({named}{shown(was.get(place))}, now {shown(is_.get(place))})"
    return ""


def md5_of(changes: Changes, tracked: Tracked, there: set[str]) -> str:
    """Return the MD5 that the head has of a file or of DVC's account of it; "" if it has none."""
    if tracked.path in there:
        content = changes.after(tracked.path) or b""
        return hashlib.md5(content, usedforsecurity=False).hexdigest()
    if (pointer := f"{tracked.path}.dvc") in there:
        return str(outs(changes.after(pointer)).get("md5", ""))
    return ""


def line_with(content: bytes, needle: str) -> int:
    """Return the number of the first line with a text, 1 if there is none."""
    lines = content.decode(errors="replace").splitlines()
    return next((number for number, line in enumerate(lines, 1) if needle in line), 1)
