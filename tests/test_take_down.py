"""The way down: all of it goes, beside a stand-in that lives as Argo CD does."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import fake_argo_cd
from conftest import TEMPLATE, UNBAKED
from fake_argo_cd import APPS, KINDS, PROJECTS, SETS, Object, World, application, made, project

sys.path.insert(0, str(TEMPLATE / "infra/commands"))
import take_down

CONTINUES = "put that right, and the same command continues"


class Down:
    """A project's checkout beside a cluster that runs it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.commands: list[str] = []
        self.ends_at = 0  # with which of the commands there is an interruption
        self.refused = ""  # what a command may not hold
        for path in (
            "root.yaml",
            "training/kustomization.yaml",
            "environments/staging/kustomization.yaml",
            "environments/production/kustomization.yaml",
        ):
            text = (UNBAKED / "argocd" / path).read_text()
            copy = folder / "argocd" / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text.replace("<<cookiecutter.project>>", "digits"))
        world = World(folder / "world.json")
        world.keep([made("namespaces", each) for each in ("default", "kube-system", "theirs")])
        self.before = json.loads(json.dumps(world.objects))
        world.keep([made("namespaces", "argocd"), made("deployments", "argocd", "argocd")])
        world.keep([made(KINDS, f"argocd-{kind}") for kind in ("applications", "appprojects")])
        world.keep([made("clusterroles", "argocd-server")])
        world.keep([project("root", "argocd"), application("root", "root", "argocd", [])])
        world.live()
        world.save()

    @property
    def world(self) -> World:
        return World(self.folder / "world.json")

    def add(self, *objects: Object) -> None:
        world = self.world
        world.keep(list(objects))
        world.save()

    def lose(self, *objects: Object) -> None:
        world = self.world
        for each in objects:
            world.drop(world.find(each["kind"], each["metadata"]["name"]))
        world.save()

    def kubectl(self, *words: str) -> "subprocess.CompletedProcess[str]":
        self.commands.append(" ".join(words))
        if len(self.commands) == self.ends_at:
            raise KeyboardInterrupt
        if self.refused and self.refused in self.commands[-1]:
            return subprocess.CompletedProcess(words, 1, "", f"no {self.refused}\n")
        world = self.world
        world.live()
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors):
            status = fake_argo_cd.kubectl(world, list(words))
        world.save()
        return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())

    def run(self) -> int:
        """Take it down; return the exit status."""
        self.commands.clear()
        return take_down.main(["ctx"])


@pytest.fixture
def down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Down:
    down = Down(tmp_path)
    monkeypatch.setattr(take_down, "ARGOCD", tmp_path / "argocd")
    monkeypatch.setattr(take_down, "run", lambda command, **_: down.kubectl(*command[1:]))
    return down


def names(objects: list[Object]) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


def test_the_stand_in_lives_as_argo_cd_does(down: Down) -> None:
    assert len(down.world.find(APPS)) == 8 and len(down.world.find(SETS)) == 3
    delete = partial(down.kubectl, "--context", "ctx", "delete", "--namespace=argocd")
    delete(APPS, "digits-staging")
    assert "digits-staging" in names(down.world.find(APPS)), "its ApplicationSet makes it anew"
    delete(APPS, "root")
    delete(PROJECTS, "root")
    assert len(down.world.find(APPS)) == 7, "`kubectl delete -f argocd/root.yaml` leaves them"
    delete(SETS, "models", "training", "controllers", "--cascade=orphan")
    assert len(down.world.find(APPS)) == 7
    delete(APPS, "kuberay-operator")
    assert delete(APPS, "digits-training").returncode == 1, "its operator is gone"
    delete(PROJECTS, "models")
    assert delete(APPS, "digits-staging").returncode == 1


def test_nothing_is_left(down: Down, capsys: pytest.CaptureFixture[str]) -> None:
    assert down.run() == 0
    assert down.world.objects == down.before
    assert capsys.readouterr().out.splitlines() == [
        "-- taking digits down in ctx",
        "-- what makes Applications, so that nothing comes back",
        "-- what serves and trains: digits-production, digits-staging, digits-training",
        "-- the namespace digits-production",
        "-- the namespace digits-staging",
        "-- the namespace digits-training",
        "-- the platform: configs, argo-rollouts, kuberay-operator",
        "-- the namespace argo-rollouts",
        "-- the namespace kuberay-operator",
        "-- the kinds that its controllers knew",
        "-- Argo CD itself",
        "-- nothing of digits is left in ctx",
    ]
    assert all(each.startswith("--context ctx ") for each in down.commands)
    waits = [each for each in down.commands if " wait pods,persistentvolumeclaims --all " in each]
    assert len(waits) == 5, "a disk would be left with its namespace"
    assert down.run() == 0, "there is nothing to do"


