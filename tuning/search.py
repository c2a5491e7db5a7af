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

from classifier import data, networks, params, training
from classifier.distributed import Workers
from classifier.params import TuneParams
from classifier.ray_cluster import cluster
from reporting import plots, tuning_picture
from tuning import search_space
from tuning.search_space import Range
from tuning.trials import Figures, Record, Search, Trial, ranked, table, value_at
from workspace import files
from workspace.errors import UserError
from workspace.machine import Machine
from workspace.model_code import code_sha256
from workspace.params_file import write_train

FOLDER = Path("tuning")  # a table for each network, for the pull request
RUNS = training.RUNS / "tune"
BUSY = "another search is running in this folder: wait for it"


def tune(
    root: Path, machine: Machine, network: str | None = None, trials: int | None = None
) -> None:
    """Search below `root`; write a table, a plot and the best parameters into params.yaml.

    These are the untuned ones if none is better; another network than there is written in any case.

    Raises UserError: the search can't start, was interrupted or found nothing.
    """
    root = root.resolve()
    search = make_search(root, network, trials)
    count = len(data.load_split(root, "validation").labels)
    with files.only_one(root / RUNS / "lock", BUSY):
        record = Record(search.folder / "trials.jsonl")
        ended = [t for t in record.read(search.candidates) if t.ended != "broken"]
        announce(search, ended, count)
        if len(ended) < len(search.candidates):
            run_trials(search, ended, record, root, machine)
            ended = record.read(search.candidates)
            if len(ended) < len(search.candidates):
                raise UserError(
                    f"interrupted with {len(ended)} of {len(search.candidates)} trials finished: "
                    "the same command takes the search up"
                )
        conclude(search, ended, count, root)


def run_trials(
    search: Search, ended: Sequence[Trial], record: Record, root: Path, machine: Machine
) -> None:
    """Run the trials that have not ended with Ray. Raises UserError."""
    try:
        with cluster(machine, root / RUNS / "session", "tuning"):
            from tuning import halving  # brings Ray, which must not be imported before

            halving.run_trials(search, ended, record, root)
    except KeyboardInterrupt:
        pass  # the caller sees what is missing
    except OSError as error:
        raise UserError(f"the search cannot be kept on disk: {error}") from None


def make_search(root: Path, network: str | None, trials: int | None) -> Search:
    """Draw the trials of a network. Raises UserError."""
    values, section = params.load(root), params.load_section(root, "tune", TuneParams)
    if trials is not None:
        section = params.check(TuneParams, section.model_dump() | {"trials": trials}, "tune")
    network = network or values.train.network
    space = search_space.parse(section.space, values.train).get(network, {})
    ranges = search_space.ranges(space)
    if not ranges:
        raise UserError(
            f"tune.space.{network} in {params.FILE} names nothing to search: "
            "give a parameter {choice: [...]}, {uniform: [low, high]} or {log_uniform: [low, high]}"
        )
    drawn = search_space.candidates(network, space, values.train, values.seed)
    some = islice(drawn, section.trials)
    candidates = [values.model_copy(update={"train": train}) for train in some]
    splits = training.load_splits(root)
    for candidate in candidates:
        networks.check_together(candidate.train)
        training.check(candidate.train, Workers(), *splits)
    folder = root / RUNS / fingerprint(network, section, values.seed, root)
    runs = [folder / training.fingerprint(candidate, Workers(), root) for candidate in candidates]
    return Search(network, values.train, ranges, candidates, section, folder, runs)


def fingerprint(network: str, section: TuneParams, seed: int, root: Path) -> str:
    """What searches share that take up each other's trials; more trials are the same search."""
    alike = {"trials": None, "trials_per_gpu": None, "space": section.space[network]}
    what = [
        network,
        section.model_dump() | alike,
        seed,
        data.report(root)["sha256"],
        code_sha256(root, "train"),
    ]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


# -- the result ------------------------------------------------------------------------------------


def announce(search: Search, ended: Sequence[Trial], count: int) -> None:
    """Say what will be done."""
    total = len(search.candidates)
    if ended:
        said = f"taking up the search: {len(ended)} of {total} trials are finished"
    else:
        said = f"searching for parameters of {search.network} with {total} trials"
    objective = f"{search.section.objective} on {count} pictures"
    print(f"{said}; compared by {objective}", file=sys.stderr, flush=True)


def conclude(search: Search, ended: Sequence[Trial], count: int, root: Path) -> None:
    """Write table and picture, then the best parameters; raises UserError if all failed."""
    objective = search.section.objective
    best, untuned = ranked(ended, objective)[0], ended[0]
    if not best.has_figures:
        raise UserError(f"all {len(ended)} trials failed; the untuned one: {untuned.reason}")
    verdict = compared(best, untuned, len(ended), count)
    file = FOLDER / f"{search.network}.md"
    rows = table(ended, search.ranges, objective)
    files.write(root / file, f"# Search for parameters of {search.network}\n\n{verdict}\n\n{rows}")
    draw(ended, best, search.ranges, objective, root)
    write_train(root, search.current.model_dump(), best.train.model_dump())
    if search.network != search.current.network:
        print(
            f"{params.FILE} now trains {search.network} instead of {search.current.network}, with "
            "which this search has not compared it."
        )
    print(f"{verdict}\nSee {file}, {plots.FOLDER}/tuning.png and `git diff`.")


def draw(
    ended: Sequence[Trial], best: Trial, ranges: dict[str, Range], objective: str, root: Path
) -> None:
    """Draw the trials that can be compared."""
    shown = {
        trial.number: tuning_picture.Trial(
            trial.number,
            trial.ended == "stopped",
            trial.epochs,
            trial.figures,
            {place: value_at(trial.train, place) for place in ranges},
        )
        for trial in ended
        if trial.has_figures
    }
    tuning_picture.draw([*shown.values()], shown[best.number], ranges, objective, root)


def compared(best: Trial, untuned: Trial, trials: int, count: int) -> str:
    """Say how much better the best is, and how little that may mean."""
    after = in_words(best.figures)
    if not untuned.has_figures:
        return (
            f"The untuned parameters failed: {untuned.reason}. Trial {best.number} of {trials} is "
            f"best: {after} on {count} validation pictures."
        )
    if best is untuned:
        return (
            f"None of {trials} trials is better than the parameters as they are: {after} on "
            f"{count} validation pictures."
        )
    gain = best.figures["validation_accuracy"] - untuned.figures["validation_accuracy"]
    return (
        f"Trial {best.number} of {trials} is better than the untuned parameters: "
        f"{in_words(untuned.figures)} became {after} on {count} validation pictures "
        f"({round(gain * count):+d} right). The best of many looks better than it is, and few "
        "pictures decide little: what was gained shows on the test set, which the search has not "
        "seen."
    )


def in_words(figures: Figures) -> str:
    """Loss and accuracy of an epoch."""
    return f"loss {figures['validation_loss']:.4f}, accuracy {figures['validation_accuracy']:.2%}"
