"""`make webhook`: GitHub tells both of Argo CD's endpoints of a push."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import fake_gh
import fake_kubectl
from conftest import TEMPLATE
from delivery.__main__ import main
from delivery.commands.webhook import QUERIES, hook_addresses
from fake_gh import GitHub, in_process, logged_in
from fake_kubectl import Cluster
from fake_project import Project, follow, kill, make_project

URL = "https://argocd.example.com"
ADDRESSES = hook_addresses(URL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path, monkeypatch)
    made.git("remote", "set-url", "origin", "git@github.com:acme/digits.git")
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    return logged_in(project.folder.parent, monkeypatch)


@pytest.fixture
def cluster(github: GitHub, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(github.place.parent, github.programs)
    monkeypatch.setenv("FAKE_CLUSTER", str(made.place))
    programs = {"gh": (fake_gh, github.place), "kubectl": (fake_kubectl, made.place)}
    monkeypatch.setattr("subprocess.run", in_process(programs, monkeypatch))
    return made


def said(capfd: pytest.CaptureFixture[str], *options: str, url: str = URL) -> str:
    """The one sentence in which `make webhook` fails."""
    capfd.readouterr()
    assert main(["webhook", url, *options]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    return line


def lacks(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What `make webhook CHECK=1` says is missing."""
    capfd.readouterr()
    status = main(["webhook", URL, "--check"])
    found = capfd.readouterr().out.splitlines()
    missing = [line.removeprefix("missing: ") for line in found if line.startswith("missing: ")]
    assert bool(missing) == bool(status)
    return missing


def called(github: GitHub, code: int, message: str = "OK") -> None:
    """GitHub has called all webhooks, and was answered so."""
    answer = {"code": code, "status": "active", "message": message}
    github.write(hooks=[each | {"last_response": answer} for each in github.read("hooks")])


def test_one_call_has_both_endpoints_told_with_one_secret(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["webhook", URL]) == 0
    shown = capfd.readouterr()
    hooks = github.read("hooks")
    assert [each["config"]["url"] for each in hooks] == ADDRESSES
    assert len(cluster.secret()) == 64 and int(cluster.secret(), 16)
    for each in hooks:
        assert each["events"] == ["push"] and each["active"]
        assert each["config"] == {
            "url": each["config"]["url"],
            "secret": cluster.secret(),
            "content_type": "json",
            "insecure_ssl": "0",
        }
    assert cluster.read("secret")["admin.password"] == "aGFzaA=="
    assert cluster.restarts() == 1
    called_up = [call[-1] for call in github.read("calls") if call[-1].endswith("/pings")]
    assert called_up == ["repos/acme/digits/hooks/1/pings", "repos/acme/digits/hooks/2/pings"]
    assert lacks(capfd) == [] and shown.err == ""


def test_the_secret_is_on_no_command_line_and_in_no_file(
    github: GitHub, cluster: Cluster, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["webhook", URL]) == 0
    secret = cluster.secret()
    assert secret not in json.dumps(github.read("calls") + cluster.read("calls"))
    assert secret not in "".join(capfd.readouterr())
    written = [path for path in project.folder.rglob("*") if path.is_file()]
    assert not any(secret.encode() in path.read_bytes() for path in written)


def test_doing_it_again_changes_nothing(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["webhook", URL])
    called(github, 200)
    before, secret, writes = github.read("hooks"), cluster.secret(), github.writes()
    assert main(["webhook", URL]) == 0
    assert (github.read("hooks"), cluster.secret(), github.writes()) == (before, secret, writes)
    assert cluster.restarts() == 1


def test_a_check_changes_nothing_and_says_what_is_missing(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = ["webhook.github.secret in the cluster's argocd-secret"]
    assert lacks(capfd) == wanted + [f"a webhook at {each}" for each in ADDRESSES]
    line = said(capfd, "--check")
    assert f"acme/digits: `make webhook URL={URL}`" in line
    assert github.writes() == [] and cluster.secret() == "" and cluster.restarts() == 0
    assert main(["webhook", URL]) == 0  # what it says
    assert main(["webhook", URL, "--check"]) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"active": False},
        {"events": ["issues"]},
        {"config": {"content_type": "form"}},
        {"config": {"insecure_ssl": "1"}},
        {"config": {"secret": ""}},
    ],
    ids=["off", "of something else", "not JSON", "any certificate", "unsigned"],
)
def test_a_webhook_that_somebody_changed_is_put_right(
    github: GitHub,
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, Any],
) -> None:
    main(["webhook", URL])
    first, second = github.read("hooks")
    config = first["config"] | change.get("config", {})
    config = {name: value for name, value in config.items() if value}
    github.write(hooks=[first | change | {"config": config}, second])
    signs = "a webhook that signs, and sends pushes as JSON,"
    assert lacks(capfd) == [f"{signs} at {ADDRESSES[0]}"]
    assert main(["webhook", URL]) == 0
    assert github.read("hooks") == [first, second] and lacks(capfd) == []


