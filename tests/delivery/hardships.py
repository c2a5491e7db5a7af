"""What a preview has to live through: poisoned commits and kills, as many as are asked for."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from delivery.errors import DeliveryError
from faults import DEGRADED, HANGING, UNKNOWN
from previews import Asker, Running, children, lasting_ports, serving, start
from tiny_project import make_project
from waiting import PATIENCE

FAULTS = (
    {name: fault for name, (fault, _) in (DEGRADED | UNKNOWN).items()}
    # one that is told only after skopeo has tried for long is not waited for
    | HANGING
)


def poison(running: Running, count: int, seed: int) -> tuple[Counter[str], Asker]:
    """Merge that many poisoned commits, each reverted, some at once; return what was asked.

    Raises AssertionError when one is not told, or a revert does not heal.
    """
    chance, met = random.Random(seed), Counter[str]()
    asker = Asker(running.ports)
    try:
        for _ in range(count):
            name = chance.choice([*FAULTS])
            FAULTS[name](running.project)
            commit = running.project.merge(f"Poison: {name}")
            if chance.random() < 0.75 and name not in HANGING:
                told(running, commit)
            else:
                time.sleep(chance.random())
            commit = running.project.revert()
            running.until(commit=commit, version=1, sync="Synced", health="Healthy")
            met[name] += 1
    finally:
        asker.stop()
    return met, asker


def told(running: Running, commit: str) -> None:
    """Wait until the preview says that it does not serve a commit."""
    deadline = time.monotonic() + PATIENCE
    while True:
        status = running.status()
        failed = status.get("sync") == "Unknown" or status.get("health") == "Degraded"
        if status.get("commit") == commit and failed:
            return
        assert time.monotonic() < deadline and running.process.poll() is None, status
        time.sleep(0.05)


def recovered(running: Running, commit: str, version: int) -> None:
    """Wait until a version answers, and the preview says so; a death is not noticed at once."""
    deadline = time.monotonic() + PATIENCE
    while True:
        running.until(commit=commit, version=version, sync="Synced", health="Healthy")
        # A preview's last word is believed for a moment, until the next one takes it away.
        with suppress(DeliveryError, KeyError):
            if running.versions() == {version}:
                return
        assert time.monotonic() < deadline, running.status()
        time.sleep(0.1)


GRACE = 60.0  # seconds that a server gets to finish: a request may hang in one that was struck
VICTIMS = ("preview", "server", "model", "forkserver", "worker")


def kill(folder: Path, count: int, seed: int) -> Counter[str]:
    """Kill that many processes while releases 1 and 2 take turns; return what was killed.

    Raises AssertionError when what Git says does not serve after any of them.
    """
    chance, met, turn = random.Random(seed), Counter[str](), 0
    ports = lasting_ports()
    with serving(make_project(folder), *ports) as running:
        releases = {1: running.project.released(), 2: running.project.build(2)}
        asker = Asker(running.ports)
        try:
            while met.total() < count:  # there may be none of a kind now
                wanted = (1, 2)[turn // 2 % 2]  # every other time nothing new is released
                turn += 1
                commit = running.project.release(releases[wanted])
                time.sleep(chance.uniform(0, 2))
                name = chance.choice(VICTIMS)
                met[name] += strike(running, name, chance)
                if running.process.poll() is not None:
                    running.process.communicate()
                    again = start(running.project, "--watch", *ports)
                    running.process = again.process
                recovered(running, commit, wanted)
        finally:
            asker.stop()
        assert set(asker.answered) == {1, 2}
        deadline = time.monotonic() + GRACE + PATIENCE
        while (left := (running.attempts(), len(running.servers()))) != (1, 1):
            assert time.monotonic() < deadline, f"{left} folders and servers are left"
            time.sleep(0.1)
    return met


def strike(running: Running, name: str, chance: random.Random) -> int:
    """Kill one process of a kind, if there is one now; return how many were killed."""
    mine = running.process.pid
    if name == "preview":
        running.process.kill()
        running.process.wait()
        return 1
    found: list[int] = []
    with suppress(FileNotFoundError, AssertionError):
        servers = running.servers()
        forkservers = children(mine, "forkserver")
        found = {
            "server": lambda: servers,
            "model": lambda: [each for server in servers for each in children(server)],
            "forkserver": lambda: forkservers,
            "worker": lambda: [each for server in forkservers for each in children(server)],
        }[name]()
    for victim in chance.sample(found, min(1, len(found))):
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
            return 1
    return 0
