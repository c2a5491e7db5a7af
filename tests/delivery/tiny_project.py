"""A project with a remote whose manifests are the real ones and whose models are tiny."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import fake_pipeline
from conftest import TEMPLATE, UNBAKED, mark_root
from delivery.model.packaging import package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.proposals.release_file import Release, read_release
from delivery.proposals.texts import describe
from tiny import write_repository

PEOPLE = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "A Tester"), ("EMAIL", "tester@example.com"))
}


@dataclass(frozen=True)
class TinyProject:
    """A clone in `folder` of the bare repository `origin`; commits go straight to main."""

    folder: Path
    origin: Path

    def git(self, *arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=os.environ | PEOPLE | {"GIT_CONFIG_GLOBAL": os.devnull},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f"git {arguments}: {result.stderr}"
        return result.stdout.strip()

    def merge(self, message: str) -> str:
        """Commit everything and push it to main; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def revert(self) -> str:
        """Revert the last commit on main."""
        self.git("revert", "--no-edit", "HEAD")
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def release_file(self, environment: str = "staging") -> Path:
        return self.folder / "argocd" / "environments" / environment / "model.yaml"

    def build(self, version: int, seed: int | None = None) -> Release:
        """Package a tiny model as a version, without releasing it; other seeds, other weights."""
        fake_pipeline.write_outputs(self.folder)
        answers = self.folder / "artifacts/predictions.csv"
        named = answers.read_text().replace(",zero", ",class 0").replace(",one", ",class 1")
        answers.write_text(named)
        fake_pipeline.write(
            self.folder, "data/prepared/classes.json", json.dumps(["class 0", "class 1"])
        )
        model = self.folder / "artifacts" / "model"
        shutil.rmtree(model)
        write_repository(model, seed=version if seed is None else seed)
        digest = self.package(version)
        image = f"oci:.local/registry@{digest}"
        return describe(read_outputs(self.folder), version, image, "0" * 40)

    def package(self, version: int) -> str:
        """Package what lies in artifacts; return its digest."""
        return package(self.folder, version, Layout(self.folder / ".local" / "registry"))

    def release(self, release: Release, environment: str = "staging") -> str:
        """Merge a release file; return the commit."""
        self.release_file(environment).write_text(release.to_yaml())
        return self.merge(f"Release model {release.version} to {environment}")

    def bump(self, version: int, seed: int | None = None) -> str:
        """Build and release a version."""
        return self.release(self.build(version, seed))

    def released(self, **changes: object) -> Release:
        """Return the released file's content with changes."""
        return read_release(self.release_file()).model_copy(update=changes)

    def delivery(self, *arguments: str, printed: int = subprocess.PIPE) -> subprocess.Popen[str]:
        """Start a delivery command in the project; `printed` is where what it prints goes."""
        return subprocess.Popen(
            [sys.executable, "-m", "delivery", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(TEMPLATE), "GIT_CONFIG_GLOBAL": os.devnull},
            stdout=printed,
            stderr=printed,
            text=True,
        )


def make_project(folder: Path) -> TinyProject:
    """Make a project without a release."""
    project = TinyProject(folder / "project", folder / "origin.git")
    project.folder.mkdir(parents=True)
    project.git("init", "--quiet", "--initial-branch=main")
    project.git("init", "--quiet", "--bare", "--initial-branch=main", str(project.origin))
    project.git("remote", "add", "origin", str(project.origin))
    shutil.copytree(UNBAKED / "argocd", project.folder / "argocd")
    mark_root(project.folder)
    ignored = ("data", "artifacts", "plots", ".local")
    (project.folder / ".gitignore").write_text("".join(f"/{name}/\n" for name in ignored))
    project.merge("Generate")
    return project
