"""A project as its owner has it: the generated manifests, a remote, and models that are tiny."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import yaml

import fake_pipeline
import git_server
from classifier.evaluation import behave
from conftest import TEMPLATE, UNBAKED, cookiecutter, mark_root
from delivery.model.packaging import LOCAL, package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.oci.registry import push
from delivery.proposals.release_file import Release, parse_release
from delivery.proposals.texts import describe
from fake_project import CODE, EXPORT, PARAMS, Project, code_sha256
from local_cluster import REGISTRY
from workspace import behaviour

OWNER, NAME = "acme", "digit-classifier"
ADDRESS = f"github.com/{OWNER}/{NAME}.git"
SECRET = "of-the-repository"  # what Argo CD reads it with
PEOPLE = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A Tester"), ("EMAIL", "tester@example.com"))
}
# How many golden requests a model has: fewer than what is judged as live requests in the tests,
# also where Prometheus takes what it saw of them for twice as many.
GOLDEN = 15
FAULTY = Path(__file__).parent / "faulty_model.py"
# A crash is still seen six times before a version is taken away.
SOONER = {"/spec/metrics/0/interval": "3s"}
# On a machine with much to do a server that is well may take longer to say so.
PATIENT = {"/spec/template/spec/containers/0/readinessProbe/timeoutSeconds": 10}
INTERFACE = fake_pipeline.CONFIG.partition("\ninput")[2]


def push_event(repository: str, commit: str, *files: str) -> dict[str, Any]:
    """What GitHub tells of a push to main of `<owner>/<name>` that modified files."""
    changed = {"added": [], "removed": [], "modified": [*files]}
    return {
        "ref": "refs/heads/main",
        "before": "0" * 40,
        "after": commit,
        "repository": {"html_url": f"https://github.com/{repository}", "default_branch": "main"},
        "commits": [{"id": commit, **changed}],
    }


@dataclass(frozen=True)
class ClusterProject(Project):
    """A project whose remote is what Argo CD reads."""

    def train(self, accuracy: float = 0.97, macro_f1: float = 0.96) -> None:
        """Run the pipeline and commit what it writes; another accuracy is another model."""
        self.write_model(accuracy, macro_f1)
        self.commit(f"Train a model with accuracy {accuracy}")

    def write_model(self, accuracy: float, macro_f1: float = 0.96) -> None:
        """Write what the pipeline leaves, so that Triton can serve it."""
        shutil.rmtree(self.folder / "artifacts", ignore_errors=True)
        fake_pipeline.write_outputs(self.folder, accuracy, macro_f1, code_sha256())
        model = self.folder / "artifacts/model/classifier"
        tuned = (UNBAKED / "serving/classifier/config.pbtxt").read_text()
        (model / "config.pbtxt").write_text(f"{tuned}\ninput{INTERFACE}")
        images = np.arange(fake_pipeline.PICTURES, dtype=np.uint8).reshape(-1, 1, 1, 1)
        session = onnxruntime.InferenceSession(fake_pipeline.model(accuracy))
        (probabilities,) = session.run(None, {"image": images})
        held_out = behaviour.figures(images, probabilities)
        said = behave(held_out, held_out, fake_pipeline.LABELS, fake_pipeline.CLASSES)
        fake_pipeline.write(self.folder, "artifacts/behaviour.json", said)
        images, probabilities = images[:GOLDEN], probabilities[:GOLDEN]
        labels = probabilities.argmax(axis=1)
        np.savez(model / "golden.npz", images=images, probabilities=probabilities, labels=labels)

    def delivery(self, *arguments: str, refused: bool = False) -> str:
        """Run one of the project's commands; what it printed, or what it said when it refused."""
        result = subprocess.run(
            [sys.executable, "-m", "delivery", *arguments],
            cwd=self.folder,
            env=os.environ | PEOPLE | {"PYTHONPATH": str(TEMPLATE)},
            capture_output=True,
            text=True,
        )
        assert bool(result.returncode) == refused, result.stdout + result.stderr
        return result.stderr if refused else result.stdout

    def build(self, version: int, accuracy: float = 0.97) -> Release:
        """Package a model as a version and push it, without releasing it."""
        self.write_model(accuracy)
        return self.packaged(version)

    def build_faulty(self, version: int, accuracy: float, **faults: float) -> Release:
        """Build a version with right golden answers, and with faults that faulty_model.py names."""
        self.write_model(accuracy)
        model = self.folder / "artifacts/model/classifier"
        config = (model / "config.pbtxt").read_text()
        (model / "config.pbtxt").write_text(config.replace('"onnxruntime"', '"python"'))
        text = FAULTY.read_text()
        for name, value in (faults | {"ACCURACY": accuracy}).items():
            text, found = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", text)
            assert found == 1, name
        (model / "1/model.py").write_text(text)
        return self.packaged(version)

    def packaged(self, version: int) -> Release:
        """Package what lies in artifacts as a version and push it."""
        layout = Layout(self.folder / LOCAL)
        digest = package(self.folder, version, layout)
        push(layout, digest, f"{REGISTRY}/{NAME}")
        image = f"{REGISTRY}/{NAME}@{digest}"
        return describe(read_outputs(self.folder), version, image, "0" * 40)

    def deploy_release(self, release: Release, environment: str = "staging") -> str:
        """Put a release file on main as if it had been proposed and merged; its commit."""
        self.git("pull", "--quiet")
        self.path(environment).write_text(release.to_yaml())
        self.commit(f"Release model {release.version} to {environment}")
        return self.git("rev-parse", "HEAD")

    def path(self, environment: str = "staging") -> Path:
        """The release file of an environment."""
        return self.folder / "argocd/environments" / environment / "model.yaml"

    def released(self, environment: str = "staging") -> Release:
        """The release on main."""
        name = str(self.path(environment).relative_to(self.folder))
        return parse_release(self.show("main", name), name)

    def access(self) -> str:
        """The commands of `infra/README.md` by which Argo CD reads a private repository.

        From now on this one is private.
        """
        (self.origin / git_server.TOKEN).write_text(SECRET)
        text = (self.folder.parent / "generated" / NAME / "infra/README.md").read_text()
        found = re.search(r"\nA private repository is read .*\n\n((?:    .*\n)+)", text)
        assert found and "<token>" in found[1]
        return found[1].replace("<token>", SECRET)

    def change(self, name: str, old: str, new: str) -> str:
        """Replace text of a file, which must be there, on main; give the commit."""
        file = self.folder / name
        text = file.read_text()
        assert old in text, f"{name} has no {old!r}"
        file.write_text(text.replace(old, new))
        self.commit(f"Change {name}")
        return self.git("rev-parse", "HEAD")


