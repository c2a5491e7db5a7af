"""Answers: good ones give a project with valid names, bad ones one sentence and no file."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cookiecutter.environment import StrictEnvironment

from conftest import TEMPLATE, UNBAKED, Project, clean_template, cookiecutter

GOOD = {
    "three characters": {"project": "abc"},
    "thirty-two characters": {"project": "a" + 15 * "-b" + "c"},
    "digits inside": {"project": "yolo11-v2"},
    "capitals in the owner": {"github_owner": "Acme-Corp"},
    "a person as approver": {"approvers": "@octocat"},
    "another region": {"aws_region": "us-gov-west-1"},
    "an older GPU": {"gpu_instance_type": "g4dn.12xlarge"},
    "the newest GPU": {"gpu_instance_type": "p6-b200.48xlarge"},
    "a fraction of a GPU": {"gpu_instance_type": "g6f.large"},
}

BAD = {
    "capitals": {"project": "DigitClassifier"},
    "dots": {"project": "digit.classifier"},
    "a leading digit": {"project": "3d-shapes"},
    "64 characters": {"project": 64 * "a"},
    "33 characters": {"project": 33 * "a"},
    "two characters": {"project": "ab"},
    "nothing": {"project": ""},
    "a trailing hyphen": {"project": "digits-"},
    "two hyphens": {"project": "digit--classifier"},
    "an underscore": {"project": "digit_classifier"},
    "a space": {"project": "digit classifier"},
    "a letter beyond ASCII": {"project": "müller"},
    "a leading hyphen": {"project": "-digits"},
    "hyphens alone": {"project": "---"},
    "a look-alike letter": {"project": "d\u0456gits"},
    "wide letters": {"project": "\uff44\uff49\uff47\uff49\uff54\uff53"},
    "digits of another script": {"project": "digits\u0663"},
    "an invisible character": {"project": "dig\u200bits"},
    "text that turns round": {"project": "digits\u202e"},
    "a control character": {"project": "digits\x1b[2J"},
    "a tab": {"project": "digits\tclassifier"},
    "the folder itself": {"project": "."},
    "a hidden folder": {"project": ".git"},
    "a home": {"project": "~"},
    "a very long one": {"project": 255 * "a"},
    "a device on Windows": {"project": "con"},
    "another device on Windows": {"project": "nul"},
    "a numbered device on Windows": {"project": "com1"},
    "the system's namespaces": {"project": "kube"},
    "a namespace's reserved beginning": {"project": "kube-digits"},
    "a bucket's reserved beginning": {"project": "sthree-digits"},
    "a percent sign": {"project": "%s"},
    "an option of a program": {"project": "--help"},
    "a path out of the folder": {"project": "../digits"},
    "an absolute path": {"project": "/tmp/digits"},
    "a single quote": {"project": "digit's"},
    "double quotes": {"project": 'digit"s"'},
    "triple quotes": {"project": 'a"""b'},
    "a backslash": {"project": "digit\\s"},
    "a newline": {"project": "digits\nclassifier"},
    "a trailing newline": {"project": "digits\n"},
    "shell": {"project": "$(touch owned)"},
    "backticks": {"project": "`touch owned`"},
    "Jinja in braces": {"project": "{{ cookiecutter.aws_region }}"},
    "Jinja in the template's delimiters": {"project": "<< 7 * 7 >>"},
    "an owner with a dot": {"github_owner": "acme.inc"},
    "an owner of 40 characters": {"github_owner": 40 * "a"},
    "an owner with quotes": {"github_owner": 'ac"me'},
    "an owner that begins with a hyphen": {"github_owner": "-acme"},
    "an owner of another script": {"github_owner": "\u0430cme"},
    "an owner with a path": {"github_owner": "acme/digits"},
    "no owner": {"github_owner": ""},
    "no approvers": {"approvers": ""},
    "an address for approvers": {"approvers": "team@example.com"},
    "approvers on two lines": {"approvers": "@acme/a\n* @evil"},
    "approvers with a comment": {"approvers": "@acme #"},
    "approvers with a name of 40 characters": {"approvers": f"@{40 * 'a'}/team"},
    "a team of 101 characters": {"approvers": f"@acme/{101 * 'a'}"},
    "no region": {"aws_region": ""},
    "a region in capitals": {"aws_region": "EU-CENTRAL-1"},
    "a region with a quote": {"aws_region": 'eu-central-1"'},
    "a size with digits of another script": {"gpu_instance_type": "g6.\u0664xlarge"},
    "a type with an end of line": {"gpu_instance_type": "g6.xlarge\n"},
    "approvers without @": {"approvers": "acme/ml-platform"},
    "two approvers": {"approvers": "@acme/a @acme/b"},
    "an unknown region": {"aws_region": "eu-central-9"},
    "a zone for a region": {"aws_region": "eu-central-1a"},
    "no GPU": {"gpu_instance_type": "m5.large"},
    "an ARM GPU": {"gpu_instance_type": "g5g.xlarge"},
    "a GPU too old for Triton": {"gpu_instance_type": "p3.2xlarge"},
    "a type without a size": {"gpu_instance_type": "g6"},
}


