"""What the infrastructure's commands do when Terraform fails, breaks off or is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fake_argo_cd
from conftest import TEMPLATE, clean_environment

sys.path.insert(0, str(TEMPLATE / "infra/commands"))
import roots

REGISTRY = '{"settings": {"value": {"REGISTRY": "1.ecr/digits", "DATA_URL": "s3://data/dvc"}}}'
CLUSTER = (
    '{"settings": {"value": {"CLUSTER_NAME": "digits", "CLUSTER_ARN": "arn:1"}}, '
    '"next": {"value": "From there: aws eks update-kubeconfig"}}'
)
PROVIDER = "arn:aws:iam::1:oidc-provider/token.actions.githubusercontent.com"
SHOWN = (
    '{"variables": {"region": {"value": "eu-central-1"}}, '
    '"planned_values": {"root_module": {"resources": []}}}'
)
ROOTS = ["bootstrap", "cluster", "registry"]
BACKEND = 'bucket = "states"\n'

# Answers by root and subcommand from files, and fails where `<root>.<subcommand>.fails` is.
TERRAFORM = """#!/bin/sh
root=${1##*/} command=$2 answers=$(dirname "$0")/answers
echo "$root $command" >> "$answers/log"
shift 2; echo "$root $command $*" >> "$answers/whole"; set -- . "$command" "$@"
env > "$answers/env"; env > "$answers/env.$command"
[ "$command" = state ] && command=state.$3
cat "$answers/$root.$command" 2>&-
[ ! -e "$answers/$root.$command.fails" ] || { cat "$answers/$root.$command.fails" >&2; exit 1; }
"""


# Answers by service and operation from files, and fails where `aws.<operation>.fails` is.
AWS = """#!/bin/sh
answers=$(dirname "$0")/answers
echo "aws $*" >> "$answers/whole"
cat "$answers/aws.$2" 2>&-
[ ! -e "$answers/aws.$2.fails" ] || { cat "$answers/aws.$2.fails" >&2; exit 1; }
"""


class Infra:
    """A project whose roots are applied, as far as a stand-in for Terraform says."""

    def __init__(self, folder: Path):
        self.folder = folder / "project"
        self.programs = folder / "bin"
        self.answers = self.programs / "answers"
        for each in ROOTS:
            (self.folder / "infra" / each).mkdir(parents=True)
            settings = self.folder / "infra" / each / "terraform.tfvars"
            settings.write_text('project     = "digits"\nregion      = "eu-central-1"\n')
        self.answers.mkdir(parents=True)
        for name, text in (("terraform", TERRAFORM), ("aws", AWS)):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)
        self.says("aws", "list-open-id-connect-providers", '{"OpenIDConnectProviderList": []}')
        self.says("aws", "list-roles", '{"Roles": []}')
        (self.folder / "infra/backend.hcl").write_text(BACKEND)
        (self.folder / "params.yaml").write_text('release:\n  registry: "oci:.local"\n')
        (self.folder / ".dvc").mkdir()
        (self.folder / ".dvc/config").write_text("[core]\n    remote = store\n")
        for root, said in (("registry", REGISTRY), ("cluster", CLUSTER), ("bootstrap", "{}")):
            self.says(root, "output", said)
            self.says(root, "state.list", "aws_thing.this\n")

    def says(self, root: str, command: str, text: str) -> None:
        (self.answers / f"{root}.{command}").write_text(text)

    def fails(self, root: str, command: str, reason: str = "AccessDenied") -> None:
        self.says(root, f"{command}.fails", reason)

    def run(self, command: str, *arguments: str, **environment: str):
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [sys.executable, TEMPLATE / f"infra/commands/{command}.py", *arguments],
            cwd=self.folder,
            env=clean_environment() | {"PATH": path, "ARGOCD_REMOVED": "true"} | environment,
            capture_output=True,
            text=True,
        )

    def whole(self) -> list[str]:
        """The commands with all that they were given."""
        return (self.answers / "whole").read_text().splitlines()

    def log(self) -> list[str]:
        return (self.answers / "log").read_text().splitlines()

    def files(self) -> dict[str, bytes]:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in found}


@pytest.fixture
def infra(tmp_path: Path) -> Infra:
    return Infra(tmp_path)


def sentence(result: "subprocess.CompletedProcess[str]") -> str:
    """The one line in which a command says why it failed."""
    assert result.returncode == 1, result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("root", ROOTS)
def test_a_state_that_cannot_be_listed_is_not_an_empty_one(infra: Infra, root: str) -> None:
    for each in ROOTS:
        infra.says(each, "state.list", "")
    infra.fails(root, "state.list", "Error: no credentials\n  for the bucket")
    before = infra.files()
    result = infra.run("roots", "destroy", root, DELETE_CONTENTS="true")
    said = sentence(result)
    assert said == (
        f"error: terraform state list failed in infra/{root}: Error: no credentials for the bucket"
    )
    assert "nothing to destroy" not in result.stdout
    assert infra.files() == before and f"{root} destroy" not in infra.log()


def test_a_root_without_a_state_has_nothing_to_destroy(infra: Infra) -> None:
    infra.says("cluster", "state.list", "")
    infra.fails("cluster", "state.list", "No state file was found!\n\nState management commands")
    result = infra.run("roots", "destroy", "cluster")
    assert result.returncode == 0, result.stderr
    assert "cluster: nothing to destroy" in result.stdout


def test_the_states_stay_while_a_root_needs_its_own(infra: Infra) -> None:
    before = infra.files()
    said = sentence(infra.run("roots", "destroy", "bootstrap", DELETE_CONTENTS="true"))
    cure = "make infra-destroy DELETE_CONTENTS=true ROOTS=registry"
    assert "infra/registry has resources" in said and f"`{cure}`" in said
    assert infra.files() == before
    # What the sentence says, and the same of the cluster.
    for root in ("registry", "cluster"):
        assert infra.run("roots", "destroy", root, DELETE_CONTENTS="true").returncode == 0
        infra.says(root, "state.list", "")
    result = infra.run("roots", "destroy", "bootstrap", DELETE_CONTENTS="true")
    assert result.returncode == 0, result.stderr
    assert "bootstrap destroy" in infra.log()


@pytest.mark.parametrize("root", ["registry", "cluster"])
@pytest.mark.parametrize("said", ["", REGISTRY[:30]], ids=["nothing", "half"])
@pytest.mark.parametrize("fails", [True, False], ids=["fails", "breaks off"])
def test_outputs_that_cannot_be_read_change_no_file(
    infra: Infra, root: str, said: str, fails: bool
) -> None:
    infra.says(root, "output", said)
    if fails:
        infra.fails(root, "output")
    before = infra.files()
    line = sentence(infra.run("outputs"))
    how = "failed in" if fails else "broke off in"
    assert f"terraform output -json {how} infra/{root}" in line
    assert infra.files() == before


def test_a_root_that_is_not_applied_yet_has_no_settings(infra: Infra) -> None:
    infra.says("cluster", "output", "{}")
    assert infra.run("outputs").returncode == 0
    written = infra.files()
    assert written["infra/outputs.env"] == b"DATA_URL=s3://data/dvc\nREGISTRY=1.ecr/digits\n"
    assert b"url = s3://data/dvc" in written[".dvc/config"]


@pytest.mark.parametrize("bucket", [True, False], ids=["moving", "not moved yet"])
def test_a_state_that_is_still_in_a_file_has_its_settings_too(infra: Infra, bucket: bool) -> None:
    """As an apply leaves it that was interrupted."""
    (infra.folder / "infra/bootstrap/terraform.tfstate").write_text("{}")
    infra.says("bootstrap", "output", '{"settings": {"value": {"PLAN_ROLE": "arn:2"}}}')
    if not bucket:
        (infra.folder / "infra/backend.hcl").unlink()
    assert infra.run("outputs").returncode == 0
    written = infra.files()["infra/outputs.env"].decode()
    assert "PLAN_ROLE=arn:2\n" in written
    assert ("REGISTRY=" in written) == bucket


def test_no_file_is_written_unless_all_can_be(infra: Infra) -> None:
    (infra.folder / "params.yaml").write_text("gate: {}\n")
    before = infra.files()
    assert "no `registry` in its section `release`: add the line" in sentence(infra.run("outputs"))
    assert infra.files() == before
    (infra.folder / "params.yaml").write_text("release:\n  registry: none\n")
    assert infra.run("outputs").returncode == 0


@pytest.mark.parametrize("said", ["", "{"], ids=["nothing", "half"])
def test_a_first_apply_that_cannot_say_where_its_bucket_is_stays_local(
    infra: Infra, said: str
) -> None:
    (infra.folder / "infra/backend.hcl").unlink()
    state = infra.folder / "infra/bootstrap/terraform.tfstate"
    state.write_text("{}")
    infra.says("bootstrap", "output", said)
    assert "terraform output -json backend" in sentence(infra.run("roots", "apply", "bootstrap"))
    assert state.exists() and not (infra.folder / "infra/backend.hcl").exists()
    infra.says("bootstrap", "output", '"bucket = 1\\n"')  # the same command again
    assert infra.run("roots", "apply", "bootstrap").returncode == 0
    assert not state.exists()
    assert (infra.folder / "infra/backend.hcl").read_text() == "bucket = 1\n"


def test_a_cluster_whose_settings_cannot_be_read_stays(infra: Infra) -> None:
    infra.fails("cluster", "output")
    result = infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED="")
    assert "terraform output -json failed in infra/cluster" in sentence(result)
    assert "cluster destroy" not in infra.log()


@pytest.mark.parametrize("said", ["", '{"variab'], ids=["nothing", "half"])
def test_a_plan_that_cannot_be_read_is_made_again(infra: Infra, said: str) -> None:
    (infra.folder / "infra/registry/planned.tfplan").write_bytes(b"plan")
    infra.says("registry", "show", said)
    line = sentence(infra.run("cost"))
    assert "infra/registry" in line and "run `make infra-plan` again, as " in line
    assert infra.run("roots", "plan", "registry").returncode == 0
    infra.says("registry", "show", SHOWN)
    assert infra.run("cost").returncode == 0


def test_what_is_planned_has_a_cost(infra: Infra) -> None:
    assert "nothing is planned yet: run `make infra-plan` first" in sentence(infra.run("cost"))
    assert infra.run("roots", "plan", "registry").returncode == 0
    (infra.folder / "infra/registry/planned.tfplan").write_bytes(b"plan")  # as Terraform does
    infra.says("registry", "show", SHOWN)
    assert infra.run("cost").returncode == 0


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("roots", ["plan"]), ("roots", ["destroy"]), ("outputs", [])],
    ids=["plan", "destroy", "outputs"],
)
def test_without_terraform_there_is_a_sentence(
    infra: Infra, command: str, arguments: list[str]
) -> None:
    (infra.programs / "terraform").unlink()
    result = infra.run(command, *arguments, PATH=str(infra.programs))
    assert sentence(result) == "error: terraform is not installed: infra/README.md names it"
    (infra.programs / "terraform").write_text(TERRAFORM)
    (infra.programs / "terraform").chmod(0o755)
    assert infra.run(command, *arguments).returncode == 0


def test_without_kubectl_the_cluster_stays(infra: Infra) -> None:
    path = f"{infra.programs}:{infra.folder}"
    for name in ("dirname", "cat", "env"):  # what the stand-in needs
        (infra.programs / name).symlink_to(f"/usr/bin/{name}")
    result = infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED="", PATH=path)
    assert sentence(result) == "error: kubectl is not installed: infra/README.md names it"
    assert "cluster destroy" not in infra.log()
    kubectl(infra, "exit 0")
    assert infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED="").returncode == 0
    assert "cluster destroy" in infra.log()


def kubectl(infra: Infra, script: str) -> None:
    """Have a stand-in for kubectl."""
    (infra.programs / "kubectl").write_text(f"#!/bin/sh\n{script}\n")
    (infra.programs / "kubectl").chmod(0o755)


def argo_cd(infra: Infra) -> fake_argo_cd.World:
    """Have a stand-in for kubectl and Argo CD, which runs what a project named `digits` has."""
    (infra.folder / "argocd").mkdir()
    address = "    repoURL: https://github.com/octocat/digits.git\n"
    (infra.folder / "argocd/root.yaml").write_text(address)
    world = fake_argo_cd.World(infra.answers / "world.json")
    world.keep([fake_argo_cd.made("namespaces", "argocd")])
    world.keep([fake_argo_cd.made("deployments", "argocd", "argocd")])
    world.keep([fake_argo_cd.project("root", "argocd")])
    world.keep([fake_argo_cd.application("root", "root", "argocd", [])])
    world.save()
    kubectl(infra, f'exec {sys.executable} {fake_argo_cd.__file__} {world.file} "$@"')
    return world


def test_what_runs_in_the_cluster_is_taken_down_before_it_is_destroyed(infra: Infra) -> None:
    world = argo_cd(infra)
    result = infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED="")
    assert result.returncode == 0, result.stderr
    steps = result.stdout
    assert "-- what serves and trains: digits-production, digits-staging, digits-tra" in steps
    assert steps.index("-- nothing of digits is left in arn:1") < steps.index("terraform destroy")
    assert not fake_argo_cd.World(world.file).find(fake_argo_cd.APPS)


def test_the_cluster_stays_while_argo_cd_runs_what_is_not_of_the_project(infra: Infra) -> None:
    world = argo_cd(infra)
    theirs = fake_argo_cd.application("shop", "shop", "theirs", [])
    world.keep([theirs])
    world.save()
    said = sentence(infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED=""))
    assert "Argo CD still runs application.argoproj.io/shop, which are not this project's" in said
    assert "cluster destroy" not in infra.log()
    world = fake_argo_cd.World(world.file)
    world.drop(world.find(fake_argo_cd.APPS))
    world.save()
    assert infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED="").returncode == 0


def test_a_cluster_that_cannot_be_asked_stays(infra: Infra) -> None:
    kubectl(infra, "echo no route >&2; exit 1")
    said = sentence(infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED=""))
    assert "cannot see whether Argo CD still runs anything in digits (no route): connect" in said
    assert "cluster destroy" not in infra.log()
    # connected, and nobody knows of Applications; or its user says so
    unknown = 'echo "the server doesn\'t have a resource type \\"applications\\"" >&2; exit 1'
    for script, removed in ((unknown, ""), ("exit 1", "true")):
        kubectl(infra, script)
        result = infra.run("roots", "destroy", "cluster", ARGOCD_REMOVED=removed)
        assert result.returncode == 0, result.stderr


def test_a_root_is_applied_after_bootstrap(infra: Infra) -> None:
    (infra.folder / "infra/backend.hcl").unlink()
    infra.says("bootstrap", "output", '"bucket = 1\\n"')
    said = sentence(infra.run("roots", "apply", "registry"))
    assert "apply bootstrap first, with `make infra-apply ROOTS=bootstrap`" in said
    for root in ("bootstrap", "registry"):
        assert infra.run("roots", "apply", root).returncode == 0
    assert "registry apply" in infra.log()


def test_outputs_are_written_once_a_root_is_applied(infra: Infra) -> None:
    (infra.folder / "infra/backend.hcl").unlink()
    assert "nothing to write: `make infra-apply`" in sentence(infra.run("outputs"))
    (infra.folder / "infra/backend.hcl").write_text(BACKEND)
    assert infra.run("outputs").returncode == 0


def test_what_a_shell_adds_to_terraform_does_not_change_what_is_read(infra: Infra) -> None:
    """Neither another project's workspace, whose state is another one."""
    added = {"TF_CLI_ARGS": "-bogus", "TF_CLI_ARGS_output": "-raw", "TF_WORKSPACE": "other"}
    assert infra.run("outputs", **added).returncode == 0
    seen = (infra.answers / "env").read_text()
    assert "TF_CLI_ARGS" not in seen and "TF_WORKSPACE" not in seen
    assert infra.run("roots", "apply", "cluster", **added).returncode == 0
    seen = (infra.answers / "env.apply").read_text()
    assert "TF_CLI_ARGS=-bogus" in seen and "TF_WORKSPACE" not in seen


def test_a_disk_that_cannot_be_written_to_is_said_in_a_sentence(infra: Infra) -> None:
    (infra.folder / "infra/outputs.env.unfinished").mkdir()
    assert "Is a directory" in sentence(infra.run("outputs"))


def test_the_last_logs_of_a_cluster_go_with_it(infra: Infra) -> None:
    assert infra.run("roots", "destroy", "cluster").returncode == 0
    deletes = (
        "aws logs delete-log-group --log-group-name /aws/eks/digits/cluster "
        "--region eu-central-1 --output json"
    )
    assert infra.whole()[-1] == deletes
    gone = "An error occurred (ResourceNotFoundException): there is none"
    infra.says("aws", "delete-log-group.fails", gone)
    assert infra.run("roots", "destroy", "cluster").returncode == 0


def test_logs_that_cannot_be_deleted_are_told(infra: Infra) -> None:
    infra.fails("aws", "delete-log-group", "AccessDenied")
    said = sentence(infra.run("roots", "destroy", "cluster"))
    assert said == "error: aws logs delete-log-group failed: AccessDenied"


def test_settings_without_a_project_are_told(infra: Infra) -> None:
    settings = infra.folder / "infra/cluster/terraform.tfvars"
    text = settings.read_text()
    settings.write_text('region = "eu-central-1"\n')
    said = sentence(infra.run("roots", "destroy", "cluster"))
    assert 'terraform.tfvars has no line `project = "..."`: add it' in said
    settings.write_text(text)
    assert infra.run("roots", "destroy", "cluster").returncode == 0


def test_a_cluster_is_made_with_how_to_reach_it(infra: Infra) -> None:
    result = infra.run("roots", "apply", "cluster")
    assert result.stdout.splitlines()[-1] == ("-- cluster: From there: aws eks update-kubeconfig")


def provider(infra: Infra, *roles: str) -> None:
    """Have the account's provider for GitHub, and roles that trust it."""
    held = [{"Arn": "arn:aws:iam::1:oidc-provider/gitlab.com"}, {"Arn": PROVIDER}]
    infra.says(
        "aws", "list-open-id-connect-providers", json.dumps({"OpenIDConnectProviderList": held})
    )
    trust = {"Statement": [{"Principal": {"Federated": PROVIDER}}]}
    listed = [{"RoleName": role, "AssumeRolePolicyDocument": trust} for role in roles]
    others = {"RoleName": "of-nobody", "AssumeRolePolicyDocument": {"Statement": []}}
    infra.says("aws", "list-roles", json.dumps({"Roles": [*listed, others]}))


@pytest.mark.parametrize("action", ["plan", "apply"])
def test_a_provider_that_somebody_else_made_is_used(infra: Infra, action: str) -> None:
    provider(infra)
    infra.says("bootstrap", "output", '"bucket = 1\\n"')
    assert infra.run("roots", action, "bootstrap").returncode == 0
    (done,) = (each for each in infra.whole() if each.startswith(f"bootstrap {action} "))
    assert done.endswith(f"-var=oidc_provider_arn={PROVIDER}")


def test_the_projects_own_provider_stays_its_own(infra: Infra) -> None:
    provider(infra)
    infra.says("bootstrap", "state.list", f"{roots.PROVIDER}\n")
    assert infra.run("roots", "plan", "bootstrap").returncode == 0
    assert not [each for each in infra.whole() if "oidc_provider_arn" in each]


@pytest.mark.parametrize("others", [["digits-plan"], ["digits-plan", "letters-plan"]])
def test_a_provider_that_others_trust_stays(infra: Infra, others: list[str]) -> None:
    provider(infra, *others)
    for root in ("registry", "cluster"):
        infra.says(root, "state.list", "")
    infra.says("bootstrap", "state.list", f"{roots.PROVIDER}\n")
    result = infra.run("roots", "destroy", "bootstrap", DELETE_CONTENTS="true")
    assert result.returncode == 0, result.stderr
    left = [each for each in infra.whole() if each.startswith("bootstrap state rm ")]
    if len(others) > 1:
        assert left == [f"bootstrap state rm {roots.PROVIDER}"]
        assert "provider stays, because letters-plan trust it" in result.stdout
    else:
        assert left == []


def test_copies_of_others_images_go_with_the_rules_that_made_them(infra: Infra) -> None:
    names = ["digits", "docker-hub/library/traefik", "quay/argoproj/argocd", "quayside/own"]
    listed = {"repositories": [{"repositoryName": name} for name in names]}
    infra.says("aws", "describe-repositories", json.dumps(listed))
    rule = 'module.image_cache[0].aws_ecr_pull_through_cache_rule.this["quay"]'
    for state, gone in (("module.registry.aws_thing.this", []), (rule, names[1:3])):
        infra.says("registry", "state.list", f"{state}\n")
        assert infra.run("roots", "destroy", "registry", DELETE_CONTENTS="true").returncode == 0
        deleted = [each for each in infra.whole() if " delete-repository " in each]
        assert deleted == [
            f"aws ecr delete-repository --repository-name {name} --force --region eu-central-1 "
            "--output json"
            for name in gone
        ]


def test_a_saved_plan_is_applied_as_it_is_or_nothing_is(infra: Infra) -> None:
    said = sentence(infra.run("roots", "apply", "cluster", PLANNED="true"))
    assert "infra/cluster has no saved plan: make it of this very commit, with `make infra-" in said
    assert "cluster apply" not in infra.log()
    assert infra.run("roots", "plan", "cluster").returncode == 0
    (infra.folder / "infra/cluster/planned.tfplan").write_bytes(b"plan")  # as Terraform does
    assert infra.run("roots", "apply", "cluster", PLANNED="true").returncode == 0
    assert "cluster apply planned.tfplan" in infra.whole()


def test_a_comment_has_what_is_planned(infra: Infra) -> None:
    said = sentence(infra.run("comment"))
    assert "nothing is planned yet: run `make infra-plan` first" in said
    assert infra.run("roots", "plan", "registry", "cluster").returncode == 0
    for root in ("registry", "cluster"):
        (infra.folder / f"infra/{root}/planned.tfplan").write_bytes(b"plan")  # as Terraform does
        infra.says(root, "show", f"{root} will be created\n")
    assert infra.run("comment").returncode == 0
    written = (infra.folder / "infra/plan.md").read_text()
    assert written.startswith("### infra/registry\n\n~~~\nregistry will be created\n~~~\n")
    assert "### infra/cluster\n" in written
    infra.says("cluster", "show", "+ resource\n" * 10_000)
    assert infra.run("comment").returncode == 0
    written = (infra.folder / "infra/plan.md").read_text()
    assert len(written) < 65_536 and written.endswith("the job's log has the rest.\n")


def test_an_answer_of_aws_that_breaks_off_is_not_an_empty_one(infra: Infra) -> None:
    infra.says("aws", "list-open-id-connect-providers", '{"OpenIDConnectPr')
    said = sentence(infra.run("roots", "plan", "bootstrap"))
    assert said == (
        "error: aws iam list-open-id-connect-providers broke off: run the same command again"
    )
    assert "bootstrap plan" not in infra.log()
    infra.says("aws", "list-open-id-connect-providers", '{"OpenIDConnectProviderList": []}')
    assert infra.run("roots", "plan", "bootstrap").returncode == 0
