"""Run Terraform on a project's roots: `roots.py {plan,apply,destroy} [root ...]`.

The roots are applied in the order of ROOTS and destroyed in the opposite one. The first makes the
bucket that keeps everyone's state, its own too: it is applied with its state in a local file, which
then moves into the bucket, and back before the bucket goes. A local state file left by an
interrupted run is always the newer one, so a second run continues where the first stopped.

Standard library only: a workflow that plans needs Terraform and Python, not the training packages.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from failures import InfraError, reported, run
from take_down import EVERYWHERE, Cluster, SilenceError, take_down

INFRA = Path("infra").absolute()  # of the project, in whose root make runs this
ROOTS = ("bootstrap", "registry", "cluster")
BACKEND = INFRA / "backend.hcl"
ADDED = ("TF_CLI_ARGS", "TF_WORKSPACE")  # variables that change what Terraform answers
NO_STATE = "No state file was found"  # Terraform's words before the first apply
KEEPS_CONTENTS = {"bootstrap": "the states", "registry": "the models and data"}
ISSUER = "oidc-provider/token.actions.githubusercontent.com"
# Before the names of copies that ECR makes of others' images: infra/modules/image_cache.
CACHES = ("docker-hub/", "kubernetes/", "quay/")
PROVIDER = "module.ci_identity.aws_iam_openid_connect_provider.github[0]"  # in bootstrap's state


def terraform(root: str, *arguments: str) -> None:
    """Run Terraform in a root, in the terminal. Raises InfraError when it fails."""
    print(f"-- {root}: terraform {arguments[0]}", flush=True)
    if run(["terraform", f"-chdir={INFRA / root}", *arguments]).returncode:
        raise InfraError(f"terraform {arguments[0]} failed in infra/{root}: its message is above")


def init(root: str, *arguments: str) -> None:
    """Initialise a root, showing only what went wrong. Raises InfraError when it fails."""
    print(f"-- {root}: terraform init", flush=True)
    command = ["terraform", f"-chdir={INFRA / root}", "init", "-input=false", *arguments]
    result = run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise InfraError(f"terraform init failed in infra/{root}:\n{result.stdout.strip()}")


def answer(root: str, *arguments: str) -> str:
    """Return what Terraform prints, without what a person has it add to its commands.

    Raises InfraError when it fails: no answer is never taken for an empty one.
    """
    command = ["terraform", f"-chdir={INFRA / root}", *arguments]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(ADDED)}
    result = run(command, capture_output=True, env=plain)
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise InfraError(f"terraform {' '.join(arguments)} failed in infra/{root}: {reason}")
    return result.stdout


def document(root: str, *arguments: str) -> Any:
    """Return the JSON that Terraform prints. Raises InfraError, also when it is not whole."""
    text = answer(root, *arguments)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict | str):
        what = f"terraform {' '.join(arguments)}"
        raise InfraError(f"{what} broke off in infra/{root}: run the same command again")
    return found


def aws(*arguments: str) -> Any:
    """Return what AWS's command line answers. Raises InfraError."""
    result = run(["aws", *arguments, "--output", "json"], capture_output=True)
    if result.returncode:
        reason = " ".join(result.stderr.split())
        raise InfraError(f"aws {' '.join(arguments[:2])} failed: {reason}")
    try:
        return json.loads(result.stdout or "{}")
    except (ValueError, RecursionError):
        what = f"aws {' '.join(arguments[:2])}"
        raise InfraError(f"{what} broke off: run the same command again") from None


def given(root: str, name: str) -> str:
    """Return a text of a root's settings. Raises InfraError."""
    path = INFRA / root / "terraform.tfvars"
    found = re.search(rf'^{name} *= *"([^"]+)"', path.read_text(), re.MULTILINE)
    if not found:
        raise InfraError(f'{path} has no line `{name} = "..."`: add it')
    return found[1]


def resources(root: str) -> list[str]:
    """Return what a root that is ready has in its state. Raises InfraError."""
    try:
        return answer(root, "state", "list").splitlines()
    except InfraError as error:
        if NO_STATE in str(error):
            return []
        raise


def settings(root: str) -> dict[str, str]:
    """Return the settings that a root that is ready puts out, none before it is applied.

    Raises InfraError.
    """
    return document(root, "output", "-json").get("settings", {}).get("value", {})


def state_is_local(root: str) -> bool:
    """Whether a root's state is not in the bucket: before the first apply, or while it moves."""
    return not BACKEND.exists() or local_state(root).exists()


