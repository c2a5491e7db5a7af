"""The workflows: what they may be, and each run step by step against a bare repository."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from conftest import TEMPLATE, UNBAKED
from delivery.checks import programs
from delivery.checks.changes import read_changes
from delivery.checks.findings import Part
from delivery.checks.programs import ACTIONLINT, ZIZMOR
from delivery.git import Repository
from delivery.proposals.releases import release_path
from fake_gh import WHICH, GitHub
from fake_pipeline import write, write_outputs
from fake_project import Project, code_sha256, make_project
from github_runner import APP_TOKEN, TOKEN, Job, Runner, machine
from tiny import write_repository

OURS = UNBAKED / ".github/workflows"
FOLDERS = (OURS, TEMPLATE / ".github/workflows")
WORKFLOWS = [path for folder in FOLDERS for path in sorted(folder.glob("*.yaml"))]
NAMES = [f"{path.parents[2].name}-{path.stem}" for path in WORKFLOWS]
LINES = 40


def jobs(path: Path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text())["jobs"]


def steps(path: Path) -> Iterator[dict]:
    for job in jobs(path).values():
        yield from job["steps"]


# -- what they may be ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_a_workflow_is_short_and_runs_what_make_runs(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES
    makefile = path.parents[2] / "Makefile"
    known = {*re.findall(r"^([a-z-]+):.* ## ", makefile.read_text(), re.M)}
    for step in steps(path):
        for line in step.get("run", "make help").splitlines():
            if re.match(r'git switch |cat [\w./-]+ >> "\$GITHUB_STEP_SUMMARY"|sudo apt-get ', line):
                continue  # where the program comes from, what GitHub reads, what a machine lacks
            program, *words = re.sub(
                r'"[^"]*"', "x", line.removeprefix('sudo env "PATH=$PATH" ')
            ).split()
            asked = {word for word in words if re.fullmatch("[a-z-]+", word)} - {"tail"}
            assert program == "make" and asked and asked <= known | {"x"}, line


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_a_workflow_can_do_no_more_than_it_needs(path: Path) -> None:
    text = path.read_text()
    when = yaml.safe_load(text)[True]  # YAML's `on`
    assert not {"pull_request_target", "workflow_run"} & {*when}
    kept = {"APP_PRIVATE_KEY"} | ({"SIGNING_KEY"} if path.name == "release.yaml" else set())
    assert set(re.findall(r"secrets\.(\w+)", text)) <= kept
    assert "${{ secrets.APP_PRIVATE_KEY }}" not in text or "vars.APP_CLIENT_ID" in text
    assert "zizmor: ignore" not in text
    assert not writes(yaml.safe_load(text)["permissions"]), "a right is a job's"
    for name, job in jobs(path).items():
        may_write = writes(job.get("permissions", {})) - {"id-token"}
        if path.name == "checks.yaml":
            assert may_write == ({"pull-requests"} if name == "comment" else set())
        elif "pull_request" in when:
            assert may_write <= {"pull-requests"}


def writes(permissions: dict[str, str]) -> set[str]:
    return {name for name, value in permissions.items() if value == "write"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=NAMES)
def test_an_action_is_the_commit_that_its_comment_names(path: Path) -> None:
    used = re.findall(r"- uses: (\S+)(.*)", path.read_text())
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)
    assert used


def test_a_role_is_taken_by_whom_it_trusts() -> None:
    """Those that publish by name; those that read by the ref that GitHub gives their events."""
    identity = TEMPLATE / "infra/ci_identity"
    takes = {
        role: {path.name for path in WORKFLOWS if f"env.AWS_{role}_ROLE" in path.read_text()}
        for role in ("PLAN", "APPLY", "PUBLISH")
    }
    publishes = re.search(r'default += \["release.*\]', (identity / "variables.tf").read_text())
    assert publishes and takes["PUBLISH"] == set(re.findall(r"[\w.-]+\.yaml", publishes[0]))
    assert takes["APPLY"] == {"infra-apply.yaml"}
    refs = {
        "pull_request": ":pull_request",
        "merge_group": ":ref:refs/heads/gh-readonly-queue/${var.branch}/*",
        "push": ":ref:refs/heads/${var.branch}",
        "workflow_dispatch": ":ref:refs/heads/${var.branch}",
        "schedule": ":ref:refs/heads/${var.branch}",
    }
    trusted = re.search(r"plan = \[(.*?)\]", (identity / "main.tf").read_text(), re.S)
    assert trusted and "promote.yaml" in takes["PLAN"]
    for name in takes["PLAN"]:
        for event in yaml.safe_load((OURS / name).read_text())[True]:
            if event == "deployment_status":  # of a commit, which is no ref: it takes no role
                (told,) = (
                    each for each in steps(OURS / name) if each.get("run") == "make infra-env"
                )
                assert "env.EVENT == ''" in told["if"]
                continue
            assert f'"repo:${{var.repository}}{refs[event]}"' in trusted[1], (name, event)


def test_an_action_is_one_commit_everywhere() -> None:
    used = {each["uses"] for path in WORKFLOWS for each in steps(path) if "uses" in each}
    assert len(used) == len({each.partition("@")[0] for each in used})


def test_zizmor_finds_nothing() -> None:
    tool = [Path(sys.executable).parent / "uv", "tool", "run", "--from", ZIZMOR, "zizmor"]
    result = subprocess.run(
        [*tool, "--offline", "--no-config", *FOLDERS], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "No findings to report" in result.stdout


def test_lint_takes_the_zizmor_of_the_check() -> None:
    (pinned,) = re.findall(r"(?m)^ZIZMOR := (.+)$", (TEMPLATE / "Makefile").read_text())
    assert pinned == ZIZMOR


@pytest.fixture(scope="module")
def actionlint() -> Path:
    """The program, which is kept."""
    if not shutil.which("go"):
        pytest.skip("actionlint is built with Go, which is not here")
    cache = TEMPLATE / ".cache/actionlint" / ACTIONLINT.partition("@")[2]
    if not (cache / "actionlint").exists():
        environment = {"GOBIN": str(cache), "GOFLAGS": "-mod=mod"}
        command = ["go", "install", ACTIONLINT]
        subprocess.run(command, env=machine(cache, **environment), cwd="/", check=True)
    return cache / "actionlint"


def test_actionlint_finds_nothing(actionlint: Path) -> None:
    """Its schema check, its own rules, and ShellCheck's where that is installed."""
    result = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True, cwd=TEMPLATE)
    assert result.returncode == 0, result.stdout


