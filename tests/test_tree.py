"""The un-baked tree parses and lints in place; a generated project has exactly its files."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import TEMPLATE, UNBAKED, Project, clean_environment, tracked

TREE = Path(__file__).parent / "tree.txt"
VENDORED = {  # folder of a generated project: folder of the template
    "argocd/base": "argocd",
    "infra/modules": "infra",
    "src/delivery": "delivery",
    "src/reporting": "reporting",
    "src/tuning": "tuning",
    "src/workspace": "workspace",
}

LISTS = ("constraints.txt", "serving/requirements.txt")  # what `make lock` writes, and nobody reads

PARSERS: dict[str, Callable[[str], object]] = {
    ".py": ast.parse,
    ".yaml": lambda text: list(yaml.safe_load_all(text)),
    ".toml": tomllib.loads,
    ".json": json.loads,
}


@pytest.mark.parametrize("suffix", PARSERS)
def test_every_file_of_the_unbaked_tree_parses(suffix: str) -> None:
    paths = [TEMPLATE / path for path in tracked() if path.suffix == suffix]
    paths = [path for path in paths if UNBAKED in path.parents]
    assert paths or suffix == ".json"
    for path in paths:
        PARSERS[suffix](path.read_text())


def test_only_variables_use_the_template_delimiters() -> None:
    variable = re.compile(r"<<cookiecutter\.[a-z_]+>>")
    for path in tracked():
        if path.parts[0] != UNBAKED.name or (TEMPLATE / path).is_symlink():
            continue
        rest = variable.sub("", (TEMPLATE / path).read_text())
        assert "<<" not in rest and "# {%" not in rest and "# {#" not in rest, path


def test_the_template_lints(tmp_path: Path) -> None:
    tools = Path(sys.executable).parent
    for command in (["ruff", "check"], ["ruff", "format", "--check"], ["yamllint", "--strict"]):
        result = subprocess.run(
            [tools / command[0], *command[1:], "."], cwd=TEMPLATE, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stdout + result.stderr


def test_a_generated_project_has_exactly_these_files(bake: Callable[..., Project]) -> None:
    """After a change that is meant, write the new list with `pytest --co` … or by hand."""
    folder = bake().folder
    files = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
    own = [name for name in files if not name.startswith(tuple(f"{each}/" for each in VENDORED))]
    assert own == TREE.read_text().split()
    assert len(own) <= 90, "what an owner must know his way in"
    read = [name for name in own if name not in LISTS]
    assert sum((folder / name).read_text().count("\n") for name in read) <= 11_000
    for vendored, source in VENDORED.items():
        for path in tracked():
            if path.parts[0] == source:
                copy = folder / vendored / path.relative_to(source)
                assert copy.read_bytes() == (TEMPLATE / path).read_bytes()


def test_generated_text_is_clean(bake: Callable[..., Project]) -> None:
    for path in bake(project="odd-1", github_owner="Odd-Owner").folder.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "<<" not in text, path
            # what updates the project runs cookiecutter and says so
            assert "cookiecutter" not in text.lower() or path.name == "template.py", path
            assert not text.startswith("\n") and not text.endswith("\n\n"), path
            assert text.endswith("\n") or not text, path
            assert not re.search(r"[ \t]+$", text, re.M), path


def test_the_answers_arrive(bake: Callable[..., Project]) -> None:
    answers = {
        "project": "odd-1",
        "github_owner": "Odd-Owner",
        "approvers": "@Odd-Owner/deployers",
        "aws_region": "ap-southeast-7",
        "gpu_instance_type": "g6e.48xlarge",
    }
    folder = bake(**answers).folder
    foreign = (*VENDORED, "tests")  # their examples are no answers
    own = [path for path in folder.rglob("*") if path.is_file()]
    own = [path for path in own if not any(folder / part in path.parents for part in foreign)]
    texts = [path.read_text() for path in own]
    for answer in answers.values():
        assert any(answer in text for text in texts), answer
    assert not any("digit-classifier" in text or "acme" in text for text in texts)


def test_nothing_names_this_machine_or_a_package_registry() -> None:
    # Spelt so that the pattern does not find itself.
    traces = re.compile(r"/wor[k]/|/roo[t]/|pyp[i]\.org|pythonhoste[d]|npmj[s]\.|deb\.debia[n]")
    for path in tracked():
        if not (TEMPLATE / path).is_symlink():
            assert not traces.findall((TEMPLATE / path).read_text(errors="replace")), path


def test_the_vendored_folders_are_links() -> None:
    for vendored, source in VENDORED.items():
        assert (UNBAKED / vendored).resolve() == TEMPLATE / source


def test_make_alone_lists_every_target(bake: Callable[..., Project]) -> None:
    for folder in (TEMPLATE, bake().folder):
        command = ["make", "--no-print-directory"]
        environment = clean_environment()
        listed = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=True
        )
        phony = re.findall(r"^\.PHONY: (.*)$", (folder / "Makefile").read_text(), re.M)
        assert set(" ".join(phony).split()) == {
            line.split()[0] for line in listed.stdout.splitlines()
        }