@pytest.mark.parametrize("answers", GOOD.values(), ids=GOOD)
def test_good_answers_give_a_project(answers: dict[str, str], bake: Callable[..., Project]) -> None:
    project = bake(**answers)
    assert project.folder.name == answers.get("project", "digit-classifier")


# These go the whole way: one of each question, and whatever a command line, a template or a file
# system could take for something else. Of the others the hook is asked, which all ways lead to.
WHOLE = [
    *("capitals", "an owner with quotes", "two approvers", "an unknown region", "no GPU"),
    *("nothing", "a letter beyond ASCII"),
    *("an option of a program", "a path out of the folder", "an absolute path", "a backslash"),
    *("triple quotes", "a newline", "a trailing newline", "a control character", "shell"),
    *("Jinja in braces", "Jinja in the template's delimiters"),
]


@pytest.mark.parametrize("kind", WHOLE)
def test_bad_answers_give_one_sentence_and_no_file(kind: str, tmp_path: Path) -> None:
    result = cookiecutter(tmp_path / "output", **BAD[kind])
    assert result.returncode == 1
    assert not list(tmp_path.glob("output/*")) and not Path("/tmp/digits").exists()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["output"])
    assert "Traceback" not in result.stderr
    shown = named(BAD[kind], result.stderr)
    (value,) = BAD[kind].values()
    if not value.startswith("<<"):  # cookiecutter renders that on the command line: 49 arrives
        assert repr(value)[1:40] in shown


@pytest.mark.parametrize("answers", BAD.values(), ids=BAD)
def test_bad_answers_are_refused_by_the_hook(answers: dict[str, str]) -> None:
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    environment = StrictEnvironment(context={}, **questions["_jinja2_env_vars"])
    hook = environment.from_string((TEMPLATE / "hooks/pre_gen_project.py").read_text())
    with pytest.raises(SystemExit) as refused:
        exec(hook.render(cookiecutter=questions | {"approvers": "@acme/a"} | answers), {})
    (value,) = answers.values()
    assert repr(value)[1:40] in named(answers, str(refused.value))


def named(answers: dict[str, str], said: str) -> str:
    """Return the value in what was said, which names the question, the rule and an example, too."""
    (name,) = answers
    message = re.search(rf"^{name} is (.+): (.+), for example '(.+)'\.$", said, re.M)
    assert message, said
    return message[1]


TYPED = ["# {% for x in y %}", "# {# hidden", "<< undefined", "<< cookiecutter >>", "{{ 7 * 7 }}"]


@pytest.mark.parametrize("value", TYPED)
def test_template_syntax_typed_at_the_prompt_is_an_answer_like_any_other(
    value: str, tmp_path: Path
) -> None:
    result = cookiecutter(tmp_path, typed=f"{value}\n\n\n\n\n")
    assert result.returncode == 1 and not list(tmp_path.iterdir())
    assert f"project is {value!r}: use 3 to 32" in result.stderr


def test_every_question_has_a_prompt_and_a_default_that_works(tmp_path: Path) -> None:
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = [name for name in questions if not name.startswith("_")]
    assert len(asked) <= 6 and list(questions["__prompts__"]) == asked
    result = cookiecutter(tmp_path, typed=len(asked) * "\n")
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert all(prompt in shown for prompt in questions["__prompts__"].values())


