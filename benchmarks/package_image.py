"""What packaging and moving a model cost: one command, one table.

    make bench BENCHMARKS=package_image

Throughput is set against `sha256sum` of the same file in the same run, both with the file in the
page cache; memory is the peak of the packaging process above what it has after its imports.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import results
from delivery.model.packaging import package
from delivery.oci.image import parse_manifest
from delivery.oci.layout import Layout
from delivery.oci.registry import pull, push

BLOCK = 64 << 20  # bytes
REPEATS = 3  # the best counts: a shared machine only ever adds time

PACKAGE = """
import re, sys, time
from pathlib import Path
from delivery.oci.layout import Layout
from delivery.model.packaging import package
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before, start = peak(), time.perf_counter()
package(Path.cwd(), 7, Layout(Path(sys.argv[1])))
print(time.perf_counter() - start, (peak() - before) / 1024)
"""


def write_project(root: Path, size: int) -> Path:
    """Write what the pipeline leaves, around a model of `size` random bytes; return the model."""
    model = root / "artifacts/model/classifier"
    (model / "1").mkdir(parents=True)
    (root / "data/prepared").mkdir(parents=True)
    for name in ("config.pbtxt", "labels.txt", "golden.npz"):
        (model / name).write_text(name)
    for name in ("metrics.json", "lineage.json", "artifacts/export.json", "MODEL_CARD.md"):
        (root / name).write_text("{}")
    (root / "data/prepared/report.json").write_text("{}")
    block = os.urandom(BLOCK)
    with (model / "1/model.onnx").open("wb") as file:
        for _ in range(size // BLOCK):
            file.write(block)
    return model / "1/model.onnx"


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def time_packaging(root: Path) -> tuple[float, float]:
    """Package in a process of its own; return seconds and peak memory in MiB above its imports."""
    layout = root / "layout"
    shutil.rmtree(layout, ignore_errors=True)
    environment = os.environ | {"PYTHONPATH": sys.path[0]}
    command = [sys.executable, "-c", PACKAGE, str(layout)]
    answer = subprocess.run(
        command, cwd=root, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    spent, memory = map(float, answer.stdout.split())
    return spent, memory


def measure_throughput(folder: Path, size: int) -> list[tuple[str, str]]:
    """Set packaging against sha256sum; return rows of the table."""
    model = write_project(folder, size)
    hashing, packaging, memory = [], [], 0.0
    for _ in range(REPEATS):
        hashing.append(seconds(lambda: subprocess.run(["sha256sum", model], capture_output=True)))
        spent, peak = time_packaging(folder)
        packaging.append(spent)
        memory = max(memory, peak)
    mib = size / 2**20
    return [
        ("model", f"{size / 2**30:g} GiB"),
        ("sha256sum", f"{mib / min(hashing):.0f} MiB/s"),
        ("package (read, hash, write)", f"{mib / min(packaging):.0f} MiB/s"),
        ("package against sha256sum", f"{min(hashing) / min(packaging):.2f} x"),
        ("package, peak memory above the interpreter", f"{memory:.0f} MiB"),
    ]


def measure_bump(folder: Path) -> list[tuple[str, str]]:
    """Push and pull a version and the next; return rows of the table."""
    model = write_project(folder, BLOCK)
    layout, registry = Layout(folder / "local"), f"oci:{folder / 'shared'}"
    push(layout, package(folder, 7, layout), registry)
    with model.open("r+b") as file:
        file.write(b"better")
    digest = package(folder, 8, layout)
    layer = parse_manifest(layout.read_manifest(digest), digest).layer.size
    sent = pushed(layout, digest, folder / "shared")
    again = pushed(layout, digest, folder / "shared")
    received = pull(f"{registry}@{digest}", folder / "models")
    return [
        ("bump: the changed layer", f"{layer:,} bytes"),
        ("bump: pushed", f"{sent:,} bytes ({sent - layer:,} more than the layer)"),
        ("bump: pushed the second time", f"{again:,} bytes"),
        ("bump: pulled", f"{received:,} bytes ({received - layer:,} more than the layer)"),
    ]


def pushed(layout: Layout, digest: str, shared: Path) -> int:
    """Push an image into a folder; return the bytes of blobs that the folder gained."""
    before = size_of_blobs(shared)
    push(layout, digest, f"oci:{shared}")
    return size_of_blobs(shared) - before


def size_of_blobs(folder: Path) -> int:
    """Return the bytes of a layout's blobs."""
    return sum(path.stat().st_size for path in (folder / "blobs/sha256").iterdir())


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="what packaging and moving a model cost")
    parser.add_argument("--gib", type=float, default=4, help="of the model; twice that on disk")
    size = int(parser.parse_args().gib * 2**30)
    with tempfile.TemporaryDirectory() as large, tempfile.TemporaryDirectory() as small:
        rows = [*measure_throughput(Path(large), size), *measure_bump(Path(small))]
    results.write(
        "package_image",
        "What packaging and moving a model cost",
        results.table(("", ""), rows),
        dict(rows),
    )


if __name__ == "__main__":
    main()
