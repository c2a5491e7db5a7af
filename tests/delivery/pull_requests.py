"""One repository with a history of releases, and pull requests that branch from its main."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import fake_pipeline
from conftest import UNBAKED, mark_root
from delivery.checks.changes import read_changes
from delivery.checks.judge import Bench, Verdict, judge
from delivery.checks.rehearsal import Check, Rehearsal
from delivery.checks.release_rules import Proposed
from delivery.git import Repository
from delivery.model.contest import Rival
from delivery.model.packaging import LOCAL, package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.proposals.release_file import Release
from delivery.proposals.releases import release_path
from delivery.proposals.run_file import RUN_FILE, Run
from delivery.proposals.texts import describe
from delivery.triton.load import Load, Speed
from fake_project import CODE, EXPORT, code_sha256
from tiny_project import PEOPLE

STAGING, PRODUCTION = map(release_path, ("staging", "production"))
PARAMS = """\
seed: 42
train:
  epochs: 3
gate:
  min_accuracy: 0.9
  min_macro_f1: 0.9
  tolerance: 0.01
release:
  registry: oci:.local/registry
"""
MAKEFILE = "lint:\n\t@! grep -Hn 'import os' -r src\ntest:\n\t@! grep -Hn wrong -r tests\n"
WORKFLOW = """\
name: checks
on: pull_request
permissions: {contents: read}
jobs:
  checks:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1
      - run: make lint
"""
TERRAFORM = 'variable "name" {\n  type        = string\n  description = "Name."\n}\n'
LEDGER = "sha256,split\n" + "".join(
    f"{number:016x},{split}\n" for number, split in enumerate(["train"] * 6 + ["test"] * 4)
)
STRICT = """\
check:
  accept: [cluster kind PriorityClass, "zizmor: ignore[template-injection]"]
release:
  soak: 24
  require_healthy: true
