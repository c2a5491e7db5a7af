"""A candidate against the served model: what changes for clients, and both on the same pictures."""

import json
import math
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.model.interface import Interface, change_between, read_interface
from delivery.model.new_pictures import DIGITS
from delivery.model.packaging import LOCAL
from delivery.model.paired import CONFIDENCE, Paired, compare, smallest_loss
from delivery.model.pipeline_outputs import IN_IMAGE, MODEL, PREDICTIONS
from delivery.model.predictions import (
    SERVED,
    Pictures,
    Predictions,
    ask,
    read_pictures,
    read_predictions,
)
from delivery.oci.layout import Layout
from delivery.oci.registry import parse_reference, pull
from workspace.errors import UserError, sentence
from workspace.files import discard, write

IMAGES = Path(".local/served")  # the served image, unpacked, so that it is pulled once
LONGEST = 120.0  # seconds for an image that is only read to say what would change
(ANSWERS,) = PREDICTIONS


@dataclass(frozen=True)
class Contest:
    """Both models on the same pictures.

    Attributes:
        pictures: which these are, for a person.
        result: how the two compare.
        unknown: classes of these pictures that the served model does not have; pictures of them
            are left out.
    """

    pictures: str
    result: Paired
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rival:
    """What is known of the served model beside the candidate.

    Attributes:
        change: of the interface, as `change_between` names it; None if it is not known.
        contests: on the present test set, and on the served model's own as far as that is here
            and another; the first is what the gate decides by.
        silence: why there is no contest; "" if there is one.
        confidence: of the contests' intervals.
    """

    change: str | None = None
    contests: tuple[Contest, ...] = ()
    silence: str = ""
    confidence: float = CONFIDENCE


@dataclass(frozen=True)
class Side:
    """A model in a folder as its image has it, or as the pipeline left it; and its answers."""

    model: Path
    answers: Path

    @classmethod
    def of_pipeline(cls, root: Path) -> "Side":
        """Return the model that the pipeline made."""
        return cls(root / MODEL, root / PREDICTIONS[ANSWERS])

    @classmethod
    def of_image(cls, folder: Path) -> "Side":
        """Return the model of an image that is unpacked in a folder."""
        return cls(folder, folder / IN_IMAGE / ANSWERS)


def meet(
    root: Path,
    version: int,
    image: str,
    confidence: float,
    network: bool,
    seen: frozenset[str] = frozenset(),
) -> Rival:
    """Let the pipeline's model meet the served one, whose image is pulled if need be.

    What the served model answers to the present test pictures is left in artifacts/served, for
    reports. Without `network` its image must be on this machine. `seen` are pictures that the
    served model learnt from. What stands in the way is told in the result.
    """
    discard(root / SERVED)
    try:
        served = at_hand(root, image, network)
    except (UserError, OSError) as error:
        return Rival(silence=f"its image cannot be had: {sentence(error)}")
    here, keep = Side.of_pipeline(root), root / SERVED
    rival = compared(here, Side.of_image(served), confidence, root, keep, seen)
    if (keep / ANSWERS).exists():
        told = {"version": version, "image": parse_reference(image)[1]}
        write(keep / "served.json", json.dumps(told) + "\n")
    return rival


def meet_again(candidate: str, served: str) -> Rival:
    """Let two released models meet by what their images say: neither data nor training is needed.

    The registry has LONGEST seconds for each.
    """
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        folders = [Path(folder, name) for name in ("candidate", "served")]
        try:
            for image, place in zip((candidate, served), folders, strict=True):
                fetch(image, place, network=True, deadline=LONGEST)
        except (UserError, OSError) as error:
            return Rival(silence=f"an image cannot be had: {sentence(error)}")
        return compared(Side.of_image(folders[0]), Side.of_image(folders[1]))


def at_hand(root: Path, image: str, network: bool) -> Path:
    """Return the folder of an image that is unpacked here, where only the last one is kept.

    Raises DeliveryError.
    """
    folder = root / IMAGES / parse_reference(image)[1].removeprefix("sha256:")
    if not folder.is_dir():
        discard(root / IMAGES)
        folder.parent.mkdir(parents=True)
        fetch(image, folder, network)
    return folder


