"""The template that this project was made from, and what it makes of the project's answers."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from workspace.errors import printable
from workspace.settings import SMALL, Settings, check, parse_json, read_json

ORIGIN = Path(".template.json")  # written when the project was generated

# In an environment of its own: a project needs it for nothing else.
COOKIECUTTER = (
    *("uv", "tool", "run", "--quiet", "--python", sys.executable),
    *("--from", "cookiecutter>=2.6,<3", "cookiecutter"),
)

Answers = Mapping[str, Any]


class Origin(Settings):
    """What a project was made from."""

    address: str = Field(min_length=1, description="the template's path or Git address")
    commit: str = Field(
        pattern="^[0-9a-f]{40}$",
        description="the 40 digits of the template's commit that the project was made from",
    )
    answers: dict[str, Any] = Field(description="the answer to each question of the template")

    def to_json(self) -> str:
        """Return the content of the file."""
        return json.dumps(self.model_dump(), indent=2) + "\n"


def read_origin(root: Path) -> Origin:
    """Read what the project was made from. Raises DeliveryError and SettingsError."""
    if not (root / ORIGIN).is_file():
        raise DeliveryError(
            f"there is no {ORIGIN}, which says what this project was made from: write and commit "
            "it as docs/updating.md of the template says"
        )
    return check(Origin, read_json(root / ORIGIN, SMALL), str(ORIGIN))


class Questions(Settings, extra="ignore"):
    """What a template's `cookiecutter.json` says to people."""

    prompts: dict[str, Any] = Field(default_factory=dict, alias="__prompts__")


@dataclass(frozen=True)
class Rendering:
    """A project as the template makes it, with the answer to every question."""

    folder: Path
    answers: Answers


@dataclass(frozen=True)
class Template:
    """A clone of the template, without a working tree."""

    address: str
    repository: Repository

    @classmethod
    def clone(cls, address: str, folder: Path) -> "Template":
        """Clone the template into a folder that does not exist. Raises DeliveryError."""
        try:
            here = Repository(Path.cwd())
            # the settings that reach the template may be the project's, whose remote is another
            config = here.folder / here.ask("rev-parse", "--git-path", "config")
            options = ("--quiet", "--no-checkout", "--origin=template", "--template=")
            include = f"--config=include.path={config}"
            here.run("clone", *options, include, "--", address, str(folder))
        except GitError as error:
            raise DeliveryError(
                f"the template at {address}, as {ORIGIN} says, cannot be cloned: {error}"
            ) from None
        return cls(address, Repository(folder))

    def commit(self, name: str) -> str:
        """Return the commit that a name stands for. Raises DeliveryError."""
        try:
            return self.repository.ask("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        except GitError:
            raise DeliveryError(
                f"the template at {self.address} has no commit or tag {name!r}"
            ) from None

    def render(self, commit: str, answers: Answers) -> Rendering:
        """Make a project of a commit; a question without an answer takes its default.

        Raises DeliveryError.
        """
        work = Path(tempfile.mkdtemp(dir=self.repository.folder.parent))
        # line ends as the template has them, and no hooks, whatever the user has elsewhere
        add = ("worktree", "add", "--detach", str(work / "template"), commit)
        self.repository.run(*add, settings=["core.autocrlf=false", "core.hooksPath=/dev/null"])
        if failure := _run_cookiecutter(work, answers):
            raise DeliveryError(f"the template at {commit[:12]} made no project: {failure}")
        (project,) = (work / "output").iterdir()
        (replay,) = (work / "replay").iterdir()
        context = read_json(replay)["cookiecutter"]  # every answer, as cookiecutter kept it
        return Rendering(project, {name: context[name] for name in context if name[0] != "_"})

    def prompt(self, commit: str, name: str) -> str:
        """Return what a question says to a person."""
        file = f"cookiecutter.json of {commit[:12]}"
        questions = parse_json(
            self.repository.run("cat-file", "blob", f"{commit}:cookiecutter.json"), file
        )
        prompt = check(Questions, questions, file).prompts.get(name, name)
        return printable(str(prompt))


def _run_cookiecutter(work: Path, answers: Answers) -> str:
    """Make a project of `template` in `output`, without the user's defaults; say why not."""
    settings = {
        "default_context": dict(answers),
        "cookiecutters_dir": str(work),
        "replay_dir": str(work / "replay"),
    }
    (work / "settings.json").write_text(json.dumps(settings))
    options = ("--no-input", "--config-file", "settings.json", "--output-dir", "output")
    command = [sys.executable, "-m", *COOKIECUTTER, "./template", *options]
    result = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if result.returncode == 0:
        return ""
    lines = result.stderr.removeprefix("error: ").splitlines()
    return lines[0] if lines else f"it ended with {result.returncode}"
