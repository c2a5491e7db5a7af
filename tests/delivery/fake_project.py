"""A project with a remote, and what people do in it: train, release, merge."""

import atexit
import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.cli
import pytest

import fake_pipeline
from conftest import TEMPLATE, mark_root
from delivery.git import Repository
from delivery.model.packaging import LOCAL, package
from delivery.oci.layout import Layout
from delivery.proposals.release_file import Release

PARAMS = """
seed: 42
train: {epochs: 3}
gate: {min_accuracy: 0.9, min_macro_f1: 0.9, tolerance: 0.01}
release: {registry: "oci:.local/registry"}
"""
STORE = """[core]
    analytics = false
    check_update = false
    remote = store
['remote "store"']
    url = ../.local/data
"""
CODE = {
    "src/classifier/networks.py": "LAYERS = 2\n",
    "serving/classifier/config.pbtxt": "max_batch_size: 32\n",
}
EXPORT = f"export: {{cmd: 'true', deps: [{', '.join(CODE)}]"  # a stage, open for its outs


def code_sha256() -> str:
    """Return what the pipeline writes about `CODE`."""
    lines = [f"{path}\0{hashlib.sha256(CODE[path].encode()).hexdigest()}\n" for path in CODE]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


@dataclass(frozen=True)
class Project:
    """A clone in `folder` of the bare repository `origin`, and a reviewer's clone beside them."""

    folder: Path
    origin: Path
    reviewer: Path

    @property
    def repository(self) -> Repository:
        return Repository(self.folder)

    def git(self, *arguments: str, folder: Path | None = None) -> str:
        command = ["git", *arguments]
        result = subprocess.run(command, cwd=folder or self.folder, capture_output=True, text=True)
        assert result.returncode == 0, f"{command}: {result.stderr}"
        return result.stdout.strip()

    def train(self, accuracy: float = 0.97, macro_f1: float = 0.96) -> None:
        """Run the pipeline and commit what it writes, on the newest main."""
        fake_pipeline.write_outputs(self.folder, accuracy, macro_f1, code_sha256())
        self.commit(f"Train a model with accuracy {accuracy}")

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        self.git("push", "--quiet", "origin", "main")

    def dvc(self, *arguments: str) -> None:
        """Run DVC in this process, as its own tests do: to start takes it longer than to work."""
        with contextlib.chdir(self.folder):
            assert dvc.cli.main([*arguments, "--quiet"]) == 0

    def use_dvc(self) -> None:
        """Let DVC keep data and outputs, in a store on this machine."""
        fake_pipeline.write(self.folder, ".dvc/config", STORE)
        fake_pipeline.write(self.folder, ".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")

    def change(self, path: str, **values: Any) -> None:
        """Change values at the top of one of the pipeline's JSON files, and commit them."""
        document = fake_pipeline.read(self.folder, path)
        fake_pipeline.write(self.folder, path, document | values)
        self.commit(f"Change {path}")

    def deploy(self, environment: str, version: int, digest: str = "") -> None:
        """Put a release on main as if it had been proposed and merged, perhaps with its image."""
        release = Release(
            version=version,
            image=f"oci:.local/registry@{digest or f'sha256:{version:064x}'}",
            accuracy=0.95 + version / 100,
            macro_f1=0.96,
            calibration_error=0.02,
            loss=0.11,
            support=36,
            data="a" * 64,
            test_data="b" * 64,
            code=code_sha256(),
            commit=self.git("rev-parse", "HEAD"),
        )
        path = f"argocd/environments/{environment}/model.yaml"
        fake_pipeline.write(self.folder, path, release.to_yaml())
        self.commit(f"Deploy model {version} to {environment}")

    def image(self, version: int) -> str:
        """Package what lies in artifacts as a version, for a release that is deployed."""
        return package(self.folder, version, Layout(self.folder / LOCAL))

    def merge(self, branch: str) -> None:
        """Merge a pull request as GitHub does, and pull."""
        self.review("fetch", "--quiet", "origin")
        self.review("reset", "--quiet", "--hard", "origin/main")
        self.review("merge", "--quiet", "--no-ff", "-m", f"Merge {branch}", f"origin/{branch}")
        self.review("push", "--quiet", "origin", "main", f":{branch}")
        self.git("pull", "--quiet", "--prune")

    def review(self, *arguments: str) -> str:
        return self.git(*arguments, folder=self.reviewer)

    def serve_as(self, address: str) -> None:
        """Have an ssh address as the remote, which only a setting of this repository reaches."""
        command = self.folder.parent / "connect"
        remote = f'eval "$(echo "$command" | sed "s#\'.*\'#\'{self.origin}\'#")"'
        last = 'for command; do :; done; test "$1" != -G || exit 1'
        command.write_text(f"#!/bin/sh\n{last}\n{remote}\n")
        command.chmod(0o755)
        self.git("config", "core.sshCommand", str(command))
        self.git("remote", "set-url", "origin", address)

    def branches(self) -> dict[str, str]:
        """Return the remote's branches and their commits."""
        listed = self.git(
            "for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", folder=self.origin
        )
        return dict(line.split() for line in listed.splitlines())

    def state(self) -> list[str]:
        """Return everything of the checkout that a command could disturb."""
        return [
            self.git("rev-parse", "HEAD"),
            self.git("symbolic-ref", "HEAD"),
            self.git("status", "--porcelain"),
            self.git("for-each-ref", "refs/heads", "refs/tags"),
            self.git("stash", "list"),
            self.git("ls-files", "--stage"),
        ]

    def show(self, branch: str, path: str) -> str:
        """Return a file on one of the remote's branches, to the last byte."""
        command = ["git", "show", f"{branch}:{path}"]
        return subprocess.run(
            command, cwd=self.origin, capture_output=True, text=True, check=True
        ).stdout


