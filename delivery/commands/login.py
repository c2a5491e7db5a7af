"""Log in: to the project's registry with what a job has, its role on AWS or GitHub's token."""

import re
import subprocess

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.layout import Layout
from delivery.oci.registry import open_registry
from delivery.parameters import read_parameters
from delivery.proposals.github import GITHUB
from workspace.errors import said, shown

ECR = re.compile(r"\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?")
PACKAGES = "ghcr.io"  # GitHub's registry

ARGUMENTS = {
    "--push": {"action": "store_true", "help": "fail unless others reach what is pushed then"},
}


def run(repository: Repository, push: bool = False) -> None:
    """Log in where images come from, and go to. Raises UserError."""
    registry = read_parameters(repository.folder).release.registry
    layout = open_registry(registry)
    if isinstance(layout, Layout):
        if push and not layout.folder.is_absolute():
            raise DeliveryError(
                f"release.registry in params.yaml is {shown(registry)}, a folder that only this "
                "machine has: name a registry that all reach, `<host>/<name>`, or a shared folder"
            )
        print(f"{registry} is a folder: there is nothing to log in to")
        return
    host = registry.partition("/")[0]
    found = who(host)
    if found is None:
        print(f"{host} is asked as whoever is logged in: a job has nothing for it by itself")
        return
    user, command = found
    answer(["skopeo", "login", "--username", user, "--password-stdin", host], answer(command))
    print(f"logged in to {host}")


def who(host: str) -> tuple[str, list[str]] | None:
    """Return the user, and the command that prints the password; None for an unknown host."""
    if ecr := ECR.fullmatch(host):
        return "AWS", ["aws", "ecr", "get-login-password", "--region", ecr[1]]
    if host == PACKAGES:
        return "token", ["gh", "auth", "token", "--hostname", GITHUB]
    return None


def answer(command: list[str], text: str = "") -> str:
    """Run a command with a text on its standard input; return what it prints.

    Raises DeliveryError with the reason, which holds no secret: it is on no command line.
    """
    name = " ".join(command[:2])
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise DeliveryError(f"`{command[0]}` is not installed, and a login needs it") from None
    if done.returncode:
        raise DeliveryError(
            f"{name} failed ({said(done.stderr)}): see that the job has the role or the token "
            "that reads the registry, and run it again"
        )
    return done.stdout.strip()
