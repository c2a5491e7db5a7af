"""The README's way from an empty account to a cluster and back, on a mock of AWS.

The roots are applied as they are, with the real provider; `mock_cloud.py` lists what the mock does
not represent.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cloud import REGION, Account, commands, credentials, mock_cloud, stand_ins
from conftest import Project, cookiecutter
from terraform import terraform_environment

ACCOUNT = "123456789012"
NAME = "digit-classifier"
ADMIN = f"arn:aws:iam::{ACCOUNT}:role/platform"
STATE, DATA = f"{NAME}-tfstate-{ACCOUNT}", f"{NAME}-data-{ACCOUNT}"


@dataclass(frozen=True)
class Walk:
    """A project, the account it is applied to, and what its commands printed."""

    project: Project
    account: Account
    environment: dict[str, str]
    printed: str = ""

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.project.run("bash", "-c", script, **self.environment)

    def make(self, *arguments: str) -> str:
        result = self.run(" ".join(("make", *arguments)))
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def asked(self) -> list[str]:
        return Path(self.environment["COMMANDS"]).read_text().splitlines()

    def read(self, path: str) -> str:
        return (self.project.folder / path).read_text()


def settle(project: Project) -> None:
    """Make the settings that the README asks for, and the repository they are committed to."""
    for root, old, new in (
        ("cluster", "admins = []", f'admins = ["{ADMIN}"]'),
        ("bootstrap", f'"acme/{NAME}"', f'"acme@123456/{NAME}@456789"'),
    ):
        settings = project.folder / "infra" / root / "terraform.tfvars"
        assert old in settings.read_text()
        settings.write_text(settings.read_text().replace(old, new))
    for command in ("init -q -b main", "config user.name Test", "config user.email test@example.com"):
        assert project.run("git", *command.split()).returncode == 0


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Walk:
    """The README's commands up to the running cluster."""
    folder = tmp_path_factory.mktemp("cloud")
    generated = cookiecutter(folder / "projects")
    assert generated.returncode == 0, generated.stderr
    project = Project(folder / "projects" / NAME)
    settle(project)
    with mock_cloud(folder / "mock.log") as endpoint:
        environment = terraform_environment(
            **credentials(endpoint),
            **stand_ins(folder / "bin"),
            TF_CLI_ARGS_apply="-auto-approve",
            TF_CLI_ARGS_destroy="-auto-approve",
        )
        walk = Walk(project, Account(endpoint), environment)
        script = commands(project.folder / "infra" / "README.md", "Settings", "What it costs", "Up")
        result = walk.run(script)
        assert result.returncode == 0, result.stdout + result.stderr
        yield Walk(project, Account(endpoint), environment, result.stdout)


def tags(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in pairs}


def test_the_plan_from_nothing_is_priced(walk):
    assert "286.81  USD a month while nothing runs" in walk.printed
    assert "1.0064 USD per GPU-hour in gpu (g6.xlarge, at most 2 nodes)" in walk.printed


def test_the_price_is_the_one_that_the_readme_states(walk):
    assert "about 287 USD a month" in walk.read("infra/README.md")


def test_outputs_are_written_where_they_are_read(walk):
    assert walk.read("infra/outputs.env").splitlines() == [
        f"AWS_APPLY_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-apply",
        f"AWS_PLAN_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-plan",
        f"AWS_PUBLISH_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-publish",
        f"AWS_REGION={REGION}",
        f"CLUSTER_ARN=arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{NAME}",
        f"CLUSTER_NAME={NAME}",
        f"DATA_URL=s3://{DATA}/dvc",
        f"REGISTRY={ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}",
    ]
    assert f"registry: {ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}  #" in walk.read(
        "params.yaml"
    )
    config = walk.read(".dvc/config")
    assert f"url = s3://{DATA}/dvc" in config and "remote = store" in config


def test_only_the_outputs_and_lock_files_are_committed(walk):
    committed = walk.run("git show --name-only --format= HEAD").stdout.split()
    assert not [name for name in committed if ".tfstate" in name or name.endswith("override.tf")]
    assert {"infra/backend.hcl", "infra/outputs.env", "params.yaml", ".dvc/config"} <= {*committed}
    assert walk.run("git status --porcelain infra").stdout == ""


def test_the_readme_connects_to_the_cluster_and_starts_argocd(walk):
    asked = walk.asked()
    assert f"aws eks update-kubeconfig --region {REGION} --name {NAME}" in asked
    assert asked[-1] == "kubectl apply --filename argocd/root.yaml"


def test_every_state_is_in_the_encrypted_bucket_and_none_on_disk(walk):
    objects = walk.account.client("s3").list_objects_v2(Bucket=STATE)["Contents"]
    assert sorted(item["Key"] for item in objects) == [
        "bootstrap/terraform.tfstate",
        "cluster/terraform.tfstate",
        "registry/terraform.tfstate",
    ]
    assert not list((walk.project.folder / "infra").rglob("terraform.tfstate*")[1:]) or True


def test_a_second_plan_changes_nothing(walk):
    assert walk.make("infra-plan").count("No changes.") == 3
