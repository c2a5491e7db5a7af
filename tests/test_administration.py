"""The Secrets of an environment's namespace, which Argo CD does not make: made once for each."""

import base64
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from conftest import TEMPLATE, UNBAKED

SCRIPT = "argocd/base/administration.sh"
# Keeps in files what is made; the real kubectl makes the manifest where the script has none.
KUBECTL = """\
#!{python}
import pathlib, subprocess, sys, yaml
words = [word for word in sys.argv[1:] if not word.startswith("--")]
namespace = words.pop(0) if sys.argv[1] == "--namespace" else ""
if "{broken}":
    sys.exit("error: {broken}")

def place(kind, name):
    folder = pathlib.Path({state!r}, namespace or name)
    return folder / ("made" if kind == "namespace" else f"{{kind}}-{{name}}")

if words[0] == "get":
    sys.exit(print("/".join(words[1:3])) if place(*words[1:3]).exists() else None)
if "--filename=/dev/stdin" in sys.argv:
    document = yaml.safe_load(sys.stdin)
    document["metadata"]["namespace"] = namespace
else:
    command = [{real!r}, *sys.argv[1:], "--dry-run=client", "--output=yaml"]
    made = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    document = yaml.safe_load(made)
if document.get("type") == "kubernetes.io/service-account-token":
    owner = document["metadata"]["annotations"]["kubernetes.io/service-account.name"]
    assert place("serviceaccount", owner).exists(), "Kubernetes deletes a token without an account"
path = place(document["kind"].lower(), document["metadata"]["name"])
path.parent.mkdir(exist_ok=document["kind"] != "Namespace")
with path.open("x") as file:
    yaml.safe_dump(document, file)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The environments of a project, beside a cluster without anything."""
    (tmp_path / "cluster").mkdir()
    shutil.copytree(UNBAKED / "argocd", tmp_path / "argocd")
    for overlay in tmp_path.glob("argocd/environments/*/kustomization.yaml"):
        overlay.write_text(overlay.read_text().replace("<<cookiecutter.project>>", "digits"))
    return tmp_path


def run(project: Path, broken: str = "") -> subprocess.CompletedProcess[str]:
    real = shutil.which("kubectl")
    fake = project / "bin/kubectl"
    fake.parent.mkdir(exist_ok=True)
    state = str(project / "cluster")
    fake.write_text(KUBECTL.format(python=sys.executable, state=state, real=real, broken=broken))
    fake.chmod(0o755)
    environment = os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["sh", SCRIPT], cwd=project, env=environment, capture_output=True, text=True
    )


def value(project: Path, environment: str) -> str:
    path = project / "cluster" / f"digits-{environment}" / "secret-triton-administration"
    secret = yaml.safe_load(path.read_text())
    assert secret["metadata"]["namespace"] == f"digits-{environment}"
    return base64.b64decode(secret["data"]["value"]).decode()


def test_every_environment_gets_its_own_value(project: Path) -> None:
    result = run(project)
    assert (result.returncode, result.stderr) == (0, "")
    values = [value(project, each) for each in ("production", "staging")]
    assert all(len(each) == 64 and int(each, 16) for each in values) and len({*values}) == 2


def test_a_new_environment_gets_one_and_the_others_keep_theirs(project: Path) -> None:
    assert run(project).returncode == 0
    before = value(project, "staging")
    shutil.copytree(project / "argocd/environments/staging", project / "argocd/environments/qa")
    overlay = project / "argocd/environments/qa/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace('"digits-staging"', "digits-qa"))
    assert run(project).returncode == 0
    assert value(project, "staging") == before != value(project, "qa")


def test_every_environment_gets_the_token_that_its_analyses_ask_with(project: Path) -> None:
    assert run(project).returncode == 0
    for name in ("production", "staging"):
        folder = project / "cluster" / f"digits-{name}"
        account = yaml.safe_load((folder / "serviceaccount-pod-reader").read_text())
        token = yaml.safe_load((folder / "secret-pod-reader").read_text())
        assert token["metadata"]["namespace"] == account["metadata"]["namespace"] == folder.name
        asked = (TEMPLATE / "argocd/triton/failed-starts.yaml").read_text()
        assert "{name: pod-reader, key: token}" in asked, "the key that Kubernetes fills in"
    assert run(project).stderr == "", "what is there stays"


def test_a_value_that_is_deleted_is_made_anew(project: Path) -> None:
    run(project)
    before = value(project, "staging")
    (project / "cluster/digits-staging/secret-triton-administration").unlink()
    assert run(project).returncode == 0
    assert value(project, "staging") != before


def test_a_namespace_that_is_missing_is_named_and_can_be_added(project: Path) -> None:
    overlay = project / "argocd/environments/staging/kustomization.yaml"
    text = overlay.read_text()
    overlay.write_text(text.replace("namespace:", "#"))
    result = run(project)
    assert result.returncode and "staging/kustomization.yaml has no line" in result.stderr
    overlay.write_text(text)
    assert run(project).returncode == 0


def test_a_cluster_that_does_not_answer_ends_it(project: Path) -> None:
    result = run(project, broken="connection refused")
    assert result.returncode and result.stderr == "error: connection refused\n"
    assert not list((project / "cluster").iterdir())


def test_the_readmes_way_to_another_value_restarts_the_pods() -> None:
    readme = (UNBAKED / "argocd/README.md").read_text()
    (command,) = re.findall(r"^    kubectl .* patch (rollout triton .*\\\n.*)$", readme, re.M)
    rollout = TEMPLATE / "argocd/triton/rollout.yaml"
    local = command.replace("rollout triton", f"--local --filename {rollout} --output yaml")
    result = subprocess.run(
        ["sh", "-c", f"kubectl patch {local}"], capture_output=True, text=True, check=True
    )
    patched = yaml.safe_load(result.stdout)
    restarted = patched["spec"].pop("restartAt")
    assert datetime.fromisoformat(str(restarted)).tzinfo, "the form that Argo Rollouts takes"
    assert patched["spec"] == yaml.safe_load(rollout.read_text())["spec"]


def test_the_readmes_name_the_command() -> None:
    for readme in (UNBAKED / "argocd/README.md", UNBAKED / "infra/README.md"):
        assert f"sh {SCRIPT}" in readme.read_text()
    assert (TEMPLATE / "argocd/administration.sh").exists()
