"""How long an exported model takes on this machine, without a server."""

import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workspace.machine import cores

BATCHES = (1, 8, 32)
SECONDS = 1.0  # for each size of a batch
FEWEST = 20  # runs, where these take longer


@dataclass(frozen=True)
class Row:
    """Times for so many pictures at once, in milliseconds."""

    batch: int
    median: float
    p99: float


@dataclass(frozen=True)
class Latency:
    """What was measured, and on what."""

    processor: str
    threads: int
    rows: list[Row]


def measure(graph: Path) -> Latency:
    """Measure a graph whose input is uint8 (N,H,W,C) on all processors of this machine."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return Latency(processor(), cores(), [timed(session, batch) for batch in BATCHES])


def timed(session: Any, batch: int) -> Row:
    """Run batches of noise one after the other."""
    (pixels,) = session.get_inputs()
    shape = (batch, *pixels.shape[1:])
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    session.run(None, {pixels.name: images})  # the first allocates
    times: list[float] = []
    while len(times) < FEWEST or sum(times) < SECONDS:
        start = time.perf_counter()
        session.run(None, {pixels.name: images})
        times.append(time.perf_counter() - start)
    median, p99 = 1000 * np.quantile(times, [0.5, 0.99])
    return Row(batch, float(median), float(p99))


def processor() -> str:
    """The processor's name as Linux has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
