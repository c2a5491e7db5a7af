"""A release that Argo CD tells GitHub to have failed is proposed to be taken back, once."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from delivery.__main__ import main
from delivery.manifests.cluster import Standing, UnknownError
from delivery.proposals.live_figures import Curve
from fake_gh import GitHub, answering
from fake_project import Project, make_project
from fake_registry import Handler, alone_with_registry

BRANCH = "rollback/staging-v3-to-v2"
SAYS = "digits-staging is Degraded, as Argo CD finds"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that released models 1, 2 and 3 to staging."""
    made = make_project(tmp_path, monkeypatch)
    overlay = made.folder / "argocd/environments/staging/kustomization.yaml"
    overlay.write_text("namespace: digits-staging\n")
    made.commit("Have an overlay")
    for version in (1, 2, 3):
        made.deploy("staging", version)
    made.git("config", f"url.{made.origin}.pushInsteadOf", str(made.origin))
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    project.serve_as("git@github.com:acme/digits.git")
    return answering(project.folder.parent, monkeypatch)


def tip(project: Project) -> str:
    return project.git("rev-parse", "HEAD")


def tell(project: Project, commit: str, environment: str = "staging", **more: Any) -> int:
    """Run the command on an event as GitHub tells it, with much else in it."""
    event = {
        "action": "created",
        "deployment": {"id": 7, "ref": commit, "sha": commit, "environment": environment},
        "deployment_status": {"state": "failure", "description": SAYS} | more,
        "repository": {"full_name": "acme/digits"},
    }
    file = project.folder.parent / "event.json"
    file.write_text(json.dumps(event))
    return main(["rollback", "--event", str(file)])


def message(project: Project, branch: str = BRANCH) -> str:
    return project.git("log", "-1", "--format=%B", branch, folder=project.origin)


def test_what_failed_is_taken_back_by_one_labelled_pull_request_that_says_why(
    project: Project, github: GitHub
) -> None:
    state = project.state()
    assert tell(project, tip(project)) == 0
    (pull,) = github.read("pulls")
    assert (pull["--head"], pull["labels"]) == (BRANCH, ["rollback"])
    assert f"**Model 3 is not served well:** {SAYS}" in message(project)
    changed = project.git("diff", "--name-only", f"main..{BRANCH}", folder=project.origin)
    assert changed == "argocd/environments/staging/model.yaml"
    assert project.state() == state