def test_a_copy_that_lost_its_links_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "template"
    shutil.copytree(clean_template(), copy, symlinks=True)
    link = copy / UNBAKED.name / "argocd/base"
    link.unlink()
    link.write_text("../../argocd")  # what unpacking a zip archive leaves
    result = cookiecutter(tmp_path / "output", template=copy)
    assert result.returncode == 1 and not list(tmp_path.glob("output/*"))
    assert "argocd/base is not a folder" in result.stderr and "git clone" in result.stderr
    assert cookiecutter(tmp_path / "output").returncode == 0  # from what a clone would hold


def test_what_tools_left_in_a_clone_does_not_come_along(tmp_path: Path) -> None:
    copy = tmp_path / "template"
    shutil.copytree(clean_template(), copy, symlinks=True)
    for cache in ("src/classifier/__pycache__", ".mypy_cache", ".ruff_cache/0.1", ".local"):
        (copy / UNBAKED.name / cache).mkdir(parents=True)
        (copy / UNBAKED.name / cache / "module.pyc").write_bytes(
            b"text at first, then" + b"\xff\xfe{{"
        )
        (copy / UNBAKED.name / cache / "part").write_bytes(b"text at first, then" + b"\xff\xfe<<")
    result = cookiecutter(tmp_path / "output", template=copy)
    assert result.returncode == 0, result.stderr
    made = tmp_path / "output/digit-classifier"
    assert not [path for path in made.rglob("*") if path.name in ("module.pyc", "part")]


def test_a_git_clone_of_the_template_works_too(tmp_path: Path) -> None:
    source = tmp_path / "template"
    shutil.copytree(clean_template(), source, symlinks=True)
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run([*git, *command], cwd=source, check=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(source), str(clone)], check=True)
    result = cookiecutter(tmp_path / "output", template=clone)
    assert result.returncode == 0, result.stderr
    made = tmp_path / "output/digit-classifier"
    assert (made / "argocd/base/triton/rollout.yaml").is_file()
    assert not any(path.is_symlink() for path in made.rglob("*"))


def test_no_project_takes_in_a_namespace_of_the_platform(tmp_path: Path) -> None:
    """Argo CD may put into `<project>-*` what a project's models want."""
    platform = (UNBAKED / "argocd/apps/platform.yaml").read_text()
    names = {name for name in re.findall(r"namespace: ([a-z-]+)}", platform) if "-" in name}
    assert names >= {"argo-rollouts", "kube-system"}
    for name in {name.partition("-")[0] for name in names}:
        result = cookiecutter(tmp_path / "output", project=name)
        assert f"project is {name!r}: use a name that neither" in result.stderr
    assert not list(tmp_path.glob("output/*"))


# -- where something is already --------------------------------------------------------------------

USERS = {  # what a person and the commands have in a project
    ".local/registry/index.json": "images",
    ".local/data/files/md5/00/1": "data",
    "src/classifier/__pycache__/module.pyc": "compiled",
    "infra/cluster/.terraform/terraform.tfstate": "state",
    "data/raw/zero/1.png": "an image",
    "argocd/environments/staging/model.yaml": "a release",
    "notes.md": "notes",
}


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    """A project that somebody works in."""
    folder = tmp_path / "digit-classifier"
    for path, content in USERS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    return folder


def kept(folder: Path) -> dict[str, str]:
    found = {path: folder / path for path in USERS}
    return {path: place.read_text() for path, place in found.items() if place.is_file()}


def own_template(tmp_path: Path, *caches: str) -> Path:
    """A copy of the template in which somebody worked."""
    copy = tmp_path / "template"
    shutil.copytree(clean_template(), copy, symlinks=True)
    for cache in caches:
        (copy / UNBAKED.name / cache).mkdir(parents=True)
        (copy / UNBAKED.name / cache / "part").write_text("of the template")
    return copy


def test_generating_over_a_project_keeps_what_is_its_users(existing: Path) -> None:
    result = cookiecutter(existing.parent, options=["--overwrite-if-exists"])
    assert result.returncode == 0, result.stderr
    assert kept(existing) == USERS and (existing / "params.yaml").is_file()


