"""What Argo CD makes of a generated project: its Kustomizations and generated Applications."""

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import yaml

from conftest import TEMPLATE, UNBAKED, cookiecutter
from workspace.settings import PARSER

RELEASE = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: model-release
data:
  version: "8"
  image: "123456789012.dkr.ecr.eu-central-1.amazonaws.com/digits@sha256:{digest}"
  accuracy: "0.9877"
  macro_f1: "0.9875"
  calibration_error: "0.0061"
  loss: "0.0431"
  support: "360"
  data: "{sum}"
  test_data: "{sum}"
  code: "{sum}"
  commit: "{commit}"
""".format(digest="1" * 64, sum="a" * 64, commit="d" * 40)

RUN = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: training-run
data:
  run: "3"
  image: "123456789012.dkr.ecr.eu-central-1.amazonaws.com/digits-training@sha256:{digest}"
  nodes: "2"
  commit: "{commit}"
""".format(digest="2" * 64, commit="d" * 40)

PROGRAMS = (  # of Argo CD
    ("Deployment", "argocd-repo-server"),
    ("Deployment", "argocd-server"),
    ("StatefulSet", "argocd-application-controller"),
)
# What Argo CD's own manifests hold of the objects that ours patch.
ARGO_CD = "".join(
    f"---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n"
    for name in ("argocd-cm", "argocd-cmd-params-cm", "argocd-notifications-cm")
) + "".join(
    f"---\napiVersion: apps/v1\nkind: {kind}\nmetadata:\n  name: {name}\n"
    f"spec: {{template: {{spec: {{containers: [{{args: [/usr/local/bin/{name}]}}]}}}}}}\n"
    for kind, name in PROGRAMS
)

# The kinds that a gateway consists of.
TRAEFIK = "".join(
    "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
    f"metadata:\n  name: {kind.lower()}s.traefik.io\n"
    "spec:\n  group: traefik.io\n  scope: Namespaced\n"
    f"  names: {{kind: {kind}, plural: {kind.lower()}s}}\n"
    "  versions: [{name: v1alpha1, served: true, storage: true}]\n"
    for kind in (
        *("IngressRoute", "Middleware", "ServersTransport"),
        *("TLSOption", "TLSStore", "TraefikService"),
    )
)
REMOTE = {"argo-cd": ARGO_CD, "gateway": TRAEFIK}  # by the folder that names an address


GLOBBING = "applicationsetcontroller.enable.new.git.file.globbing"  # off by default in Argo CD 3.5


def release_everywhere(argocd: Path) -> None:
    """Put a release into each environment below a project's `argocd` folder, and a training run."""
    for overlay in argocd.glob("environments/*/kustomization.yaml"):
        (overlay.parent / "model.yaml").write_text(RELEASE)
    (argocd / "training" / "run.yaml").write_text(RUN)


def released_project(output: Path) -> Path:
    """Generate a project with one release in each environment and one training run."""
    assert cookiecutter(output).returncode == 0
    release_everywhere(output / "digit-classifier" / "argocd")
    return output / "digit-classifier"


def by_name(documents: list[dict]) -> dict[tuple[str, str], dict]:
    """Return documents by their kind and name."""
    return {named(each): each for each in documents}


def build(folder: Path) -> list[dict]:
    """Return the documents that `kubectl kustomize` makes of a folder.

    What a Kustomization takes from the internet is replaced by the names that it is known to hold,
    without the programs among it.
    """
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if not any(resource.startswith("https://") for resource in kustomization["resources"]):
        return kustomize(folder)
    made = kustomize(without_remote(folder, kustomization))
    return [document for document in made if named(document) not in PROGRAMS]


def named(document: dict) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def kustomize(folder: Path) -> list[dict]:
    """Return the documents that `kubectl kustomize` makes of a folder."""
    result = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    documents = yaml.load_all(result.stdout, Loader=PARSER)  # a safe one, ten times as fast
    return [document for document in documents if document]


