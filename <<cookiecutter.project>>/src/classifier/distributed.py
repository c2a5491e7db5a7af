"""Training with several workers: torch's elastic launcher on one machine, Ray Train on several.

A worker is one process with one device. When one dies, all of them start again from the last
finished epoch.
"""

import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
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


class ReportedError(WorkersError):
    """What a worker reported that the user can put right; another start would not help."""


@dataclass(frozen=True)
class Workers:
    """How many train together: `devices` on each of `nodes` machines; whether Ray places them."""

    devices: int = 1
    nodes: int = 1
    by_ray: bool = False

    @property
    def count(self) -> int:
        """Number of processes."""
        return self.devices * self.nodes


def workers_from(environment: Mapping[str, str]) -> Workers:
    """Read DEVICES and NODES; absent or empty ones are 1. Raises WorkersError.

    Ray places the workers of several machines, and all of them where RAY_ADDRESS names a cluster.
    """
    devices, nodes = _number(environment, "DEVICES"), _number(environment, "NODES")
    return Workers(devices, nodes, nodes > 1 or bool(environment.get("RAY_ADDRESS")))


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name) or "1"
    if not value.isdecimal() or int(value) < 1:
        raise WorkersError(f"{name} is {value!r}: give a whole number from 1.")
    return int(value)


def check_devices(workers: Workers, threads: int) -> None:
    """Raise WorkersError unless this machine has a device, or the cores, for each worker.

    A cluster finds them by itself, or waits for more machines.
    """
    if workers.count == 1 or os.environ.get("RAY_ADDRESS"):
        return
    there, taken = (
        (torch.cuda.device_count(), 1) if torch.cuda.is_available() else (cores(), threads)
    )
    if workers.count * taken > there:
        kind = "GPUs" if torch.cuda.is_available() else "cores"
        each = f" with {taken} of `train.threads` each" if taken > 1 else ""
        raise WorkersError(
            f"DEVICES × NODES is {workers.count}{each}, but this machine has {there} {kind}: give "
            "fewer, or name a cluster in RAY_ADDRESS."
        )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


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
    from torch.distributed.elastic.multiprocessing.api import SignalException
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
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        raise WorkersError(
            f"worker {rank} died {RESTARTS + 1} times, at last with exit status "
            f"{failure.exitcode}: see above why; the same command takes up its last epoch."
        ) from None
    if said := next(filter(None, reports.values()), None):
        raise ReportedError(said)


def reporting(worker: Callable[..., None], *arguments: Any) -> str | None:
    """Run a worker; return what the user can put right, as another start would not help."""
    deaths = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if deaths and os.environ["RANK"] == "0":
        print(f"a worker died ({deaths} of {RESTARTS} times): starting again", file=sys.stderr)
    try:
        worker(*arguments)
    except ClassifierError as error:
        return str(error)
    except Exception:
        traceback.print_exc()  # those who start workers only tell that it died
        raise
    return None


# -- several machines ------------------------------------------------------------------------------


def on_machines(
    worker: Callable[..., None],
    arguments: tuple[Any, ...],
    splits: tuple[Any, ...],
    run: Path,
    files: tuple[str, ...],
    workers: Workers,
    threads: int,
) -> None:
    """Run `worker(run, *arguments, *splits)` in a Ray worker for each device.

    `splits` travel through Ray's object store, so workers need no files. The `files` that the first
    worker leaves in its own `run` come back to the `run` here. STORAGE names where checkpoints are
    kept, a folder or a bucket (s3://…) that all machines can reach; `runs/ray` by default.
    ACCELERATOR=gpu waits for GPUs where a cluster has none yet.

    Raises ReportedError with what a worker reported, WorkersError when workers died more than
    RESTARTS times, ClusterError.
    """
    storage = storage_for(run)
    from classifier.ray_cluster import cluster, ray

    with cluster(run.parent / "session", show_workers=True):
        config = {
            "worker": worker,
            "arguments": arguments,
            "splits": [ray.put(split) for split in splits],
            "run": hashlib.sha256(str(run).encode()).hexdigest()[:16],  # may be another machine's
            "files": files,
        }
        result = _train_with_ray(config, run.name, workers, threads, storage)
        if isinstance(result.return_value, dict):
            run.mkdir(parents=True, exist_ok=True)
            for name, content in result.return_value.items():
                (run / name).write_bytes(content)
        result.filesystem.delete_dir(result.path)  # or the next run of that name would take it up
    if isinstance(result.return_value, str):
        raise ReportedError(result.return_value)


def storage_for(run: Path) -> str:
    """Where Ray keeps checkpoints. Raises WorkersError when STORAGE can't be that."""
    from pyarrow.fs import FileSystem

    storage = os.environ.get("STORAGE") or str(run.parent / "ray")
    try:
        FileSystem.from_uri(storage)
    except (ValueError, OSError):
        raise WorkersError(
            f"STORAGE is {storage!r}: give a folder from / or a bucket, s3://<bucket>/<prefix>."
        ) from None
    return storage


def _train_with_ray(
    config: dict[str, Any], name: str, workers: Workers, threads: int, storage: str
) -> Any:
    """Run `_ray_worker` for each device; return Ray's account of it."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    there = ray.cluster_resources()
    gpus = os.environ.get("ACCELERATOR") == "gpu" or bool(there.get("GPU"))
    each = {"GPU": 1} if gpus else {"CPU": threads}
    for kind, number in each.items():
        print(
            f"training on {workers.count} workers with {number} {kind} each; the cluster has "
            f"{there.get(kind, 0):g} now",
            file=sys.stderr,
        )
    trainer = TorchTrainer(
        cast(Any, _ray_worker),  # its declared type knows no return value
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=workers.count,
            use_gpu=gpus,
            resources_per_worker=each,
            placement_strategy="SPREAD" if workers.devices == 1 else "PACK",
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            failure_config=FailureConfig(max_failures=RESTARTS),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        return trainer.fit()
    except SystemExit:  # what Ray makes of Ctrl-C
        raise KeyboardInterrupt from None
    except TrainingFailedError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise WorkersError(
            f"training on {workers.count} workers failed: {reason}; the same command takes up its "
            "last epoch."
        ) from None


def _ray_worker(config: dict[str, Any]) -> dict[str, bytes] | str:
    """Train in a Ray worker; return the files that it left, or what the user can put right."""
    import ray.train
    from ray.train.torch import get_device

    run = Path(tempfile.gettempdir(), "runs", config["run"])
    take_up(ray.train.get_checkpoint(), run)
    if torch.cuda.is_available():
        torch.cuda.set_device(get_device())  # or the barrier would guess it
    torch.distributed.barrier()  # no worker starts before all have the same files
    splits = ray.get(config["splits"])
    if said := reporting(config["worker"], run, *config["arguments"], *splits):
        return said
    left = {name: run / name for name in config["files"]}
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
    if workers.by_ray:
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
