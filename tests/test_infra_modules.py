"""Terraform modules and roots without a cloud: format, validity, tests, checkov."""

import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import TEMPLATE, UNBAKED
from terraform import terraform_environment

MODULES = sorted(path.parent.name for path in (TEMPLATE / "infra").glob("*/main.tf"))
ROOTS = ["bootstrap", "cluster", "registry"]
CHECKOV = "checkov==3.3.30"  # one version here and in benchmarks/checkov_peers.py
MOST_VARIABLES = 10


def terraform(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments],
        env=terraform_environment(),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The un-baked `infra/`, its link followed: initialising writes into the folders."""
    folder = tmp_path_factory.mktemp("unbaked") / "infra"
    shutil.copytree(UNBAKED / "infra", folder, ignore=shutil.ignore_patterns(".terraform*"))
    return folder


Results = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(tree) -> Results:
    """What `init`, `validate` and (for modules) `test` said of every folder, two at a time."""

    def run(folder: str) -> subprocess.CompletedProcess[str]:
        steps = [("init", "-backend=false"), ("validate",)]
        steps += [("test",)] if folder.startswith("modules/") else []
        for step in steps:
            result = terraform(tree / folder, *step)
            if result.returncode:
                break
        return result

    folders = [*(f"modules/{module}" for module in MODULES), *ROOTS]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(folders, pool.map(run, folders), strict=True))


def test_there_are_the_modules_that_the_design_names():
    assert MODULES == ["ci_identity", "data_store", "gpu_cluster", "network", "registry"]


def test_terraform_is_formatted(tree):
    result = terraform(tree, "fmt", "-check", "-recursive", "-diff")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_valid_and_keeps_its_promises(module, results):
    result = results[f"modules/{module}"]
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("root", ROOTS)
def test_a_root_is_valid_unbaked(root, results):
    result = results[root]
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Warning" not in result.stdout


@pytest.mark.parametrize("module", MODULES)
def test_every_refusal_of_a_module_is_tested(module):
    folder = TEMPLATE / "infra" / module
    tests = (folder / f"{module}.tftest.hcl").read_text()
    for block in re.split(r"^(?=variable )", (folder / "variables.tf").read_text(), flags=re.M):
        if "validation {" in block:
            name = re.match(r'variable "(\w+)"', block)[1]
            assert f"expect_failures = [var.{name}]" in tests, f"no test refuses a bad {name}"


@pytest.mark.parametrize(
    "file",
    [
        *(TEMPLATE / "infra" / name / "variables.tf" for name in MODULES),
        *(UNBAKED / "infra" / name / "variables.tf" for name in ROOTS),
    ],
    ids=lambda file: file.parent.name,
)
def test_variables_are_few_and_typed_and_say_what_they_received(file):
    blocks = re.split(r"^(?=variable )", file.read_text(), flags=re.M)[1:]
    assert len(blocks) <= MOST_VARIABLES
    for block in blocks:
        name = re.match(r'variable "(\w+)"', block)[1]
        assert re.search(r"^  type +=", block, re.M), name
        assert re.search(r"^  description +=", block, re.M), name
        if not re.search(r"^  type +=? bool", block, re.M):
            messages = re.findall(r"error_message = (.*)", block)
            assert messages, f"{name} takes anything"
            assert all(f"var.{name}" in message for message in messages), name


def test_answers_stand_only_in_terraform_tfvars():
    files = [path for root in ROOTS for path in (UNBAKED / "infra" / root).glob("*.tf*")]
    assert {path.name for path in files if "cookiecutter" in path.read_text()} == {
        "terraform.tfvars"
    }


def test_every_root_has_the_same_project_and_region():
    answers = {
        (UNBAKED / "infra" / root / "terraform.tfvars").read_text().split("\n\n")[0].strip()
        for root in ROOTS
    }
    assert len(answers) == 1


def test_nothing_is_used_that_version_6_of_the_provider_removed(tree):
    removed = r"\bvpc += true|resolve_conflicts +=|log_group_name|current\.name\b|elastic_gpu"
    for file in tree.rglob("*.tf"):
        assert not re.search(removed, file.read_text()), file


def test_checkov_finds_nothing_and_skips_at_most_eight_with_reasons(tree):
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--directory", str(tree)]
    command += ["--framework", "terraform", "--skip-download", "--output", "json"]
    result = subprocess.run(command, env=terraform_environment(), capture_output=True, text=True)
    report = json.loads(result.stdout)
    assert report["summary"]["resource_count"] > 60, "checkov did not see the resources"
    assert report["summary"]["parsing_errors"] == 0
    assert [
        (check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]
    ] == []
    assert report["summary"]["skipped"] <= 8
    for check in report["results"]["skipped_checks"]:
        assert len(check["check_result"]["suppress_comment"]) > 40, check["check_id"]
