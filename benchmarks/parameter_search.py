"""What a search for parameters finds on the digits, how long it takes, and what it is worth.

Runs `make tune`'s command with the shipped search for some networks. Then trains the untuned and
the best parameters with seeds that the search has not seen and measures both on the test set, which
the search has not seen either.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from results import PROJECT, table, write

sys.path.insert(0, str(PROJECT / "src"))

from classifier import evaluation, params, training
from classifier.params import Params, TrainParams
from tuning import search_space
from workspace.history import kept_epoch

LIMIT = 10  # minutes for 30 trials on two cores
NETWORKS = ("cnn", "mlp", "logistic_regression")


def project(folder: Path) -> Path:
    """A project with the digits prepared."""
    for part in ("src", "serving"):
        shutil.copytree(PROJECT / part, folder / part)
    for file in (params.FILE, "dvc.yaml"):
        shutil.copy(PROJECT / file, folder)
    run(folder, "classifier", "prepare")
    return folder


def run(root: Path, *command: str) -> tuple[float, float]:
    """Run a command of the pipeline; return its seconds and, of all its processes, those of the
    processor, as far as looking once in a while sees them."""
    start, used = time.monotonic(), dict[int, float]()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root / "src")},
    )
    family = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for member in [family, *family.children(recursive=True)]:
                times = member.cpu_times()
                used[member.pid] = times.user + times.system
        time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.monotonic() - start, sum(used.values())


def search(root: Path, network: str, seeds: int) -> dict[str, Any]:
    """Search, then measure the untuned and the best parameters on the test set."""
    shutil.copy(PROJECT / params.FILE, root)
    shutil.rmtree(root / "runs", ignore_errors=True)
    before = params.load(root)
    seconds, processor = run(root, "tuning", "--network", network)
    record = next(root.glob("runs/tune/*/trials.jsonl")).read_text().splitlines()
    trials = [json.loads(line) for line in record]
    section = params.load_section(root, "tune", params.TuneParams)
    spaces = search_space.parse(section.space, before.train)
    parameters = {
        "untuned": search_space.untuned(network, spaces[network], before.train),
        "best": params.load(root).train,
    }
    return {
        "network": network,
        "seconds": seconds,
        "processor_seconds": processor,
        "ended": {
            how: sum(trial["ended"] == how for trial in trials)
            for how in ("finished", "stopped", "failed", "broken")
        },
        "epochs": sum(len(trial["epochs"]) for trial in trials),
        **{
            name: {
                "parameters": train.model_dump(),
                "validation": validation(trials, train),
                "test": [test(before, train, before.seed + 1 + n, root) for n in range(seeds)],
            }
            for name, train in parameters.items()
        },
    }


def validation(trials: list[dict[str, Any]], train: TrainParams) -> dict[str, float]:
    """Figures of the trial with those parameters."""
    wanted = train.model_dump()
    return kept_epoch(next(trial["epochs"] for trial in trials if trial["train"] == wanted))


def test(values: Params, train: TrainParams, seed: int, root: Path) -> dict[str, float]:
    """Figures on the test set after a training with a seed of its own."""
    settings = values.model_copy(update={"train": train, "seed": seed})
    with contextlib.redirect_stderr(io.StringIO()):
        training.train(settings, root)
    evaluation.evaluate(settings, root)
    metrics = json.loads((root / evaluation.METRICS).read_text())
    return {name: metrics[name] for name in ("accuracy", "loss", "support")}


def row(found: dict[str, Any]) -> list[str]:
    """Cells of a network."""
    minutes, ended = found["seconds"] / 60, found["ended"]
    return [
        f"`{found['network']}`",
        f"{minutes:.1f}: {'holds' if minutes < LIMIT else '**too long**'}",
        f"{found['processor_seconds'] / 60:.1f}",
        f"{ended['finished']} / {ended['stopped']} / {ended['failed']}",
        change(found, "validation", "validation_loss", "{:.4f}"),
        change(found, "validation", "validation_accuracy", "{:.2%}"),
        change(found, "test", "loss", "{:.4f}"),
        change(found, "test", "accuracy", "{:.2%}"),
    ]


def change(found: dict[str, Any], split: str, figure: str, style: str) -> str:
    """A figure, untuned and best; on the test set mean and standard deviation over the seeds."""
    cells = []
    for name in ("untuned", "best"):
        rows = found[name][split]
        if isinstance(rows, dict):
            cells.append(style.format(rows[figure]))
            continue
        values = np.array([each[figure] for each in rows])
        spread = f" ± {style.format(values.std(ddof=1))}" if len(values) > 1 else ""
        cells.append(style.format(values.mean()) + spread)
    return " → ".join(cells)


def main() -> int:
    """Search for each network and write the table; return 1 when something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--seeds", type=int, default=5, help="trainings for the test set")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = project(Path(folder) / "project")
        found = [search(root, network, arguments.seeds) for network in arguments.networks]
        trials = params.load_section(root, "tune", params.TuneParams).trials
    sizes = found[0]["best"]["test"][0]["support"] if arguments.seeds else 0
    header = (
        *("network", "minutes", "of the processor", "finished / stopped / failed"),
        *("validation loss", "validation accuracy", "test loss", "test accuracy"),
    )
    body = (
        f"{trials} trials for each network with params.yaml as shipped, untuned → best. On the "
        f"test set ({sizes} pictures):\nmean ± standard deviation of {arguments.seeds} trainings "
        f"with seeds of their own. Wanted: less than {LIMIT} minutes,\nand a lower validation "
        "loss.\n\n"
    )
    write("parameter_search", "Search for parameters", body + table(header, map(row, found)), found)
    good = [
        each["seconds"] < 60 * LIMIT
        and each["best"]["validation"]["validation_loss"]
        < each["untuned"]["validation"]["validation_loss"]
        for each in found
    ]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
