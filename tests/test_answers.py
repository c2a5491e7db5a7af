"""Answers: good ones give a project with valid names, bad ones one sentence and no file."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("answers", BAD.values(), ids=BAD)
def test_bad_answers_give_one_sentence_and_no_file(answers: dict[str, str], tmp_path: Path) -> None:
    ((name, value),) = answers.items()
    result = cookiecutter(tmp_path / "output", **answers)
    assert result.returncode == 1
    assert not list(tmp_path.glob("output/*")) and not Path("/tmp/digits").exists()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["output"])
    assert "Traceback" not in result.stderr
    message = re.search(rf"^{name} is (.+): (.+), for example '(.+)'\.$", result.stderr, re.M)
    assert message, result.stderr
    if not value.startswith("<<"):  # cookiecutter renders that on the command line: 49 arrives
        assert repr(value)[1:40] in message[1]


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