def test_a_call_that_is_refused_is_told_and_another_secret_put_right(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["webhook", URL])
    cluster.keep("of somebody else")
    called(github, 400, "HMAC verification failed")
    answer = "a good answer to GitHub's last call (it was '400 HMAC verification failed')"
    assert lacks(capfd) == [f"{answer} at {each}" for each in ADDRESSES]
    assert main(["webhook", URL]) == 0
    assert {each["config"]["secret"] for each in github.read("hooks")} == {"of somebody else"}
    assert len(github.read("hooks")) == 2 and cluster.restarts() == 2


def test_webhooks_of_others_stay_as_they_are(github: GitHub, cluster: Cluster) -> None:
    other = {"id": 1, "active": True, "events": ["*"], "config": {"url": "https://ci.example.com"}}
    github.write(hooks=[other])
    assert main(["webhook", URL]) == 0
    assert github.read("hooks")[0] == other and len(github.read("hooks")) == 3


def test_a_secret_that_is_there_is_kept(github: GitHub, cluster: Cluster) -> None:
    cluster.keep("chosen by an administrator")
    assert main(["webhook", URL]) == 0
    assert cluster.secret() == "chosen by an administrator"
    assert {each["config"]["secret"] for each in github.read("hooks")} == {cluster.secret()}


@pytest.mark.parametrize("step", ["keep_secret", "set_hook"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_one_that_was_interrupted_is_finished_by_the_next(
    github: GitHub, cluster: Cluster, project: Project, step: str, when: str
) -> None:
    command = ["webhook", URL]
    assert kill(project, command, f"delivery.commands.webhook.{step}", when) == 9
    assert main(command) == 0
    assert len(github.read("hooks")) == 2 and cluster.restarts() >= 1
    assert {each["config"]["secret"] for each in github.read("hooks")} == {cluster.secret()}


@pytest.mark.parametrize(
    "url", ["argocd.example.com", "http://argocd.example.com", f"{URL}/x", "https://a b", ""]
)
def test_an_address_that_is_none_is_refused(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    line = said(capfd, url=url)
    assert "`make webhook URL=https://argocd.example.com`" in line
    assert github.read("calls") == [] and cluster.read("calls") == []
    assert main(["webhook", URL]) == 0  # what it says


def test_a_cluster_without_argo_cd_is_another_one(
    github: GitHub, cluster: Cluster, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster.write(context="elsewhere")
    line = said(capfd)
    assert "there is no Argo CD in the cluster" in line and github.writes() == []
    assert follow(line, project, name="ours") == ["kubectl config use-context ours"]
    assert main(["webhook", URL]) == 0


@pytest.mark.parametrize("verb", ["get", "patch", "rollout"])
def test_a_cluster_that_does_not_answer_is_one_sentence(
    github: GitHub,
    cluster: Cluster,
    project: Project,
    capfd: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    cluster.write(fails={verb: "The connection to the server was refused"})
    line = said(capfd)
    assert f"error: kubectl cannot {verb} " in line and "was refused" in line
    assert github.writes() == []
    cluster.write(fails={})
    follow(line, project)
    assert main(["webhook", URL]) == 0


def test_without_kubectl_the_way_to_it_is_named(
    github: GitHub,
    cluster: Cluster,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = subprocess.run
    with monkeypatch.context() as without:
        without.setattr("subprocess.run", without_kubectl(run))
        line = said(capfd)
    assert line == (
        "error: kubectl is not here: install it, as https://kubernetes.io/docs/tasks/tools says"
    )
    assert main(["webhook", URL]) == 0  # with it


def without_kubectl(run: Any) -> Any:
    """A machine that has none, wherever this one has it."""

    def started(command: list[str], **options: Any) -> Any:
        if command[0] == "kubectl":
            raise FileNotFoundError(command[0])
        return run(command, **options)

    return started


@pytest.mark.parametrize("status", [403, 404])
def test_who_may_not_register_it_is_told_so(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    github.write(fails={"POST": [status, "Must have admin rights to Repository."]})
    assert "as an administrator of acme/digits" in said(capfd)
    github.write(fails={})
    assert main(["webhook", URL]) == 0


def test_a_yes_that_registers_nothing_is_not_believed(
    github: GitHub, cluster: Cluster, capfd: pytest.CaptureFixture[str]
) -> None:
    made = {"id": 7, "active": True, "events": ["push"], "config": {}}
    github.write(fails={"POST repos/acme/digits/hooks": json.dumps(made)})
    assert "GitHub does not tell Argo CD of pushes to acme/digits" in said(capfd)


def test_a_secret_that_nobody_can_read_is_replaced(github: GitHub, cluster: Cluster) -> None:
    cluster.write(secret=cluster.read("secret") | {"webhook.github.secret": "not base64"})
    assert main(["webhook", URL]) == 0
    assert len(cluster.secret()) == 64


def test_the_queries_are_those_that_the_route_tells_apart() -> None:
    route = TEMPLATE / "argocd/components/webhook/http-route.yaml"
    matches = [
        match
        for rule in yaml.safe_load(route.read_text())["spec"]["rules"]
        for match in rule["matches"]
    ]
    assert {each["path"]["value"] for each in matches} == {"/api/webhook"}
    told_apart = [
        "".join(f"?{query['name']}={query['value']}" for query in each.get("queryParams", []))
        for each in matches
    ]
    assert sorted(told_apart) == sorted(QUERIES)
