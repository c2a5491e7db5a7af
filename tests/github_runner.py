"""A runner of GitHub's as far as our workflows need one: reads a workflow, runs a job's steps.

Expressions are those that the workflows use. Actions are known by name, and do here what matters of
them there: a checkout is a clone, an artifact a folder, a token of an App a text.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

TOKENS = re.compile(r"'(?:[^']|'')*'|[\w.-]+|&&|\|\||==|!=|[!(),]|\S")
WORDS = {"&&": " and ", "||": " or ", "==": "==", "!=": "!=", "!": " not ", "true": "True"}
APP_TOKEN = "ghs_of-the-app"
TOKEN = "ghs_of-the-job"


@dataclass
class Runner:
    """What a workflow is run with: the event, what is on the machine, the bare repository."""

    origin: Path
    folder: Path
    programs: Path  # in front of PATH
    event_name: str
    commit: str
    event: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # of the repository
    secrets: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)  # of the machine
    jobs: dict[str, str] = field(default_factory=dict)  # results
    needs: dict[str, dict[str, Any]] = field(default_factory=dict)  # outputs of jobs that ran
    printed: str = ""
    tokens: list[str] = field(default_factory=list)  # those that steps saw
    took: list[tuple[str, float]] = field(default_factory=list)  # steps, and seconds of each

    def run(self, workflow: Path, name: str) -> str:
        """Run a job; return `success`, `failure` or `skipped`."""
        job = yaml.safe_load(workflow.read_text())["jobs"][name]
        run = Job(self, {}, self.folder / f"{name}-{len(self.jobs)}")
        result = run.steps(job) if run.wanted(job) else "skipped"
        self.jobs[name] = result
        self.needs[name] = {"outputs": run.texts(job.get("outputs", {}))}
        return result


@dataclass
class Job:
    """A job under way in its workspace."""

    runner: Runner
    env: dict[str, str]
    workspace: Path
    failed: bool = False
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def summary(self) -> Path:
        return self.runner.folder / "summary.md"

    def wanted(self, part: Mapping[str, Any]) -> bool:
        """Whether a job or step runs, by its `if`."""
        condition = str(part.get("if", "success()")).strip()
        condition = condition.removeprefix("${{").removesuffix("}}")
        asked = bool(self.value(condition))
        return asked and (not self.failed or "cancelled()" in condition)

    def steps(self, job: Mapping[str, Any]) -> str:
        self.env |= self.texts(job.get("env", {}))
        for step in job["steps"]:
            if not self.wanted(step):
                continue
            begun = time.monotonic()
            done = self.command(step) if "run" in step else self.action(step)
            name = step.get("run") or step["uses"].partition("@")[0]
            self.runner.took.append((name, time.monotonic() - begun))
            self.failed |= not done
        return "failure" if self.failed else "success"

    def command(self, step: Mapping[str, Any]) -> bool:
        """Run a step's script as GitHub does, with what it may write to."""
        assert "${{" not in step["run"], "an expression in a script is an injection"
        files = {
            "GITHUB_ENV": self.runner.folder / "env",
            "GITHUB_OUTPUT": self.runner.folder / "output",
            "GITHUB_STEP_SUMMARY": self.summary,
        }
        for name in ("GITHUB_ENV", "GITHUB_OUTPUT"):
            files[name].write_text("")
        env = self.env | self.texts(step.get("env", {}))
        self.runner.tokens.append(env.get("GH_TOKEN", ""))
        plain = {key: str(path) for key, path in files.items()}
        plain |= {"GITHUB_SHA": self.runner.commit, "RUNNER_TEMP": str(self.runner.folder)}
        number = self.runner.event.get("number")
        plain["GITHUB_REF_NAME"] = f"{number}/merge" if number else "main"
        done = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.workspace,
            env=self.runner.environment | plain | env,
            capture_output=True,
            text=True,
        )
        self.runner.printed += f"$ {step['run']}\n{done.stdout}{done.stderr}"
        self.env |= assigned(files["GITHUB_ENV"])
        if "id" in step:
            self.outputs[step["id"]] = assigned(files["GITHUB_OUTPUT"])
        return done.returncode == 0

    def action(self, step: Mapping[str, Any]) -> bool:
        name = step["uses"].partition("@")[0]
        given = self.texts(step.get("with", {}))
        outputs = ACTIONS[name](self, given)
        if "id" in step:
            self.outputs[step["id"]] = outputs or {}
        return outputs is not None

    def texts(self, values: Mapping[str, Any]) -> dict[str, str]:
        return {name: self.text(value) for name, value in values.items()}

    def text(self, value: Any) -> str:
        """A value with its expressions replaced."""
        if isinstance(value, bool):
            return str(value).lower()
        return re.sub(
            r"\$\{\{(.*?)\}\}", lambda found: shown(self.value(found[1])), str(value), flags=re.S
        )

    def value(self, expression: str) -> Any:
        """What an expression is: `and` and `or` give their operands here as there."""
        parts = []
        for token in TOKENS.findall(expression):
            if token in WORDS:
                parts.append(WORDS[token])
            elif token.startswith("'"):
                parts.append(repr(token[1:-1].replace("''", "'")))
            elif re.fullmatch(r"[a-z_]\w*\.[\w.-]+", token):
                parts.append(f"look({token!r})")
            else:
                assert token in ("(", ")", ",") or token in FUNCTIONS, token
                parts.append(token)
        functions = {name: getattr(self, f"_{name}") for name in FUNCTIONS}
        return eval("".join(parts).strip(), {"__builtins__": {}, "look": self.look} | functions)

    def look(self, name: str) -> Any:
        """A value of a context; what is not there is empty, as null is to GitHub."""
        runner = self.runner
        found: Any = {
            "github": {
                "event_name": runner.event_name,
                "event": runner.event,
                "sha": runner.commit,
                "repository": "acme/digits",
                "actor": "octocat",
                "base_ref": "main",
                "event_path": str(self.event_file()),
                "token": TOKEN,
            },
            "env": self.env,
            "vars": runner.variables,
            "secrets": runner.secrets,
            "inputs": runner.inputs,
            "needs": runner.needs,
            "steps": {name: {"outputs": given} for name, given in self.outputs.items()},
        }
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return "" if found is None else found

    def event_file(self) -> Path:
        """The event as a step reads it."""
        path = self.runner.folder / "event.json"
        path.write_text(json.dumps(self.runner.event))
        return path

    def _success(self) -> bool:
        return not self.failed

    def _cancelled(self) -> bool:
        return False

    def _format(self, text: str, *values: Any) -> str:
        return text.format(*values)

    def _hashFiles(self, *paths: str) -> str:  # noqa: N802
        return "".join(path for path in paths if (self.workspace / path).is_file())


