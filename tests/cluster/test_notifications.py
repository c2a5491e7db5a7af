"""What Argo CD's notifications make of an Application, by the engine in its own program.

No cluster is needed for these; `test_bad_versions.py` has the controller on one.
"""

import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import github_api
import programs
from conftest import TEMPLATE
from notifications import secret, settings

REVISION = "c" * 40


def application(sync: str, health: str) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {
            "name": "digits-staging",
            "namespace": "argocd",
            "labels": {"environment": "staging", "model-version": "8"},
        },
        "spec": {
            "project": "models",
            "source": {"repoURL": "https://github.com/acme/digits.git", "targetRevision": "main"},
        },
        "status": {"sync": {"status": sync, "revision": REVISION}, "health": {"status": health}},
    }


@pytest.fixture
def argocd(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Run `argocd admin notifications` on our settings and a GitHub on loopback."""
    program = TEMPLATE / ".cache/cluster/programs" / programs.programs()["argocd"].file
    if not program.exists():
        pytest.skip(f"not built yet: {program.name}")
    config = {
        "current-context": "nobody",
        "contexts": [{"name": "nobody", "context": {"cluster": "none", "user": "nobody"}}],
        "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "nobody", "user": {"token": "none"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    api = github_api.server("127.0.0.1", 0, tmp_path / "told")
    threading.Thread(target=api.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{api.server_address[1]}"
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings(address)))
    (tmp_path / "secret.yaml").write_text(yaml.safe_dump(secret()))

    def run(*command: str) -> str:
        files = ("--config-map", "settings.yaml", "--secret", "secret.yaml")
        done = subprocess.run(
            [program, "admin", "notifications", *command, *files],
            cwd=tmp_path,
            env=os.environ
            | {"KUBECONFIG": "kubeconfig", "ARGOCD_BINARY_NAME": "argocd", "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "failed" not in done.stderr, done.stderr
        return done.stdout

    yield run
    api.shutdown()


def ask(argocd: Callable[..., str], folder: Path, sync: str, health: str) -> set[str]:
    """The templates that the triggers send of an Application in a state."""
    (folder / "app.yaml").write_text(yaml.safe_dump(application(sync, health)))
    found = set()
    for trigger in ("healthy", "degraded"):
        for line in argocd("trigger", "run", trigger, "app.yaml").splitlines():
            if re.search(r"\btrue\b", line):
                found.add(trigger)
    return found


def test_it_tells_of_what_is_compared_and_healthy_or_degraded(
    argocd: Callable[..., str], tmp_path: Path
) -> None:
    assert ask(argocd, tmp_path, "Synced", "Healthy") == {"healthy"}
    assert ask(argocd, tmp_path, "Synced", "Degraded") == {"degraded"}
    assert ask(argocd, tmp_path, "Synced", "Progressing") == set()
    assert ask(argocd, tmp_path, "OutOfSync", "Healthy") == set(), "the release before is"


def test_a_status_is_on_the_commit_and_a_failure_is_a_deployment_too(
    argocd: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "app.yaml").write_text(yaml.safe_dump(application("Synced", "Degraded")))
    for name in ("healthy", "degraded", "degraded"):
        argocd("template", "notify", name, "app.yaml", "--recipient", "github")
    told = github_api.read(tmp_path / "told")
    place = "/repos/acme/digits"
    assert [each["path"] for each in told] == [
        f"{place}/statuses/{REVISION}",
        *(
            f"{place}/statuses/{REVISION}",
            f"{place}/deployments",
            f"{place}/deployments/1/statuses",
        ),
        *(f"{place}/statuses/{REVISION}", f"{place}/deployments/1/statuses"),
    ], "the same deployment fails twice"
    bodies = [each["body"] for each in told]
    assert [(each["context"], each["state"]) for each in bodies[:2]] == [
        ("staging/healthy", "success"),
        ("staging/healthy", "failure"),
    ]
    deployment = {"ref": REVISION, "environment": "staging"}
    deployment |= {"auto_merge": False, "required_contexts": []}
    assert deployment.items() <= bodies[2].items()
    failed = {"state": "failure", "environment": "staging"}
    failed |= {"description": "digits-staging is Degraded, as Argo CD finds"}
    assert failed.items() <= bodies[3].items()
