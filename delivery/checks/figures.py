"""The gate again, here: on the figures inside the images, with the floors of the base."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from delivery.checks.changes import Changes
from delivery.checks.findings import Part
from delivery.checks.release_rules import Proposed
from delivery.model.contest import ANSWERS, Rival, Side, compared, fetch
from delivery.model.pipeline_outputs import ModelAccount, read_packaged
from delivery.model.predictions import read_predictions
from delivery.proposals.gate import Champion, GateError, check_gate
from delivery.proposals.release_file import Release
from delivery.proposals.texts import describe
from workspace.errors import UserError, sentence

LONGEST = 300.0  # seconds that a registry has for an image
ROUNDING = 1e-6
KEYS = {"min_macro_f1": "macro_f1", "min_accuracy": "accuracy", "interface": "image"}


@dataclass(frozen=True)
class Figures:
    """What the images say: the candidate beside what is served, if anything is."""

    account: ModelAccount
    rival: Rival | None


def judge_figures(changes: Changes, proposed: Proposed, work: Path, part: Part) -> Figures:
    """Pull both images and add what the gate refuses. Raises DeliveryError for an image.

    Who goes back takes what served before: there the figures must be the image's, and no more.
    """
    fetch(proposed.release.image, work / "candidate", network=True, deadline=LONGEST)
    account = read_packaged(work / "candidate")
    found = [*not_the_image_s(proposed.release, account)]
    found += [*not_the_answers(account, work / "candidate")]
    for key, sentence_ in found:
        part.refuse(proposed.path, proposed.line(key), [sentence_])
    rival = meet(changes, proposed, work) if proposed.served else None
    if proposed.kind == "rollback":
        part.told.append("No gate is asked: what it goes back to served here before.")
    elif not found:
        for sentence_ in refused(changes, proposed, account, rival):
            key = KEYS.get(sentence_.partition(":")[0], "accuracy")
            part.refuse(proposed.path, proposed.line(key), [sentence_])
    return Figures(account, rival)


def meet(changes: Changes, proposed: Proposed, work: Path) -> Rival:
    """Compare the candidate with what is served, by what their images say."""
    assert proposed.served
    try:
        fetch(proposed.served.image, work / "served", network=True, deadline=LONGEST)
    except (UserError, OSError) as error:
        return Rival(silence=f"its image cannot be had: {sentence(error)}")
    sides = Side.of_image(work / "candidate"), Side.of_image(work / "served")
    return compared(*sides, changes.parameters.gate.confidence)


def not_the_image_s(release: Release, account: ModelAccount) -> Iterator[tuple[str, str]]:
    """Say which figures and revisions of the file are not the image's."""
    told = describe(account, release.version, release.image, release.commit)
    for key, value in vars(release).items():
        if key != "signature" and getattr(told, key) != value:
            yield key, f"{key} is {value} here and {getattr(told, key)} in the image"


def not_the_answers(account: ModelAccount, folder: Path) -> Iterator[tuple[str, str]]:
    """Say that the image's own answers do not have the accuracy that it claims."""
    file = Side.of_image(folder).answers
    if not file.exists():  # models of earlier versions have none
        return
    answers = read_predictions(file)
    right = sum(a == b for a, b in zip(answers.label, answers.predicted, strict=True))
    accuracy = right / max(1, len(answers.label))
    claimed = account.metrics.accuracy
    if not isinstance(claimed, float | int) or abs(claimed - accuracy) > ROUNDING:
        yield (
            "accuracy",
            f"the image claims accuracy {claimed}, and its own answers to the {len(answers.label)} "
            f"test pictures ({ANSWERS}) have {accuracy:.6g}",
        )


def refused(
    changes: Changes, proposed: Proposed, account: ModelAccount, rival: Rival | None
) -> Iterator[str]:
    """Give the gate's sentences, with the base's floors.

    What changes for clients was accepted when it was released, and is told where it is promoted.
    """
    parameters, served = changes.parameters, proposed.served
    accepted = parameters.release.accept_test_data
    test_data = account.lineage.data.test_sha256
    known = bool(accepted and test_data.startswith(accepted))
    if served and rival and not rival.contests and not known:
        yield (
            f"not compared: the figures of this model and of the served model {served.version} "
            f"cannot be compared on the same pictures ({rival.silence}); compare the two by hand, "
            f"and write `accept_test_data: {test_data[:12]}` below `release:` in params.yaml, "
            "merged before this"
        )
    champion = Champion(served, rival) if served and rival else None
    try:
        check_gate(account, parameters, champion, accept_test_data=True)
    except GateError as error:
        for line in (re.sub(r"^\s*- ", "", each) for each in error.args[1:]):
            if proposed.kind == "release" or not line.startswith("interface:"):
                yield line
