"""A folder in which the demo works: numbered steps, each with a log and a time."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from workspace.root import without_outer_repository

# Settings of the demo's own environment that a generated project must not see.
LEAKS = ("VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
AUTHOR = {
    "GIT_AUTHOR_NAME": "Demo",
    "GIT_AUTHOR_EMAIL": "demo@example.com",
    "GIT_COMMITTER_NAME": "Demo",
    "GIT_COMMITTER_EMAIL": "demo@example.com",
}


class DemoError(Exception):
    """The demo cannot go on; the message is the whole report."""


@dataclass(frozen=True)
class Step:
    """A finished step: what it was called and the seconds it took."""

    title: str
    seconds: float


def environment() -> dict[str, str]:
    """The environment of a user's shell."""
    kept = without_outer_repository(os.environ)
    return {name: value for name, value in kept.items() if name not in LEAKS} | AUTHOR


@dataclass
class Workshop:
    """The demo's folder, emptied at the start."""

    folder: Path
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with nothing but folders."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "logs").mkdir(parents=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and tell how long it took."""
        print(f"[{len(self.steps) + 1:2}] {title} … ", end="", flush=True)
        begun = time.monotonic()
        yield
        self.steps.append(Step(title, time.monotonic() - begun))
        print(f"{self.steps[-1].seconds:.1f} s", flush=True)

    def run(self, place: Path, *command: str, fails: bool = False) -> str:
        """Run a command and return what it printed, which a log keeps too.

        Raises DemoError with the end of the log unless it succeeds, or, with `fails`, unless it
        fails.
        """
        log = self.folder / "logs" / f"{len(self.steps) + 1:02}.log"
        with log.open("a") as file:
            print("$", *command, file=file, flush=True)
        result = subprocess.run(
            command,
            cwd=place,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with log.open("a") as file:
            file.write(result.stdout)
        if (result.returncode != 0) is not fails:
            tail = "\n".join(result.stdout.splitlines()[-15:])
            ended = "succeeded, which it should not" if fails else "failed"
            raise DemoError(f"`{' '.join(command)}` {ended} (log: {log}):\n{tail}")
        return result.stdout

    def start(self, place: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on beside the next steps, with a log of its own."""
        with (self.folder / "logs" / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=place, env=environment(), stdout=log, stderr=subprocess.STDOUT
            )


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process politely when the block ends, however it ends."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            process.kill()


NEEDED = {  # program: how to install it
    "git": "apt-get install git",
    "kubectl": "see kubernetes.io/docs/tasks/tools",
}


def check_prerequisites(programs: Sequence[str] = tuple(NEEDED)) -> None:
    """Raise DemoError naming every program that is missing and how to install it."""
    missing = [f"{name} ({NEEDED[name]})" for name in programs if not shutil.which(name)]
    if sys.platform != "linux":
        missing.append("Linux: the Triton server of the Python package runs nowhere else")
    if missing:
        raise DemoError(f"the demo needs {', '.join(missing)}")
