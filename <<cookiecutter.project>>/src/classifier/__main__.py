"""Command line of the pipeline: `python -m classifier <stage>`, run by `dvc repro`."""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from classifier import params
from classifier.params import IngestParams, Params, TuneParams
from workspace.errors import reported
from workspace.machine import this_machine
from workspace.root import check_root
from workspace.settings import Settings

# The module of each stage, whose function of the stage's name runs it. Only that is imported, so
# that a stage depends on nothing else, and `prepare` need not wait for torch.
STAGES = {
    "prepare": "preparation",
    "train": "training",
    "evaluate": "evaluation",
    "export": "export",
}
CHECK = "check"  # of params.yaml, which is no stage
# sections that no stage reads
OTHERS: dict[str, type[Settings]] = {
    "ingest": IngestParams,
    "tune": TuneParams,
}


def main(argv: list[str] | None = None) -> int:
    """Run one stage in the current folder; return the exit status."""
    parser = argparse.ArgumentParser(prog="classifier", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, CHECK])
    stage = parser.parse_args(argv).stage
    if stage == "prepare" and not checked():
        return 1

    def run() -> None:
        check_root()
        if stage == CHECK:
            return check(params.load(Path()), Path())
        work = getattr(import_module(f"classifier.{STAGES[stage]}"), stage)
        machine = [this_machine()] if stage == "train" else []
        return work(params.load(Path()), Path(), *machine)

    return reported(run)


def check(values: Params, root: Path) -> None:
    """Check what the first stage does not read, before it works for long. Raises SettingsError."""
    networks = import_module("classifier.networks")
    any_shape = networks.Shape(32, 32, 3, 2)
    networks.build(values.train.network, any_shape, values.train.options)
    networks.check_together(values.train)
    for name, kind in OTHERS.items():
        if name in params.read(root):
            params.load_section(root, name, kind)


def checked() -> bool:
    """Tell whether `check` passes, which says itself what does not.

    In a process of its own, as it imports torch: `prepare` depends on nothing of that.
    """
    source = str(Path(__file__).parent.parent)
    command = [sys.executable, "-m", "classifier", CHECK]
    return not subprocess.run(command, env=os.environ | {"PYTHONPATH": source}).returncode


if __name__ == "__main__":
    sys.exit(main())
