"""Training with several workers, which Ray starts: on this machine, or on those of a cluster.

A worker is one process with one device. When one dies, all of them start again from the last
finished epoch.
"""

import hashlib
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from workspace import files
from workspace.errors import UserError
from workspace.machine import Machine, cores

RESTARTS = 3  # more deaths than this have a cause that another start doesn't cure
SMALL = 32 * 32  # pixels of a picture; of fewer, threads wait for each other more than they gain
MOST_THREADS = 8  # so that all machines with as many cores give the same weights
CHECKPOINTS = ("last.ckpt", "best.ckpt")  # what the next start of a run needs of it


class TrainingError(UserError):
    """Training did not give a usable model, and another start would not help."""


@dataclass(frozen=True)
class Workers:
    """How many train together: `devices` on each of `nodes` machines; whether Ray starts them.

    Each has that many `threads`; 0 are those that its machine and the pictures ask for.
    """

    devices: int = 1
    nodes: int = 1
    by_ray: bool = False
    threads: int = 0

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def workers_of(machine: Machine) -> Workers:
    """The workers that the environment asks for; Ray starts several, and those of a cluster."""
    several = machine.devices * machine.nodes > 1
    return Workers(machine.devices, machine.nodes, several or bool(machine.ray_address))


def threads_for(pixels: int, devices: int = 1) -> int:
    """Threads for each of a machine's workers that pay for pictures of that many pixels."""
    return 1 if pixels < SMALL else max(1, min(cores() // devices, MOST_THREADS))


def check_devices(workers: Workers, threads: int, machine: Machine) -> None:
    """Raise UserError unless this machine has a device, or the cores, for each worker.

    A cluster finds them by itself, or waits for more machines.
    """
    if workers.count == 1 or machine.ray_address:
        return
    there, taken = (
        (torch.cuda.device_count(), 1) if torch.cuda.is_available() else (cores(), threads)
    )
    if workers.count * taken > there:
        kind = "GPUs" if torch.cuda.is_available() else "cores"
        each = f" with {taken} of `train.threads` each" if taken > 1 else ""
        raise UserError(
            f"DEVICES × NODES is {workers.count}{each}, but this machine has {there} {kind}: give "
            "fewer, or name a cluster in RAY_ADDRESS"
        )


def hardware() -> str:
    """Name of what this process trains on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    # the vector instructions decide in which order numbers are summed, and so the last digits
    return f"CPU {os.uname().machine} {torch.backends.cpu.get_cpu_capability()}"


def train_with_ray(
    worker: Callable[..., None],
    arguments: tuple[Any, ...],
    splits: tuple[Any, ...],
    run: Path,
    left: tuple[str, ...],
    threads: int,
    machine: Machine,
) -> None:
    """Run `worker(run, *arguments, *splits)` in a Ray worker for each device.

    `splits` travel through Ray's object store, so that workers of other machines need no files.
    What the first worker has `left` in its own `run` comes back to the `run` here. Checkpoints are
    kept in the machine's storage, which all workers must reach; `runs/ray` by default.

    Raises TrainingError with what a worker reported; UserError when workers died more than RESTARTS
    times, or there is no cluster.
    """
    storage = storage_for(run, machine.storage)
    from classifier.ray_cluster import cluster

    with cluster(machine, run.parent / "session", show_workers=True) as ray:
        config = {
            "worker": worker,
            "arguments": arguments,
            "splits": [ray.put(split) for split in splits],
            "run": hashlib.sha256(str(run).encode()).hexdigest()[:16],  # may be another machine's
            "left": left,
        }
        result = _fit(config, run.name, threads, machine, storage)
        if isinstance(result.return_value, dict):
            run.mkdir(parents=True, exist_ok=True)
            for name, content in result.return_value.items():
                (run / name).write_bytes(content)
        result.filesystem.delete_dir(result.path)  # or the next run of that name would take it up
    if isinstance(result.return_value, str):
        raise TrainingError(result.return_value)


def storage_for(run: Path, storage: str) -> str:
    """Where Ray keeps checkpoints. Raises UserError when STORAGE can't be that."""
    from pyarrow.fs import FileSystem

    storage = storage or str(run.parent / "ray")
    try:
        FileSystem.from_uri(storage)
    except (ValueError, OSError):
        raise UserError(
            f"STORAGE is {storage!r}: give a folder from / or a bucket, s3://<bucket>/<prefix>"
        ) from None
    return storage


def _fit(config: dict[str, Any], name: str, threads: int, machine: Machine, storage: str) -> Any:
    """Run `_ray_worker` for each device; return Ray's account of it."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    there, count = ray.cluster_resources(), machine.devices * machine.nodes
    gpus = machine.waits_for_gpus or bool(there.get("GPU"))
    each = {"GPU": 1} if gpus else {"CPU": threads}
    for kind, number in each.items():
        print(
            f"training on {count} workers with {number} {kind} each; the cluster has "
            f"{there.get(kind, 0):g} now",
            file=sys.stderr,
        )
    trainer = TorchTrainer(
        cast(Any, _ray_worker),  # its declared type knows no return value
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=count,
            use_gpu=gpus,
            resources_per_worker=each,
            placement_strategy="SPREAD" if machine.devices == 1 else "PACK",
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=[_teller_of_deaths()],
        ),
    )
    try:
        return trainer.fit()
    except SystemExit:  # what Ray makes of Ctrl-C
        raise KeyboardInterrupt from None
    except TrainingFailedError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"training on {count} workers failed: {reason}; the same command takes up its "
            "last epoch"
        ) from None


def _teller_of_deaths() -> Any:
    """What Ray calls when workers die: it says so."""
    from ray.train import UserCallback

    class TellerOfDeaths(UserCallback):
        deaths = 0

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            self.deaths += 1
            if self.deaths <= RESTARTS:
                print(f"a worker died ({self.deaths} of {RESTARTS} times): starting again")

    return TellerOfDeaths()


def _ray_worker(config: dict[str, Any]) -> dict[str, bytes] | str:
    """Train in a Ray worker; return the files that it left, or what the user can put right."""
    import ray.train
    from ray.train.torch import get_device

    run = Path(tempfile.gettempdir(), f"run-{config['run']}")
    take_up(ray.train.get_checkpoint(), run)
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())  # or the barrier would guess it
    torch.distributed.barrier()  # no worker starts before all have the same files
    splits = ray.get(config["splits"])
    try:
        config["worker"](run, *config["arguments"], *splits)
    except UserError as error:
        return str(error)  # another start would not help
    except Exception:
        traceback.print_exc()  # Ray only tells that a worker died
        raise
    left = {name: run / name for name in config["left"]}
    content = {name: path.read_bytes() for name, path in left.items() if path.exists()}
    if ray.train.get_context().get_local_rank() == 0:  # the others of this machine read no more
        shutil.rmtree(run, ignore_errors=True)
    return content


def take_up(checkpoint: Any, run: Path) -> None:
    """Put into `run` what was reported last, in place of what this machine had got to."""
    run.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)
    if checkpoint:
        with checkpoint.as_directory() as folder:
            for name in CHECKPOINTS:
                # whole at once: the workers of one machine share the folder
                files.write(run / name, Path(folder, name).read_bytes())


class ReportToRay(Callback):
    """Hands the checkpoints of every finished epoch to Ray, which keeps them in its storage."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Report the epoch before, whose checkpoints are complete by now."""
        import ray.train

        if trainer.current_epoch == 0:
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if trainer.is_global_zero:
                for name in CHECKPOINTS:
                    shutil.copyfile(self.run / name, Path(folder, name))
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(figures | {"epoch": trainer.current_epoch}, checkpoint=checkpoint)


def trainer_options(workers: Workers, run: Path) -> dict[str, Any]:
    """What Lightning's Trainer must know of the workers."""
    options: dict[str, Any] = {"devices": 1, "plugins": [], "callbacks": []}
    if workers.by_ray:
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        options = {
            "devices": "auto",  # the one that Ray gave this worker
            "strategy": RayDDPStrategy(),
            "plugins": [RayLightningEnvironment()],
            "callbacks": [ReportToRay(run)],
        }
    # Statistics of a share of the batch are noisier; torch can gather them on GPUs only.
    return options | {"sync_batchnorm": workers.count > 1 and torch.cuda.is_available()}
