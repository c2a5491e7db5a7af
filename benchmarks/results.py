"""What a table of results has around it: where it was measured, with what, and the files."""

import json
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PROJECT = Path(__file__).parent.parent / "<<cookiecutter.project>>"
RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "pytorch-lightning", "scikit-learn", "numpy")


def surroundings() -> dict[str, Any]:
    """Machine, threads and library versions."""
    return {
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def processor() -> str:
    """Name of the processor's model."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right."""
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *rows])


def write(name: str, title: str, body: str, figures: Any) -> None:
    """Write `<name>.md` for people and `<name>.json` for programs; print the former."""
    where = surroundings()
    libraries = ", ".join(f"{library} {number}" for library, number in where["libraries"].items())
    gpu = f"{where['gpu']}, " if where["gpu"] else ""
    footer = (
        f"{gpu}{where['processor']}, {where['cores']} cores, threads used: {where['threads']}, "
        f"{where['platform']}, Python {where['python']}, {libraries}.\n"
    )
    text = f"# {title}\n\n{body}\n{footer}"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    content = {"surroundings": where, "figures": figures}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(text)