def local_state(root: str) -> Path:
    """Return where a root's state is while it is not in the bucket."""
    return INFRA / root / "terraform.tfstate"


def override_of(root: str) -> Path:
    """Return the override file that keeps a root's state in a file."""
    return INFRA / root / "backend_override.tf"


@contextmanager
def local_backend(root: str) -> Iterator[None]:
    """Let a root keep its state in a file, by a Terraform override file."""
    override = override_of(root)
    override.write_text('terraform {\n  backend "local" {}\n}\n')
    try:
        yield
    finally:
        override.unlink()


@contextmanager
def ready(root: str) -> Iterator[None]:
    """Initialise a root with its state where it is."""
    if state_is_local(root):
        with local_backend(root):
            init(root, "-reconfigure")
            yield
    else:
        override_of(root).unlink(missing_ok=True)  # left by a run that was killed
        init(root, "-reconfigure", f"-backend-config={BACKEND}")
        yield


def plan(root: str) -> None:
    """Plan into `planned.tfplan`. Without a state bucket, everything is planned as new."""
    with ready(root):
        # A lock is an object in the bucket, and the role that CI plans with cannot write one.
        terraform(root, "plan", "-lock=false", "-out=planned.tfplan", *adopted(root))


def apply(root: str) -> None:
    """Apply a root; after the first one, move its state into the bucket that it made."""
    if root != "bootstrap" and not BACKEND.exists():
        raise InfraError(
            f"infra/{root} has nowhere to keep its state: apply bootstrap first, "
            "with `make infra-apply ROOTS=bootstrap`"
        )
    moves = state_is_local(root)
    with ready(root):
        terraform(root, "apply", *(saved_plan(root) or adopted(root)))
        if root == "cluster" and (advice := document(root, "output", "-json").get("next")):
            print(f"-- {root}: {advice['value']}")
        if moves:
            replace_file(BACKEND, document(root, "output", "-json", "backend"))
    if moves:
        init(root, "-migrate-state", "-force-copy", f"-backend-config={BACKEND}")
        forget_local_state(root)


def saved_plan(root: str) -> list[str]:
    """Return the plan to apply as it is, if PLANNED=true. Raises InfraError if there is none."""
    if os.environ.get("PLANNED") != "true":
        return []
    if not (INFRA / root / "planned.tfplan").exists():
        raise InfraError(
            f"infra/{root} has no saved plan: make it of this very commit, with "
            f"`make infra-plan ROOTS={root}`"
        )
    return ["planned.tfplan"]


def adopted(root: str) -> list[str]:
    """Return the option by which bootstrap uses a provider for GitHub that it did not make.

    An account takes only one. Raises InfraError.
    """
    if root != "bootstrap" or PROVIDER in resources(root):
        return []
    found = aws("iam", "list-open-id-connect-providers")["OpenIDConnectProviderList"]
    arns = [each["Arn"] for each in found]
    return [f"-var=oidc_provider_arn={arn}" for arn in arns if arn.endswith(ISSUER)]


def leave_provider(root: str) -> None:
    """Let the account keep its provider for GitHub while others' roles trust it."""
    if root != "bootstrap" or PROVIDER not in resources(root):
        return
    ours = {f"{given(root, 'project')}-{role}" for role in ("plan", "apply", "publish")}
    others = [
        role["RoleName"]
        for role in aws("iam", "list-roles")["Roles"]
        if ISSUER in json.dumps(role["AssumeRolePolicyDocument"]) and role["RoleName"] not in ours
    ]
    if others:
        print(f"-- {root}: GitHub's OIDC provider stays, because {', '.join(others)} trust it")
        terraform(root, "state", "rm", PROVIDER)


def forget_copies(root: str) -> None:
    """Delete what ECR copied by a root's rules, which no state has. Raises InfraError."""
    if not any(each.startswith("module.image_cache") for each in resources(root)):
        return
    region = ("--region", given(root, "region"))
    for each in aws("ecr", "describe-repositories", *region)["repositories"]:
        name = each["repositoryName"]
        if name.startswith(CACHES):
            print(f"-- {root}: the copies in {name}")
            aws("ecr", "delete-repository", "--repository-name", name, "--force", *region)


