"""Training with several workers: torch's elastic launcher on one machine, Ray Train on several.

A worker is one process with one device. When one dies, all of them start again from the last
finished epoch.
"""

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from classifier.errors import ClassifierError

RESTARTS = 3  # more deaths than this have a cause that another start doesn't cure
CHECKPOINTS = ("last.ckpt", "best.ckpt")  # what the next start of a run needs of it


class WorkersError(ClassifierError):
    """The number of workers can't be used, or they died too often."""


@dataclass(frozen=True)
class Workers:
    """How many train together: `devices` on each of `nodes` machines."""

    devices: int = 1
    nodes: int = 1

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def workers_from(environment: Mapping[str, str]) -> Workers:
    """Read DEVICES and NODES; absent or empty ones are 1. Raises WorkersError."""
    return Workers(_number(environment, "DEVICES"), _number(environment, "NODES"))


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name) or "1"
    if not value.isdecimal() or int(value) < 1:
        raise WorkersError(f"{name} is {value!r}: give a whole number from 1.")
    return int(value)


def check_devices(workers: Workers) -> None:
    """Raise WorkersError unless this machine has the devices.

    A cluster finds them by itself, or waits for more machines.
    """
    cores, gpus = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    if workers.nodes == 1:
        if gpus and workers.devices > gpus:
            raise WorkersError(
                f"DEVICES is {workers.devices}, but this machine has {gpus} GPUs: give no more."
            )
    elif not os.environ.get("RAY_ADDRESS") and workers.count > (gpus or cores):
        raise WorkersError(
            f"NODES × DEVICES is {workers.count}, but this machine has "
            f"{f'{gpus} GPUs' if gpus else f'{cores} cores'}: give fewer, or name a cluster in "
            "RAY_ADDRESS."
        )


def hardware() -> str:
    """Name of what this process trains on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    # the vector instructions decide in which order numbers are summed, and so the last digits
    return f"CPU {os.uname().machine} {torch.backends.cpu.get_cpu_capability()}"


# -- one machine -----------------------------------------------------------------------------------


def on_this_machine(
    worker: Callable[..., None], arguments: tuple[Any, ...], workers: Workers
) -> None:
    """Run a module's function in a process for each device.

    Raises WorkersError with what a worker reported, or when workers died more than RESTARTS times.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no other machine takes part
    # A store that outlives a start still holds the addresses of the workers that died.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    for name in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # tracebacks of the launcher's own
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=workers.devices,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=RESTARTS,
        monitor_interval=0.5,
    )
    try:
        reports = elastic_launch(config, reporting)(worker, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise WorkersError(
            f"worker {rank} died {RESTARTS + 1} times, at last with exit status "
            f"{failure.exitcode}: see above why; the next `make train` takes up its last epoch."
        ) from None
    if said := next(filter(None, reports.values()), None):
        raise WorkersError(said)


def reporting(worker: Callable[..., None], *arguments: Any) -> str | None:
    """Run a worker; return what the user can put right, as another start would not help."""
    deaths = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if deaths and os.environ["RANK"] == "0":
        print(f"a worker died ({deaths} of {RESTARTS} times): starting again", file=sys.stderr)
    try:
        worker(*arguments)
    except ClassifierError as error:
        return str(error)
    return None


# -- several machines ------------------------------------------------------------------------------


def on_machines(
    worker: Callable[..., None],
    arguments: tuple[Any, ...],
    splits: tuple[Any, ...],
    run: Path,
    workers: Workers,
    threads: int,
) -> None:
    """Run `worker(run, *arguments, *splits)` in a Ray worker for each device.

    `splits` travel through Ray's object store, so workers need no files. What the first worker
    leaves in its own `run` comes back to the `run` here. STORAGE names where checkpoints are kept,
    a folder or a bucket (s3://…) that all machines can reach; `runs/ray` by default.

    Raises WorkersError with what a worker reported, or when workers died more than RESTARTS times,
    and ClusterError.
    """
    from classifier.cluster import cluster, ray

    with cluster(run.parent / "session", show_workers=True):
        config = {
            "worker": worker,
            "arguments": arguments,
            "splits": [ray.put(split) for split in splits],
            "run": run.name,
        }
        storage = os.environ.get("STORAGE") or str(run.parent / "ray")
        left = _train_with_ray(config, workers, threads, storage)
    run.mkdir(parents=True, exist_ok=True)
    for name, content in left.items():
        (run / name).write_bytes(content)


def _train_with_ray(
    config: dict[str, Any], workers: Workers, threads: int, storage: str
) -> dict[str, bytes]:
    """Run `_ray_worker` for each device; return what the first one left."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    gpus = bool(ray.cluster_resources().get("GPU"))
    trainer = TorchTrainer(
        cast(Any, _ray_worker),  # its declared type knows no return value
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=gpus,
            resources_per_worker={"GPU": 1} if gpus else {"CPU": threads},
            placement_strategy="SPREAD" if workers.devices == 1 else "PACK",
        ),
        run_config=RunConfig(
            name=config["run"],
            storage_path=storage,
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result: Any = trainer.fit()  # its declared type is that of an earlier Ray Train
    except TrainingFailedError as error:
        raise WorkersError(
            f"training on {workers.count} workers failed {RESTARTS + 1} times: "
            f"{str(error).strip().splitlines()[-1]}; the next start takes up its last epoch."
        ) from None
    result.filesystem.delete_dir(result.path)  # or the next run of that name would take it up
    if isinstance(result.return_value, str):
        raise WorkersError(result.return_value)
    return result.return_value


def _ray_worker(config: dict[str, Any]) -> dict[str, bytes] | str:
    """Train in a Ray worker; return the files that it left, or what the user can put right."""
    import ray.train

    run = Path(tempfile.gettempdir(), "runs", config["run"])
    take_up(ray.train.get_checkpoint(), run)
    torch.distributed.barrier()  # no worker starts before all have the same files
    splits = ray.get(config["splits"])
    if said := reporting(config["worker"], run, *config["arguments"], *splits):
        return said
    left = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    return {name: content for name, content in left.items() if name not in CHECKPOINTS}


def take_up(checkpoint: Any, run: Path) -> None:
    """Put into `run` what was reported last, in place of what this machine had got to."""
    run.mkdir(parents=True, exist_ok=True)
    for name in CHECKPOINTS:
        (run / name).unlink(missing_ok=True)
    if checkpoint:
        with checkpoint.as_directory() as folder:
            for name in CHECKPOINTS:
                partial = run / f"{name}.{os.getpid()}"  # workers of one machine share the folder
                shutil.copyfile(Path(folder, name), partial)
                partial.replace(run / name)


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
    if workers.nodes > 1:
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        options = {
            "devices": "auto",  # the one that Ray gave this worker
            "strategy": RayDDPStrategy(),
            "plugins": [RayLightningEnvironment()],
            "callbacks": [ReportToRay(run)],
        }
    elif workers.devices > 1:
        options |= {"devices": workers.devices, "strategy": "ddp"}
    # Statistics of a share of the batch are noisier; torch can gather them on GPUs only.
    return options | {"sync_batchnorm": workers.count > 1 and torch.cuda.is_available()}
