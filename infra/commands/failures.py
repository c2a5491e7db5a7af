"""How a command fails: in one sentence, also where a program that it runs is not there."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class InfraError(Exception):
    """What a user can put right; the message is the whole report."""


def run(command: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    """Run a program. Raises InfraError where it is not installed.

    Terraform works on its default workspace whatever another project's shell has chosen.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TF_WORKSPACE"}
    try:
        return subprocess.run(command, **{"env": environment, "text": True, **options})
    except FileNotFoundError:
        raise InfraError(f"{command[0]} is not installed: infra/README.md names it") from None


def reported(work: Callable[[], object]) -> int:
    """Do a command's work; say in a sentence why it failed; return the exit status."""
    try:
        work()
    except (InfraError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
