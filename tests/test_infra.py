"""Terraform: without a cloud, then from an empty account to a cluster and back, on a mock of AWS.

The roots are applied as they are, with the real provider, by the commands of the generated README;
`mock_cloud.py` lists what the mock does not represent. Terraform mostly waits meanwhile, so the
tests that need no cloud run in that time.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

import fake_argo_cd
import rendering
from cloud import REGION, Account, commands, credentials, mock_cloud, stand_ins
from conftest import TEMPLATE, UNBAKED, Project, cookiecutter
from delivery.checks.pod_security import pod_templates
from terraform import shared_provider, terraform_environment

MODULES = sorted(path.parent.name for path in (TEMPLATE / "infra").glob("*/main.tf"))
ROOTS = ["bootstrap", "cluster", "registry"]
CHECKOV = "checkov==3.3.30"  # one version here and in benchmarks/checkov_peers.py
CHECKED = ["dockerfile", "github_actions", "terraform"]
MOST_VARIABLES = 10
GPU = "nvidia.com/gpu"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


ACCOUNT = "123456789012"
NAME = "digit-classifier"
ADMIN = f"arn:aws:iam::{ACCOUNT}:role/platform"
STATE, DATA = f"{NAME}-tfstate-{ACCOUNT}", f"{NAME}-data-{ACCOUNT}"


ADDONS = (
    *("aws-ebs-csi-driver", "coredns", "eks-node-monitoring-agent", "eks-pod-identity-agent"),
    *("kube-proxy", "vpc-cni"),
)


@dataclass(frozen=True)
class Walk:
    """A project, the account it is applied to, and what its commands printed."""

    project: Project
    account: Account
    environment: dict[str, str]
    printed: Path

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


def settle(project: Project, secret: str) -> None:
    """Make the settings that the README asks for, and the repository they are committed to.

    Others' images come by way of ECR, so that what this makes is walked, too.
    """
    for root, old, new in (
        (
            "registry",
            "image_cache = null",
            f'image_cache = {{ docker_hub_credential_arn = "{secret}" }}',
        ),
        ("cluster", "admins = []", f'admins = ["{ADMIN}"]'),
        ("bootstrap", f'"acme/{NAME}"', f'"acme@123456/{NAME}@456789"'),
    ):
        settings = project.folder / "infra" / root / "terraform.tfvars"
        assert old in settings.read_text()
        settings.write_text(settings.read_text().replace(old, new))
    for command in (
        "init -q -b main",
        "config user.name Test",
        "config user.email test@example.com",
        "init -q --bare -b main ../origin.git",
        "remote add origin ../origin.git",
        "config branch.main.remote origin",  # as the first push does, of the code
        "config branch.main.merge refs/heads/main",
    ):
        assert project.run("git", *command.split()).returncode == 0


@pytest.fixture(scope="module", autouse=True)
def climb(request, tmp_path_factory) -> Iterator[tuple[Walk, subprocess.Popen[str]] | None]:
    """Start on the README's commands up to the running cluster, where a test wants them."""
    if not any("walk" in item.fixturenames for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("cloud")
    generated = cookiecutter(folder / "projects")
    assert generated.returncode == 0, generated.stderr
    project = Project(folder / "projects" / NAME)
    with mock_cloud(folder / "mock.log") as endpoint:
        account = Account(endpoint)
        secret = account.client("secretsmanager").create_secret(
            Name="ecr-pullthroughcache/docker-hub",
            SecretString='{"username": "acme", "accessToken": "a"}',
        )
        settle(project, secret["ARN"])
        environment = terraform_environment(
            **credentials(endpoint),
            **stand_ins(folder / "bin"),
            TF_CLI_ARGS_apply="-auto-approve",
            TF_CLI_ARGS_destroy="-auto-approve",
        )
        way_up = ("Settings", "What it costs", "Up", "Argo CD")
        script = commands(project.folder / "infra" / "README.md", *way_up)
        with (folder / "printed").open("w") as printed:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=project.folder,
                env=environment,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )
            yield Walk(project, account, environment, folder / "printed"), process
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def walk(climb) -> Iterator[Walk]:
    """The end of the README's way up; from here on one provider answers all of Terraform."""
    walk, process = climb
    assert process.wait(timeout=900) == 0, walk.printed.read_text()
    settings = credentials(walk.account.endpoint)
    with shared_provider(walk.project.folder / "infra/registry", **settings) as provider:
        yield replace(walk, environment=walk.environment | provider)