def fetch(image: str, folder: Path, network: bool, deadline: float = math.inf) -> None:
    """Unpack an image from this machine, or else from its registry. Raises DeliveryError."""
    registry, digest = parse_reference(image)
    if Layout(LOCAL).path(digest).is_file():  # what was built here need not be sent
        with suppress(UserError):
            pull(f"oci:{LOCAL}@{digest}", folder)
            return
    if not network and not registry.startswith("oci:"):
        raise DeliveryError("it is not on this machine, and `make judge` fetches it")
    pull(image, folder, deadline)


def compared(
    candidate: Side,
    served: Side,
    confidence: float = CONFIDENCE,
    root: Path | None = None,
    keep: Path | None = None,
    seen: frozenset[str] = frozenset(),
) -> Rival:
    """Compare two models; with `root`, whose test pictures are the candidate's, also on those.

    Then the served model's answers are left in the folder `keep`, if there is one; pictures that it
    has seen in its training, by the start of their SHA-256, do not count.
    """
    try:
        before, after = read_interface(served.model), read_interface(candidate.model)
    except UserError as error:
        return Rival(silence=str(error))
    change, silence = change_between(before, after), ""
    if not candidate.answers.exists():
        told = f"the candidate has no account of its answers, {ANSWERS}"
        return Rival(change, silence=told, confidence=confidence)
    contests: list[Contest | None] = []
    try:
        own = read_predictions(candidate.answers)
        if root:
            test = present_pictures(root, own)
            try:
                answers = ask(served.model, before, test, keep and keep / ANSWERS)
                name, rows = unseen(own, answers, seen)
                contests.append(contest(name, rows, before, confidence))
            except DeliveryError as error:
                silence = str(error)
        if served.answers.exists():  # models of earlier versions have none
            then = read_predictions(served.answers)
            if not any(contests) or {*then.sha256} != {*own.sha256}:  # or both sets are the same
                contests.append(on_earlier_pictures(own, then, before, confidence))
    except UserError as error:
        silence = str(error)
    found = tuple(each for each in contests if each)
    few = "both know too few of the test pictures"
    return Rival(change, found, "" if found else silence or few, confidence)


def present_pictures(root: Path, own: Predictions) -> Pictures:
    """Open the test pictures. Raises DeliveryError unless they are those that were answered."""
    test = read_pictures(root)
    if (test.label, test.sha256) != (own.label, own.sha256):
        raise DeliveryError("the candidate's answers are to other test pictures than there are")
    return test


def unseen(
    own: Predictions, answers: Sequence[str], seen: frozenset[str]
) -> tuple[str, list[tuple[str, str, str]]]:
    """Return (class, candidate's answer, served model's answer) of the pictures that count."""
    rows = zip(own.sha256, own.label, own.predicted, answers, strict=True)
    kept = [each for sha256, *each in rows if sha256[:DIGITS] not in seen]
    left_out = len(own.label) - len(kept)
    without = f" without {left_out} that the released model learnt from" if left_out else ""
    return f"the present test set{without}", [(a, b, c) for a, b, c in kept]


def on_earlier_pictures(
    own: Predictions, then: Predictions, interface: Interface, confidence: float
) -> Contest | None:
    """Compare on the served model's own test set, as far as the candidate was tested on it, too.

    Neither model was trained on these pictures.
    """
    answered = dict(zip(then.sha256, then.predicted, strict=True))
    rows = zip(own.sha256, own.label, own.predicted, strict=True)
    both = [(label, said, answered[name]) for name, label, said in rows if name in answered]
    return contest(
        f"the released model's own test set of {len(then.label)}", both, interface, confidence
    )


def contest(
    pictures: str, answered: Iterable[tuple[str, str, str]], interface: Interface, confidence: float
) -> Contest | None:
    """Compare (class, candidate's answer, served model's answer) of pictures.

    Without classes that the served model does not have; None where too few are left to tell.
    """
    rows = list(answered)
    known = [row for row in rows if row[0] in interface.labels]
    if len(known) < smallest_loss(confidence):
        return None
    unknown = {label for label, *_ in rows} - set(interface.labels)
    labels, candidate, served = zip(*known, strict=True)
    result = compare(labels, candidate, served, confidence)
    return Contest(pictures, result, tuple(sorted(unknown)))
