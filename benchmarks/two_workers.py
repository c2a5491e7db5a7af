"""Accuracy of two workers beside that of one: the digits, the default network, several seeds.

Both see the same batches. They differ in what each worker draws for its own images (augmentation,
dropout) and in the statistics of batch normalisation, which a processor takes over a worker's
share of the batch. So single runs differ as runs with another seed do, and their means must agree.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from tqdm import tqdm

from results import PROJECT, table, write

TOLERANCE = 0.5  # points of test accuracy between the means
FILES = ("params.yaml", "serving/classifier/config.pbtxt")


def classifier(stage: str, folder: Path, **environment: str) -> None:
    """Run a stage of the pipeline in a folder."""
    subprocess.run(
        [sys.executable, "-m", "classifier", stage],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")} | environment,
        check=True,
        capture_output=True,
    )


def trained(folder: Path, seed: int, devices: int) -> dict[str, Any]:
    """Train and evaluate; seconds of training and the figures on the test set."""
    content = yaml.safe_load((PROJECT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(content | {"seed": seed}))
    began = time.perf_counter()
    classifier("train", folder, DEVICES=str(devices))
    seconds = time.perf_counter() - began
    classifier("evaluate", folder)
    metrics = json.loads((folder / "metrics.json").read_text())
    return {"seed": seed, "devices": devices, "seconds": seconds, "accuracy": metrics["accuracy"]}


def main() -> int:
    """Measure and write the table; return 1 when the means are further apart than TOLERANCE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    seeds = max(2, parser.parse_args().seeds)  # one has no spread
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in FILES:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / file, folder / file)
        classifier("prepare", folder)
        turns = [(seed, devices) for seed in range(seeds) for devices in (1, 2)]
        runs = [trained(folder, *turn) for turn in tqdm(turns, desc="training", file=sys.stderr)]
    by_devices = {n: [run for run in runs if run["devices"] == n] for n in (1, 2)}
    accuracy = {n: [100 * run["accuracy"] for run in some] for n, some in by_devices.items()}
    pairs = [two - one for one, two in zip(accuracy[1], accuracy[2], strict=True)]
    difference = mean(pairs)
    rows = [
        [
            f"{n} worker{'s'[: n > 1]}",
            f"{mean(accuracy[n]):.2f} ± {stdev(accuracy[n]):.2f}",
            f"{mean(run['seconds'] for run in some):.1f}",
        ]
        for n, some in by_devices.items()
    ]
    holds = abs(difference) <= TOLERANCE
    apart = f"{difference:+.2f} ± {stdev(pairs):.2f} points".replace("-", "−")
    body = (
        f"Mean ± standard deviation over {seeds} seeds, same data and batches; seconds are those "
        "of the whole stage,\nwith its start.\n\n"
        + table(("", "test accuracy, %", "training, s"), rows)
        + f"\nTwo workers against one, seed by seed: {apart}; wanted: within {TOLERANCE} points on "
        f"average: {'holds' if holds else '**broken**'}.\n"
    )
    write("two_workers", "Two workers beside one", body, runs)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