def hurry(overlay: Path, step: int) -> None:
    """Make the pause of a new version a second, as the owner of an overlay may decide."""
    pause = {f"/spec/strategy/canary/steps/{step}/pause/duration": "1s"}
    add_patches(overlay, patch("Rollout", "triton", pause))


def patch(kind: str, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A patch of an overlay that replaces values by their place."""
    steps = [{"op": "replace", "path": place, "value": each} for place, each in changes.items()]
    return {"target": {"kind": kind, "name": name}, "patch": yaml.safe_dump(steps)}


def add_component(overlay: Path, name: str) -> None:
    """Add a component's line to those that an overlay has."""
    settings = yaml.safe_load(overlay.read_text())
    settings["components"].append(f"../../base/components/{name}")
    overlay.write_text(yaml.safe_dump(settings))


def add_patches(overlay: Path, *patches: dict[str, Any]) -> None:
    """Add patches to those that an overlay has."""
    settings = yaml.safe_load(overlay.read_text())
    settings.setdefault("patches", []).extend(patches)
    overlay.write_text(yaml.safe_dump(settings))


def make_project(folder: Path, remotes: Path) -> ClusterProject:
    """A project without a release; its remote lies below `remotes` as its address says."""
    project = ClusterProject(folder / "project", remotes / ADDRESS, folder / "reviewer")
    result = cookiecutter(folder / "generated", project=NAME, github_owner=OWNER)
    assert result.returncode == 0, result.stderr
    project.origin.mkdir(parents=True)
    project.git("init", "-q", "--bare", "--initial-branch=main", str(project.origin), folder=folder)
    project.git("clone", "-q", str(project.origin), str(project.folder), folder=folder)
    mark_root(project.folder)
    for part in ("argocd", ".template.json"):
        place = folder / "generated" / NAME / part
        (shutil.copytree if place.is_dir() else shutil.copy)(place, project.folder / part)
    for environment in ("staging", "production"):
        overlay = project.path(environment).with_name("kustomization.yaml")
        hurry(overlay, step=2)
        sooner = patch("AnalysisTemplate", "failed-starts", SOONER)
        add_patches(overlay, sooner, patch("Rollout", "triton", PATIENT))
    for path, content in CODE.items():
        fake_pipeline.write(project.folder, path, content)
    fake_pipeline.write(project.folder, ".gitignore", "/data/\n/artifacts/\n/plots/\n/.local/\n")
    parameters = PARAMS.replace(f"oci:{LOCAL}", f"{REGISTRY}/{NAME}")
    fake_pipeline.write(project.folder, "params.yaml", parameters)
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{EXPORT}}}}}\n")
    for place in (project.folder,):
        for key, value in (("user.name", "A Tester"), ("user.email", "tester@example.com")):
            project.git("config", key, value, folder=place)
    project.git("checkout", "-q", "-B", "main")
    project.train()
    project.git("clone", "-q", str(project.origin), str(project.reviewer), folder=folder)
    for key, value in (("user.name", "A Reviewer"), ("user.email", "reviewer@example.com")):
        project.git("config", key, value, folder=project.reviewer)
    return project