def terraform(
    folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["terraform", f"-chdir={folder}", *arguments],
        env=terraform_environment(**environment),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The un-baked `infra/`, its link followed: initialising writes into the folders."""
    folder = tmp_path_factory.mktemp("unbaked") / "infra"
    shutil.copytree(UNBAKED / "infra", folder, ignore=shutil.ignore_patterns(".terraform*"))
    shutil.copy(TEMPLATE / "tests/cluster.tftest.hcl", folder / "cluster")
    return folder


Results = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def results(tree) -> Results:
    """What Terraform said of every folder, two at a time; `test` validates before it runs.

    The first to be initialised brings the provider, which the others are told of. That it is of a
    version that all of them want is seen when the roots are applied.
    """

    def init(folder: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return terraform(tree / folder, "init", "-backend=false", **environment)

    first, *others = [*(f"modules/{module}" for module in MODULES), *ROOTS]
    begun = init(first)
    if begun.returncode:
        return dict.fromkeys([first, *others], begun)
    with shared_provider(tree / first) as environment, ThreadPoolExecutor(2) as pool:

        def judge(folder: str) -> subprocess.CompletedProcess[str]:
            if folder != first and (failed := init(folder, **environment)).returncode:
                return failed
            command = "test" if [*(tree / folder).glob("*.tftest.hcl")] else "validate"
            return terraform(tree / folder, command, **environment)

        folders = [first, *others]
        judged = dict(zip(folders, pool.map(judge, folders), strict=True))
        # A graph is drawn only where the state has a place.
        (tree / "cluster/backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')
        terraform(tree / "cluster", "init", **environment)
        return judged | {"graph": terraform(tree / "cluster", "graph", **environment)}


def test_there_are_the_modules_that_the_design_names():
    assert MODULES == [
        "budget",
        "ci_identity",
        "data_store",
        "gpu_cluster",
        "image_cache",
        "network",
        "registry",
        "training_identity",
    ]


def test_a_generated_project_is_formatted_whatever_the_answers(bake):
    project = bake(project="odd-1", github_owner="Odd-Owner", gpu_instance_type="g6e.48xlarge")
    result = terraform(project.folder / "infra", "fmt", "-check", "-recursive", "-diff")
    assert result.returncode == 0, result.stdout


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


def test_nodes_are_made_when_there_is_a_way_out_and_go_before_it(results):
    """Or machines start that cannot join, and stay while they cannot say that they leave."""
    waits: dict[str, set[str]] = {}
    for each, other in re.findall(r'"([^"]+)" -> "([^"]+)"', results["graph"].stdout):
        waits.setdefault(each, set()).add(other)
    system, gpu = (f"module.gpu_cluster.aws_eks_node_group.{each}" for each in ("system", "gpu"))
    for nodes in (gpu, system):
        found = {nodes}
        while more := {other for each in found for other in waits.get(each, ())} - found:
            found |= more
        assert {f"module.network.aws_{each}" for each in ("route.nat", "vpc_endpoint.s3")} <= found
    assert system in waits[gpu], "an upgrade moves the platform while servers move"


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


@pytest.mark.parametrize("root", ROOTS)
def test_every_setting_of_a_root_is_handed_on(root):
    """Each variable, as a whole or in each of its fields."""
    folder = UNBAKED / "infra" / root
    text = "".join(path.read_text() for path in folder.glob("*.tf") if path.name != "variables.tf")
    blocks = re.split(r"^(?=variable )", (folder / "variables.tf").read_text(), flags=re.M)[1:]
    for block in blocks:
        name = re.match(r'variable "(\w+)"', block)[1]
        fields = re.findall(r"^    (\w+) += (?:optional|number|set|string)\b", block, re.M)
        if re.search(rf"= var\.{name}$", text, re.M):
            fields = []
        for each in [name, *(f"{name}.{field}" for field in fields)]:
            assert re.search(rf"\bvar\.{re.escape(each)}\b", text), f"{each} changes nothing"


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
    """In Terraform, workflows and the Dockerfile."""
    shutil.copytree(UNBAKED / ".github", tree.parent / ".github")
    shutil.copy(UNBAKED / "Dockerfile", tree.parent)
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--directory", str(tree.parent)]
    command += ["--framework", *CHECKED, "--skip-download", "--output", "json"]
    result = subprocess.run(command, env=terraform_environment(), capture_output=True, text=True)
    reports = {report["check_type"]: report for report in json.loads(result.stdout)}
    assert [*sorted(reports)] == CHECKED
    assert reports["terraform"]["summary"]["resource_count"] > 60, "it did not see the resources"
    skipped = []
    for kind, report in reports.items():
        assert report["summary"]["parsing_errors"] == 0, kind
        assert [
            (check["check_id"], check["resource"]) for check in report["results"]["failed_checks"]
        ] == [], kind
        assert report["summary"]["passed"] > 50, kind
        skipped += report["results"]["skipped_checks"]
    assert reports["terraform"]["summary"]["skipped"] <= 8
    assert len({(check["check_id"], check["file_path"]) for check in skipped}) <= 8
    for check in skipped:
        assert len(check["check_result"]["suppress_comment"]) > 40, check["check_id"]


# The workflows that plan and apply.

WORKFLOWS = UNBAKED / ".github/workflows"


@pytest.fixture(params=["infra-plan", "infra-apply"])
def workflow(request) -> dict:
    text = (WORKFLOWS / f"{request.param}.yaml").read_text()
    assert len(text.splitlines()) <= 40
    return yaml.safe_load(text)


def test_steps_are_commands_of_the_project_and_actions_are_pinned(workflow):
    makefile = (UNBAKED / "Makefile").read_text()
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "run" in step:
                program, *words = step["run"].split(' ROOTS="')[0].split()
                assert program == "make"
                for target in words:
                    assert "=" in target or f"\n{target}: " in makefile, target
            else:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]), step
        assert re.findall(r'ROOTS="([^"]*)"', str(job)) == ["registry cluster"]


def test_a_fork_gets_no_plan_and_nobody_else_the_comment():
    workflow = yaml.safe_load((WORKFLOWS / "infra-plan.yaml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["if"] == "github.event.pull_request.head.repo.full_name == github.repository"
    assert workflow[True] == {"pull_request": {"paths": ["infra/**"]}}  # YAML's `on`
    assert workflow["permissions"] == {}
    assert job["permissions"] == {
        "contents": "read",
        "id-token": "write",
        "pull-requests": "write",
    }


def test_what_was_planned_is_applied_from_the_branch_and_the_environment_that_roles_trust():
    workflow = yaml.safe_load((WORKFLOWS / "infra-apply.yaml").read_text())
    variables = (TEMPLATE / "infra/ci_identity/variables.tf").read_text()
    defaults = dict(re.findall(r'variable "(\w+)" \{[^}]*?default += "([^"]*)"', variables))
    assert workflow[True]["push"]["branches"] == [defaults["branch"]]
    assert "environment" not in workflow["jobs"]["plan"]
    job = workflow["jobs"]["apply"]
    assert (job["environment"], job["needs"]) == (defaults["environment"], "plan")
    assert "PLANNED=true" in job["steps"][-1]["run"]
    assert "AWS_APPLY_ROLE" not in str(workflow["jobs"]["plan"])
    assert workflow["permissions"] == {} and "env" not in workflow
    assert "actions" not in workflow["jobs"]["plan"]["permissions"]


# What Git asks of the nodes.

OF_THE_TYPE = {"cpu", "memory"}  # the autoscaler knows these of every instance type


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> list[dict]:
    """Everything of a project with releases and a training run, as Argo CD renders it."""
    folder = tmp_path_factory.mktemp("asked")
    assert cookiecutter(folder).returncode == 0
    argocd = folder / NAME / "argocd"
    rendering.release_everywhere(argocd)
    overlays = [*argocd.glob("environments/*"), argocd / "training"]
    return [each for overlay in overlays for each in rendering.build(overlay)]


def asked_of_gpu_nodes(manifests: list[dict]) -> list[str]:
    """Names of the resources that pods with a GPU ask for."""
    return [
        name
        for manifest in manifests
        for pod in pod_templates(manifest).values()
        if GPU in json.dumps(pod["spec"])
        for container in pod["spec"]["containers"]
        for kind in ("requests", "limits")
        for name in container.get("resources", {}).get(kind, {})
    ]


def gpus(pod: dict) -> int:
    return sum(
        int(container.get("resources", {}).get("limits", {}).get(GPU, 0))
        for container in pod["spec"]["containers"]
    )


def test_gpu_nodes_are_enough_for_all_that_git_asks_for(asked):
    """All environments and a training run, and as many environments as change versions at once."""
    servers = [each for each in asked if each["kind"] == "Rollout"]
    assert len(servers) == 2
    serving, surges = 0, 0
    for rollout in servers:
        each = gpus(rollout["spec"]["template"])
        serving += each * rollout["spec"]["replicas"]
        surges += each * rollout["spec"]["strategy"]["canary"]["maxSurge"]
    (run,) = (each for each in asked if each["kind"] == "RayJob")
    training = sum(
        gpus(group["template"]) * group["replicas"]
        for group in run["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    )
    assert (serving, surges, training) == (3, 2, 2)
    settings = (UNBAKED / "infra/cluster/terraform.tfvars").read_text()
    most = int(re.search(r"max = (\d+)", settings)[1])  # nodes, each of one GPU at least
    assert most >= serving + surges and most >= serving + 1 + training
    sentence = settings.replace("\n# ", " ")
    assert "staging 1, production 2, one more while a version changes, and 2 for a training" in (
        sentence
    )
    for variables in (TEMPLATE / "infra/gpu_cluster", UNBAKED / "infra/cluster"):
        text = (variables / "variables.tf").read_text()
        assert re.search(rf"max +=.optional\(number, {most}\)", text), variables


def test_what_pods_with_gpus_ask_for_is_known_of_nodes_that_are_not_there(asked):
    named = asked_of_gpu_nodes(asked)
    assert "ephemeral-storage" in named and GPU in named
    hints = (TEMPLATE / "infra/gpu_cluster/instance_types.tf").read_text()
    for name in {*named} - OF_THE_TYPE:
        assert f'}}/resources/{name}"' in hints


def test_one_minor_version_of_kubernetes_is_meant_everywhere(asked):
    """Add-ons and images of nodes follow the cluster's by themselves."""
    found = {
        re.search(r'default += "(1\.\d+)"', (folder / "variables.tf").read_text())[1]
        for folder in (TEMPLATE / "infra/gpu_cluster", UNBAKED / "infra/cluster")
    }
    scaler = (TEMPLATE / "argocd/platform/controllers/cluster-autoscaler.yaml").read_text()
    found |= {re.search(r"image: \{tag: v(1\.\d+)\.", scaler)[1]}
    labels = {
        match
        for path in (TEMPLATE / "argocd").rglob("*.yaml")
        for match in re.findall(r"enforce-version: v(1\.\d+)", path.read_text())
    }
    assert found == labels and len(labels) == 1


# On the mock of AWS.


def tags(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["Key"]: pair["Value"] for pair in pairs}


def test_the_plan_from_nothing_is_priced(walk):
    assert "287.81  USD a month while nothing runs" in walk.printed.read_text()
    assert "1.0064 USD per GPU-hour in gpu (g6.xlarge, at most 6 nodes)" in walk.printed.read_text()


def test_the_price_is_the_one_that_the_readme_states(walk):
    assert "about 288 USD a month" in walk.read("infra/README.md")


def test_outputs_are_written_where_they_are_read(walk):
    assert walk.read("infra/outputs.env").splitlines() == [
        f"AWS_APPLY_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-apply",
        f"AWS_PLAN_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-plan",
        f"AWS_PUBLISH_ROLE=arn:aws:iam::{ACCOUNT}:role/{NAME}-publish",
        f"AWS_REGION={REGION}",
        f"CLUSTER_ARN=arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{NAME}",
        f"CLUSTER_NAME={NAME}",
        f"DATA_URL=s3://{DATA}/dvc",
        f"IMAGE_CACHE={ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com",
        f"REGISTRY={ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}",
        f"TRAINING_REGISTRY={ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}-training",
    ]
    address = re.escape(f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{NAME}")
    params = walk.read("params.yaml")
    assert re.search(rf"^release:\n  registry: {address} +# a folder", params, re.M), params
    config = walk.read(".dvc/config")
    assert f"url = s3://{DATA}/dvc" in config and "remote = store" in config


def test_only_the_outputs_and_lock_files_are_committed(walk):
    committed = walk.run("git show --name-only --format= HEAD").stdout.split()
    assert not [name for name in committed if ".tfstate" in name or name.endswith("override.tf")]
    assert {"infra/backend.hcl", "infra/outputs.env", "params.yaml", ".dvc/config"} <= {*committed}
    assert walk.run("git status --porcelain infra").stdout == ""
    assert walk.run("git diff origin/main HEAD && git rev-parse origin/main").returncode == 0


def test_the_readme_connects_to_the_cluster_and_starts_argocd(walk):
    asked = walk.asked()
    assert f"aws eks update-kubeconfig --region {REGION} --name {NAME}" in asked
    assert asked[-1] == "kubectl apply --filename argocd/root.yaml"
    assert "-- cluster: The cluster's API does not answer over the internet" in (
        walk.printed.read_text()
    )
    for namespace in (f"{NAME}-production", f"{NAME}-staging"):
        assert f"kubectl create namespace {namespace}" in asked
        secret = f"kubectl --namespace {namespace} create secret generic triton-administration "
        assert any(each.startswith(secret) for each in asked)
    # Grafana's chart reads `admin-user` and `admin-password`, and does not start without them.
    stack = TEMPLATE / "argocd/platform/controllers/kube-prometheus-stack.yaml"
    chart = yaml.safe_load(stack.read_text())
    place, admin = chart["namespace"], chart["settings"]["grafana"]["admin"]
    made = [each for each in asked if f" create secret generic {admin['existingSecret']} " in each]
    assert {*admin} == {"existingSecret"}, "the keys are those that go without saying"
    (login,) = made
    assert login.startswith(f"kubectl --namespace {place} ")
    assert set(re.findall(r" --from-\w+=([\w-]+)=", login)) == {"admin-user", "admin-password"}
    assert asked.index(f"kubectl create namespace {place}") < asked.index(login)


def test_every_state_is_in_the_encrypted_bucket_and_none_on_disk(walk):
    objects = walk.account.client("s3").list_objects_v2(Bucket=STATE)["Contents"]
    assert sorted(item["Key"] for item in objects) == [
        "bootstrap/terraform.tfstate",
        "cluster/terraform.tfstate",
        "registry/terraform.tfstate",
    ]
    left = {path.parent.name for path in walk.project.folder.glob("infra/**/*.tfstate")}
    assert left <= {".terraform"}, "a state lies beside its root"


@pytest.mark.parametrize("root", ROOTS)
def test_a_state_is_encrypted_with_the_key_made_for_it(root, walk):
    key = f"{root}/terraform.tfstate"
    stored = walk.account.client("s3").head_object(Bucket=STATE, Key=key)
    (alias,) = (
        each
        for each in walk.account.client("kms").list_aliases()["Aliases"]
        if each["AliasName"] == f"alias/{STATE}"
    )
    assert stored["ServerSideEncryption"] == "aws:kms"
    assert stored["SSEKMSKeyId"].rpartition("/")[2] == alias["TargetKeyId"]


def test_no_state_lock_is_left(walk):
    objects = walk.account.client("s3").list_objects_v2(Bucket=STATE)["Contents"]
    assert not [item["Key"] for item in objects if item["Key"].endswith(".tflock")]


def test_a_second_plan_changes_nothing(walk):
    with ThreadPoolExecutor(2) as pool:
        for printed in pool.map(lambda root: walk.make("infra-plan", f"ROOTS={root}"), ROOTS):
            assert "No changes." in printed


def test_subnets_are_private_in_three_zones_beside_public_ones(walk):
    ec2 = walk.account.client("ec2")
    found = ec2.describe_subnets(Filters=[{"Name": "tag:Project", "Values": [NAME]}])["Subnets"]
    by_role = {
        role: sorted(subnet["AvailabilityZone"] for subnet in found if role in tags(subnet["Tags"]))
        for role in ("kubernetes.io/role/internal-elb", "kubernetes.io/role/elb")
    }
    zones = [f"{REGION}{letter}" for letter in "abc"]
    assert by_role == dict.fromkeys(by_role, zones)
    assert not any(subnet["MapPublicIpOnLaunch"] for subnet in found)
    (group,) = (
        group
        for group in ec2.describe_security_groups()["SecurityGroups"]
        if group["GroupName"] == "default" and group["VpcId"] == found[0]["VpcId"]
    )
    assert group["IpPermissions"] == group["IpPermissionsEgress"] == []


def test_what_can_be_tagged_has_the_project_and_the_environment(walk):
    ec2 = walk.account.client("ec2")
    for vpc in ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": [NAME]}])["Vpcs"]:
        assert tags(vpc["Tags"])["Environment"] == "shared"
    for template in ec2.describe_launch_templates()["LaunchTemplates"]:
        versions = ec2.describe_launch_template_versions(
            LaunchTemplateId=template["LaunchTemplateId"]
        )
        data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        made = {s["ResourceType"]: tags(s["Tags"]) for s in data["TagSpecifications"]}
        assert {kind for kind, has in made.items() if has["Project"] == NAME} >= {
            "instance",
            "volume",
        }


def node_group(walk: Walk, name: str) -> dict:
    """The node group of that name, without the number at its end."""
    eks = walk.account.client("eks")
    (found,) = (
        each
        for each in eks.list_nodegroups(clusterName=NAME)["nodegroups"]
        if re.fullmatch(rf"{name}-[0-9a-f]{{26}}", each)
    )
    return eks.describe_nodegroup(clusterName=NAME, nodegroupName=found)["nodegroup"]


def test_gpu_nodes_have_the_image_the_taint_and_the_label(walk):
    group = node_group(walk, "gpu")
    assert group["releaseVersion"] == "1.36.1-20261120"
    assert group["nodeRepairConfig"] == {"enabled": True}
    assert group["amiType"] == "AL2023_x86_64_NVIDIA"
    assert group["instanceTypes"] == ["g6.xlarge"]
    assert group["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}]
    assert group["labels"]["nvidia.com/gpu.present"] == "true"
    assert group["scalingConfig"] == {"minSize": 0, "maxSize": 6, "desiredSize": 0}
    scaling = group["resources"]["autoScalingGroups"][0]["name"]
    hints = walk.account.client("autoscaling").describe_tags(
        Filters=[{"Name": "auto-scaling-group", "Values": [scaling]}]
    )["Tags"]
    prefix = "k8s.io/cluster-autoscaler/node-template/"
    assert tags(hints)[prefix + "resources/nvidia.com/gpu"] == "1"
    assert tags(hints)[prefix + "taint/nvidia.com/gpu"] == "true:NoSchedule"
    assert tags(hints)[prefix + "resources/ephemeral-storage"] == "208Gi"


def test_the_cluster_is_private_encrypted_and_logged(walk):
    cluster = walk.account.client("eks").describe_cluster(name=NAME)["cluster"]
    assert cluster["version"] == "1.36"
    assert cluster["resourcesVpcConfig"]["endpointPublicAccess"] is False
    assert cluster["accessConfig"]["authenticationMode"] == "API"
    (encryption,) = cluster["encryptionConfig"]
    assert encryption["resources"] == ["secrets"]
    assert len(cluster["logging"]["clusterLogging"][0]["types"]) == 5
    (group,) = walk.account.client("logs").describe_log_groups(logGroupNamePrefix="/aws/eks")[
        "logGroups"
    ]
    assert group["kmsKeyId"] == encryption["provider"]["keyArn"]


def test_keys_rotate_and_answer_to_the_account(walk):
    kms = walk.account.client("kms")
    keys = [key["KeyId"] for key in kms.list_keys()["Keys"]]
    ours = [
        key
        for key in keys
        if {"TagKey": "Project", "TagValue": NAME} in kms.list_resource_tags(KeyId=key)["Tags"]
    ]
    assert len(ours) == 6
    for key in ours:
        assert kms.get_key_rotation_status(KeyId=key)["KeyRotationEnabled"]
        policy = json.loads(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])
        account, *services = policy["Statement"]
        assert account["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
        for statement in services:
            assert statement["Principal"] == {"Service": f"logs.{REGION}.amazonaws.com"}
            assert "kms:EncryptionContext:aws:logs:arn" in statement["Condition"]["ArnEquals"]


@pytest.mark.parametrize("bucket", [STATE, DATA])
def test_buckets_are_closed_versioned_and_encrypted_with_their_own_key(bucket, walk):
    s3 = walk.account.client("s3")
    blocks = s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    assert list(blocks.values()) == [True] * 4
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    key = rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"]
    aliases = walk.account.client("kms").list_aliases(KeyId=key.rpartition("/")[2])["Aliases"]
    assert [alias["AliasName"] for alias in aliases] == [f"alias/{bucket}"]
    (deny,) = json.loads(s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]
    assert (deny["Effect"], deny["Principal"]) == ("Deny", "*")
    assert deny["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_registries_keep_tags_and_released_models(walk):
    ecr = walk.account.client("ecr")
    repositories = ecr.describe_repositories()["repositories"]
    assert {each["repositoryName"] for each in repositories} == {NAME, f"{NAME}-training"}
    for repository in repositories:
        assert repository["imageTagMutability"] == "IMMUTABLE"
        assert repository["imageScanningConfiguration"] == {"scanOnPush": True}
        assert repository["encryptionConfiguration"]["encryptionType"] == "KMS"
    policy = ecr.get_lifecycle_policy(repositoryName=NAME)["lifecyclePolicyText"]
    assert json.loads(policy)["rules"][0]["selection"]["tagPrefixList"] == ["v"]


def test_ecr_stands_before_three_registries_and_could_not_before_nvidias(walk):
    ecr = walk.account.client("ecr")
    rules = ecr.describe_pull_through_cache_rules()["pullThroughCacheRules"]
    assert {each["ecrRepositoryPrefix"]: each["upstreamRegistryUrl"] for each in rules} == {
        "docker-hub": "registry-1.docker.io",
        "kubernetes": "registry.k8s.io",
        "quay": "quay.io",
    }
    assert [each["ecrRepositoryPrefix"] for each in rules if "credentialArn" in each] == [
        "docker-hub"
    ]
    with pytest.raises(ecr.exceptions.UnsupportedUpstreamRegistryException):
        ecr.create_pull_through_cache_rule(
            ecrRepositoryPrefix="nvcr", upstreamRegistryUrl="nvcr.io"
        )


def test_the_roles_of_ci_trust_the_repository_by_its_numbers(walk):
    iam = walk.account.client("iam")
    (provider,) = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    subjects = {}
    for name in ("plan", "apply", "publish"):
        trust = iam.get_role(RoleName=f"{NAME}-{name}")["Role"]["AssumeRolePolicyDocument"]
        (statement,) = trust["Statement"]
        assert statement["Principal"] == {"Federated": provider["Arn"]}
        equals, like = statement["Condition"]["StringEquals"], statement["Condition"]["StringLike"]
        assert equals["token.actions.githubusercontent.com:aud"] == "sts.amazonaws.com"
        assert [*like] == ["token.actions.githubusercontent.com:sub"]
        (subjects[name],) = like.values()
    repository = f"repo:acme@123456/{NAME}@456789"
    assert subjects == {
        "plan": [
            f"{repository}:pull_request",
            f"{repository}:ref:refs/heads/main",
            f"{repository}:ref:refs/heads/gh-readonly-queue/main/*",
        ],
        "apply": [f"{repository}:environment:infrastructure"],
        "publish": [f"{repository}:ref:refs/heads/main"],
    }


def actions(documents: Iterable[dict]) -> set[str]:
    """What policies allow, in lower case."""
    return {
        action.lower()
        for document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in [statement["Action"]]
        for action in ([action] if isinstance(action, str) else action)
    }


def policies_of(iam, role: str) -> Iterator[dict]:
    """The documents of what is written into a role, and of what is attached to it."""
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        yield newest(iam, each["PolicyArn"])


def newest(iam, arn: str) -> dict:
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    return iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]


def test_every_role_of_the_cluster_has_the_boundary_which_lets_it_do_its_work(walk):
    iam = walk.account.client("iam")
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/{NAME}-boundary"
    patterns = actions([newest(iam, boundary)])
    of_ci = {f"{NAME}-{each}" for each in ("plan", "apply", "publish")}
    roles = {each["RoleName"] for each in iam.list_roles()["Roles"]} - of_ci
    assert len(roles) == 6
    for name in roles:
        role = iam.get_role(RoleName=name)["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary, name
        asked = actions(policies_of(iam, name))
        kept = {each for each in asked if not any(fnmatchcase(each, one) for one in patterns)}
        assert asked and not kept, name


def test_training_gets_the_role_that_reaches_the_data_store(walk):
    """Namespace and service account are those of the manifests."""
    eks, iam = walk.account.client("eks"), walk.account.client("iam")
    account = yaml.safe_load((TEMPLATE / "argocd/training/service-account.yaml").read_text())
    overlay = yaml.safe_load(walk.read("argocd/training/kustomization.yaml"))
    listed = eks.list_pod_identity_associations(clusterName=NAME)["associations"]
    (association,) = (each for each in listed if each["namespace"] == overlay["namespace"])
    assert association["serviceAccount"] == account["metadata"]["name"]
    given = eks.describe_pod_identity_association(
        clusterName=NAME, associationId=association["associationId"]
    )["association"]
    assert given["roleArn"] == f"arn:aws:iam::{ACCOUNT}:role/{NAME}-training"
    policy = iam.get_role_policy(RoleName=f"{NAME}-training", PolicyName="use-data-store")
    resources = {s["Sid"]: s["Resource"] for s in policy["PolicyDocument"]["Statement"]}
    assert resources["ReadAndAddData"] == f"arn:aws:s3:::{DATA}/dvc/*"
    assert resources["KeepCheckpoints"] == f"arn:aws:s3:::{DATA}/training/*"
    alias = policy["PolicyDocument"]["Statement"][-1]["Condition"]["ForAnyValue:StringEquals"]
    assert alias == {"kms:ResourceAliases": f"alias/{DATA}"}


def test_publishing_may_reach_what_the_registry_root_made(walk):
    iam = walk.account.client("iam")
    arn = f"arn:aws:iam::{ACCOUNT}:policy/{NAME}-publish"
    version = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    resources = {s["Sid"]: s["Resource"] for s in version["Document"]["Statement"]}
    repositories = walk.account.client("ecr").describe_repositories()["repositories"]
    assert {*resources["Push"]} == {each["repositoryArn"] for each in repositories}
    assert resources["ReadAndAddData"] == f"arn:aws:s3:::{DATA}/dvc/*"


def test_an_unknown_root_is_refused(walk):
    result = walk.run("make infra-plan ROOTS=clutser")
    assert result.returncode
    assert "there is no root clutser: choose of bootstrap, registry, cluster" in result.stderr


def test_the_readmes_upgrade_takes_all_of_it_to_the_next_version(walk):
    """With other GPU nodes, and more at least, at once."""
    before = node_group(walk, "gpu")
    settings = walk.project.folder / "infra/cluster/terraform.tfvars"
    text = settings.read_text()
    changed = text.replace('["g6.xlarge"], max', '["g6.2xlarge"], min = 1, max')
    assert changed != text
    settings.write_text(f'kubernetes_version = "1.37"\n{changed}')
    result = walk.run(commands(walk.project.folder / "infra" / "README.md", "Upgrade"))
    assert result.returncode == 0, result.stdout + result.stderr
    eks = walk.account.client("eks")
    assert eks.describe_cluster(name=NAME)["cluster"]["version"] == "1.37"
    for name in ADDONS:
        addon = eks.describe_addon(clusterName=NAME, addonName=name)["addon"]
        assert addon["addonVersion"] == "v1.37.0-eksbuild.1", name
    for name in ("system", "gpu"):
        group = node_group(walk, name)
        assert (group["version"], group["releaseVersion"]) == ("1.37", "1.37.1-20261120")
    assert group["nodegroupName"] != before["nodegroupName"]
    assert group["instanceTypes"] == ["g6.2xlarge"]
    assert group["scalingConfig"] == {"minSize": 1, "maxSize": 6, "desiredSize": 1}
    steps = result.stdout
    name = 'module.gpu_cluster.aws_eks_node_group.gpu["gpu"]'
    made = steps.index(f"{name}: Creation complete")
    assert made < steps.index(f"{name} (deposed object"), "the old nodes went first"


# From here on the walk goes down; the order of these tests is the order of its steps.


def test_the_cluster_stays_while_argocd_runs_something(walk, tmp_path):
    kubectl = Path(walk.environment["COMMANDS"]).with_name("kubectl")
    kept = kubectl.read_text()
    world = fake_argo_cd.World(tmp_path / "world.json")
    world.keep([fake_argo_cd.made("namespaces", "argocd")])
    world.keep([fake_argo_cd.application("shop", "shop", "theirs", [])])
    world.save()
    kubectl.write_text(
        f'#!/bin/sh\nexec {sys.executable} {fake_argo_cd.__file__} {world.file} "$@"\n'
    )
    result = walk.run("make infra-destroy ROOTS=cluster")
    kubectl.write_text(kept)
    assert result.returncode
    assert "Argo CD still runs application.argoproj.io/shop" in result.stderr
    assert walk.account.client("eks").list_clusters()["clusters"] == [NAME]


def test_the_cluster_stays_while_nobody_can_see_what_it_runs(walk):
    kubectl = Path(walk.environment["COMMANDS"]).with_name("kubectl")
    kept = kubectl.read_text()
    kubectl.write_text("#!/bin/sh\necho no route to host >&2\nexit 1\n")
    result = walk.run("make infra-destroy ROOTS=cluster")
    kubectl.write_text(kept)
    assert result.returncode
    assert f"cannot see whether Argo CD still runs anything in {NAME}" in result.stderr
    assert "no route to host" in result.stderr


def test_contents_stay_unless_their_deletion_is_said(walk):
    walk.account.client("s3").put_object(Bucket=DATA, Key="dvc/files/1", Body=b"image")
    printed = walk.make("infra-destroy", "ROOTS='registry bootstrap'")
    assert "registry: kept with the models and data" in printed
    assert "bootstrap: kept with the states" in printed
    listed = walk.account.client("s3").list_objects_v2(Bucket=DATA)
    assert [item["Key"] for item in listed["Contents"]] == ["dvc/files/1"]


def test_the_states_stay_while_the_cluster_is_there(walk):
    result = walk.run("make infra-destroy ROOTS=bootstrap DELETE_CONTENTS=true")
    assert result.returncode
    assert "has resources, and the bucket keeps their state" in result.stderr
    assert walk.account.client("s3").head_bucket(Bucket=STATE)


def test_the_readme_leads_back_to_nothing(walk):
    """But for what somebody else has in the account, and needs."""
    iam = walk.account.client("iam")
    (provider,) = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Federated": provider["Arn"]}}]}
    iam.create_role(RoleName="of-others", AssumeRolePolicyDocument=json.dumps(trust))
    # What ECR makes when an image is pulled for the first time.
    copy = "docker-hub/library/traefik"
    walk.account.client("ecr").create_repository(repositoryName=copy)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []})
    walk.account.client("ecr").put_image(repositoryName=copy, imageManifest=manifest, imageTag="v3")
    result = walk.run(commands(walk.project.folder / "infra" / "README.md", "Down"))
    assert result.returncode == 0, result.stdout + result.stderr
    account = walk.account
    assert account.client("s3").list_buckets()["Buckets"] == []
    assert account.client("ecr").describe_repositories()["repositories"] == []
    assert account.client("eks").list_clusters()["clusters"] == []
    assert account.client("logs").describe_log_groups()["logGroups"] == []
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["of-others"]
    assert len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]) == 1
    vpcs = account.client("ec2").describe_vpcs()["Vpcs"]
    assert [vpc for vpc in vpcs if not vpc["IsDefault"]] == []
    left = [path.name for path in (walk.project.folder / "infra").glob("*/terraform.tfstate*")]
    assert left == []
    assert not (walk.project.folder / "infra" / "backend.hcl").exists()