def replace_file(path: Path, text: str) -> None:
    """Put a text in a file's place, on disk before it has the name."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def forget_local_state(root: str) -> None:
    """Delete the state in a file, once the bucket holds it or nothing is left."""
    for file in (INFRA / root).glob("terraform.tfstate*"):
        file.unlink()


def destroy(root: str) -> None:
    """Destroy a root; what keeps models, data or states only when DELETE_CONTENTS is true."""
    keeps_contents = root in KEEPS_CONTENTS
    if keeps_contents and os.environ.get("DELETE_CONTENTS") != "true":
        print(f"-- {root}: kept with {KEEPS_CONTENTS[root]}; DELETE_CONTENTS=true destroys it too")
        return
    if root == "bootstrap" and not state_is_local(root):
        refuse_while_states_are_needed()
        fetch_state(root)
    with ready(root):
        if not resources(root):
            print(f"-- {root}: nothing to destroy")
        elif keeps_contents:
            leave_provider(root)
            forget_copies(root)
            options = ["-var=delete_contents=true", *adopted(root)]
            # AWS deletes contents only where the state says so, which takes an apply.
            terraform(root, "apply", "-refresh=false", *options)
            terraform(root, "destroy", *options)
        else:
            take_argocd_down(root)
            terraform(root, "destroy")
    if root == "cluster":
        delete_last_logs(root)
    if root == "bootstrap":
        BACKEND.unlink(missing_ok=True)
        forget_local_state(root)


def delete_last_logs(root: str) -> None:
    """Delete the log group that EKS makes again for what a cluster says while it goes.

    The next cluster of that name could not be made beside it. Raises InfraError.
    """
    group, region = f"/aws/eks/{given(root, 'project')}/cluster", given(root, "region")
    try:
        aws("logs", "delete-log-group", "--log-group-name", group, "--region", region)
    except InfraError as error:
        if "ResourceNotFoundException" not in str(error):
            raise


def refuse_while_states_are_needed() -> None:
    """Raise InfraError while a root has resources: their state would go with the bucket."""
    for root in ROOTS[1:]:
        with ready(root):
            if resources(root):
                raise InfraError(
                    f"infra/{root} has resources, and the bucket keeps their state: destroy it "
                    f"first, with `make infra-destroy DELETE_CONTENTS=true ROOTS={root}`"
                )


def fetch_state(root: str) -> None:
    """Move a root's state from the bucket into a file."""
    with ready(root), local_backend(root):
        init(root, "-migrate-state", "-force-copy")


def take_argocd_down(root: str) -> None:
    """Take away what Argo CD runs, or what that made in AWS would stay behind. Raises InfraError.

    Nothing is taken for granted: it goes on only where the cluster says that nothing runs.
    """
    if os.environ.get("ARGOCD_REMOVED") == "true":
        return
    cluster = settings(root)
    if not cluster:
        return  # an apply that stopped before there was a cluster
    if running(cluster):
        take_down(cluster["CLUSTER_ARN"])
    if left := running(cluster):
        raise InfraError(
            f"Argo CD still runs {', '.join(left)}, which are not this project's: delete them, so "
            "that nothing they made in AWS stays behind, and run the same command again"
        )


def running(cluster: dict[str, str]) -> list[str]:
    """Return the Applications of a cluster. Raises InfraError where it does not answer."""
    try:
        text = Cluster(cluster["CLUSTER_ARN"]).ask("get", *EVERYWHERE)
    except SilenceError as error:
        raise InfraError(
            f"cannot see whether Argo CD still runs anything in {cluster['CLUSTER_NAME']} "
            f"({error.reason}): connect with `aws eks update-kubeconfig --name "
            f"{cluster['CLUSTER_NAME']}`, or set ARGOCD_REMOVED=true when it does not"
        ) from None
    return text.split()


ACTIONS = {"plan": plan, "apply": apply, "destroy": destroy}


def main(argv: list[str] | None = None) -> int:
    """Run one action on the roots given, all by default; return the exit status."""
    parser = argparse.ArgumentParser(prog="roots.py")
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("roots", nargs="*", metavar="root", help=f"any of {', '.join(ROOTS)}")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.roots) - set(ROOTS)
    if unknown:
        parser.error(f"there is no root {', '.join(sorted(unknown))}: choose of {', '.join(ROOTS)}")
    chosen = [root for root in ROOTS if root in arguments.roots or not arguments.roots]
    if arguments.action == "destroy":
        chosen.reverse()
    return reported(lambda: [ACTIONS[arguments.action](root) for root in chosen])


if __name__ == "__main__":
    sys.exit(main())
