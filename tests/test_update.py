"""`make update`: what the template changed arrives, what the owner changed stays.

Most tests use a small template in place of this one; the last ones use this one.
"""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import TEMPLATE, clean_environment, clean_template, cookiecutter
from rendering import RELEASE

BEFORE_UPDATES = "d4a463b67e5744460d1652b1af1d53f5cd855d2c"  # made projects without `make update`

# Git as it is without its user's settings.
GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_NAME": "Test" for role in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{role}_EMAIL": "test@example.com" for role in ("AUTHOR", "COMMITTER")},
}

# In place of uv, which would install cookiecutter from a package index: that of the tests.
UV = """\
import runpy, sys
assert sys.argv[1:3] == ["tool", "run"], sys.argv
sys.argv = sys.argv[sys.argv.index("cookiecutter") :]
runpy.run_module("cookiecutter", run_name="__main__")
"""


@dataclass(frozen=True)
class Folder:
    """A folder with a Git repository in it."""

    path: Path

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=clean_environment() | GIT | environment,
            capture_output=True,
            text=True,
        )

    def git(self, *arguments: str) -> str:
        result = self.run("git", *arguments)
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change")
        return self.git("rev-parse", "HEAD")

    def write(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def read(self, name: str) -> str:
        return (self.path / name).read_bytes().decode()

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert old in text, (name, old)
        self.write(name, text.replace(old, new))

    def state(self) -> dict[str, object]:
        """What an update that fails leaves as it was."""
        paths = [path for path in self.path.rglob("*") if path.is_file()]
        files = {str(path): path.read_bytes() for path in paths if ".git" not in path.parts}
        heads = self.git("for-each-ref", "refs/heads", "refs/tags")
        return {"status": self.git("status", "--porcelain", "--branch"), "heads": heads} | files


def repository(path: Path) -> Folder:
    path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    folder.git("init", "--quiet", "--initial-branch=main")
    return folder


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What PYTHONPATH is to hold for the update of this template."""
    folder = tmp_path_factory.mktemp("uv")
    (folder / "uv").mkdir()
    (folder / "uv/__main__.py").write_text(UV)
    return f"{folder}:{TEMPLATE}"


Update = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def update(code: str) -> Update:
    """`update(project, …)`: the command that `make update` runs."""

    def run(project: Folder, *arguments: str, **environment: str):
        command = (sys.executable, "-m", "delivery", "update", *arguments)
        return project.run(*command, **{"PYTHONPATH": code} | environment)

    return run


def report(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0 and not result.stderr, result.stdout + result.stderr
    return result.stdout


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that failed."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr.strip()


# -- a small template and a project of it ----------------------------------------------------------

LINES = "".join(f"line {number}\n" for number in range(1, 21))
ROLLOUT = """\
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata:
  name: triton
spec:
  replicas: 2
  minReadySeconds: 10
"""
KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: "{{cookiecutter.project}}-staging"
resources:
  - ../../base/triton
  - model.yaml
"""
FILES = {
    "params.yaml": LINES,
    "dvc.yaml": "stages: {}\n",
    "Makefile": f"{LINES}# of {{{{cookiecutter.owner}}}}\n",
    "README.md": LINES,
    "docs/serving.md": LINES,
    "docs/notes.md": LINES,
    "docs/obsolete.md": LINES,
    "tools/first.sh": LINES,
    "tools/second.sh": f"second\n{LINES}",
    "src/classifier/networks.py": LINES,
    ".github/workflows/checks.yaml": LINES,
    "infra/cluster/variables.tf": LINES,
    "plots/logo.png": b"\x89PNG\r\n\x1a\n\x00\xff" + bytes(range(256)),
    "argocd/base/triton/kustomization.yaml": "resources: [rollout.yaml]\n",
    "argocd/base/triton/rollout.yaml": ROLLOUT,
    "argocd/environments/staging/kustomization.yaml": KUSTOMIZATION,
    "argocd/environments/production/kustomization.yaml": KUSTOMIZATION.replace("stag", "produc"),
}
QUESTIONS = {"project": "digits", "owner": "acme"}
INSIDE = "{{cookiecutter.project}}"


def small_template(path: Path) -> Folder:
    template = repository(path)
    template.write("cookiecutter.json", json.dumps(QUESTIONS))
    for name, content in FILES.items():
        # no two files are alike, or Git might take one for the other, renamed
        head = f"{name}\n{name[::-1]}\n{name.upper()}\n" * 3 if content == LINES else ""
        template.write(f"{INSIDE}/{name}", head + content if head else content)
    template.commit()
    return template


def make_project(template: Folder, path: Path) -> Folder:
    """Generate a project as cookiecutter and the real template's hook do, and commit it."""
    answers = {"project": path.name, "owner": "Odd-Owner"}
    made = cookiecutter(path.parent, template=template.path, **answers)
    assert made.returncode == 0, made.stderr
    project = repository(path)
    commit = template.git("rev-parse", "HEAD")
    origin = {"address": "../template", "commit": commit, "answers": answers}
    project.write(".template.json", json.dumps(origin))
    project.commit()
    return project


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    make_project(small_template(folder / "template"), folder / "odd-1")
    return folder


@pytest.fixture
def template(made: Path, tmp_path: Path) -> Folder:
    return Folder(shutil.copytree(made / "template", tmp_path / "template"))


@pytest.fixture
def project(made: Path, template: Folder, tmp_path: Path) -> Folder:
    return Folder(shutil.copytree(made / "odd-1", tmp_path / "odd-1"))


# -- ten edits of owners ---------------------------------------------------------------------------

PICTURE = b"\x00\x01\r\n\n\xff" * 50
OWNERS = {  # what the pipeline, reviews and releases write, which no template touches
    "argocd/environments/staging/model.yaml": RELEASE,
    "dvc.lock": "schema: '2.0'\n",
    "data/raw.dvc": "outs: []\n",
    "reviews/june.csv": "image,decision\n",
    "infra/outputs.env": "CLUSTER=mine\n",
    "argocd/training/run.yaml": "run: 3\n",
}


def edit_as_ten_owners_do(project: Folder) -> None:
    project.edit("src/classifier/networks.py", "line 20\n", "line 20\nclass Mine: ...\n")
    overlay = "argocd/environments/staging/kustomization.yaml"
    patch = """patches:
  - target: {kind: Rollout}
    patch: '[{"op": "replace", "path": "/spec/replicas", "value": 7}]'
"""
    project.write(overlay, project.read(overlay) + patch)
    for deleted in ("docs/serving.md", "README.md"):  # the template changes the first
        (project.path / deleted).unlink()
    project.git("mv", "docs/notes.md", "handbook.md")
    project.edit("Makefile", "line 18\n", "line 18\nmine:\n\techo mine\n")
    project.write(".github/workflows/own.yaml", "on: push\n")
    project.edit("infra/cluster/variables.tf", "line 20\n", 'line 20\nvariable "mine" {}\n')
    project.edit("params.yaml", "line 2\n", "line 2, mine\n")
    project.edit("params.yaml", "\n", "\r\n")
    project.write("plots/logo.png", PICTURE)
    (project.path / "tools/first.sh").chmod(0o755)
    project.write("tools/mine.sh", "echo mine\n")
    for name, content in OWNERS.items():
        project.write(name, content)
    project.commit()


def change_the_template(template: Folder) -> str:
    for name in (
        *("src/classifier/networks.py", "Makefile", "infra/cluster/variables.tf", "params.yaml"),
        *("docs/serving.md", "docs/notes.md", "tools/first.sh", ".github/workflows/checks.yaml"),
    ):
        template.edit(f"{INSIDE}/{name}", "line 10\n", "line 10, newer\n")
    template.edit(f"{INSIDE}/argocd/base/triton/rollout.yaml", "Seconds: 10", "Seconds: 30")
    template.git("rm", "--quiet", f"{INSIDE}/docs/obsolete.md")
    template.git("mv", f"{INSIDE}/tools", f"{INSIDE}/scripts")
    template.write(f"{INSIDE}/src/delivery/new.py", "new\n")
    for name in OWNERS:
        template.write(f"{INSIDE}/{name}", "the template's\n")
    return template.commit()


@pytest.fixture(scope="module")
def edited(
    made: Path, tmp_path_factory: pytest.TempPathFactory, code: str
) -> tuple[Folder, str, str]:
    """A project after ten edits and an update, what that printed, and the template's commit."""
    folder = tmp_path_factory.mktemp("edited") / "made"
    shutil.copytree(made, folder)
    template, project = Folder(folder / "template"), Folder(folder / "odd-1")
    edit_as_ten_owners_do(project)
    newest = change_the_template(template)
    command = (sys.executable, "-m", "delivery", "update")
    return project, report(project.run(*command, PYTHONPATH=code)), newest


NEWER = "line 10, newer\n"
MERGED = {  # file: what it has of the owner's, and whether it has what the template changed
    "src/classifier/networks.py": "line 20\nclass Mine: ...\n",
    "Makefile": "line 18\nmine:\n\techo mine\n",
    "infra/cluster/variables.tf": 'variable "mine" {}\n',
    "handbook.md": "line 20\n",
    "scripts/first.sh": "line 20\n",
}


@pytest.mark.parametrize("name", MERGED)
def test_an_edited_file_has_both_sides_changes(name: str, edited: tuple) -> None:
    text = edited[0].read(name)
    assert MERGED[name] in text and NEWER in text


def test_answers_stay(edited: tuple) -> None:
    assert "# of Odd-Owner\n" in edited[0].read("Makefile")
    assert 'namespace: "odd-1-staging"' in edited[0].read(
        "argocd/environments/staging/kustomization.yaml"
    )


def test_a_changed_overlay_stays_and_the_new_base_arrives(edited: tuple) -> None:
    built = edited[0].run("kubectl", "kustomize", "argocd/environments/staging").stdout
    assert "replicas: 7" in built and "minReadySeconds: 30" in built


def test_a_deleted_file_stays_deleted_and_a_changed_one_is_named(edited: tuple) -> None:
    project, printed, _ = edited
    assert not (project.path / "README.md").exists()
    assert not (project.path / "docs/serving.md").exists()
    assert "stays deleted, although the template changed it: docs/serving.md\n" in printed


def test_a_renamed_file_stays_renamed(edited: tuple) -> None:
    assert not (edited[0].path / "docs/notes.md").exists()


@pytest.mark.parametrize("name", [".github/workflows/own.yaml", "tools/mine.sh", *OWNERS])
def test_what_is_only_the_owners_is_untouched(name: str, edited: tuple) -> None:
    project, _, _ = edited
    assert (project.path / name).is_file() and project.git("diff", "main", "--", name) == ""


def test_line_ends_of_the_owners_stay(edited: tuple) -> None:
    text = edited[0].read("params.yaml")
    assert "line 2, mine\r\n" in text and "line 10, newer\r\n" in text
    assert text.count("\n") == text.count("\r\n")


def test_a_picture_of_the_owners_stays(edited: tuple) -> None:
    assert (edited[0].path / "plots/logo.png").read_bytes() == PICTURE


def test_a_mode_of_the_owners_stays_where_the_template_moves_the_file(edited: tuple) -> None:
    assert (edited[0].path / "scripts/first.sh").stat().st_mode & 0o111
    assert not (edited[0].path / "scripts/second.sh").stat().st_mode & 0o111


def test_what_the_template_added_and_removed_follows(edited: tuple) -> None:
    project, _, _ = edited
    assert project.read("src/delivery/new.py") == "new\n"
    assert not (project.path / "docs/obsolete.md").exists()


def test_the_update_is_one_commit_on_a_branch_of_its_own(edited: tuple) -> None:
    project, printed, newest = edited
    branch = f"template/{newest[:12]}"
    assert project.git("branch", "--show-current") == branch
    assert project.git("status", "--porcelain") == ""
    assert project.git("rev-parse", "HEAD^") == project.git("rev-parse", "main")
    assert f"branch {branch} is checked out and has the update as one commit" in printed
    assert f"git push --set-upstream origin {branch}" in printed
    assert project.git("log", "-1", "--format=%s") in printed
    refs = project.git("for-each-ref", "--format=%(refname)").split()
    assert refs == ["refs/heads/main", f"refs/heads/{branch}"]


def test_what_merging_would_deploy_is_shown(edited: tuple) -> None:
    printed = edited[1]
    assert "\nwhat Argo CD applies of argocd/environments/staging:\n" in printed
    assert "\n-  minReadySeconds: 10\n+  minReadySeconds: 30\n" in printed
    assert "Merging it deploys what changes in argocd/environments/staging" in printed
    assert "environments/production" not in printed  # nothing is released there


def test_the_project_knows_its_new_origin(edited: tuple, update: Update) -> None:
    project, _, newest = edited
    origin = json.loads(project.read(".template.json"))
    assert origin["commit"] == newest and origin["answers"]["owner"] == "Odd-Owner"
    assert report(update(project)).startswith(
        f"up to date: this project was made from {newest[:12]}"
    )


# -- conflicts -------------------------------------------------------------------------------------


@pytest.fixture
def conflicting(project: Folder, template: Folder) -> Folder:
    """A project that says otherwise than the template's newest commit in three files."""
    project.edit("Makefile", "line 10\n", "line 10, mine\n")
    project.edit("docs/obsolete.md", "line 10\n", "line 10, mine\n")
    project.write("plots/logo.png", b"\x00mine")
    project.commit()
    change_the_template(template)
    template.write(f"{INSIDE}/plots/logo.png", b"\x00theirs")
    template.commit()
    return project


def test_conflicts_are_shown_and_resolved_as_gits(conflicting: Folder, update: Update) -> None:
    printed = report(update(conflicting))
    status = set(conflicting.git("status", "--porcelain").splitlines())
    unmerged = {"UU Makefile", "UD docs/obsolete.md", "UU plots/logo.png"}
    assert unmerged <= status
    assert {line[0] for line in status - unmerged} <= set("AMDR")  # staged, nothing else
    sides = conflicting.read("Makefile").partition("=======\n")
    assert "<<<<<<< update/yours\nline 10, mine\n" in sides[0]
    assert f"{NEWER}>>>>>>> update/template\n" in sides[2]
    assert "line 10, mine\n" in conflicting.read("docs/obsolete.md")
    assert (conflicting.path / "plots/logo.png").read_bytes() == b"\x00mine"
    assert NEWER in conflicting.read("params.yaml")
    for name in ("Makefile", "docs/obsolete.md", "plots/logo.png"):
        assert any("CONFLICT" in line and name in line for line in printed.splitlines()), printed

    assert conflicting.run("git", "commit", "--message", "Too early").returncode != 0
    conflicting.git("checkout", "--theirs", "plots/logo.png")
    conflicting.git("checkout", "--ours", "Makefile")
    finish, _ = (line.partition(": ")[2] for line in printed.splitlines() if "&&" in line)
    assert conflicting.run("sh", "-c", finish).returncode == 0
    assert conflicting.git("status", "--porcelain") == ""
    assert (conflicting.path / "plots/logo.png").read_bytes() == b"\x00theirs"
    assert conflicting.git("rev-parse", "HEAD^") == conflicting.git("rev-parse", "main")


@pytest.mark.parametrize("start", ["on a branch", "on none", "on one that a tag is called, too"])
def test_an_update_with_conflicts_can_be_dropped(
    conflicting: Folder, update: Update, start: str
) -> None:
    if start == "on none":
        conflicting.git("switch", "--quiet", "--detach")
    elif "tag" in start:
        conflicting.git("tag", "main")
    before = conflicting.state()
    printed = report(update(conflicting))
    _, drop = (line.partition(": ")[2] for line in printed.splitlines() if "&&" in line)
    assert conflicting.run("sh", "-c", drop).returncode == 0
    assert conflicting.state() == before


def test_renames_that_contradict_each_other_keep_both(
    project: Folder, template: Folder, update: Update
) -> None:
    project.git("mv", "docs/notes.md", "docs/mine.md")
    project.git("rm", "--quiet", "tools/second.sh")
    project.commit()
    template.git("mv", f"{INSIDE}/docs/notes.md", f"{INSIDE}/docs/theirs.md")
    template.git("mv", f"{INSIDE}/tools/second.sh", f"{INSIDE}/tools/renamed.sh")
    template.commit()
    printed = report(update(project))
    assert project.read("docs/mine.md") == project.read("docs/theirs.md")
    assert "CONFLICT (rename/rename)" in printed
    assert not (project.path / "tools/renamed.sh").exists()
    assert "stays deleted, although the template changed it: tools/renamed.sh" in printed


# -- questions -------------------------------------------------------------------------------------


@pytest.fixture
def asking(template: Folder) -> str:
    """The template with a question more and one fewer; its commit."""
    questions = {
        "project": "digits",
        "region": "{{cookiecutter.project}}-region",
        "__prompts__": {"region": "Where?"},
    }
    template.write("cookiecutter.json", json.dumps(questions))
    template.edit(f"{INSIDE}/Makefile", "{{cookiecutter.owner}}", "{{cookiecutter.region}}")
    return template.commit()


def test_without_a_terminal_a_new_question_takes_its_default(
    project: Folder, asking: str, update: Update
) -> None:
    printed = report(update(project))
    assert "asks for region, which is new: the default 'odd-1-region' is taken\n" in printed
    assert "no longer asks for owner: 'Odd-Owner' is dropped\n" in printed
    assert "# of odd-1-region\n" in project.read("Makefile")
    answers = json.loads(project.read(".template.json"))["answers"]
    assert answers == {"project": "odd-1", "region": "odd-1-region"}


def test_on_a_terminal_a_new_question_is_asked(project: Folder, asking: str, code: str) -> None:
    person, terminal = pty.openpty()
    os.write(person, b"mars\n")
    result = subprocess.run(
        [sys.executable, "-m", "delivery", "update"],
        cwd=project.path,
        env=clean_environment() | GIT | {"PYTHONPATH": code},
        stdin=terminal,
        capture_output=True,
        text=True,
    )
    os.close(terminal)
    os.close(person)
    assert result.returncode == 0, result.stderr
    assert "Where? [odd-1-region]: " in result.stdout
    assert "# of mars\n" in project.read("Makefile")


def test_an_answer_that_is_missing_is_named(
    project: Folder, template: Folder, update: Update
) -> None:
    origin = json.loads(project.read(".template.json"))
    del origin["answers"]["owner"]
    project.write(".template.json", json.dumps(origin))
    project.commit()
    template.commit()
    before = project.state()
    assert ".template.json has no answer to owner: add it" in refusal(update(project))
    assert project.state() == before
    origin["answers"]["owner"] = "ours"
    project.write(".template.json", json.dumps(origin))
    project.commit()
    report(update(project))


# -- where the template is, and which commit -------------------------------------------------------


@pytest.mark.parametrize("kind", ["bare clone", "file address"])
def test_the_template_may_be_anywhere(
    kind: str, project: Folder, template: Folder, update: Update
) -> None:
    template.edit(f"{INSIDE}/params.yaml", "line 10\n", NEWER)
    newest = template.commit()
    address = f"file://{template.path}"
    if kind == "bare clone":
        address = f"{template.path}.git"
        template.git("clone", "--quiet", "--bare", ".", address)
        shutil.rmtree(template.path)
    origin = json.loads(project.read(".template.json"))
    project.write(".template.json", json.dumps(origin | {"address": address}))
    project.commit()
    report(update(project))
    assert NEWER in project.read("params.yaml")
    assert json.loads(project.read(".template.json")) == origin | {
        "address": address,
        "commit": newest,
    }


def test_a_tag_may_be_asked_for_and_the_next_update_goes_on_from_there(
    project: Folder, template: Folder, update: Update
) -> None:
    template.edit(f"{INSIDE}/params.yaml", "line 10\n", NEWER)
    tagged = template.commit()
    template.git("tag", "v1")
    template.edit(f"{INSIDE}/params.yaml", NEWER, "line 10, newest\n")
    template.commit()
    report(update(project, "--to", "v1"))
    assert NEWER in project.read("params.yaml")
    assert project.git("branch", "--show-current") == f"template/{tagged[:12]}"
    project.edit("params.yaml", "line 15\n", "line 15, mine\n")
    project.commit()
    report(update(project))
    assert "line 10, newest\n" in project.read("params.yaml")
    assert "line 15, mine\n" in project.read("params.yaml")


# -- refusals, each a sentence, after which all is as it was ---------------------------------------


def no_origin(project: Folder) -> None:
    project.git("rm", "--quiet", ".template.json")
    project.commit()


def no_commit(project: Folder) -> None:
    project.edit(".template.json", '"commit": "', '"commit": null, "other": "')
    project.commit()


def no_template(project: Folder) -> None:
    shutil.rmtree(project.path.parent / "template")


def unknown_commit(project: Folder) -> None:
    commit = json.loads(project.read(".template.json"))["commit"]
    project.edit(".template.json", commit, "0" * 40)
    project.commit()


def ignored_file(project: Folder) -> None:
    template = Folder(project.path.parent / "template")
    template.write(f"{INSIDE}/notes.log", "the template's\n")
    template.commit()
    project.write(".gitignore", "*.log\n")
    project.commit()
    project.write("notes.log", "mine\n")


def broken_template(project: Folder) -> None:
    template = Folder(project.path.parent / "template")
    template.write(f"{INSIDE}/Makefile", "{{ cookiecutter.nobody }}\n")
    template.commit()


REFUSALS = {
    "a dirty tree": (
        lambda project: project.write("own.txt", "mine"),
        "the working tree is not what is committed (own.txt): commit or stash it",
    ),
    "no origin": (no_origin, "there is no .template.json, which says what this project was made"),
    "no commit": (no_commit, ".template.json: "),
    "no template": (no_template, "/template, as .template.json says, cannot be cloned: "),
    "an unknown commit": (unknown_commit, f"has no commit or tag '{'0' * 40}'"),
    "an ignored file in the way": (ignored_file, "would be overwritten by checkout: notes.log"),
    "a broken template": (broken_template, "made no project: "),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_is_a_sentence_and_changes_nothing(
    reason: str, project: Folder, update: Update
) -> None:
    change, sentence = REFUSALS[reason]
    change(project)
    before = project.state()
    assert sentence in refusal(update(project))
    assert project.state() == before


def test_an_origin_that_was_written_is_updated_from(project: Folder, update: Update) -> None:
    origin = project.read(".template.json")
    no_origin(project)
    assert "write and commit it as docs/updating.md of the template says" in (
        refusal(update(project))
    )
    project.write(".template.json", origin)
    project.git("add", "--force", ".template.json")
    project.commit()
    assert update(project).returncode == 0


def test_settings_of_the_project_reach_its_template(
    project: Folder, template: Folder, tmp_path: Path, update: Update
) -> None:
    connect = f'eval "$(echo "$last" | sed "s#\'.*\'#\'{template.path}\'#")"'
    script = tmp_path / "connect"
    script.write_text(f'#!/bin/sh\nfor last; do :; done; test "$1" != -G || exit 1\n{connect}\n')
    script.chmod(0o755)
    project.git("config", "core.sshCommand", str(script))
    project.edit(".template.json", "../template", "git@git.example.com:acme/template.git")
    project.commit()
    newest = template.commit()
    assert f"branch template/{newest[:12]} is checked out" in report(update(project))


def test_what_a_user_has_git_ignore_is_updated_too(
    project: Folder, template: Folder, tmp_path: Path, update: Update
) -> None:
    (tmp_path / "ignored").write_text("*.md\n")
    project.git("config", "core.excludesFile", str(tmp_path / "ignored"))
    (project.path / ".git/info/exclude").write_text("*.md\n")
    template.edit(f"{INSIDE}/docs/notes.md", "line 10\n", "line 10, newer\n")
    template.commit()
    report(update(project))
    assert "line 10, newer\n" in project.read("docs/notes.md")


def test_an_unknown_tag_is_a_sentence(project: Folder, update: Update) -> None:
    before = project.state()
    assert "has no commit or tag 'v9'" in refusal(update(project, "--to", "v9"))
    assert project.state() == before


def test_a_second_update_to_the_same_commit_says_that_there_is_one(
    project: Folder, template: Folder, update: Update
) -> None:
    newest = template.commit()
    project.git("branch", f"template/{newest[:12]}")
    before = project.state()
    assert f"git branch --delete --force template/{newest[:12]}" in refusal(update(project))
    assert project.state() == before


@pytest.mark.parametrize("way", ["goes on with it", "start anew"])
def test_either_way_out_of_a_branch_that_is_there_works(
    way: str, project: Folder, template: Folder, update: Update
) -> None:
    newest = template.commit()
    project.git("branch", f"template/{newest[:12]}")
    said = refusal(update(project))
    switch, delete = re.findall("`([^`]+)`", said)
    assert way in said
    subprocess.run(switch if way == "goes on with it" else delete, shell=True, cwd=project.path)
    if way == "start anew":
        report(update(project))
    assert project.git("branch", "--show-current") == f"template/{newest[:12]}"


def test_an_answer_that_was_added_and_an_origin_that_was_committed_are_taken(
    project: Folder, template: Folder, update: Update
) -> None:
    origin = project.read(".template.json")
    template.edit(f"{INSIDE}/params.yaml", "line 10\n", NEWER)
    template.commit()
    project.git("rm", "--quiet", "--cached", ".template.json")
    project.git("commit", "--quiet", "-m", "Forget the origin")
    project.write(".gitignore", ".template.json\n")
    project.git("add", ".gitignore")
    project.git("commit", "--quiet", "-m", "Ignore it")
    said = refusal(update(project))
    assert "`git add --force .template.json` and commit it" in said
    subprocess.run("git add --force .template.json", shell=True, cwd=project.path, check=True)
    project.git("commit", "--quiet", "-m", "Note the origin")
    assert project.read(".template.json") == origin
    report(update(project))
    assert NEWER in project.read("params.yaml")


def stand_in_for_git(folder: Path, script: str) -> dict[str, str]:
    """Put a script before Git, which goes on with it."""
    folder.mkdir()
    (folder / "git").write_text(f'#!/bin/sh\n{script}\nexec {shutil.which("git")} "$@"\n')
    (folder / "git").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_an_old_git_is_a_sentence(project: Folder, tmp_path: Path, update: Update) -> None:
    before = project.state()
    script = '[ "$1" = version ] && echo git version 2.37.1 && exit'
    path = stand_in_for_git(tmp_path / "bin", script)
    assert "cannot merge apart from a checkout: install 2.38 or newer" in (
        said := refusal(update(project, **path))
    )
    assert "git version 2.37.1" in said and project.state() == before
    assert update(project).returncode == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have what the test starts take an interrupt, which background jobs ignore."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.parametrize(
    ("step", "name"),
    [("clone", "INT"), ("merge-tree", "INT"), ("merge-tree", "KILL")],
)
def test_interrupted_the_checkout_is_as_it_was(
    step: str,
    name: str,
    interruptible: None,
    project: Folder,
    template: Folder,
    tmp_path: Path,
    update: Update,
) -> None:
    change_the_template(template)
    before = project.state()
    script = f'case " $* " in *" {step} "*) kill -s {name} $PPID; exit 1;; esac'
    path = stand_in_for_git(tmp_path / "bin", script)
    (tmp_path / "temporary").mkdir()
    stopped = update(project, TMPDIR=str(tmp_path / "temporary"), **path)
    assert stopped.returncode == (130 if name == "INT" else -9), stopped.stderr
    assert project.state() == before
    if name == "INT":
        assert stopped.stderr == "error: interrupted\n"
        assert not list((tmp_path / "temporary").iterdir())
    else:
        report(update(project))


def test_the_last_step_is_not_interrupted(
    interruptible: None, conflicting: Folder, tmp_path: Path, update: Update
) -> None:
    script = 'case " $* " in *" switch "*) kill -s INT $PPID;; esac'
    path = stand_in_for_git(tmp_path / "bin", script)
    assert update(conflicting, **path).returncode == 130
    assert "UU Makefile" in conflicting.git("status", "--porcelain")


# -- this template ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def this_template(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A clone of this template whose newest commit is what the tests run on."""
    folder = Folder(tmp_path_factory.mktemp("real") / "template")
    known = subprocess.run(["git", "cat-file", "-e", BEFORE_UPDATES], cwd=TEMPLATE)
    if known.returncode:
        pytest.skip(f"this clone's history does not reach back to {BEFORE_UPDATES[:12]}")
    clone = ["git", "clone", "--quiet", "--shared", "--no-checkout", TEMPLATE, folder.path]
    subprocess.run(clone, check=True, env=os.environ | GIT)
    folder.git("checkout", "--quiet", "-B", "main", BEFORE_UPDATES)
    return folder


def newest_of(this_template: Folder) -> str:
    this_template.git("rm", "-r", "--quiet", ".")
    shutil.copytree(clean_template(), this_template.path, symlinks=True, dirs_exist_ok=True)
    return this_template.commit()


def test_a_project_from_before_updates_comes_to_the_newest_template(
    this_template: Folder, tmp_path: Path, update: Update
) -> None:
    answers = {"project": "odd-1", "github_owner": "Odd-Owner", "approvers": "@odd/one"}
    answers |= {"aws_region": "eu-west-1", "gpu_instance_type": "g5.xlarge"}
    made = cookiecutter(tmp_path, template=this_template.path, **answers)
    assert made.returncode == 0, made.stderr
    project = repository(tmp_path / "odd-1")
    project.write("src/classifier/mine.py", "class Mine: ...\n")
    project.write("argocd/environments/staging/model.yaml", RELEASE)
    origin = {"address": str(this_template.path), "commit": BEFORE_UPDATES, "answers": answers}
    project.write(".template.json", json.dumps(origin))
    project.commit()

    newest = newest_of(this_template)
    printed = report(update(project))
    assert "CONFLICT" not in printed and project.git("status", "--porcelain") == ""
    assert project.read("src/classifier/mine.py") == "class Mine: ...\n"
    assert project.read("argocd/environments/staging/model.yaml") == RELEASE

    fresh = tmp_path / "fresh"
    assert cookiecutter(fresh, template=this_template.path, **answers).returncode == 0
    differing = subprocess.run(
        ["diff", "-rq", "--exclude=.git", project.path, fresh / "odd-1"],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert {line.partition(": ")[2] for line in differing} == {"mine.py", "model.yaml"}, differing
    assert json.loads((fresh / "odd-1/.template.json").read_text()) == json.loads(
        project.read(".template.json")
    )
    assert json.loads(project.read(".template.json"))["commit"] == newest


def test_generation_ends_with_what_it_made_and_what_comes_next(tmp_path: Path) -> None:
    result = cookiecutter(tmp_path, project="odd-1", aws_region="eu-west-1")
    assert result.returncode == 0, result.stderr
    *made, no_repository, following, first, second, third = result.stdout.strip().splitlines()
    assert f"Made odd-1 from {clean_template()}:" in made
    assert "  aws_region         eu-west-1" in made and "  github_owner       acme" in made
    assert no_repository.startswith("The template is no Git repository")
    assert following == "Next:" and first == f"  cd {tmp_path}/odd-1"
    assert "git init --initial-branch=main && git add --all && git commit" in second
    assert third == "  make setup pipeline serve"
    text = (tmp_path / "odd-1/.template.json").read_text()
    assert json.loads(text)["commit"] is None and text.endswith("}\n")


def generate(here: Path, address: str, where: Path, **environment: str) -> tuple[str, str]:
    """Run cookiecutter in a folder; return the project's `.template.json` and what was printed."""
    command = [sys.executable, "-m", "cookiecutter", address, "--no-input", "-o", str(where)]
    result = Folder(here).run(*command, **environment)
    assert result.returncode == 0, result.stderr
    return (where / "digit-classifier/.template.json").read_text(), result.stdout


def test_an_origin_is_noted_without_credentials(tmp_path: Path) -> None:
    home = tmp_path / "home"
    template = repository(home / ".cookiecutters/merge-to-serve")  # as cookiecutter clones
    shutil.copytree(clean_template(), template.path, symlinks=True, dirs_exist_ok=True)
    commit = template.commit()
    for address, noted in (
        ("https://me:s3cret@example.com:8443/b?key=s3cret", "https://example.com:8443/b"),
        ("ssh://git:s3cret@example.com/b.git", "ssh://git@example.com/b.git"),
        ("git@example.com:a/b.git", "git@example.com:a/b.git"),
    ):
        template.git("config", "remote.origin.url", address)
        where = tmp_path / str(len(list(tmp_path.iterdir())))
        text, printed = generate(tmp_path, "merge-to-serve", where, HOME=str(home))
        origin = json.loads(text)
        assert (origin["address"], origin["commit"]) == (noted, commit)
        assert list(origin) == ["address", "commit", "answers"]
        assert next(iter(origin["answers"])) == "project" and "_template" not in origin["answers"]
        assert "s3cret" not in text + printed
    template.write("own.txt", "not committed")
    relative, printed = generate(template.path.parent, "./merge-to-serve", tmp_path / "here")
    assert json.loads(relative)["address"] == str(template.path)
    assert "The template has changes that are not committed" in printed