FUNCTIONS = ("success", "cancelled", "format", "hashFiles")


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def assigned(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if line)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def check_out(job: Job, given: dict[str, str]) -> dict[str, str]:
    """Clone with all branches, and what is proposed; have the event's commit, or a ref."""
    folder, runner = job.workspace, job.runner
    git(runner.folder, "clone", "--quiet", str(runner.origin), str(folder))
    git(folder, "fetch", "--quiet", "origin", "+refs/*:refs/remotes/*")
    ref = given.get("ref", "")
    git(folder, "checkout", "--quiet", *([ref] if ref else ["--detach", runner.commit]))
    if not ref and runner.event_name != "pull_request":  # of a branch the branch is there, too
        git(folder, "checkout", "--quiet", "-B", "main", runner.commit)
    assert given["persist-credentials"] == ("true" if "token" in given else "false")
    # an address of GitHub's, which GIT_SSH_COMMAND leads to the bare repository
    git(folder, "remote", "set-url", "origin", "git@github.com:acme/digits.git")
    return {}


def app_token(job: Job, given: dict[str, str]) -> dict[str, str]:
    assert given["client-id"] and given["private-key"]
    assert {"permission-contents", "permission-pull-requests"} <= given.keys()
    return {"token": APP_TOKEN}


def assume_role(job: Job, given: dict[str, str]) -> dict[str, str]:
    job.runner.printed += f"role {given['role-to-assume']} in {given['aws-region']}\n"
    return {}


def attest(job: Job, given: dict[str, str]) -> dict[str, str]:
    assert re.fullmatch("sha256:[0-9a-f]{64}", given["subject-digest"])
    assert given["subject-name"] and given["predicate-type"].startswith("urn:")
    json.loads((job.workspace / given["predicate-path"]).read_text())
    job.runner.printed += f"attested {given['subject-digest']}\n"
    return {}


def upload(job: Job, given: dict[str, str]) -> dict[str, str] | None:
    source = job.workspace / given["path"]
    if source.is_dir():
        shutil.copytree(source, job.runner.folder / given["name"], dirs_exist_ok=True)
    elif given.get("if-no-files-found") == "error" and not [*job.workspace.glob(given["path"])]:
        return None
    return {"artifact-id": "7"}


def download(job: Job, given: dict[str, str]) -> dict[str, str] | None:
    source = job.runner.folder / given["name"]
    if not source.is_dir():
        return None
    shutil.copytree(source, job.workspace / given["path"])
    return {}


def comment(job: Job, given: dict[str, str]) -> dict[str, str]:
    job.runner.printed += f"comment {(job.workspace / given['path']).read_text()}"
    return {}


ACTIONS: dict[str, Callable[[Job, dict[str, str]], dict[str, str] | None]] = {
    "actions/checkout": check_out,
    "actions/attest": attest,
    "actions/cache": lambda *_: {},
    "actions/create-github-app-token": app_token,
    "actions/upload-artifact": upload,
    "actions/download-artifact": download,
    "aws-actions/configure-aws-credentials": assume_role,
    "hashicorp/setup-terraform": lambda *_: {},
    "marocchino/sticky-pull-request-comment": comment,
}


def machine(programs: Path, **variables: str) -> dict[str, str]:
    """The variables of a machine that has these programs in front of all others."""
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | variables
