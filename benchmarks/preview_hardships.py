"""Poisoned commits and random kills, while somebody asks: what a preview lives through.

    make bench BENCHMARKS=preview_hardships

Models are tiny and the registry is a folder, apart from those that are broken on purpose. Exits
with 1, and the reason, when the good model did not answer throughout the poisoned commits, or
what Git says did not serve after a kill.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "<<cookiecutter.project>>" / "src"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "delivery"))

from hardships import kill, poison
from previews import serving
from tiny_project import make_project

POISONS, KILLS = 500, 1000


def main() -> None:
    """Run both; print what was met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--poisons", type=int, default=POISONS)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    if arguments.poisons:
        report_poisons(arguments.poisons, arguments.seed)
    if arguments.kills:
        report_kills(arguments.kills, arguments.seed)


def report_poisons(count: int, seed: int) -> None:
    """Merge poisoned commits and revert them; say what was met."""
    with tempfile.TemporaryDirectory() as folder, serving(make_project(Path(folder))) as running:
        met, asker = poison(running, count, seed)
    print(f"{met.total()} poisoned commits of {len(met)} kinds: {dict(met.most_common())}")
    print(f"{len(asker.answered)} answers meanwhile, {len(asker.errors)} errors", flush=True)
    assert set(asker.answered) == {1} and not asker.errors, asker.errors[:3]


def report_kills(count: int, seed: int) -> None:
    """Kill processes while releases take turns; say what was killed."""
    with tempfile.TemporaryDirectory() as folder:
        struck = kill(Path(folder), count, seed)
    print(f"{struck.total()} kills: {dict(struck.most_common())}; what Git says served after each")


if __name__ == "__main__":
    main()