def test_what_is_told_again_finds_the_proposal_also_when_main_went_on(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = tip(project)
    assert tell(project, failed) == 0
    branches = project.branches()
    for _ in range(2):
        assert tell(project, failed) == 0
        assert "proposed before: https://github.com/acme/digits/pull/1" in capsys.readouterr().out
        project.commit("Change something else")
    assert project.branches() | {"main": ""} == branches | {"main": ""}
    assert len(github.read("pulls")) == 1


def test_what_a_person_closed_is_not_proposed_again(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(project, tip(project)) == 0
    github.write(pulls=[each | {"state": "closed"} for each in github.read("pulls")])
    project.git("push", "--quiet", "origin", f":{BRANCH}")
    assert tell(project, tip(project)) == 0
    assert BRANCH not in project.branches() and len(github.read("pulls")) == 1


def test_a_person_who_goes_back_elsewhere_is_not_disturbed(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollback", "staging", "--to", "1"]) == 0
    assert tell(project, tip(project)) == 0
    assert "proposed before, on the branch rollback/staging-v3-to-v1" in capsys.readouterr().out
    (pull,) = github.read("pulls")
    assert pull["--head"].endswith("v1") and "labels" not in pull, "what a person asked for"


def test_a_late_word_changes_nothing(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = tip(project)
    project.deploy("staging", 4)
    assert tell(project, failed) == 0
    said = capsys.readouterr().out
    assert "nothing to roll back: staging has model 4 in Git by now, and model 3 failed" in said
    assert tell(project, "e" * 40) == 0
    assert "main does not have the commit eeeeeeeeeeee" in capsys.readouterr().out
    assert github.read("pulls") == []


def test_of_another_environment_nothing_is_done(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever may tell of deployments chooses the name."""
    for name in ("infrastructure", "$(shell touch /tmp/x)", "../staging"):
        assert tell(project, tip(project), name) == 0
        assert "nothing to roll back: main has no environment" in capsys.readouterr().out
    assert tell(project, tip(project), "production") == 0
    assert "production has nothing in Git by now, and nothing failed" in capsys.readouterr().out
    assert github.read("pulls") == []


def test_a_revert_is_not_reverted_by_itself(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(project, tip(project)) == 0
    project.merge(BRANCH)
    capsys.readouterr()
    assert tell(project, tip(project)) == 1
    said = capsys.readouterr().err
    assert "staging went back to model 2, and that fails, too: a revert is not reverted by" in said
    assert len(github.read("pulls")) == 1
    assert main(["rollback", "staging"]) == 0, "as the sentence says"
    assert "rollback/staging-v2-to-v1" in project.branches()


@pytest.mark.parametrize("step", ["pr list", "pr create", "POST repos/acme/digits/issues"])
def test_an_api_that_fails_half_way_is_asked_again_by_the_next_word(
    project: Project, github: GitHub, step: str
) -> None:
    github.write(fails={step: (502, "Bad Gateway")})
    assert tell(project, tip(project)) == 1
    github.write(fails={})
    assert tell(project, tip(project)) == 0
    (pull,) = github.read("pulls")
    assert (pull["--head"], pull["labels"]) == (BRANCH, ["rollback"])


def told(project: Project, image: str = "", **metrics: list[str]) -> dict[str, Any]:
    """What Argo Rollouts tells GitHub of the model of an image, by default of the newest one."""
    seen = [
        {
            "name": name,
            "phase": "Failed",
            "measurements": [
                {"value": value, "startedAt": f"2026-11-26T08:00:{place % 60:02}Z"}
                for place, value in enumerate(values)
            ],
        }
        for name, values in metrics.items()
    ]
    status = {"phase": "Failed", "message": f'Metric "{next(iter(metrics))}" assessed Failed'}
    analysis = {"spec": {"args": [{"name": "failing", "value": "0.02"}]}}
    payload = {
        "image": image or f"oci:.local/registry@sha256:{3:064x}",
        "analyses": [analysis | {"status": status | {"metricResults": seen}}],
    }
    return {"task": "analysis", "environment": "digits-staging", "payload": payload}


def test_what_the_cluster_told_of_its_analyses_is_said_and_drawn(
    project: Project, github: GitHub
) -> None:
    older = told(project, failing=["[0.7031]"])
    github.write(deployments=[older, told(project, failing=["[]", "[0.01]", "[0.05]"])])
    assert tell(project, tip(project)) == 0
    (pull,) = github.read("pulls")
    said = Path(pull["--body-file"]).read_text()
    why = f"**Model 3 is not served well:** {SAYS}: 5.0% more of its live requests failed than"
    assert why in said
    assert '    x-axis UTC ["08:00:01", "08:00:02"]\n' in said
    assert "    bar [0.0100, 0.0500]\n    line [0.0200, 0.0200]\n" in said
    assert "0.7031" not in said, "what was told before"


def test_what_is_no_figure_is_told_in_the_words_of_argo_rollouts(
    project: Project, github: GitHub
) -> None:
    github.write(deployments=[told(project, answers=[])])
    assert tell(project, tip(project)) == 0
    assert f'well:** {SAYS}: Metric "answers" assessed Failed\n' in message(project)
    assert "mermaid" not in message(project)


@pytest.mark.parametrize("payload", ["", None, 7, {}, {"image": 7}, {"analyses": [{"spec": 7}]}])
def test_what_is_told_of_another_model_or_of_none_is_passed_over(
    project: Project, github: GitHub, payload: Any
) -> None:
    own = told(project, failing=["[0.05]"])
    another = told(project, image=f"ghcr.io/acme/digits@sha256:{'0' * 64}", failing=["[0.7]"])
    elsewhere = told(project, failing=["[0.8]"]) | {"environment": "digits-production"}
    github.write(deployments=[own, own | {"payload": payload}, another, elsewhere])
    assert tell(project, tip(project)) == 0
    assert "    bar [0.0500]\n" in message(project)


def test_a_proposal_comes_also_where_github_does_not_list_what_was_told(
    project: Project, github: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    github.write(fails={"GET repos/acme/digits/deployments": (403, "Not accessible")})
    assert tell(project, tip(project)) == 0
    assert "what was measured is not known: GitHub does not answer" in capsys.readouterr().out
    assert f"well:** {SAYS}\n" in message(project)


def test_whoever_tells_more_than_a_pull_request_holds_does_not_prevent_it(
    project: Project, github: GitHub
) -> None:
    many = told(project, failing=["[0.03]"], slowness=["[1e99]"] * 1000, classes=["[0.2]"])
    github.write(deployments=[many])
    assert tell(project, tip(project)) == 0
    said = message(project)
    assert len(said) < 65_536 and said.count("```mermaid") == 2


def test_a_registry_that_wants_a_login_is_no_alarm_where_nobody_asked(
    project: Project,
    github: GitHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """GitHub's word comes without a role: the workflow logs in to nothing."""

    def wants_a_login(handler: Handler) -> bool:
        handler.answer(401, WWW_Authenticate='Basic realm="private"')
        return True

    with alone_with_registry(monkeypatch, project.folder.parent) as registry:
        registry.faults.append(wants_a_login)
        path = project.folder / "argocd/environments/staging/model.yaml"
        path.write_text(path.read_text().replace("oci:.local/registry", registry.name))
        project.commit("Have the image in a registry")
        project.deploy("staging", 4)
        assert tell(project, tip(project)) == 0
        text = message(project, "rollback/staging-v4-to-v3")
        assert f"Whether {registry.name} gives the image of model 3 is not known here" in text
        assert "does not give" not in text and "Not compared" not in text
        capsys.readouterr()
        assert main(["rollback", "staging"]) == 0
        said = f"**{registry.name} does not give the image of model 3 ("
        assert said in (out := capsys.readouterr().out) and "run `skopeo login" in out


def test_an_event_that_is_none_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tell(project, "main") == 1
    assert "deployment.sha" in capsys.readouterr().err


def test_without_github_a_person_gets_the_same_proposal_with_what_the_cluster_says(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    why = "it was taken away again, because its golden requests were not answered as recorded"
    monkeypatch.setattr("delivery.commands.rollback.standing", lambda *_: Standing(("2",), why))
    assert main(["rollback", "staging"]) == 0
    assert f"**Model 3 is not served well:** {why}" in message(project)
    assert f"git push origin origin/{BRANCH}:main" in capsys.readouterr().out


def test_whoever_knows_more_has_the_pull_request_say_it(
    project: Project, github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workflow that opened it asks no cluster."""
    assert tell(project, tip(project)) == 0
    assert main(["rollback", "staging"]) == 0
    assert "PATCH" not in github.writes(), "no cluster answers"
    curve = Curve("failing", 0.02, [(datetime(2026, 11, 26, 8), 0.05)])
    known = Standing(("2",), "5.0% more of its live requests failed", (curve,))
    monkeypatch.setattr("delivery.commands.rollback.standing", lambda *_: known)
    assert main(["rollback", "staging"]) == 0
    (pull,) = github.read("pulls")
    assert "**Model 3 is not served well:** 5.0% more" in pull["body"]
    assert "    bar [0.0500]\n    line [0.0200]\n" in pull["body"]
    assert pull["labels"] == ["rollback"]


def test_where_no_cluster_answers_a_rollback_gives_no_reason(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise UnknownError("no cluster here")

    monkeypatch.setattr("delivery.commands.rollback.standing", unknown)
    assert main(["rollback", "staging"]) == 0
    assert "not served well" not in message(project)