def build_with(project: Path, environment: str, *components: str) -> list[dict]:
    """Return an environment's documents as they are with components more in its overlay."""
    overlay = project / "argocd/environments" / environment / "kustomization.yaml"
    before = overlay.read_text()
    lines = "".join(f"  - ../../base/components/{each}\n" for each in components)
    overlay.write_text(before.replace("components:\n", f"components:\n{lines}"))
    assert len(overlay.read_text().splitlines()) <= 20
    try:
        return build(overlay.parent)
    finally:
        overlay.write_text(before)


def configs_with(folder: Path, *components: str) -> dict[tuple[str, str], dict]:
    """Return what the Application `configs` makes once the lines of some components count."""
    wanted = "|".join(components)
    lines = rf"(?m)^(      )# (components: |  - \.\./\.\./components/(?:{wanted}) )"
    text = (UNBAKED / "argocd/apps/platform.yaml").read_text()
    text, count = re.subn(lines, r"\1\2", text)
    assert count == 1 + len(components)
    (source,) = (
        each["spec"]["source"]
        for each in yaml.safe_load_all(text)
        if (each["kind"], each["metadata"]["name"]) == ("Application", "configs")
    )
    shutil.copytree(TEMPLATE / "argocd", folder / "argocd")
    configs = folder / "argocd/platform/configs"
    with (configs / "kustomization.yaml").open("a") as file:
        file.write(yaml.safe_dump(source["kustomize"]))
    return by_name(build(configs))


def without_remote(folder: Path, kustomization: dict) -> Path:
    """Copy a Kustomization, with names in place of what it takes from the internet."""
    copy = folder.parent / f"{folder.name}-offline"
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    (copy / "remote.yaml").write_text(REMOTE[folder.name])
    kustomization["resources"] = [
        "remote.yaml" if resource.startswith("https://") else resource
        for resource in kustomization["resources"]
    ]
    (copy / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return copy


def applications(applicationset: dict, project: Path) -> list[dict]:
    """Return the Applications that an ApplicationSet's Git files generator makes of a project."""
    spec = applicationset["spec"]
    (generator,) = spec["generators"]
    (files,) = generator["git"]["files"]
    return [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application"}
        | expand(spec["template"], parameters(path, project))
        for path in found(files["path"], project)
    ]


def found(pattern: str, project: Path) -> list[Path]:
    """Return the files of a generator's path, where `*` is many folders without GLOBBING."""
    (settings,) = (
        each["data"]
        for each in build(project / "argocd/base/argo-cd")
        if each["metadata"]["name"] == "argocd-cmd-params-cm"
    )
    if settings.get(GLOBBING) == "true":
        return sorted(project.glob(pattern))
    files = (path for path in project.rglob("*") if path.is_file())
    return sorted(path for path in files if fnmatch(str(path.relative_to(project)), pattern))


def parameters(path: Path, project: Path) -> dict:
    folder = path.parent.relative_to(project)
    place = {"path": str(folder), "basename": folder.name, "filename": path.name}
    return yaml.safe_load(path.read_text()) | {"path": place}


def expand(template, values: dict):
    """Fill the Go templates in a structure's strings; an unknown name or function is a KeyError."""
    if isinstance(template, dict):
        return {key: expand(value, values) for key, value in template.items()}
    if isinstance(template, list):
        return [expand(value, values) for value in template]
    if isinstance(template, str):
        return re.sub(r"{{(.*?)}}", lambda match: evaluate(match.group(1), values), template)
    return template


def evaluate(expression: str, values: dict) -> str:
    """Return what `.a.b | function "argument" ...` stands for."""
    name, *functions = [part.strip() for part in expression.split("|")]
    value = values
    for key in name.removeprefix(".").split("."):
        value = value[key]
    for function in functions:
        word, *arguments = re.findall(r'"[^"]*"|\S+', function)
        value = FUNCTIONS[word](*map(json.loads, arguments), value)
    assert isinstance(value, str), f"{expression} is {value!r}, which a template would misprint"
    return value


FUNCTIONS = {
    "toYaml": lambda value: yaml.safe_dump(value),
    "replace": lambda old, new, value: value.replace(old, new),
}