def test_both_judge_a_pull_request_that_would_have_them_find_nothing(
    actionlint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{actionlint.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    path = ".github/workflows/promote.yaml"
    text = (OURS / "promote.yaml").read_text()
    bad = text.replace("make login", "echo ${{ github.event.issue.title }} && make login")
    silence = "rules: {template-injection: {disable: true}}\n"

    def git(*arguments: str) -> None:
        people = ("-c", "user.name=A", "-c", "user.email=a@example.com")
        subprocess.run(["git", *people, *arguments], cwd=repository, check=True)

    repository = tmp_path / "repository"
    repository.mkdir()
    git("init", "--quiet")
    for content in ({path: text}, {path: bad, ".github/zizmor.yml": silence}):
        for name, each in content.items():
            write(repository, name, each)
        git("add", "--all")
        git("commit", "--quiet", "-m", "Change")
    changes = read_changes(Repository(repository), "HEAD~1", "HEAD")
    head, part = tmp_path / "work/head", Part("workflows")
    programs.judge_workflows(changes, programs.check_out(changes.repository, "HEAD", head), part)
    line = 1 + bad[: bad.index("github.event.issue")].count("\n")
    found = {(each.path, each.line, each.sentence.partition(":")[0]) for each in part.findings}
    assert found == {(path, line, "actionlint"), (path, line, "zizmor")}


def test_gitlab_runs_the_same_targets() -> None:
    text = (UNBAKED / ".gitlab-ci.yml").read_text()
    asked = re.findall(r"COMMANDS: ([^}]+)}", text) + re.findall(r"- make (\w+)", text)
    targets = re.findall(r"^([a-z-]+):.* ## ", (UNBAKED / "Makefile").read_text(), re.M)
    words = {word for each in asked for word in each.split() if "=" not in word}
    assert words <= {*targets}
    assert {"check", "release", "promote", "rollback", "propose"} <= words
    base = re.search(r"ARG BASE=(\S+)", (UNBAKED / "Dockerfile").read_text())
    assert base and f"image: {base[1]}\n" in text, "one image of Python"


def test_renovate_knows_every_pin_and_no_release() -> None:
    settings = json.loads((UNBAKED / "renovate.json").read_text())
    paths = [path.relative_to(UNBAKED).as_posix() for path in UNBAKED.rglob("*") if path.is_file()]
    paths += [f"argocd/base/{path.relative_to(TEMPLATE / 'argocd')}" for path in CHARTS]
    manager = settings["customManagers"][0]
    assert "argocd/environments/**" in settings["ignorePaths"]
    files = matched(manager, paths)
    assert len(files) == len(CHARTS) > 5
    pattern = re.compile(re.sub(r"\?<(\w+)>", r"?P<\1>", manager["matchStrings"][0]))
    for path in CHARTS:
        chart = yaml.safe_load(path.read_text())
        text = path.read_text()
        for version in (
            text,
            text.replace("repository:", f"digest: sha256:{'a' * 64}\nrepository:"),
        ):
            (found,) = pattern.finditer(version)
            assert found["depName"] == chart["chart"]
            assert found["currentValue"] == str(chart["version"])
            assert found["registryUrl"] == chart["repository"]
    assert matched(settings["pip_requirements"], paths) == {
        "constraints.txt",
        "serving/requirements.txt",
    }
    for pattern in settings["kubernetes"]["managerFilePatterns"]:
        path = pattern.strip("/").strip("^$").replace("\\", "").removeprefix("argocd/base/")
        assert re.search(r"(?m)^ *image: \S+/\S+:", (TEMPLATE / "argocd" / path).read_text())


CHARTS = sorted((TEMPLATE / "argocd/platform/controllers").glob("*.yaml"))


def matched(manager: dict, paths: list[str]) -> set[str]:
    patterns = [re.compile(each.strip("/")) for each in manager["managerFilePatterns"]]
    return {path for path in paths if any(each.search(path) for each in patterns)}


# -- each run step by step -------------------------------------------------------------------------

JUDGE = """
# What it says is in a file of the base, what it judges in one of the head.
check:
	@mkdir -p .local/reports && git show "$(HEAD):verdict" > .local/reports/check.md
	@echo "judged by $$(cat judge), from $$(git rev-parse $(BASE))" >> .local/reports/check.md
	@grep -q good .local/reports/check.md
"""
STAND_INS = """
data-pull pipeline:
	@cp -R "$(TRAINED)/." .
data-push:
	@echo pushed
image:
	@echo built; echo $(PUSH)@sha256:$(shell printf '%064d' 7)
infra-plan:
	@mkdir -p infra/cluster && touch infra/cluster/planned.tfplan
infra-comment:
	@echo "planned $(ROOTS)" > infra/plan.md
infra-plans:
	@echo "fetched the plans"
infra-apply:
	@echo "applied $(ROOTS), planned: $(PLANNED)"
"""
ON_CLUSTER = """
train-on-cluster:
	@echo "proposed a run of $(IMAGE) on $(NODES)"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with the generated Makefile, whose data and training come by copying."""
    made = make_project(tmp_path, monkeypatch)
    write_outputs(tmp_path / "trained", 0.97, 0.96, code_sha256())
    makefile = (UNBAKED / "Makefile").read_text().replace("<<cookiecutter.project>>", "digits")
    write(made.folder, "Makefile", makefile + JUDGE + STAND_INS + ON_CLUSTER)
    for name in ("pyproject.toml", "constraints.txt", "serving/requirements.txt"):
        write(made.folder, name, "")
    for name in ("delivery", "reporting", "workspace"):
        (made.folder / "src" / name).symlink_to(TEMPLATE / name)
    params = made.folder / "params.yaml"
    params.write_text(params.read_text().replace("oci:.local/", f"oci:{tmp_path}/"))
    write(made.folder, "judge", "the base")
    write(made.folder, "verdict", "good")
    made.commit("Set up")
    made.serve_as("git@github.com:acme/digits.git")
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    monkeypatch.setattr("shutil.which", WHICH)
    return GitHub(project.folder.parent)


@pytest.fixture
def runner(project: Project, github: GitHub) -> Callable[..., Runner]:
    """Make a fresh runner for an event."""
    root = project.folder.parent
    venv = root / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin/python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    triton = root / "venv-triton"
    triton.mkdir()
    for each in (venv, triton):
        (each / "ready").touch()
        os.utime(each / "ready", (2**31, 2**31))  # newer than whatever is checked out
    made = iter(range(100))

    def make(name: str = "workflow_dispatch", commit: str = "main", **given) -> Runner:
        folder = root / f"runner-{next(made)}"
        folder.mkdir()
        found = project.git("rev-parse", commit, folder=project.origin)
        # without a kubeconfig of whoever runs the tests
        variables = {"FAKE_GITHUB": str(github.place), "GIT_SSH_COMMAND": str(root / "connect")}
        variables |= {"VENV": str(venv), "TRITON_VENV": str(triton), "KUBECONFIG": "/dev/null"}
        variables |= {"TRAINED": str(root / "trained")}
        environment = machine(github.programs, **variables)
        return Runner(
            project.origin,
            folder,
            github.programs,
            name,
            found,
            environment=environment,
            **given,
        )

    return make


def pulls(github: GitHub) -> list[str]:
    return [each["--head"] for each in github.read("pulls")]


def test_a_good_release_is_proposed_once(runner: Callable[..., Runner], github: GitHub) -> None:
    """When its training is merged, where the project wants that, or by hand."""
    assert runner("push").run(OURS / "release.yaml", "release") == "skipped"
    wanted = {"RELEASE_ON_MERGE": "true", "APP_CLIENT_ID": "Iv1", "ATTEST": "true"}
    ran = runner("push", variables=wanted, secrets={"APP_PRIVATE_KEY": "key"})
    assert ran.run(OURS / "release.yaml", "release") == "success", ran.printed
    assert ran.tokens == [TOKEN] * 3 + [APP_TOKEN], "the App's opens what starts the checks"
    assert "signature: unsigned" in ran.printed and not (ran.folder / "signing.pem").exists()
    (digest,) = re.findall(r"attested (sha256:\w+)", ran.printed)
    assert f"@{digest} (sent)" in ran.printed
    assert pulls(github) == ["release/staging-v1"]
    ran = runner()
    assert ran.run(OURS / "release.yaml", "release") == "success", ran.printed
    assert ran.tokens == [TOKEN] * 4 and pulls(github) == ["release/staging-v1"]
    assert "attested" not in ran.printed


def test_a_release_is_signed_where_there_is_a_key(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    write(project.folder, "signing.pub", public)
    params = project.folder / "params.yaml"
    params.write_text(
        params.read_text().replace("release: {", "release: {signing_key: signing.pub, ")
    )
    project.commit("Sign releases")
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    ran = runner(secrets={"SIGNING_KEY": pem.decode().strip()})
    assert ran.run(OURS / "release.yaml", "release") == "success", ran.printed
    assert "signature: signed with signing.pub" in ran.printed and "PRIVATE" not in ran.printed
    assert (ran.folder / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert pulls(github) == ["release/staging-v1"]


def test_a_bad_model_is_not_proposed(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    write_outputs(project.folder, 0.5, 0.5, code_sha256())
    write_outputs(project.folder.parent / "trained", 0.5, 0.5, code_sha256())
    project.git("add", "--all")
    project.git("commit", "--quiet", "-m", "Train")
    project.git("push", "--quiet", "origin", "main")
    ran = runner()
    assert ran.run(OURS / "release.yaml", "release") == "failure"
    assert "min_accuracy: accuracy 0.5 is below the floor 0.9" in ran.printed
    assert pulls(github) == [] and "release/staging-v1" not in project.branches()


def test_an_image_that_only_the_runner_would_have_is_not_proposed(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    params = project.folder / "params.yaml"
    params.write_text(re.sub(r"oci:[^\"]+", "oci:.local/registry", params.read_text()))
    project.commit("Go back to the default")
    ran = runner()
    assert ran.run(OURS / "release.yaml", "release") == "failure"
    assert "a folder that only this machine has: name a registry that all reach" in ran.printed
    assert pulls(github) == []


def test_an_api_that_fails_half_way_is_said_and_the_next_run_ends_it(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    github.write(fails={"pr create": (502, "Bad Gateway")})
    ran = runner()
    assert ran.run(OURS / "release.yaml", "release") == "failure"
    assert "error: the branch is pushed, but gh pr create failed" in ran.printed
    before = project.branches()
    assert "release/staging-v1" in before and pulls(github) == []
    github.write(fails={})
    assert runner().run(OURS / "release.yaml", "release") == "success"
    assert project.branches() == before and pulls(github) == ["release/staging-v1"]


def test_a_promotion_waits_for_staging(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    project.deploy("staging", 1)
    status = {"context": "staging/healthy", "description": "1 of 2 pods is ready"}
    status |= {"createdAt": "2026-11-20T08:00:00Z", "state": "PENDING"}
    tip = project.git("rev-parse", "HEAD")
    github.write(statuses={tip: [status]})
    ran = runner()
    assert ran.run(OURS / "promote.yaml", "promote") == "failure"
    assert "staging does not serve model 1: its status says 1 of 2 pods is ready" in ran.printed
    assert pulls(github) == []
    github.write(statuses={tip: [status, status | {"state": "SUCCESS"}]})
    ran = runner()
    assert ran.run(OURS / "promote.yaml", "promote") == "success", ran.printed
    assert pulls(github) == ["release/production-v1"]


def test_who_is_on_call_rolls_back(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    project.deploy("production", 1)
    project.deploy("production", 2)
    ran = runner(inputs={"environment": "production", "version": ""})
    assert ran.run(OURS / "rollback.yaml", "rollback") == "success", ran.printed
    assert pulls(github) == ["rollback/production-v2-to-v1"]


def test_what_argo_cd_tells_of_is_taken_back_once(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    project.deploy("production", 1)
    project.deploy("production", 2)
    deployment = {"id": 7, "sha": project.git("rev-parse", "HEAD"), "environment": "production"}
    status = {"state": "failure", "description": "it's Degraded: $(touch x) ${{ secrets.X }}"}
    event = {"deployment": deployment, "deployment_status": status}
    well = event | {"deployment_status": {"state": "success"}}
    rollback = OURS / "rollback.yaml"
    assert runner("deployment_status", event=well).run(rollback, "rollback") == "skipped"
    for _ in range(2):
        ran = runner("deployment_status", event=event)
        assert ran.run(rollback, "rollback") == "success", ran.printed
        assert pulls(github) == ["rollback/production-v2-to-v1"]
        assert github.read("pulls")[0]["labels"] == ["rollback"]
    project.merge("rollback/production-v2-to-v1")
    ran = runner("deployment_status", event=event)
    assert ran.run(rollback, "rollback") == "success", ran.printed
    assert "nothing to roll back: production has model 1 in Git by now" in ran.printed


def test_of_a_failure_that_is_told_twice_at_once_one_run_waits_for_the_other(
    runner: Callable[..., Runner],
) -> None:
    """Or both would find no pull request yet."""
    told = yaml.safe_load((OURS / "rollback.yaml").read_text())["concurrency"]

    def group(deployment: int, status: int) -> str:
        event = {"deployment": {"id": deployment}, "deployment_status": {"id": status}}
        ran = runner("deployment_status", event=event)
        return Job(ran, {}, ran.folder).text(told)

    assert isinstance(told, str), "none is cancelled"
    assert group(7, 1) == group(7, 2) != group(8, 2)


def test_a_promotion_comes_by_itself_where_the_project_wants_that(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    project.deploy("staging", 1)
    promote = OURS / "promote.yaml"
    assert runner("schedule").run(promote, "promote") == "skipped"
    wanted = {"PROMOTE_AFTER_SOAK": "true"}
    ran = runner("schedule", variables=wanted)
    assert ran.run(promote, "promote") == "success", ran.printed
    assert "nothing to promote: no status `staging/healthy`" in ran.printed
    status = {"context": "staging/healthy", "description": "well", "state": "SUCCESS"}
    status |= {"createdAt": "2026-11-20T08:00:00Z"}
    github.write(statuses={project.git("rev-parse", "HEAD"): [status]})
    ran = runner("schedule", variables=wanted)
    assert ran.run(promote, "promote") == "success", ran.printed
    assert pulls(github) == ["release/production-v1"]


def test_a_training_is_proposed_and_takes_nothing_else_along(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    write_outputs(project.folder.parent / "trained", 0.98, 0.97, code_sha256())
    label = {"event": {"label": {"name": "train"}}}
    assert runner("issues", event={"label": {"name": "bug"}}).run(OURS / "train.yaml", "train") == (
        "skipped"
    )
    for given in (label, {"inputs": {"where": "runner"}}):
        ran = runner("issues" if given is label else "workflow_dispatch", **given)
        assert ran.run(OURS / "train.yaml", "train") == "success", ran.printed
        branch = f"training/{ran.commit[:12]}"
        assert pulls(github) == [branch], "the same training is proposed once"
    changed = project.git("diff", "--name-only", f"main..{branch}", folder=project.origin)
    assert "metrics.json" in changed.split() and "Makefile" not in changed.split()
    assert not [path for path in changed.split() if path.startswith((".local", "artifacts"))]


def test_the_cluster_is_asked_to_train(runner: Callable[..., Runner], github: GitHub) -> None:
    ran = runner(inputs={"where": "cluster", "nodes": 3})
    ran.environment["TRAINING_REGISTRY"] = "registry.example.com/training"
    assert ran.run(OURS / "train.yaml", "train") == "success", ran.printed
    assert f"a run of registry.example.com/training@sha256:{7:064d} on 3" in ran.printed


def infrastructure(ran: Runner) -> list[str]:
    """Results of what runs when `infra/` changes; of a pull request there is one job."""
    if ran.event_name == "pull_request":
        return [ran.run(OURS / "infra-plan.yaml", "plan")]
    return [ran.run(OURS / "infra-apply.yaml", name) for name in ("plan", "apply")]


def test_without_a_cloud_nothing_is_planned_and_nobody_asked(
    runner: Callable[..., Runner], project: Project
) -> None:
    """`infra/` comes with every project; the file that says what is on AWS does not."""
    changed = proposed(project, verdict="good")
    ran = runner("pull_request", "refs/pull/7/merge", event=changed)
    assert infrastructure(ran) == ["success"] and ran.printed == ""
    ran = runner("push")
    assert infrastructure(ran) == ["success", "skipped"] and ran.printed == ""


def test_what_is_planned_is_commented_on_and_applied_after_the_merge(
    runner: Callable[..., Runner], project: Project
) -> None:
    roles = "AWS_PLAN_ROLE=plans\nAWS_APPLY_ROLE=applies\nAWS_REGION=eu\n"
    write(project.folder, "infra/outputs.env", roles)
    project.commit("Have a cloud")
    changed = proposed(project, verdict="good")
    ran = runner("pull_request", "refs/pull/7/merge", event=changed)
    assert infrastructure(ran) == ["success"], ran.printed
    assert "role plans in eu\n" in ran.printed
    assert "comment planned registry cluster\n" in ran.printed
    ran = runner("push")
    assert infrastructure(ran) == ["success", "success"], ran.printed
    assert "role plans in eu\n" in ran.printed and "role applies in eu\n" in ran.printed
    assert "applied registry cluster, planned: true\n" in ran.printed
    changed["pull_request"]["head"]["repo"]["full_name"] = "mallory/digits"
    ran = runner("pull_request", "refs/pull/7/merge", event=changed)
    assert infrastructure(ran) == ["skipped"]


def test_gitlab_goes_back_to_what_the_job_is_started_with(
    runner: Callable[..., Runner], project: Project
) -> None:
    for version in (1, 2, 3):
        project.deploy("production", version)
    jobs = yaml.safe_load((UNBAKED / ".gitlab-ci.yml").read_text())
    script = "set -e\n" + jobs[".propose"]["script"][-1]
    known = runner().environment | jobs["rollback"]["variables"]
    for more, branch in (({}, "v3-to-v2"), ({"TO": "1"}, "v3-to-v1")):
        subprocess.run(["sh", "-c", script], cwd=project.folder, env=known | more, check=True)
        assert f"rollback/production-{branch}" in project.branches()


@pytest.mark.parametrize("value", ["$(shell touch ${DONE})", "2; touch ${DONE} #"])
def test_what_a_workflow_is_given_is_no_command(
    runner: Callable[..., Runner], github: GitHub, project: Project, value: str
) -> None:
    """Whoever starts one by the API may send anything, and the job has more rights than they."""
    makefile = project.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace(ON_CLUSTER, ""))
    project.commit("Ask the real cluster")
    for name, inputs in (
        ("train", {"where": "cluster", "nodes": value}),
        ("rollback", {"environment": "staging", "version": value}),
        ("rollback", {"environment": value, "version": ""}),
    ):
        ran = runner(inputs=inputs)
        done = ran.folder / "done"
        ran.environment["TRAINING_REGISTRY"] = "registry.example.com/training"
        ran.environment["DONE"] = str(done)
        assert ran.run(OURS / f"{name}.yaml", name) == "failure"
        assert not done.exists()
        assert value in ran.printed, ran.printed
        assert pulls(github) == []


# -- checks ----------------------------------------------------------------------------------------


def proposed(project: Project, *, verdict: str, **files: str) -> dict:
    """Push a pull request's merge with main; return the event."""
    project.git("checkout", "--quiet", "-B", "change", "main")
    for path, content in {"verdict": verdict, **files}.items():
        write(project.folder, path, content)
    project.git("add", "--all")
    project.git("commit", "--quiet", "--allow-empty", "-m", "Change")
    project.git("checkout", "--quiet", "--detach", "main")
    project.git("merge", "--quiet", "--no-ff", "-m", "Merge", "change")
    project.git("push", "--quiet", "--force", "origin", "HEAD:refs/pull/7/merge")
    project.git("checkout", "--quiet", "main")
    return {"number": 7, "pull_request": {"head": {"repo": {"full_name": "acme/digits"}}}}


def checked(ran: Runner) -> list[str]:
    return [ran.run(OURS / "checks.yaml", name) for name in ("checks", "comment")]


def test_a_good_change_passes_and_its_comment_is_edited_when_it_is_pushed_again(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    for verdict, result in (("bad", "failure"), ("good", "success")):
        event = proposed(project, verdict=verdict)
        ran = runner("pull_request", "refs/pull/7/merge", event=event)
        assert checked(ran) == [result, "success"], ran.printed
        assert f"{verdict}judged by the base" in (ran.folder / "summary.md").read_text()
        (comment,) = github.read("comments")
        assert f"{verdict}judged by the base" in comment["body"]


def test_a_change_of_the_judge_is_judged_by_the_base(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    own = "check comment:\n\t@mkdir -p .local/reports; echo passed > .local/reports/check.md\n"
    event = proposed(project, verdict="bad", judge="myself", Makefile=own)
    ran = runner("pull_request", "refs/pull/7/merge", event=event)
    assert checked(ran) == ["failure", "success"]
    assert "judged by the base" in github.read("comments")[0]["body"]


def test_a_fork_gets_a_summary_and_no_token(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    write(project.folder, "infra/outputs.env", "AWS_PLAN_ROLE=arn\nAWS_REGION=eu\n")
    project.commit("Have a cloud")
    event = proposed(project, verdict="bad")
    event["pull_request"]["head"]["repo"]["full_name"] = "mallory/digits"
    ran = runner("pull_request", "refs/pull/7/merge", event=event)
    assert checked(ran) == ["failure", "skipped"]
    assert not any(ran.tokens) and "role" not in ran.printed
    assert "judged by the base" in (ran.folder / "summary.md").read_text()
    assert github.read("comments") == []
    event["pull_request"]["head"]["repo"]["full_name"] = "acme/digits"
    ran = runner("pull_request", "refs/pull/7/merge", event=event)
    assert checked(ran) == ["failure", "success"] and TOKEN in ran.tokens
    assert "role arn in eu" in ran.printed


def test_a_merge_queue_and_main_are_judged_too(
    runner: Callable[..., Runner], project: Project
) -> None:
    base = project.git("rev-parse", "HEAD")
    proposed(project, verdict="good")
    queued = {"merge_group": {"base_sha": base}}
    ran = runner("merge_group", "refs/pull/7/merge", event=queued)
    assert checked(ran) == ["success", "skipped"], ran.printed
    assert f"from {base}" in (ran.folder / "summary.md").read_text()
    assert checked(runner("push", event={"created": True})) == ["skipped", "skipped"]
    project.commit("Go on")
    ran = runner("push", event={"created": False})
    assert checked(ran) == ["success", "skipped"], ran.printed


def test_of_two_pushes_at_once_the_newer_is_judged_alone(runner: Callable[..., Runner]) -> None:
    """Or the older's report, if it came last, would take the newer one's place."""
    told = yaml.safe_load((OURS / "checks.yaml").read_text())["concurrency"]

    def group(number: int | None, commit: str) -> str:
        ran = runner("pull_request", event={"number": number} if number else {})
        return Job(replace(ran, commit=commit), {}, ran.folder).text(told["group"])

    assert told["cancel-in-progress"] is True
    assert group(7, "a") == group(7, "b") != group(8, "b")
    assert group(None, "a") != group(None, "b"), "main and a merge queue end none of theirs"


def test_a_comment_that_github_does_not_take_is_said_in_its_job(
    runner: Callable[..., Runner], github: GitHub, project: Project
) -> None:
    event = proposed(project, verdict="good")
    github.write(fails={"POST": (502, "Bad Gateway")})
    ran = runner("pull_request", "refs/pull/7/merge", event=event)
    assert checked(ran) == ["success", "failure"]
    assert "error: GitHub does not answer issues/7/comments" in ran.printed


def test_what_the_checks_would_leave_undone_without_it_is_installed() -> None:
    """GitHub's machines have no Terraform, and what is not done is not passed."""
    used = [
        step.get("uses", step.get("run", ""))
        for step in jobs(OURS / "checks.yaml")["checks"]["steps"]
    ]
    (terraform,) = (
        place for place, each in enumerate(used) if "hashicorp/setup-terraform@" in each
    )
    (check,) = (place for place, each in enumerate(used) if each.startswith("make check "))
    assert terraform < check


def test_what_the_checks_are_required_by_is_a_job_that_always_ends() -> None:
    """A required check behind a filter of paths would wait for ever where it is skipped."""
    when = yaml.safe_load((OURS / "checks.yaml").read_text())[True]
    assert when["pull_request"] == when["merge_group"] == {}
    assert "needs" not in jobs(OURS / "checks.yaml")["checks"]


# -- by the project's own judge --------------------------------------------------------------------

STAGING = release_path("staging")


@pytest.fixture
def judged(project: Project, github: GitHub, runner: Callable[..., Runner]) -> Project:
    """A project with manifests, a model that Triton serves, and no stand-in for the judge."""
    trained = project.folder.parent / "trained"
    shutil.rmtree(trained / "artifacts/model")
    model = write_repository(trained / "artifacts/model") / "classifier/1/model.onnx"
    export = trained / "artifacts/export.json"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    export.write_text(json.dumps(json.loads(export.read_text()) | {"onnx_sha256": digest}))
    answers = trained / "artifacts/predictions.csv"
    answers.write_text(re.sub(",(zero|one)", named, answers.read_text()))
    shutil.rmtree(project.folder / "argocd")
    shutil.copytree(UNBAKED / "argocd", project.folder / "argocd")
    for path in (project.folder / "argocd").rglob("*.yaml"):
        text = path.read_text().replace("<<cookiecutter.project>>", "digits")
        path.write_text(text.replace("<<cookiecutter.github_owner>>", "acme"))
    makefile = project.folder / "Makefile"
    makefile.write_text(makefile.read_text().replace(JUDGE, ""))
    project.commit("Have a judge")
    triton = project.folder.parent / "venv-triton"
    for path in Path(os.environ["TRITON_VENV"]).iterdir():
        if path.name != "ready":
            (triton / path.name).symlink_to(path)
    ran = runner()
    assert ran.run(OURS / "release.yaml", "release") == "success", ran.printed
    return project


def named(word: re.Match[str]) -> str:
    """The classes of the model that Triton serves."""
    return {"zero": ",class 0", "one": ",class 1"}[word[1]]


def opened(
    project: Project, branch: str, change: Callable[[Path], object] = lambda folder: None
) -> dict:
    """Change the branch of a pull request, and push its merge with main; return the event."""
    reviewer = project.reviewer
    project.review("fetch", "--quiet", "origin")
    project.review("checkout", "--quiet", "--detach", f"origin/{branch}")
    change(reviewer)
    project.review("add", "--all")
    project.review("commit", "--quiet", "--allow-empty", "-m", "Change")
    proposed = project.review("rev-parse", "HEAD")
    project.review("checkout", "--quiet", "--detach", "origin/main")
    project.review("merge", "--quiet", "--no-ff", "-m", "Merge", proposed)
    project.review("push", "--quiet", "--force", "origin", "HEAD:refs/pull/7/merge")
    project.review("checkout", "--quiet", "main")
    return {"number": 7, "pull_request": {"head": {"repo": {"full_name": "acme/digits"}}}}


def edit(path: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / path).read_text()
        assert old in text
        (folder / path).write_text(text.replace(old, new))

    return change


def summary(ran: Runner) -> str:
    return (ran.folder / "summary.md").read_text()


def test_a_release_is_judged_by_the_real_judge_from_its_proposal_to_its_promotion(
    runner: Callable[..., Runner], github: GitHub, judged: Project
) -> None:
    branch = "release/staging-v1"
    for change, sentence in (
        (edit(STAGING, 'accuracy: "0.97"', 'accuracy: "0.99"'), "accuracy is 0.99 here and 0.97"),
        (edit(STAGING, 'image: "oci:', 'image: "evil.io'), "and this project's are in"),
        (edit("params.yaml", "accuracy: 0.9", "accuracy: 0.1"), "params.yaml changes, too"),
    ):
        event = opened(judged, branch, change)
        ran = runner("pull_request", "refs/pull/7/merge", event=event)
        assert ran.run(OURS / "checks.yaml", "checks") == "failure", ran.printed
        assert "model 1 to staging: refused" in summary(ran) and sentence in summary(ran)

    ran = runner("pull_request", "refs/pull/7/merge", event=opened(judged, branch))
    assert checked(ran) == ["success", "success"], ran.printed
    (comment,) = github.read("comments")
    assert "Release of model 1 to staging: passed" in comment["body"]
    assert "Rehearsed on the real Triton" in comment["body"]

    judged.merge(branch)
    params = judged.folder / "params.yaml"
    wanted = "release: {soak: 24, require_healthy: true, "
    params.write_text(params.read_text().replace("release: {", wanted))
    judged.commit("Let staging serve for a day")
    begun = datetime.now(UTC) - timedelta(hours=3)
    status = {"context": "staging/healthy", "description": "well", "state": "SUCCESS"}
    status |= {"createdAt": begun.isoformat()}
    github.write(statuses={judged.git("rev-parse", "HEAD"): [status]})
    assert runner().run(OURS / "promote.yaml", "promote") == "success"
    event = opened(judged, "release/production-v1")
    ran = runner("pull_request", "refs/pull/7/merge", event=event)
    assert ran.run(OURS / "checks.yaml", "checks") == "failure", ran.printed
    served = r"staging has model 1 for ([\d.]+) hours, and release\.soak of the base"
    hours = re.search(served, summary(ran))
    assert hours and 3 <= float(hours[1]) < 4, summary(ran)
