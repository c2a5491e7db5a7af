"""Search for better parameters: trials with Ray Tune, those that lag behind stopped early.

A search is a list of parameters drawn in advance and a record of the trials that have ended. What
is in the record is never trained again; a trial that was interrupted continues at its last epoch.
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from classifier import data, params, plots, training
from classifier.distributed import Workers
from classifier.errors import ClassifierError
from classifier.lock import only_one
from classifier.model_code import code_sha256
from classifier.params import TuneParams
from tuning import search_space as space
from tuning.params_file import write_train
from tuning.trials import FIGURES, Record, Search, Trial, ranked, table

FOLDER = Path("tuning")  # a table for each network, for the pull request
RUNS = training.RUNS / "tune"


class TuningError(ClassifierError):
    """The search can't start, was interrupted or found nothing."""


def tune(root: Path, network: str | None = None, trials: int | None = None) -> None:
    """Search below `root`; write a table, a plot and the best parameters into params.yaml.

    These are the untuned ones if none is better; another network than there is written in any case.

    Raises ParamsError, SpaceError, NotPreparedError and TuningError.
    """
    root = root.resolve()
    search = make_search(root, network, trials)
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], data.class_names(root))
    with only_one(root / RUNS / "lock", "search", TuningError):
        record = Record(search.folder / "trials.jsonl")
        ended = [t for t in record.read(search.candidates) if t.ended != "broken"]
        announce(search, ended, len(splits[1].labels))
        if len(ended) < len(search.candidates):
            run_trials(root / RUNS / "session", search, ended, record, shape, splits)
            ended = record.read(search.candidates)
            check_all(ended, len(search.candidates))
        conclude(search, ended, len(splits[1].labels), root)


def run_trials(session: Path, *work: Any) -> None:
    """Run the trials that have not ended with Ray; raises ClusterError and TuningError."""
    from classifier import ray_cluster as cluster  # bring Ray, which nothing else needs
    from tuning import halving

    try:
        with cluster.cluster(session, "tuning"):
            halving.run_trials(*work)
    except KeyboardInterrupt:
        pass  # the caller sees what is missing
    except OSError as error:
        raise TuningError(f"the search cannot be kept on disk: {error}") from None


def check_all(ended: Sequence[Trial], trials: int) -> None:
    """Raise TuningError unless that many trials have ended."""
    if len(ended) < trials:
        raise TuningError(
            f"interrupted with {len(ended)} of {trials} trials finished: "
            "the same command takes the search up"
        )


def make_search(root: Path, network: str | None, trials: int | None) -> Search:
    """Draw the trials of a network; raises ParamsError, SpaceError and TuningError."""
    values, section = params.load(root), params.load_section(root, "tune", TuneParams)
    if trials is not None:
        section = params.check(TuneParams, section.model_dump() | {"trials": trials}, "tune")
    network = network or values.train.network
    spaces = space.parse(section.space, values.train)
    if not space.ranges(spaces.get(network, {})):
        raise TuningError(
            f"tune.space.{network} in {params.FILE} names nothing to search: "
            "give a parameter {choice: [...]}, {uniform: [low, high]} or {log_uniform: [low, high]}"
        )
    drawn = space.candidates(network, spaces[network], values.train, values.seed)
    alike = {"trials": None, "trials_per_gpu": None, "space": section.space[network]}
    what = [
        network,
        section.model_dump() | alike,
        values.seed,
        data.report(root)["sha256"],
        code_sha256(root),
    ]
    name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
    some = islice(drawn, section.trials)
    candidates = [values.model_copy(update={"train": train}) for train in some]
    folder = root / RUNS / name
    return Search(
        network,
        values.train,
        space.ranges(spaces[network]),
        candidates,
        section,
        folder,
        [folder / training.fingerprint(candidate, Workers(), root) for candidate in candidates],
    )


# -- the result ------------------------------------------------------------------------------------


def announce(search: Search, ended: Sequence[Trial], images: int) -> None:
    """Say what will be done."""
    total = len(search.candidates)
    if ended:
        said = f"taking up the search: {len(ended)} of {total} trials are finished"
    else:
        said = f"searching for parameters of {search.network} with {total} trials"
    objective = f"{search.section.objective} on {images} images"
    print(f"{said}; compared by {objective}", file=sys.stderr, flush=True)


def conclude(search: Search, ended: Sequence[Trial], images: int, root: Path) -> None:
    """Write table and plot, then the best parameters; raises TuningError when there are none."""
    objective = search.section.objective
    best, untuned = ranked(ended, objective)[0], ended[0]
    if not best.has_figures:
        raise TuningError(f"all {len(ended)} trials failed; the untuned one: {untuned.reason}")
    verdict = compared(best, untuned, len(ended), images)
    path = root / FOLDER / f"{search.network}.md"
    path.parent.mkdir(exist_ok=True)
    rows = table(ended, search.ranges, objective)
    path.write_text(f"# Search for parameters of {search.network}\n\n{verdict}\n\n{rows}")
    plots.tuning(ended, search.ranges, objective, root)
    write_train(root, search.current, best.train)
    if search.network != search.current.network:
        print(
            f"{params.FILE} now trains {search.network} instead of {search.current.network}, with "
            "which this search has not compared it."
        )
    print(f"{verdict}\nSee {path.relative_to(root)}, {plots.FOLDER}/tuning.png and `git diff`.")


def compared(best: Trial, untuned: Trial, trials: int, images: int) -> str:
    """Say how much better the best is, and how little that may mean."""
    if not untuned.has_figures:
        loss, accuracy = (best.figures[name] for name in FIGURES[2:])
        return (
            f"The untuned parameters failed: {untuned.reason}. Trial {best.number} of {trials} is "
            f"best: loss {loss:.4f}, accuracy {accuracy:.2%} on {images} validation images."
        )
    before, after = (
        f"loss {trial.figures['validation_loss']:.4f}, accuracy "
        f"{trial.figures['validation_accuracy']:.2%}"
        for trial in (untuned, best)
    )
    if best is untuned:
        return (
            f"None of {trials} trials is better than the parameters as they are: {after} on "
            f"{images} validation images."
        )
    gain = best.figures["validation_accuracy"] - untuned.figures["validation_accuracy"]
    return (
        f"Trial {best.number} of {trials} is better than the untuned parameters: {before} became "
        f"{after} on {images} validation images ({round(gain * images):+d} right). The best of "
        "many looks better than it is, and few images decide little: what was gained shows on the "
        "test set, which the search has not seen."
    )