def make_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project with one trained model and no release, and go into it."""
    isolate(monkeypatch)
    shutil.copytree(made(), folder, dirs_exist_ok=True, symlinks=True)
    project = project_in(folder)
    for clone in (project.folder, project.reviewer):
        project.git("remote", "set-url", "origin", str(project.origin), folder=clone)
        # To Git copies are other files.
        project.git("update-index", "-q", "--refresh", folder=clone)
    monkeypatch.chdir(project.folder)
    return project


def project_in(folder: Path) -> Project:
    return Project(folder / "project", folder / "origin.git", folder / "reviewer")


@functools.cache
def made() -> Path:
    """Make such a project, which is then copied: that takes a fifth of the time."""
    folder = Path(tempfile.mkdtemp(prefix="project-"))
    atexit.register(shutil.rmtree, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(monkeypatch)
        make(project_in(folder), folder)
    return folder


def make(project: Project, folder: Path) -> None:
    project.git(
        "init", "--quiet", "--bare", "--initial-branch=main", str(project.origin), folder=folder
    )
    project.git("clone", "--quiet", str(project.origin), str(project.folder), folder=folder)
    mark_root(project.folder)
    for path, content in CODE.items():
        fake_pipeline.write(project.folder, path, content)
    fake_pipeline.write(project.folder, ".gitignore", "/data/\n/artifacts/\n/plots/\n/.local/\n")
    fake_pipeline.write(project.folder, "params.yaml", PARAMS)
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{EXPORT}}}}}\n")
    for environment in ("production", "staging"):
        path = f"argocd/environments/{environment}/kustomization.yaml"
        fake_pipeline.write(project.folder, path, "resources: [model.yaml]\n")
    project.git("checkout", "--quiet", "-B", "main")
    project.train()
    project.git("clone", "--quiet", str(project.origin), str(project.reviewer), folder=folder)
    for repository in (project.folder, project.origin, project.reviewer):
        shrink(project, repository)


def shrink(project: Project, repository: Path) -> None:
    """Leave few files in a repository: to copy and to remove them is what takes its time."""
    project.git("gc", "--quiet", folder=repository)
    for sample in repository.glob("**/hooks/*.sample"):
        sample.unlink()


def kill(project: Project, command: list[str], step: str, when: str) -> int:
    """Run a command in a process that dies `before` or `after` a step; return its status."""
    target, _, name = step.rpartition(".")
    script = (
        "import os, pkgutil; from delivery.__main__ import main\n"
        f"owner = pkgutil.resolve_name({target!r})\n"
        f"work = getattr(owner, {name!r})\n"
        "def die(*arguments, **options):\n"
        f"    if {when!r} == 'after': work(*arguments, **options)\n"
        "    os._exit(9)\n"
        f"setattr(owner, {name!r}, die)\n"
        f"main({command!r})\n"
    )
    environment = os.environ | {"PYTHONPATH": str(TEMPLATE)}
    result = subprocess.run([sys.executable, "-c", script], cwd=project.folder, env=environment)
    return result.returncode


def follow(sentence: str, project: Project, **values: str) -> list[str]:
    """Do what a sentence says: run its commands, with values for their <placeholders>.

    What `make` would do is left out; returns the commands that were run.
    """
    commands = [each for each in re.findall(r"`([^`]+)`", sentence) if not each.startswith("make")]
    for name, value in values.items():
        commands = [command.replace(f"<{name}>", value) for command in commands]
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=project.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    return commands


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the outer Git's settings and GitHub's command line out."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "A Tester")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "tester@example.com")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("GITHUB_RUN_ID", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
