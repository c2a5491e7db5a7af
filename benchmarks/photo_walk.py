"""The walk of somebody new with 805 pictures of products, from the files to a reproduced release.

Generates the pictures and a project, then does what its README says: the pipeline, a release, a
batch of new pictures through ingest, a search, a second release with its rehearsal, promotion,
rollback and reproduction. Tells what each step took and what the models reach. It runs with the
Python of a generated project and TRITON_VENV set to its Triton environment.
"""

import argparse
import csv
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

import product_pictures
from demo.__main__ import Demo, branch_of
from demo.workshop import DemoError, Workshop
from results import table, write

TEMPLATE = Path(__file__).parents[1]
FOLDER = TEMPLATE / ".cache/photo-walk"
VENV = Path(sys.prefix)
TRITON = Path(os.environ.get("TRITON_VENV", ".venv-triton")).absolute()
BATCH = "june"
NEW = 45  # pictures of the batch


class Walk(Demo):
    """The demo's project, with environments that are there already."""

    def generate(self) -> None:
        """Generate the project with a remote that a reviewer has cloned."""
        folder, here = self.workshop.folder, TEMPLATE / ".venv/bin/cookiecutter"
        command = str(here) if here.exists() else "cookiecutter"
        self.workshop.run(folder, command, str(TEMPLATE), "--no-input")
        self.git("init", "--quiet", "--initial-branch=main")
        remote = str((folder / "origin.git").resolve())
        self.git("init", "--quiet", "--bare", "--initial-branch=main", remote)
        self.git("remote", "add", "origin", remote)
        self.commit("Generate the project")
        self.git("clone", "--quiet", remote, str(self.reviewer.resolve()))

    def make(self, *arguments: str, fails: bool = False) -> str:
        """Run make in the project, which need not install anything."""
        own = [f"VENV={VENV}", f"TRITON_VENV={TRITON}"]
        there = [f"--assume-old={VENV}/ready", f"--assume-old={TRITON}/ready"]
        return super().make(*own, *there, *arguments, fails=fails)

    def configure(self, side: int, train: dict[str, Any]) -> None:
        """Say in params.yaml what the README says of one's own pictures; floors that leave room."""
        path = self.project / "params.yaml"
        content = yaml.safe_load(path.read_text())
        content["prepare"] |= {"source": "folder", "image_size": [side, side], "channels": 3}
        content["train"] |= train
        content["gate"] |= {"min_accuracy": 0.05, "min_macro_f1": 0.0, "tolerance": 1.0}
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def ingest(self) -> int:
        """Add the batch, and keep what a person is asked about; return how many these are."""
        batch, review = f"BATCH=../{BATCH}", self.project / f"reviews/{BATCH}.csv"
        self.make("ingest", batch)
        asked = decide(review) if review.exists() else 0
        if asked:
            self.make("ingest", batch)
        return asked

    def figures(self) -> dict[str, Any]:
        """What the evaluated model reaches."""
        metrics = json.loads((self.project / "metrics.json").read_text())
        return {name: metrics[name] for name in ("accuracy", "support", "intervals")}

    def propose(self) -> None:
        """Release, and merge it."""
        self.merge(branch_of(self.make("release")))


def decide(path: Path) -> int:
    """Keep every picture that is asked about; return how many these are."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    asked = [row for row in rows if not row["decision"]]
    for row in asked:
        row["decision"] = "keep"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["decision"])
        writer.writeheader()
        writer.writerows(rows)
    return len(asked)


def walk(here: Walk, arguments: argparse.Namespace) -> dict[str, Any]:
    """Do it all; return the figures."""
    found: dict[str, Any] = {}
    step, folder = here.workshop.step, here.workshop.folder
    with step("generate the project"):
        here.generate()
    with step(f"draw {arguments.pictures} pictures and a batch of {NEW}"):
        corrupt = max(1, arguments.pictures // 200)
        product_pictures.fill(here.project / "data/raw", arguments.pictures, 1, corrupt)
        product_pictures.fill(folder / BATCH, NEW, 2, 2)
    train = {} if arguments.epochs is None else {"epochs": arguments.epochs}
    here.configure(arguments.side, train)
    with step("dvc add data/raw"):
        here.workshop.run(here.project, str(VENV / "bin/dvc"), "add", "--quiet", "data/raw")
    here.commit("Add our pictures")
    with step("make pipeline"):
        here.make("pipeline")
    found["first"] = here.figures()
    here.commit("Train on our pictures")
    with step("make release, merged"):
        here.propose()
    with step(f"make ingest of {NEW} pictures, two of them corrupt"):
        found["asked"] = here.ingest()
    with step(f"make tune, {arguments.trials} trials"):
        here.make("tune", f"TRIALS={arguments.trials}")
    with step("make pipeline"):
        here.make("pipeline")
    found["second"] = here.figures()
    here.commit("Add june, and what a search found")
    with step("make release"):
        branch = branch_of(here.make("release"))
    here.git("fetch", "--quiet", "origin")
    here.merge(branch)
    if TRITON.is_dir():
        with step("make rehearse"):
            here.make("rehearse", "ENV=staging")
    with step("make promote, merged"):
        here.merge(branch_of(here.make("promote")))
    with step("make rollback, merged"):
        here.merge(branch_of(here.make("rollback", "ENV=staging")))
    with step("make reproduce VERSION=1"):
        here.make("reproduce", "VERSION=1")
    return found


def told(name: str, figures: dict[str, Any]) -> str:
    """A model's accuracy, in a line."""
    low, high = figures["intervals"]["accuracy"]
    accuracy = f"{figures['accuracy']:.1%} ({low:.1%} to {high:.1%})"
    return f"{name}: accuracy {accuracy} on {figures['support']} test pictures.\n"


def main() -> int:
    """Walk, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=805)
    parser.add_argument("--side", type=int, default=96, help="pixels, to which they are stretched")
    parser.add_argument("--epochs", type=int, help="fewer than params.yaml says, for a quick look")
    parser.add_argument("--trials", type=int, default=6, help="of the search")
    arguments = parser.parse_args()
    here = Walk(Workshop(FOLDER))
    try:
        found = walk(here, arguments)
    except DemoError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    steps = [(each.title, f"{each.seconds:.0f}") for each in here.workshop.steps]
    body = (
        f"{arguments.pictures} pictures of mixed sizes in ten classes, among them cut-outs, CMYK, "
        f"EXIF turns and\ncorrupt files, stretched to {arguments.side}×{arguments.side}; "
        "`params.yaml` as shipped but for that.\n\n"
        f"{told('The first model', found['first'])}"
        f"{told('After the batch and the search', found['second'])}"
        f"Ingest asked a person about {found['asked']} of {NEW} pictures. The first release was "
        "made again to the last bit.\n\n"
    )
    figures = found | {"steps": dict(steps)}
    write("photo_walk", "A walk with photographs", body + table(("step", "s"), steps), figures)
    shutil.rmtree(FOLDER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
