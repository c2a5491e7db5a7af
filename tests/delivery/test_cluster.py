"""`make cluster` and `make cluster-down`; docker, kind and kubectl have stand-ins."""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import fake_cluster
import rendering
from conftest import cookiecutter
from delivery.__main__ import main
from delivery.cluster import git_server
from delivery.cluster.installation import ARGO_CD, ARGO_ROLLOUTS
from delivery.cluster.remote import local_remote, public_address
from delivery.cluster.state import APPLIED, FOLDER, GIT_SERVER, SETTINGS
from fake_project import follow, make_project

NAME = "digit-classifier"
UP, DOWN = ["cluster", NAME], ["cluster-down", NAME]
KUBECTL = shutil.which("kubectl") or ""


@dataclass(frozen=True)
class Place:
    """A project's checkout with a remote on this machine, and the stand-ins' file."""

    project: Any
    state: Path

    def made(self) -> dict[str, Any]:
        return json.loads(self.state.read_text())

    def change(self, **values: Any) -> None:
        self.state.write_text(json.dumps(self.made() | values))

    def told(self, words: str) -> list[str]:
        return [each for each in self.made()["told"] if words in each]

    def what_is_there(self) -> dict[str, Any]:
        return {name: self.made()[name] for name in ("containers", "clusters", "objects")}


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("baked")
    assert cookiecutter(output).returncode == 0
    return output / NAME / "argocd"


