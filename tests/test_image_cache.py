"""The policy that rewrites where images come from, judged by a CEL library."""

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import rendering
import schemas
from cel import evaluate, with_variables
from conftest import TEMPLATE, UNBAKED

sys.path.insert(0, str(TEMPLATE / "infra/commands"))
import roots

PLATFORM = UNBAKED / "argocd/apps/platform.yaml"
CACHE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
DIGEST = f"@sha256:{'a' * 64}"
COPIES = {
    "docker.io/library/traefik:v3.6.24": f"{CACHE}/docker-hub/library/traefik:v3.6.24",
    f"quay.io/argoproj/argocd:v3.5.1{DIGEST}": f"{CACHE}/quay/argoproj/argocd:v3.5.1{DIGEST}",
    "registry.k8s.io/pause:3.10": f"{CACHE}/kubernetes/pause:3.10",
}
KEPT = [
    "nvcr.io/nvidia/tritonserver:26.07-py3",  # ECR cannot stand before it
    "ghcr.io/kedacore/keda:2.20.2",
    f"{CACHE}/quay/argoproj/argocd:v3.5.1",  # rewritten before
    "quay.io.evil.io/argoproj/argocd",
    "evil.io/docker.io/library/traefik",
    "traefik",
]


def opened(folder: Path) -> dict[tuple[str, str], dict]:
    """The platform's configurations once the lines in a project count, with a registry's name."""
    shutil.copytree(TEMPLATE / "argocd", folder / "argocd")
    text = PLATFORM.read_text().replace("<IMAGE_CACHE>", CACHE)
    ours = (
        r"components: |  - .*image-cache|- target: .*image-cache|  patch: \|-$|    - .*/variables/"
    )
    text, count = re.subn(rf"(?m)^(      +)# ({ours})", r"\1\2", text)
    assert count == 5
    (configs,) = [
        each for each in yaml.safe_load_all(text) if each["metadata"]["name"] == "configs"
    ]
    file = folder / "argocd/platform/configs/kustomization.yaml"
    file.write_text(file.read_text() + yaml.safe_dump(configs["spec"]["source"]["kustomize"]))
    return rendering.by_name(rendering.build(file.parent))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict]:
    return opened(tmp_path_factory.mktemp("opened"))


def rewritten(policy: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a pod that the policy writes; its messages are read as maps."""
    (mutation,) = policy["spec"]["mutations"]
    text = re.sub(r"\bObject[.\w]*\{", "{", mutation["applyConfiguration"]["expression"])
    text = re.sub(r"\b(\w+): ", r'"\1": ', text)
    known = with_variables(policy["spec"], {"object": {"spec": spec}})
    return evaluate(text, known)["spec"]


def containers(*images: str) -> list[dict[str, Any]]:
    return [{"name": f"c{n}", "image": image} for n, image in enumerate(images)]


def test_images_of_the_three_registries_come_from_the_cache(made) -> None:
    policy = made["MutatingAdmissionPolicy", "image-cache"]
    pod = {"containers": containers(*COPIES), "initContainers": containers(*reversed(COPIES))}
    copies = [*COPIES.values()]
    assert rewritten(policy, pod) == {
        "containers": containers(*copies),
        "initContainers": containers(*reversed(copies)),
    }


def test_other_images_come_from_where_they_are_named(made) -> None:
    policy = made["MutatingAdmissionPolicy", "image-cache"]
    wrote = rewritten(policy, {"containers": containers(*KEPT)})
    assert wrote == {"containers": containers(*KEPT), "initContainers": []}


def test_without_the_registrys_name_nothing_is_rewritten() -> None:
    file = TEMPLATE / "argocd/components/image-cache/image-cache.yaml"
    policy, _ = yaml.safe_load_all(file.read_text())
    named = [*COPIES, *KEPT]
    assert rewritten(policy, {"containers": containers(*named)})["containers"] == containers(*named)


def test_the_lines_in_a_project_open_it_and_nothing_else(made) -> None:
    before = rendering.by_name(rendering.build(TEMPLATE / "argocd/platform/configs"))
    more = {("MutatingAdmissionPolicy" + each, "image-cache") for each in ("", "Binding")}
    assert made.keys() - before.keys() == more
    (project,) = [
        each
        for each in yaml.safe_load_all(PLATFORM.read_text())
        if each["kind"] == "AppProject" and each["metadata"]["name"] == "platform"
    ]
    for kind, name in more:
        assert schemas.core_errors(made[kind, name]) in ([], None)
        allowed = {"group": "admissionregistration.k8s.io", "kind": kind, "name": name}
        assert allowed in project["spec"]["clusterResourceWhitelist"]


def test_copies_have_the_names_that_terraform_gives_them() -> None:
    terraform = (TEMPLATE / "infra/image_cache/main.tf").read_text()
    upstreams = re.findall(r'(?m)^    ([a-z-]+) += \{ url = "([^"]+)"', terraform)
    named = {name: url.replace("registry-1.docker.io", "docker.io") for name, url in upstreams}
    policy = (TEMPLATE / "argocd/components/image-cache/image-cache.yaml").read_text()
    written = re.findall(r'"([a-z0-9.]+)/": variables\.cache \+ "/([a-z-]+)/"', policy)
    assert {name: registry for registry, name in written} == named and len(named) == 3
    assert {f"{name}/" for name in named} == {*roots.CACHES}
    for file in ("gpu_cluster/roles.tf", "ci_identity/policies.tf"):
        listed = ", ".join(f'"{name}"' for name in sorted(named))
        assert f"for upstream in [{listed}] :" in (TEMPLATE / "infra" / file).read_text(), file
