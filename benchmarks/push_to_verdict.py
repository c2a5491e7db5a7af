"""From `git push` to the verdict on a release: the workflow `checks`, step by step and timed.

    make bench BENCHMARKS=push_to_verdict

A runner of GitHub's is played, as in the tests of the workflows: it clones a bare repository, makes
the environments with packages that uv has kept, judges with the real Triton a model that it pulls
from a registry on loopback, and writes the comment. Beside uv, `docker-registry` and `skopeo` are
needed. Exits with 1 for another verdict than `passed`.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from hashlib import sha256 as digest_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "<<cookiecutter.project>>" / "src"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "delivery"))

import pytest

import fake_pipeline
import results
from conftest import LEAKS
from delivery.model.lineage import committed_code
from delivery.model.packaging import package
from delivery.model.pipeline_outputs import read_outputs
from delivery.oci.layout import Layout
from delivery.oci.registry import push
from delivery.proposals.release_file import Release
from delivery.proposals.releases import release_path
from delivery.proposals.texts import describe
from fake_gh import GitHub
from fake_project import Project, isolate
from github_runner import Runner, machine
from test_registry import Registry
from tiny import write_repository
from workspace.model_code import sha256

ANSWERS = {"project": "digits", "github_owner": "acme", "approvers": "@acme/owners"}
CHECKS = results.PROJECT / ".github/workflows/checks.yaml"
BUDGET = 90  # seconds from a fresh runner to the verdict
PULL_REQUEST = {"number": 7, "pull_request": {"head": {"repo": {"full_name": "acme/digits"}}}}


def generate(project: Project, registry: str) -> None:
    """Write a generated project whose images are in a registry, and push it."""
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "artifacts", ".local")
    shutil.copytree(results.PROJECT, project.folder, ignore=ignore)
    for path in project.folder.rglob("*"):
        if path.is_file() and b"<<cookiecutter." in (content := path.read_bytes()):
            text = re.sub(r"<<cookiecutter\.(\w+)>>", answer, content.decode())
            path.write_text(text)
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("oci:.local/registry", registry))
    project.git("init", "--quiet", "--initial-branch=main")
    project.git("init", "--quiet", "--bare", "--initial-branch=main", str(project.origin))
    project.git("remote", "add", "origin", str(project.origin))
    project.commit("Generate")


def answer(placeholder: re.Match[str]) -> str:
    """Return what a question was answered with."""
    return ANSWERS.get(placeholder[1], placeholder[1])


def release(project: Project, version: int, accuracy: float, registry: str) -> Release:
    """Package and push a model that Triton serves; return its release, which nobody proposed."""
    root, commit = project.folder, project.git("rev-parse", "HEAD")
    code = sha256(committed_code(project.repository, commit))
    fake_pipeline.write_outputs(root, accuracy, accuracy, code)
    answers = root / "artifacts/predictions.csv"
    answers.write_text(re.sub(",(zero|one)", named, answers.read_text()))
    shutil.rmtree(root / "artifacts/model")
    model = write_repository(root / "artifacts/model", seed=version) / "classifier/1/model.onnx"
    export = root / "artifacts/export.json"
    onnx = {"onnx_sha256": digest_of(model.read_bytes()).hexdigest()}
    export.write_text(json.dumps(json.loads(export.read_text()) | onnx))
    layout = Layout(root / ".local/registry")
    digest = package(root, version, layout)
    push(layout, digest, registry)
    shutil.rmtree(root / ".local")
    made = describe(read_outputs(root), version, f"{registry}@{digest}", commit)
    project.git("checkout", "--quiet", "--", ".")
    return made


def named(word: re.Match[str]) -> str:
    """Return the classes of the model that Triton serves."""
    return {"zero": ",class 0", "one": ",class 1"}[word[1]]


def proposed(project: Project, registry: str) -> str:
    """Have model 1 on main and model 2 in a pull request; return the commit of its merge."""
    path = project.folder / release_path("staging")
    path.write_text(release(project, 1, 0.95, registry).to_yaml())
    project.commit("Release model 1")
    project.git("checkout", "--quiet", "-b", "release/staging-v2")
    path.write_text(release(project, 2, 0.97, registry).to_yaml())
    project.git("add", release_path("staging"))
    project.git("commit", "--quiet", "-m", "Release model 2")
    project.git("checkout", "--quiet", "--detach", "main")
    project.git("merge", "--quiet", "--no-ff", "-m", "Merge", "release/staging-v2")
    return project.git("rev-parse", "HEAD")


def play(root: Path, registry: Registry) -> Runner:
    """Push the pull request, and have a fresh runner check it and write its comment."""
    project = Project(root / "project", root / "origin.git", root / "reviewer")
    generate(project, registry.name)
    merge, github = proposed(project, registry.name), GitHub(root)
    begun = time.monotonic()
    project.git("push", "--quiet", "origin", f"{merge}:refs/pull/7/merge")
    took = [("git push", time.monotonic() - begun)]
    project.serve_as("git@github.com:acme/digits.git")
    (root / "runner").mkdir()
    variables = {"FAKE_GITHUB": str(github.place), "GIT_SSH_COMMAND": str(root / "connect")}
    runner = Runner(
        project.origin,
        root / "runner",
        github.programs,
        "pull_request",
        merge,
        event=PULL_REQUEST,
        environment=machine(github.programs, **variables),
        took=took,
    )
    ended = [runner.run(CHECKS, name) for name in ("checks", "comment")]
    if ended != ["success", "success"]:
        sys.exit(f"error: {ended}\n{runner.printed}")
    return runner


def table(runner: Runner) -> str:
    """Write what each step and, in `make check`, each part took."""
    told = (runner.folder / "summary.md").read_text()
    parts = re.findall(r"^\| ([\w ]+) \| \w+ \| ([\d.]+) \|$", told, re.M)
    rows: list[tuple[str, str]] = []
    for name, seconds in runner.took:
        rows.append((f"`{name}`" if name.startswith(("git", "make")) else name, f"{seconds:.1f}"))
        if name.startswith("make check"):
            rows += [(f"… {part}", spent) for part, spent in parts]
            rows.append(("**all, to the verdict**", f"**{to_verdict(runner):.1f}**"))
    return results.table(("step", "seconds"), rows)


def to_verdict(runner: Runner) -> float:
    """Seconds until `make check` had ended."""
    names = [name.startswith("make check") for name, _ in runner.took]
    return sum(seconds for _, seconds in runner.took[: names.index(True) + 1])


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        which = shutil.which
        isolate(patch)
        patch.setattr("shutil.which", which)
        for name in LEAKS:  # such as where this machine has the environments
            patch.delenv(name, raising=False)
        root = Path(folder).resolve()
        registry, before = Registry(root / "registry"), os.getloadavg()[0]
        try:
            runner = play(root, registry)
        finally:
            registry.kill()
        loads = f"{before:.1f} and {os.getloadavg()[0]:.1f}"
        body = f"{table(runner)}\nLoad average of the machine before and after: {loads}.\n"
    figures = {"steps": dict(runner.took), "to the verdict": to_verdict(runner)}
    results.write("push_to_verdict", "From a push to the verdict", body, figures)
    if to_verdict(runner) > BUDGET:
        sys.exit(f"error: the verdict took more than {BUDGET} s")


if __name__ == "__main__":
    main()