@pytest.fixture
def on_the_path(tmp_path: Path, manifests: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-ins as programs."""
    which = shutil.which
    project = make_project(tmp_path, monkeypatch)
    shutil.rmtree(project.folder / "argocd")
    shutil.copytree(manifests, project.folder / "argocd")
    project.commit("Take the manifests")
    state = fake_cluster.install(tmp_path / "bin", KUBECTL)
    monkeypatch.setattr("shutil.which", which)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    yield Place(project, state)
    git_server.stop(GIT_SERVER)


@pytest.fixture
def place(on_the_path: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The stand-ins without a process for each command."""
    run = fake_cluster.in_place(on_the_path.state, KUBECTL)
    monkeypatch.setattr("delivery.cluster.programs.subprocess", SimpleNamespace(run=run))
    return on_the_path


def test_a_cluster_is_made_and_followed_and_taken_away(
    on_the_path: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    place = on_the_path
    assert main(UP) == 0
    out = capfd.readouterr().out
    assert out.index("about 4 GB of disk") < out.index("step 1 of 8") < out.index("step 8 of 8")
    made = place.what_is_there()
    assert made["clusters"] == [NAME]
    assert made["containers"][f"{NAME}-registry"] == {
        "running": True,
        "networks": ["bridge", "kind"],
    }
    hosts = f"{NAME}-control-plane /etc/containerd/certs.d/localhost:5001/hosts.toml"
    assert place.made()["files"] == {hosts: f'[host."http://{NAME}-registry:5000"]\n'}
    hosting = made["objects"]["kube-public/configmap/local-registry-hosting"]
    assert yaml.safe_load(hosting["data"]["localRegistryHosting.v1"])["host"] == "localhost:5001"
    assert place.made()["folders"] == [str(ARGO_CD.folder), str(ARGO_ROLLOUTS.folder)]
    for name in ("staging", "production"):
        assert made["objects"][f"{NAME}-{name}/secret/triton-administration"]["value"]
    assert "argocd/applicationset/digit-classifier" in made["objects"]
    assert not [each for each in made["objects"] if "platform" in each or "training" in each]
    process = git_server.remembered(GIT_SERVER)
    assert process and git_server.alive(process)
    assert main(DOWN) == 0
    assert place.what_is_there() == {"containers": {}, "clusters": [], "objects": {}}
    assert not git_server.alive(process) and not FOLDER.exists()
    assert main(DOWN) == 0, "once more"


def test_again_nothing_is_made_twice(place: Place) -> None:
    assert main(UP) == 0
    first, secrets = place.what_is_there(), place.told("create secret")
    served = GIT_SERVER.read_text()
    assert main(UP) == 0
    assert place.what_is_there() == first
    assert place.told("create secret") == secrets
    assert len(place.told("kind create")) == len(place.told("docker run")) == 1
    assert GIT_SERVER.read_text() == served


STEPS = """\
docker run
kind create cluster
halfway
docker exec
docker network connect
--filename -
docker buildx
argocd/base/argo-cd
rollout status --namespace argo-rollouts
create secret
""".splitlines()


def test_what_was_interrupted_anywhere_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each run gets one step further. Half-made nodes of kind do not answer."""
    monkeypatch.setenv("CLUSTER_FAILS", "\n".join(STEPS))
    runs = 0
    while main(UP):
        runs += 1
        error = capfd.readouterr().err
        assert "put it right and run the same command again" in error or "says why above" in error
        assert place.made()["failed"] == STEPS[:runs]
        place.change(answers="halfway" not in error and runs != 3)
    assert runs == len(STEPS)
    assert "argocd/applicationset/digit-classifier" in place.made()["objects"]
    assert main(DOWN) == 0
    assert place.what_is_there() == {"containers": {}, "clusters": [], "objects": {}}


def test_a_cluster_that_was_stopped_with_the_machine_is_made_again(place: Place) -> None:
    assert main(UP) == 0
    process = git_server.remembered(GIT_SERVER)
    assert process
    git_server.stop(GIT_SERVER)
    GIT_SERVER.write_text(process.model_dump_json())
    containers = place.made()["containers"]
    containers[f"{NAME}-registry"]["running"] = False
    place.change(answers=False, containers=containers)
    assert main(UP) == 0
    assert len(place.told("kind create")) == 2 and place.told("docker start")
    again = git_server.remembered(GIT_SERVER)
    assert again and git_server.alive(again) and again.address == process.address


def test_a_missing_program_is_a_sentence_with_the_cure(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for missing in fake_cluster.PROGRAMS:
        there = [name for name in fake_cluster.PROGRAMS if name != missing]
        with monkeypatch.context() as without:
            without.setattr("shutil.which", lambda name, there=there: name in there)
            assert main(UP) == 1
        said = capfd.readouterr().err
        assert said.startswith(f"error: {missing} is not installed: do it as https:")
    assert place.made()["told"] == []
    assert main(UP) == 0


def test_a_docker_without_its_server(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLUSTER_FAILS", "docker version")
    assert main(UP) == 1
    assert "Docker's server does not answer: start it" in capfd.readouterr().err
    assert main(UP) == 0, "it was started"


def test_it_says_how_to_open_what_there_is_and_no_password(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(UP) == 0
    out = capfd.readouterr().out
    assert "port-forward service/argocd-server 8080:443" in out
    assert "port-forward service/argo-rollouts-dashboard 3100" in out
    assert "get secret argocd-initial-admin-secret" in out
    assert f"--namespace {NAME}-staging port-forward service/triton 8000 8001" in out
    assert f"export KUBECONFIG=$PWD/{SETTINGS}" in out
    assert f"`registry: localhost:5001/{NAME}`" in out
    named = (place.project.folder / "params.yaml").read_text()
    pushed = named.replace("oci:.local/registry", f"localhost:5001/{NAME}")
    (place.project.folder / "params.yaml").write_text(pushed)
    assert main(UP) == 0
    assert "cannot pull" not in capfd.readouterr().out


# -- what Argo CD is told --------------------------------------------------------------------------


def test_argo_cd_serves_releases_without_gpus_by_the_small_image(
    place: Place, tmp_path: Path
) -> None:
    """The Application's own changes, as Argo CD makes them, on an overlay with a GPU."""
    assert main(UP) == 0
    project, models = json.loads(APPLIED.read_text())["items"]
    process = git_server.remembered(GIT_SERVER)
    assert process
    rendering.release_everywhere(place.project.folder / "argocd")
    made = rendering.applications(models, place.project.folder)
    assert {each["metadata"]["name"] for each in made} == {f"{NAME}-production", f"{NAME}-staging"}
    for application in made:
        source = application["spec"]["source"]
        assert project["spec"]["sourceRepos"] == [source["repoURL"]] == [process.address]
        rollout, kinds = changed(place.project.folder / source["path"], source["kustomize"])
        (container,) = rollout["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"localhost:5001/tritonserver-cpu@{fake_cluster.DIGEST}"
        assert "nvidia.com/gpu" not in json.dumps(rollout)
        assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}
        assert "PodMonitor" not in kinds and "NetworkPolicy" in kinds


def changed(overlay: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Return the Rollout and all kinds of an overlay with an Application's changes."""
    file = overlay / "kustomization.yaml"
    before = file.read_text()
    settings = yaml.safe_load(before)
    settings["components"] += changes["components"]
    settings.setdefault("patches", []).extend(changes["patches"])
    name, digest = re.fullmatch(r"(\S+)=(\S+)", changes["images"][0]).groups()  # type: ignore[union-attr]
    new, _, digest = digest.partition("@")
    settings["images"] = [{"name": name, "newName": new, "digest": digest}]
    file.write_text(yaml.safe_dump(settings))
    documents = rendering.build(overlay)
    file.write_text(before)
    (rollout,) = [each for each in documents if each["kind"] == "Rollout"]
    return rollout, {each["kind"] for each in documents}


def test_the_remote_of_this_machine_can_be_cloned_and_not_pushed_to(
    place: Place, tmp_path: Path
) -> None:
    assert main(UP) == 0
    process = git_server.remembered(GIT_SERVER)
    assert process
    clone = tmp_path / "clone"
    place.project.git("clone", "--quiet", process.address, str(clone), folder=tmp_path)
    head = place.project.git("rev-parse", "HEAD", folder=clone)
    assert head == place.project.git("rev-parse", "origin/main")
    place.project.commit("One more")
    place.project.git("fetch", "--quiet", "--depth=1", "origin", "main", folder=clone)
    assert place.project.git("rev-parse", "FETCH_HEAD", folder=clone) == place.project.git(
        "rev-parse", "HEAD"
    )
    place.project.git("config", "http.receivepack", "true", folder=place.project.origin)
    push = ["git", "push", process.address, "HEAD:refs/heads/other"]
    assert subprocess.run(push, cwd=clone, capture_output=True).returncode
    assert "other" not in place.project.branches()
    large = b"x" * 2**20  # more than anybody has read when Git refuses it
    for path in ("/", f"{process.address}/../../../etc/passwd", "/digits.git/config"):
        for body in (b"x", large):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(process.address + path, data=body))


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("https://ann:secret@example.com/a/b.git", "https://example.com/a/b.git"),
        ("git@github.com:a/b.git", "https://github.com/a/b.git"),
        ("ssh://git@github.com/a/b", "https://github.com/a/b.git"),
    ],
)
def test_a_remote_elsewhere_is_read_by_its_public_address(
    place: Place, address: str, read: str
) -> None:
    place.project.git("remote", "set-url", "origin", address)
    assert local_remote(place.project.repository) is None
    assert public_address(place.project.repository) == read