"""
SIGNED = "release:\n  signing_key: signing.pub\n  require_signature: true\n"
KEY = ec.generate_private_key(ec.SECP256R1())
WHEN = "2026-11-20T12:00:00+00:00"


@dataclass(frozen=True)
class Repo:
    """The repository, whose main has models 1 to 3 in staging and 1 and 2 in production."""

    folder: Path

    @property
    def repository(self) -> Repository:
        return Repository(self.folder)

    def git(self, *arguments: str) -> str:
        result = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, text=True, env=dated()
        )
        assert result.returncode == 0, f"git {arguments}: {result.stderr}"
        return result.stdout.strip()

    def text(self, path: str) -> str:
        return (self.folder / path).read_text()

    def write(self, path: str, content: str) -> None:
        fake_pipeline.write(self.folder, path, content)

    def edit(self, path: str, old: str, new: str) -> None:
        text = self.text(path)
        assert old in text, f"{path} has no {old!r}"
        self.write(path, text.replace(old, new, 1))

    def commit(self, message: str = "Change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def train(self, accuracy: float, claimed: float | None = None) -> None:
        """Leave the outputs of a model in the working tree, perhaps with another accuracy told."""
        fake_pipeline.write_outputs(self.folder, accuracy, accuracy, code_sha256())
        if claimed:
            metrics = fake_pipeline.metrics(claimed, accuracy)
            fake_pipeline.write(self.folder, "metrics.json", metrics)

    def candidate(self, version: int, accuracy: float, claimed: float | None = None) -> Release:
        """Train and package a model, as `make release` does; Git keeps nothing of it."""
        self.train(accuracy, claimed)
        return self.packaged(version)

    def packaged(self, version: int) -> Release:
        """Package the outputs in the working tree, and take back what Git has of them."""
        digest = package(self.folder, version, Layout(self.folder / LOCAL))
        account, commit = read_outputs(self.folder), self.git("rev-parse", "HEAD")
        self.git("checkout", "--quiet", "--", ".")
        return describe(account, version, f"oci:.local/registry@{digest}", commit)

    def propose(self, release: Release, path: str = STAGING) -> None:
        self.write(path, release.to_yaml())

    def judged(
        self, change: Callable[["Repo"], object], work: Path, bench: Bench, base: str = "main"
    ) -> Verdict:
        """Branch from a base, make a change and commit it; judge that."""
        self.git("checkout", "--quiet", "--force", "--detach", base)
        self.git("clean", "--quiet", "-fd")
        change(self)
        self.commit()
        return judge(read_changes(self.repository, base, "HEAD"), work, bench)


def dated() -> dict[str, str]:
    """The same names and dates make the same commits anywhere."""
    people = {f"GIT_{role}_DATE": WHEN for role in ("AUTHOR", "COMMITTER")}
    return os.environ | PEOPLE | people | {"GIT_CONFIG_GLOBAL": os.devnull}


RELEASED = {1: 0.95, 2: 0.96, 3: 0.97}  # versions and their accuracy


def make_repository(folder: Path, releases: dict[int, float] = RELEASED) -> Repo:
    """Make the repository in a folder that is the working directory."""
    repo = Repo(folder)
    repo.git("init", "--quiet", "--initial-branch=main")
    mark_root(folder)
    shutil.copytree(UNBAKED / "argocd", folder / "argocd")
    for path in folder.glob("argocd/**/*.yaml"):
        text = path.read_text().replace("<<cookiecutter.project>>", "digits")
        path.write_text(text.replace("<<cookiecutter.github_owner>>", "example"))
    files = CODE | {
        ".gitignore": "/data/?*/\n/artifacts/\n/.local/\n",
        ".github/CODEOWNERS": "*  @example/owners\n",
        ".github/workflows/checks.yaml": WORKFLOW,
        "Makefile": MAKEFILE,
        "README.md": "# Digits\n",
        "constraints.txt": "numpy==2.1\n",
        "data/splits.csv": LEDGER,
        "dvc.yaml": f"stages: {{{EXPORT}}}}}\n",
        "infra/registry/main.tf": TERRAFORM,
        "params.yaml": PARAMS,
        "pyproject.toml": "[project]\nname = 'digits'\n",
        "src/delivery/gate.py": "FLOOR = 0.9\n",
        "tests/test_model.py": "right = True\n",
    }
    for path, content in files.items():
        fake_pipeline.write(folder, path, content)
    repo.train(0.97)
    lock(repo)
    repo.commit("Generate")
    for version, accuracy in releases.items():
        repo.commit(f"Train {version}")
        release = repo.candidate(version, accuracy)
        repo.propose(release)
        if version < max(releases):
            repo.propose(release, PRODUCTION)
        repo.commit(f"Release model {version}")
    repo.git("checkout", "--quiet", "-b", "strict")
    repo.edit("params.yaml", "release:\n", STRICT)
    repo.commit("Promote only what is served well for a day")
    repo.git("checkout", "--quiet", "-b", "signed", "main")
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, form)
    fake_pipeline.write(folder, "signing.pub", public)
    repo.edit("params.yaml", "release:\n", SIGNED)
    repo.commit("Release only what is signed")
    repo.git("checkout", "--quiet", "-b", "later", "main")
    repo.edit("params.yaml", "min_accuracy: 0.9", "min_accuracy: 0.99")
    repo.write(RUN_FILE, run(1).to_yaml())
    repo.commit("Ask for more, and train on the cluster")
    return Repo(folder)


def run(number: int) -> Run:
    """A training run of an image that the project's registry may have."""
    image = f"registry.example.com/digits-training@sha256:{number:064d}"
    return Run(run=number, image=image, nodes=2, commit=f"{number:040d}")


def lock(repo: Repo) -> None:
    """Write a dvc.lock that belongs to what is in the working tree."""

    def tracked(path: str) -> dict[str, str]:
        return {"path": path, "md5": hashlib.md5((repo.folder / path).read_bytes()).hexdigest()}

    parameters = yaml.safe_load(repo.text("params.yaml"))
    stage = {
        "cmd": "true",
        "deps": [tracked(path) for path in CODE],
        "params": {"params.yaml": {key: parameters[key] for key in ("seed", "train")}},
        "outs": [tracked(path) for path in ("metrics.json", "lineage.json", "MODEL_CARD.md")],
    }
    repo.write("dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": {"export": stage}}))


def rehearsed(changes: object, proposed: Proposed, work: Path) -> Rehearsal:
    """Stand in for the rehearsal, which takes seconds: all answers are right."""
    made = Rehearsal("staging", "staging", proposed.release, proposed.served, rival=Rival())
    made.checks = [
        Check("ready", True, "answered after 1.2 s"),
        Check("http, batches of 1", True, "64 of 64 golden answers have the recorded class"),
    ]
    speeds = [Speed([seconds] * 20, [1 / seconds]) for seconds in (0.0012, 0.0011)]
    made.speeds = [(Load("http", 1, 1), speeds[: 1 + bool(proposed.served)])]
    return made


BENCH = Bench(rehearse=rehearsed)