def test_generating_over_a_project_from_a_template_with_caches_removes_only_those(
    existing: Path, tmp_path: Path
) -> None:
    template = own_template(tmp_path, "tests/__pycache__", ".ruff_cache")
    result = cookiecutter(tmp_path, template=template, options=["--overwrite-if-exists"])
    assert result.returncode == 0, result.stderr
    assert kept(existing) == USERS
    assert not (existing / "tests/__pycache__").exists()
    assert not (existing / ".ruff_cache").exists()


def test_a_template_whose_own_images_would_take_the_place_of_a_projects_is_refused(
    existing: Path, tmp_path: Path
) -> None:
    template = own_template(tmp_path, ".local")
    result = cookiecutter(tmp_path, template=template, options=["--overwrite-if-exists"])
    assert result.returncode == 1 and kept(existing) == USERS
    assert not (existing / "params.yaml").exists()
    assert "generate from a fresh git clone of the template" in result.stderr
    result = cookiecutter(tmp_path, options=["--overwrite-if-exists"])  # which this is
    assert result.returncode == 0 and kept(existing) == USERS


@pytest.mark.parametrize("fault", ["answer", "link", "name"])
def test_a_refusal_in_a_folder_that_is_there_removes_nothing(
    existing: Path, tmp_path: Path, fault: str
) -> None:
    template, answers = own_template(tmp_path), {}
    if fault == "link":
        (template / UNBAKED.name / "argocd/base").unlink()
    if fault == "answer":
        answers = {"aws_region": "moon-1"}
    options = [] if fault == "name" else ["--overwrite-if-exists"]
    before = {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()}
    result = cookiecutter(tmp_path, template=template, options=options, **answers)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    after = {path: path.read_bytes() for path in existing.rglob("*") if path.is_file()}
    assert after == before


def test_a_project_inside_another_repository_is_told_to_be_one_of_its_own(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    result = cookiecutter(tmp_path / "services")
    assert result.returncode == 0, result.stderr
    assert f"It lies in the repository {tmp_path}, but must be the root of one" in result.stdout
    folder = tmp_path / "services/digit-classifier"
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)  # what it says
    result = cookiecutter(tmp_path / "services", options=["--overwrite-if-exists"])
    assert "It lies in" not in result.stdout


def test_another_repository_in_the_environment_is_not_taken_for_the_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Git's hooks set it."""
    subprocess.run(["git", "init", "-q", str(tmp_path / "other")], check=True)
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    commit = [*git, "commit", "-q", "--allow-empty", "-m", "Other"]
    subprocess.run(commit, cwd=tmp_path / "other", check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    result = cookiecutter(tmp_path / "output")
    assert result.returncode == 0, result.stderr
    noted = json.loads((tmp_path / "output/digit-classifier/.template.json").read_text())
    assert noted["commit"] is None and "no Git repository with a commit" in result.stdout


@pytest.mark.parametrize(
    "surroundings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "C"],
)
def test_a_folder_with_any_name_is_generated_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: dict[str, str]
) -> None:
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / "mit Leerzeichen und 'Ümläuten'"
    output.mkdir()
    command = [sys.executable, "-m", "cookiecutter", "--no-input", str(clean_template())]
    result = subprocess.run(command, cwd=output, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert (output / "digit-classifier/params.yaml").is_file()


@pytest.mark.parametrize("end", [">&-", "| true"], ids=["closed", "broken pipe"])
def test_a_project_stays_when_nobody_reads_what_is_printed(tmp_path: Path, end: str) -> None:
    command = f"{sys.executable} -m cookiecutter --no-input {clean_template()} {end}"
    subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "digit-classifier/.template.json").is_file()


def test_generating_leaves_nothing_else_behind(bake: Callable[..., Project]) -> None:
    folder = bake().folder
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not (folder / "hooks").exists() and not list(folder.rglob("*cookiecutter*"))


def test_the_names_made_from_the_longest_project_are_valid(bake: Callable[..., Project]) -> None:
    name = GOOD["thirty-two characters"]["project"]
    assert len(name) == 32 and re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name)
    assert len(f"{name}-production") <= 63  # Kubernetes namespace and Argo CD application
    assert len(f"{name}-tfstate-123456789012") <= 63  # S3 bucket
    assert len(f"{name}-cluster-autoscaler") <= 64  # IAM role
