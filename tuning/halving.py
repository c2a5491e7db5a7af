"""Trials side by side with Ray Tune; those that lag behind are stopped early."""

import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytorch_lightning as pl
import ray
from filelock import FileLock
from pytorch_lightning.callbacks import Callback
from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from classifier import data, pretrained, training
from classifier.data import Split
from classifier.distributed import TrainingError, Workers
from classifier.model import CheckpointError
from classifier.networks import Shape
from classifier.params import Params
from classifier.pretrained import Weights
from tuning.trials import (
    FIGURES,
    Figures,
    Record,
    Search,
    Trial,
    described,
    ranked,
    score,
)
from workspace.errors import UserError
from workspace.history import kept_epoch


class Report(Callback):
    """Tells Tune the figures of every epoch, and may not return when the trial is stopped."""

    def __init__(self, objective: str) -> None:
        self.objective = objective
        self.epochs: list[Figures] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Report the epoch; in a run that was taken up, those before it too."""
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.catch_up(next(each for each in callbacks if isinstance(each, training.History)))

    def catch_up(self, history: training.History) -> None:
        """Report what has not been; raises TrainingError when a loss is no number."""
        for figures in history.epochs[len(self.epochs) :]:
            if not all(map(math.isfinite, figures.values())):
                raise TrainingError(f"the loss exploded in epoch {figures['epoch']}")
            self.epochs.append(figures)
            tune.report(with_score(self.epochs, self.objective))


def with_score(epochs: Sequence[Figures], objective: str) -> Figures:
    """Figures of the last epoch, and the score so far: that of the best one."""
    return epochs[-1] | {"score": score(kept_epoch(epochs), objective)}


def run_trial(
    config: dict[str, int],
    candidates: Sequence[Params],
    runs: Sequence[Path],
    objective: str,
    shape: Shape,
    splits: tuple[Split, Split],
    weights: Weights | None,
) -> None:
    """Train one candidate in a worker, which may be on another machine."""
    number, report = config["number"], Report(objective)
    try:
        with folder_of(runs[number]) as run:
            _, history, _ = training.fit(
                candidates[number], shape, *splits, run, [report], weights=weights
            )
        report.catch_up(history)
        ended = {"ended": "finished", "reason": ""}
    except UserError as error:
        ends = "broken" if isinstance(error, CheckpointError) else "failed"
        ended = {"ended": ends, "reason": str(error)}
    except Exception as error:  # whatever it is, it is this trial's and the others go on
        traceback.print_exc()
        reason = " ".join(str(error).split()) or type(error).__name__
        ended = {"ended": "broken", "reason": reason}
    tune.report(ended | {"score": math.inf})  # Tune insists on the score


@contextmanager
def folder_of(run: Path) -> Iterator[Path]:
    """The run's folder, where this machine shares the driver's disk; otherwise a temporary one."""
    if run.parent.is_dir():
        run.mkdir(exist_ok=True)
        with FileLock(run / "lock"):  # a worker of a killed search may not know it yet
            yield run
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


class Halving(ASHAScheduler):
    """Stops trials that lag behind others at the same epoch.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934.
    """

    def __init__(self, search: Search) -> None:
        longest = max(candidate.train.epochs for candidate in search.candidates)
        super().__init__(
            time_attr="epoch",
            metric="score",
            mode="min",
            max_t=longest,
            grace_period=min(search.section.grace_epochs, longest),
            reduction_factor=search.section.reduction_factor,
        )
        self.search = search

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on: the untuned one to its end, as all are compared to it."""
        number = trial.config["number"]
        last_epoch = self.search.candidates[number].train.epochs
        decision = super().on_trial_result(controller, trial, result)  # others are compared to it
        is_exempt = number == 0 or result.get("epoch") == last_epoch
        return TrialScheduler.CONTINUE if is_exempt else decision

    def recall(self, ended: Sequence[Trial]) -> None:
        """Have the trials of the record as what later ones are compared with."""
        controller: Any = None  # the scheduler does not ask it
        for trial in ended:
            stand_in: Any = SimpleNamespace(trial_id=f"recalled {trial.number}")
            self.on_trial_add(controller, stand_in)
            epochs: list[Figures] = []
            for figures in trial.epochs:
                epochs.append(figures)
                result = with_score(epochs, self.search.section.objective)
                super().on_trial_result(controller, stand_in, result)