def test_a_way_down_that_was_interrupted_anywhere_is_continued(
    down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (down.folder / "world.json").read_text()
    assert down.run() == 0
    for call in range(1, len(down.commands) + 1):
        (down.folder / "world.json").write_text(whole)
        down.ends_at = call
        capsys.readouterr()
        assert down.run() == 130, call
        assert capsys.readouterr().err == "error: interrupted; the same command continues\n"
        down.ends_at = 0
        assert down.run() == 0 and down.world.objects == down.before, call


@pytest.mark.parametrize(
    "words", ["(NotFound)", "no new finalizers can be added if the object is being deleted"]
)
def test_an_application_that_goes_meanwhile_is_let_go(
    down: Down, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """As while Argo CD ends what an interrupted way down began."""

    def kubectl(command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        if "patch" in command and "applications.argoproj.io/digits-staging" in command:
            return subprocess.CompletedProcess(command, 1, "", f"Error from server: {words}\n")
        return down.kubectl(*command[1:])

    monkeypatch.setattr(take_down, "run", kubectl)
    assert down.run() == 0 and not down.world.find(APPS)


def test_what_somebody_else_runs_stays_and_is_named(
    down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    down.add(
        project("shop", "theirs", repository="https://github.com/octocat/shop.git"),
        application("shop", "shop", "theirs", []),
        made("deployments", "their-dashboard", "kuberay-operator"),
        made("rayjobs", "their-job", "theirs"),
    )
    assert down.run() == 0
    said = capsys.readouterr().out
    left = "kuberay-operator stays, with what is not from Git: deployment/their-dashboard\n"
    assert f"-- the namespace {left}" in said
    assert "-- kinds that are in use stay: rayjob.example\n" in said
    assert "-- Argo CD stays, because it runs application.argoproj.io/shop\n" in said
    assert names(down.world.find(APPS)) == ["shop"] == names(down.world.find(PROJECTS))
    assert down.world.find("deployments", "argocd") and down.world.find(KINDS, "rayjobs.example")
    assert not down.world.find(KINDS, "rollouts.example")
    assert "take-down" not in down.world.find("namespaces", "argocd")[0]["metadata"]["annotations"]


@pytest.mark.parametrize("there", [True, False], ids=["another project's", "none"])
def test_a_cluster_that_runs_none_of_this_project_is_left_alone(
    down: Down, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root = down.folder / "argocd/root.yaml"
    root.write_text(root.read_text().replace("/digits.git", "/letters.git"))
    if not there:
        down.lose(*down.world.objects)
    before = down.world.objects
    assert down.run() == 0
    assert capsys.readouterr().out == "-- nothing of letters is in ctx\n"
    assert down.world.objects == before


def test_what_argo_cd_cannot_take_away_is_told_and_continued(
    down: Down, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = down.world.find("deployments", "kuberay-operator")
    down.lose(*down.world.find(SETS), *down.world.find(APPS, "root"))
    down.lose(*operator, *down.world.find(APPS, "kuberay-operator"))
    assert down.run() == 1
    said = capsys.readouterr().err
    assert "Argo CD did not take away digits-production, digits-staging, digits-training in" in said
    assert said.endswith(f"; {CONTINUES}\n")
    down.add(*operator)  # it is put right
    assert down.run() == 0 and not down.world.find(APPS)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ("get namespaces", "kubectl get namespaces failed in ctx (no get namespaces): "),
        ("patch", "kubectl patch applications.argoproj.io/root failed in ctx (no patch): "),
        ("delete namespaces", "kubectl could not delete namespaces in ctx: its message is above; "),
    ],
)
def test_a_cluster_that_refuses_is_told_and_continued(
    down: Down, refused: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    down.refused = refused
    assert down.run() == 1
    assert capsys.readouterr().err == f"error: {said}{CONTINUES}\n"
    down.refused = ""
    assert down.run() == 0 and down.world.objects == down.before


def test_an_answer_that_breaks_off_is_not_an_empty_one(
    down: Down, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = down.world.objects
    with monkeypatch.context() as half:
        answer = subprocess.CompletedProcess((), 0, '{"items": [', "")
        half.setattr(take_down, "run", lambda *_, **__: answer)
        assert down.run() == 1
    said = "error: kubectl get namespaces broke off in ctx: run the same command again\n"
    assert capsys.readouterr().err == said
    assert down.world.objects == before
    assert down.run() == 0


def test_a_root_without_an_address_is_told(down: Down, capsys: pytest.CaptureFixture[str]) -> None:
    root = down.folder / "argocd/root.yaml"
    text = root.read_text()
    root.write_text("kind: Application\n")
    assert down.run() == 1
    assert "root.yaml has no line `repoURL: <address>`: restore it from Git" in (
        capsys.readouterr().err
    )
    root.write_text(text)
    assert down.run() == 0
