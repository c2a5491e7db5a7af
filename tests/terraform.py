"""Terraform as the tests run it: without a network where the provider lies on this machine."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import clean_environment

# Where people and images keep a copy of Terraform's providers; TF_PLUGIN_MIRROR names another.
MIRRORS = ("/opt", "/usr/share", "/usr/local/share", "~/.terraform.d", "~/.local/share/terraform")
HOST = "registry.terraform.io"


def provider_mirror() -> Path | None:
    """Find the folder that holds a copy of the providers: one of the MIRRORS or just below it."""
    named = os.environ.get("TF_PLUGIN_MIRROR")
    places = [Path(place).expanduser() for place in ([named] if named else MIRRORS)]
    found = (
        host.parent
        for place in places
        for pattern in (HOST, f"*/{HOST}")
        for host in place.glob(pattern)
    )
    return next(found, None)


def terraform_environment(**more: str) -> dict[str, str]:
    """Environment of a Terraform that asks nothing and takes its provider from a copy, if any."""
    environment = clean_environment() | {"TF_INPUT": "0", "TF_IN_AUTOMATION": "1"} | more
    environment["TF_CLI_ARGS"] = "-no-color"
    # It needs 200 MB; to collect again and again what it no longer needs takes a sixth of its time.
    environment |= {"GOGC": "off", "GOMEMLIMIT": "1GiB"}
    # A file of settings that does not exist makes Terraform warn at every command.
    if not Path(environment.get("TF_CLI_CONFIG_FILE", "/")).exists():
        del environment["TF_CLI_CONFIG_FILE"]
    if mirror := provider_mirror():
        environment["TF_CLI_ARGS_init"] = f"-plugin-dir={mirror}"
    return environment


@contextmanager
def shared_provider(initialised: Path, **settings: str) -> Iterator[dict[str, str]]:
    """Start the provider of an initialised folder; yield the environment by which it is found.

    Terraform starts one for each run of a test and several for a plan, and compares its 700 MB with
    the lock at each `init`, which takes most of its time. Where nothing is configured, as with a
    mocked provider, or all configure it alike, all can ask the same one.
    """
    (program,) = initialised.glob(".terraform/providers/*/*/*/*/*/terraform-provider-aws_*")
    process = subprocess.Popen(
        [program, "-debug"],
        env=terraform_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    try:
        name = "TF_REATTACH_PROVIDERS"
        said = next(line for line in process.stdout if name in line)
        yield {name: said.partition("=")[2].strip().strip("'")}
    finally:
        process.terminate()
        process.communicate()