class Keeper(tune.Callback):
    """Collects figures as they come; records every trial that has ended, and tells of it."""

    def __init__(self, search: Search, ended: Sequence[Trial], record: Record) -> None:
        self.search, self.ended, self.record = search, list(ended), record
        self.epochs: dict[int, list[Figures]] = {}
        self.endings: dict[int, dict[str, str]] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Begin anew, as a worker that takes over from one that died reports all epochs again."""
        self.epochs[trial.config["number"]] = []

    def on_trial_result(
        self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Note an epoch, or how the trial ended."""
        number = trial.config["number"]
        if "ended" in result:
            self.endings[number] = {name: result[name] for name in ("ended", "reason")}
        else:
            self.epochs[number].append({name: result[name] for name in FIGURES})

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Keep a trial that ended by itself or was stopped."""
        number = trial.config["number"]
        self.keep(number, **self.endings.get(number, {"ended": "stopped", "reason": ""}))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Keep a trial whose worker died, and the one after it."""
        reason = str(trial.get_error()).strip().splitlines()[0]
        self.keep(trial.config["number"], "broken", f"its process died twice: {reason}")

    def keep(self, number: int, ended: str, reason: str) -> None:
        """Record a trial; only then is what could take it up not needed any more."""
        train = self.search.candidates[number].train
        trial = Trial(number, train, ended, self.epochs[number], reason)
        self.record.add(trial)
        training.forget_checkpoints(self.search.runs[number])
        if trial.has_figures:
            name, accuracy = f"{train.network}-trial-{number}", trial.figures["validation_accuracy"]
            training.name_logs(self.search.runs[number], self.search.folder, name, accuracy)
        self.ended.append(trial)
        self.tell(trial)

    def tell(self, trial: Trial) -> None:
        """Say what became of a trial, in a line."""
        objective = self.search.section.objective
        best = ranked(self.ended, objective)[0]
        place = f"{len(self.ended)}/{len(self.search.candidates)}: trial {trial.number}"
        values = described(trial.train, self.search.ranges)
        if not trial.has_figures:
            outcome = f"{trial.ended}, {trial.reason}"
        else:
            outcome = (
                f"{trial.ended} after epoch {len(trial.epochs)}, {objective} "
                f"{trial.figures[objective]:.4f} (best {best.figures[objective]:.4f}, "
                f"trial {best.number})"
            )
        print(f"{place} {outcome}: {values}", file=sys.stderr, flush=True)


def run_trials(search: Search, ended: Sequence[Trial], record: Record, root: Path) -> None:
    """Run the trials that have not ended, as many at a time as there are cores for."""
    unfinished = sorted(set(range(len(search.candidates))) - {trial.number for trial in ended})
    scheduler = Halving(search)
    scheduler.recall(ended)
    splits = training.load_splits(root)
    shape = training.shape_of(splits[0], data.class_names(root))
    storage = search.folder / "ray"  # Tune insists on one
    shutil.rmtree(storage, ignore_errors=True)
    work = tune.with_parameters(
        run_trial,
        candidates=search.candidates,
        runs=search.runs,
        objective=search.section.objective,
        shape=shape,
        weights=pretrained.load(search.candidates[0].train, root),
        splits=splits,
    )
    tune.Tuner(
        tune.with_resources(work, resources(search, shape)),
        param_space={"number": tune.grid_search(unfinished)},
        tune_config=tune.TuneConfig(scheduler=scheduler, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[Keeper(search, ended, record)],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()


def resources(search: Search, shape: Shape) -> dict[str, float]:
    """What a trial takes: the threads it trains with, and a share of a GPU where there is one."""
    there = ray.cluster_resources()
    threads = training.threads_of(search.candidates[0].train, shape, Workers())
    widest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
    share = 1 / search.section.trials_per_gpu if there.get("GPU") else 0
    return {"cpu": min(threads, widest), "gpu": share}