def test_a_remote_that_asks_for_a_key_gets_an_address_that_does_not(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("delivery.git.Repository.fetch", lambda self: "")
    place.project.git("remote", "set-url", "origin", "git@example.com:a/b.git")
    assert main(UP) == 1
    error = capfd.readouterr().err
    assert "a cluster cannot read git@example.com:a/b.git" in error
    follow(error.partition("error: ")[2], place.project, host="example.com", path="a/b.git")
    assert main(UP) == 0


# -- the cluster of a context ----------------------------------------------------------------------


@pytest.fixture
def given(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for a cluster of somebody's, in which is nothing of the project's."""
    file = tmp_path / "kubeconfig"
    fake_cluster.settings("east", file)
    monkeypatch.setenv("KUBECONFIG", str(file))
    return [*UP, "--context", "kind-east"]


def test_the_keys_of_a_given_cluster_are_never_for_others_to_read(
    place: Place, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(self: Path, target: Path) -> Path:
        modes[target] = self.stat().st_mode & 0o777
        return plain(self, target)

    modes: dict[Path, int] = {}
    plain = Path.replace
    monkeypatch.setattr(Path, "replace", replace)
    assert main([*given, "--host", "127.0.0.1"]) == 0
    assert modes[SETTINGS] == 0o600
    assert SETTINGS.stat().st_mode & 0o777 == 0o600


def test_a_given_cluster_gets_what_it_lacks_and_loses_nothing_else(
    place: Place, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    theirs = {"metadata": {"name": "argocd"}}
    place.change(objects={"/namespace/argocd": theirs, "/namespace/work": theirs})
    assert main([*given, "--host", "127.0.0.1", "--image", f"registry.example/t@{'a' * 9}"]) == 0
    out = capfd.readouterr().out
    assert "Argo CD is there already" in out and "step 5 of 5" in out
    assert "3 GB of images" in out and "15 GB" not in out
    assert place.made()["folders"] == [str(ARGO_ROLLOUTS.folder)]
    assert not place.told("docker") and not place.told("kind ")
    _, models = json.loads(APPLIED.read_text())["items"]
    source = models["spec"]["template"]["spec"]["source"]
    assert source["kustomize"]["images"] == [
        f"nvcr.io/nvidia/tritonserver=registry.example/t@{'a' * 9}"
    ]
    assert main(DOWN) == 0
    assert sorted(place.made()["objects"]) == ["/namespace/argocd", "/namespace/work"]
    assert not place.told("docker") and not place.told("kind ")


def test_without_an_image_and_an_address_production_s_image_and_the_node_s_address_are_taken(
    place: Place, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(given) == 0
    assert "NVIDIA's server image of 15 GB" in capfd.readouterr().out
    _, models = json.loads(APPLIED.read_text())["items"]
    source = models["spec"]["template"]["spec"]["source"]
    assert "images" not in source["kustomize"]
    assert source["repoURL"].startswith("http://127.0.0.1:")
    assert main(DOWN) == 0
    assert place.made()["objects"] == {}


def test_a_cluster_that_serves_the_project_already_is_left_alone(
    place: Place, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    serving = f"{NAME}-production"
    place.change(objects={f"/namespace/{serving}": {"metadata": {"name": serving}}})
    assert main(given) == 1
    assert f"the namespace '{serving}' of this cluster was not made for trying" in (
        capfd.readouterr().err
    )
    assert "argocd/applicationset/digit-classifier" not in place.made()["objects"]
    assert main(DOWN) == 0
    assert [*place.made()["objects"]] == [f"/namespace/{serving}"]
    place.change(objects={})
    assert main(given) == 0, "another cluster"


def test_an_address_that_is_not_this_machine_s(
    place: Place, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*given, "--host", "192.0.2.1"]) == 1
    assert "give an address of this machine that the cluster reaches" in capfd.readouterr().err
    assert main([*given, "--host", "127.0.0.1"]) == 0


def test_a_context_that_is_not_there(
    place: Place, given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*UP, "--context", "west"]) == 1
    assert "cannot locate context west" in capfd.readouterr().err
    assert main(given) == 0


def test_an_overlay_without_a_namespace(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    overlay = place.project.folder / "argocd/environments/staging/kustomization.yaml"
    text = overlay.read_text()
    overlay.write_text(text.replace("namespace:", "# namespace:"))
    assert main(UP) == 1
    assert "has no line `namespace: <name>`: add it" in capfd.readouterr().err
    overlay.write_text(text)
    assert main(UP) == 0
