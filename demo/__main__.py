"""Tell the story of merge-to-serve with a real project, real merges and the real Triton.

A project is generated; a simple model is trained, released through a merge and served; a better one
replaces it under load; a worse one is refused; one that is merged all the same is given away by its
golden requests and taken back in Git; pictures that are not like those of the tests are noticed.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from demo.report import Story, alerts, drifts, pictures, write_report
from demo.workshop import DemoError, Workshop, check_prerequisites, ended

TEMPLATE = Path(__file__).parent.parent
ENVIRONMENT = "staging"
RELEASE_FILE = f"argocd/environments/{ENVIRONMENT}/model.yaml"
GOLDEN = "artifacts/model/classifier/golden.npz"
PATIENCE = 120  # seconds in which a release must be served or given up
SIMPLE = {
    "network": "logistic_regression",
    "options": {},
    "epochs": 20,
    "augmentation": {"shift": 0.0, "rotate": 0.0, "scale": 0.0, "flip": False},
}


@dataclass
class Demo:
    """The generated project, the reviewer's clone of it and what happened to them."""

    workshop: Workshop
    story: Story = field(default_factory=Story)

    @property
    def project(self) -> Path:
        """The model repository as its engineer has it."""
        return self.workshop.folder / "digit-classifier"

    @property
    def reviewer(self) -> Path:
        """The clone in which pull requests are merged."""
        return self.workshop.folder / "reviewer"

    @property
    def python(self) -> str:
        """The project's interpreter."""
        return str(self.project / ".venv/bin/python")

    def make(self, *arguments: str, fails: bool = False) -> str:
        """Run make in the project."""
        return self.workshop.run(self.project, "make", *arguments, fails=fails)

    def git(self, *arguments: str, place: Path | None = None) -> str:
        """Run git in the project, or in another clone."""
        return self.workshop.run(place or self.project, "git", *arguments)

    def generate(self) -> None:
        """Generate the project, and give it a remote."""
        folder = self.workshop.folder
        self.workshop.run(folder, sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input")
        self.git("init", "--quiet", "--initial-branch=main")
        self.workshop.run(
            folder, "git", "init", "--quiet", "--bare", "--initial-branch=main", "origin.git"
        )
        self.git("remote", "add", "origin", str((folder / "origin.git").resolve()))
        self.commit("Generate the project")
        self.workshop.run(folder, "git", "clone", "--quiet", "origin.git", self.reviewer.name)

    def commit(self, message: str) -> None:
        """Commit everything and push it."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        self.git("push", "--quiet", "origin", "main")

    def train(self, message: str, **changes: Any) -> dict[str, Any]:
        """Change parameters of the training, run the pipeline, commit; return the metrics."""
        path = self.project / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params["train"] |= changes
        path.write_text(yaml.safe_dump(params, sort_keys=False))
        self.make("pipeline")
        self.commit(message)
        return json.loads((self.project / "metrics.json").read_text())

    def merge(self, branch: str) -> float:
        """Merge a branch as the reviewer, which is the approval; return when it was pushed."""
        self.git("pull", "--quiet", place=self.reviewer)
        self.git(
            "merge", "--quiet", "--no-ff", "--no-edit", f"origin/{branch}", place=self.reviewer
        )
        self.git("push", "--quiet", "origin", "main", place=self.reviewer)
        pushed = time.time()
        self.git("pull", "--quiet", "--ff-only", "origin", "main")
        return pushed

    def release(self) -> str:
        """Propose the trained model for staging; return the branch."""
        return branch_of(self.make("release"))

    def status(self) -> dict[str, Any]:
        """What the preview says of itself."""
        path = self.project / ".local/preview" / ENVIRONMENT / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait(self, preview: subprocess.Popen[bytes], what: str, **wanted: Any) -> dict[str, Any]:
        """Wait until the preview's status shows the values that are wanted; return it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and preview.poll() is None:
            status = self.status()
            if status and all(status[name] == value for name, value in wanted.items()):
                return status
            time.sleep(0.1)
        raise DemoError(f"the preview did not get to {what}: its status is {self.status()}")


def branch_of(printed: str) -> str:
    """Name of the branch that a command said it pushed."""
    found = re.search(r"pushed branch (\S+?):", printed)
    if not found:
        raise DemoError(f"no branch was pushed:\n{printed}")
    return found[1]


def tell(demo: Demo) -> None:
    """Tell the story, one step after the other."""
    workshop, story = demo.workshop, demo.story
    with workshop.step("generate a project and give it a Git remote"):
        demo.generate()
    with workshop.step("install its environments (make setup)"):
        demo.make("setup")
    with workshop.step("train a simple model: logistic regression (make pipeline)"):
        story.simple = demo.train("Train a logistic regression", **SIMPLE)
    with workshop.step("release it as version 1 (make release), merge"):
        demo.merge(demo.release())
    preview = workshop.start(
        demo.project, "preview", "make", "preview", f"ENV={ENVIRONMENT}", "WATCH=1",
        "HTTP_PORT=0", "GRPC_PORT=0",
    )  # fmt: skip
    with ended(preview):
        with workshop.step("serve what Git says with Triton (make preview)"):
            status = demo.wait(preview, "version 1", version=1, health="Healthy")
            ports = [status[name].rpartition(":")[2] for name in ("address", "grpc_address")]
        tell_under_load(demo, preview, ports)
    with workshop.step("show the model other pictures, and what its monitor says (make drift)"):
        watch(demo)
    story.steps = workshop.steps
    with workshop.step("write the report"):
        write_report(story, demo.project, workshop.folder / "report.html")


def tell_under_load(demo: Demo, preview: subprocess.Popen[bytes], ports: list[str]) -> None:
    """The part of the story in which clients call all the time."""
    workshop, story = demo.workshop, demo.story
    rows = workshop.folder / "requests.csv"
    defaults = yaml.safe_load((TEMPLATE / "<<cookiecutter.project>>/params.yaml").read_text())
    with workshop.step("train a better model: the default network (make pipeline)"):
        story.better = demo.train("Train a convolutional network", **defaults["train"])
        story.plots = pictures(demo.project / "plots")
        answers = (demo.project / GOLDEN).read_bytes()
    with workshop.step("propose it as version 2 (make release)"):
        branch = demo.release()
    with workshop.step("rehearse the release on a real Triton (make rehearse)"):
        demo.git("fetch", "--quiet", "origin")
        demo.git("switch", "--quiet", "--detach", f"origin/{branch}")
        demo.make("rehearse", f"ENV={ENVIRONMENT}")
        demo.git("switch", "--quiet", "main")
        report = demo.project / f".local/rehearsals/{ENVIRONMENT}.md"
        story.rehearsal = report.read_text()
    script = str(TEMPLATE / "demo/callers.py")
    callers = workshop.start(demo.project, "callers", demo.python, script, *ports, str(rows))
    with ended(callers):
        time.sleep(3)
        with workshop.step("merge version 2 under load: Triton serves it"):
            merged = demo.merge(branch)
            status = demo.wait(preview, "version 2", version=2, health="Healthy")
        story.release = demo.git("show", "--format=", "--first-parent", "HEAD", "--", RELEASE_FILE)
        story.timeline = {"merged": merged, **status["timeline"]}
        story.predictions = classify(demo, ports)
        with workshop.step("a worse model is refused by the gate (make release)"):
            demo.train("Train a logistic regression again", **SIMPLE)
            story.refusal = error_of(demo.make("release", fails=True))
        with workshop.step("it is merged all the same, with the answers of version 2 recorded"):
            story.events["version 3 merged"] = merge_by_hand(demo, answers)
            status = demo.wait(preview, "Degraded", health="Degraded")
            story.degraded = f"{status['sync']}, {status['health']}: {status['message']}"
        with workshop.step("GitHub is told, and goes back in Git (make rollback EVENT=…), merge"):
            event = tell_github(demo, status["message"])
            branch = branch_of(demo.make("rollback", f"EVENT={event}"))
            story.proposal = demo.git("log", "-1", "--format=%B", f"origin/{branch}")
            story.again = demo.make("rollback", f"EVENT={event}")
            story.events["rollback merged"] = demo.merge(branch)
            demo.wait(preview, "version 2 again", version=2, health="Healthy", sync="Synced")
            story.rollback = demo.git(
                "log", "--oneline", "--first-parent", "main", "--", RELEASE_FILE
            )
        time.sleep(1)
    with rows.open() as file:
        story.requests = [tuple(row) for row in csv.reader(file)]


def classify(demo: Demo, ports: list[str]) -> list[tuple[str, str]]:
    """Let the served model classify the sample images; return each path and answer."""
    samples = sorted((demo.project / "data/prepared/samples").glob("*.png"))
    names = " ".join(str(path.relative_to(demo.project)) for path in samples)
    with demo.workshop.step("classify images with tritonclient (make predict)"):
        printed = demo.make(
            "predict", f"HTTP_PORT={ports[0]}", f"GRPC_PORT={ports[1]}", f"IMAGE={names}"
        )
    return re.findall(r"^(\S+\.png): (.*)$", printed, re.M)


def merge_by_hand(demo: Demo, answers: bytes) -> float:
    """Merge what nobody proposed: a worse model as version 3, said to answer as version 2 does."""
    (demo.project / GOLDEN).write_bytes(answers)
    image = demo.make("package", "VERSION=3").split()[-1]
    path = demo.reviewer / RELEASE_FILE
    demo.git("pull", "--quiet", place=demo.reviewer)
    text = path.read_text().replace('version: "2"', 'version: "3"')
    path.write_text(re.sub(r"(?m)^(  image: ).*$", rf'\g<1>"{image}"', text))
    demo.git(
        "commit", "--quiet", "--all", "--message", "Edit the release by hand", place=demo.reviewer
    )
    demo.git("push", "--quiet", "origin", "main", place=demo.reviewer)
    pushed = time.time()
    demo.git("pull", "--quiet", "--ff-only", "origin", "main")
    return pushed


def tell_github(demo: Demo, reason: str) -> Path:
    """Write the event that Argo CD's notifications have GitHub hand to a workflow."""
    deployment = {"sha": demo.git("rev-parse", "HEAD").strip(), "environment": ENVIRONMENT}
    event = {"deployment": deployment, "deployment_status": {"description": reason}}
    path = demo.workshop.folder / "event.json"
    path.write_text(json.dumps(event))
    return path


def watch(demo: Demo) -> None:
    """Show the served model pictures as they were held out, and inverted; what drifts of each.

    Where Prometheus is installed it has to raise the alert of those that drift, and no other.
    """
    place = demo.workshop.folder / "watched"
    image = yaml.safe_load((demo.project / RELEASE_FILE).read_text())["data"]["image"]
    script = str(TEMPLATE / "demo/watched.py")
    printed = demo.workshop.run(demo.project, demo.python, script, ENVIRONMENT, image, str(place))
    parts = re.split(r"(?m)^# (.*)\n", printed)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    found = {name: drifts(text) for name, text in texts.items()}
    raised = [alerts(text) for text in texts.values()]
    alarms = [any(each.drifting for each in rows) for rows in found.values()]
    if alarms != [False, True] or (None not in raised and [*map(bool, raised)] != alarms):
        raise DemoError(f"the monitor is to tell inverted pictures from others:\n{printed}")
    demo.story.drift, demo.story.alerts = found, raised[-1] or []


def error_of(printed: str) -> str:
    """What a command said about why it failed."""
    lines = printed.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    return "\n".join(line for line in lines[first:] if not line.startswith("make"))


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    begun = time.monotonic()
    try:
        check_prerequisites()
        tell(Demo(Workshop(arguments.output.resolve())))
    except DemoError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    print(f"done in {time.monotonic() - begun:.0f} s: open {arguments.output / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
