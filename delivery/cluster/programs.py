"""The programs of others that a cluster is made with."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError
from workspace.errors import said

# Where to get what may not be there.
INSTALL = {
    "docker": "https://docs.docker.com/engine/install",
    "kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/#kubectl",
}


def check_programs(*names: str) -> None:
    """Raise DeliveryError for the first program that is not there."""
    for name in names:
        if not shutil.which(name):
            raise DeliveryError(f"{name} is not installed: do it as {INSTALL[name]} says")


def ask(*command: str, stdin: str = "", **variables: str) -> str:
    """Run a program and return its answer without blanks around it. Raises DeliveryError."""
    result = subprocess.run(
        command,
        input=stdin,
        env=os.environ | variables,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if result.returncode:
        raise DeliveryError(
            f"{' '.join(command[:3])} failed ({said(result.stderr) or result.returncode}): "
            "put it right and run the same command again"
        )
    return result.stdout.strip()


def answer(*command: str, **variables: str) -> str:
    """Return what a program answers; nothing where it fails, as it does for what is not there."""
    try:
        return ask(*command, **variables)
    except DeliveryError:
        return ""


def tell(*command: str, **variables: str) -> None:
    """Run a program whose output is progress, on standard error. Raises DeliveryError."""
    with open(2, "wb", closefd=False) as progress:
        result = subprocess.run(command, env=os.environ | variables, stdout=progress)
    if result.returncode:
        raise DeliveryError(
            f"{' '.join(command[:3])} failed, as it says above: "
            "put it right and run the same command again"
        )


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one cluster, whose settings are in a file apart: the user's stay as they are."""

    settings: Path

    @property
    def variables(self) -> dict[str, str]:
        """The variables with which other programs talk to this cluster, too."""
        return {"KUBECONFIG": str(self.settings.absolute())}

    def ask(self, *arguments: str, stdin: str = "") -> str:
        """Return an answer. Raises DeliveryError."""
        return ask("kubectl", *arguments, stdin=stdin, **self.variables)

    def tell(self, *arguments: str) -> None:
        """Run a command whose output is progress. Raises DeliveryError."""
        tell("kubectl", *arguments, **self.variables)

    def apply(self, text: str) -> None:
        """Apply manifests, on the server. Raises DeliveryError."""
        self.ask("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=text)

    def names(self, kinds: str, *options: str) -> list[str]:
        """List objects as `kind/name`. Raises DeliveryError."""
        return self.ask("get", kinds, *options, "--ignore-not-found", "--output", "name").split()
