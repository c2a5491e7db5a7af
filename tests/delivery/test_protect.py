"""`make protect`: only reviewed and checked changes reach the branch that is deployed."""

import copy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import fake_pipeline
from conftest import UNBAKED
from delivery.__main__ import main
from delivery.commands.protect import CHECKS, NAME, RULES, missing_rules
from delivery.commands.protect import run as protect
from delivery.commands.release import run as release
from delivery.errors import DeliveryError
from fake_gh import WHICH, GitHub, logged_in
from fake_project import Project, code_sha256, follow, make_project

KINDS = [*RULES]
OTHERS = {
    "id": 7,
    "name": "Signed",
    "source_type": "Repository",
    "target": "branch",
    "enforcement": "active",
    "bypass_actors": [{"actor_id": 5, "actor_type": "RepositoryRole", "bypass_mode": "always"}],
    "conditions": {"ref_name": {"include": ["~ALL"], "exclude": []}},
    "rules": [{"type": "required_signatures"}],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = make_project(tmp_path, monkeypatch)
    made.git("remote", "set-url", "origin", "git@github.com:acme/digits.git")
    return made


@pytest.fixture
def github(project: Project, monkeypatch: pytest.MonkeyPatch) -> GitHub:
    return logged_in(project.folder.parent, monkeypatch)


def said(capfd: pytest.CaptureFixture[str], *options: str) -> str:
    """The one sentence in which `make protect` fails."""
    capfd.readouterr()
    assert main(["protect", *options]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_a_fresh_repository_is_protected_at_one_call(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    protect(project.repository)
    shown = capfd.readouterr().out
    assert [*github.in_force()] == KINDS
    review = github.in_force()["pull_request"]
    assert review["require_code_owner_review"] and review["required_approving_review_count"] == 1
    assert review["dismiss_stale_reviews_on_push"] and review["require_last_push_approval"]
    checked = github.in_force()["required_status_checks"]["required_status_checks"]
    assert checked == [{"context": "checks", "integration_id": 15368}]
    (made,) = github.read("rulesets")
    assert made["enforcement"] == "active" and made["bypass_actors"] == []
    assert made["conditions"]["ref_name"] == {"include": ["refs/heads/main"], "exclude": []}
    assert shown.endswith("main of acme/digits is protected\n")


def test_what_changes_and_the_command_are_printed_before_it_runs(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    github.write(fails={"POST": [500, "Server Error"]})
    with pytest.raises(DeliveryError):
        protect(project.repository)
    shown = capfd.readouterr().out
    for _, change in RULES.values():
        assert f"  {change}\n" in shown
    command = shown.partition("by: ")[2].splitlines()[0]
    assert command.startswith("gh api --hostname github.com --method POST --input .local/")
    github.write(fails={})
    subprocess.run(shlex.split(command), cwd=project.folder, check=True, capture_output=True)
    assert [*github.in_force()] == KINDS


def test_doing_it_again_changes_nothing(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    protect(project.repository)
    before = github.read("rulesets")
    capfd.readouterr()
    protect(project.repository)
    assert capfd.readouterr().out == "main of acme/digits is protected\n"
    assert github.writes() == ["POST"] and github.read("rulesets") == before


def test_a_check_changes_nothing_and_says_what_is_missing(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["protect", "--check"]) == 1
    shown = capfd.readouterr()
    assert shown.out.splitlines() == [f"missing: {change}" for _, change in RULES.values()]
    assert "error: main of acme/digits is not protected: `make protect`" in shown.err
    assert github.writes() == [] and github.read("rulesets") == []
    assert main(["protect"]) == 0  # what it says
    assert main(["protect", "--check"]) == 0
    assert github.writes() == ["POST"]


def weaker(ruleset: dict[str, Any], kind: str) -> None:
    """Let a rule of a ruleset demand less, or be gone where it demands nothing more."""
    rules = {rule["type"]: rule for rule in ruleset["rules"]}
    if kind == "pull_request":
        rules[kind]["parameters"]["require_code_owner_review"] = False
    elif kind == "required_status_checks":
        rules[kind]["parameters"]["required_status_checks"] = [{"context": "lint"}]
    else:
        del rules[kind]
    ruleset["rules"] = [*rules.values()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_somebody_took_out_is_put_back(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    weaker(ruleset, kind)
    github.write(rulesets=[ruleset])
    capfd.readouterr()
    assert main(["protect", "--check"]) == 1
    assert capfd.readouterr().out == f"missing: {RULES[kind][1]}\n"
    protect(project.repository)
    assert github.writes() == ["POST", "PUT"] and len(github.read("rulesets")) == 1
    assert {*github.in_force()} == {*KINDS}
    main(["protect", "--check"])
    assert github.in_force()["pull_request"]["require_code_owner_review"]


@pytest.mark.parametrize(
    "less",
    [
        {"required_approving_review_count": 0},
        {"dismiss_stale_reviews_on_push": False},
        {"require_last_push_approval": False},
    ],
    ids=lambda less: next(iter(less)),
)
def test_a_review_that_can_be_gone_round_is_missing(
    github: GitHub, project: Project, less: dict[str, Any]
) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    ruleset["rules"][0]["parameters"].update(less)
    github.write(rulesets=[ruleset])
    assert main(["protect", "--check"]) == 1
    protect(project.repository)
    assert main(["protect", "--check"]) == 0


@pytest.mark.parametrize("source", [{}, {"integration_id": None}], ids=["absent", "null"])
def test_a_check_that_anybody_may_tell_of_is_missing(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str], source: dict[str, Any]
) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    before = copy.deepcopy(ruleset)
    ruleset["rules"][1]["parameters"]["required_status_checks"] = [{"context": "checks", **source}]
    github.write(rulesets=[ruleset])
    capfd.readouterr()
    assert main(["protect", "--check"]) == 1
    (line,) = capfd.readouterr().out.splitlines()
    assert line.startswith("missing: checks of its workflows must pass, on github.com by the word")
    protect(project.repository)
    assert github.read("rulesets") == [before]


def test_a_source_that_another_ruleset_names_counts(github: GitHub, project: Project) -> None:
    protect(project.repository)
    (ours,) = github.read("rulesets")
    theirs = copy.deepcopy(ours) | {"id": 7, "name": "All", "source_type": "Organization"}
    ours["rules"][1]["parameters"]["required_status_checks"] = [{"context": "checks"}]
    github.write(rulesets=[ours, theirs])
    assert main(["protect", "--check"]) == 0


def test_on_a_github_of_ones_own_the_source_has_another_number() -> None:
    missing = missing_rules({}, "github.example.com")
    assert missing["required_status_checks"]["required_status_checks"] == [{"context": "checks"}]


@pytest.mark.parametrize(
    "change",
    [
        {"enforcement": "disabled"},
        {"enforcement": "evaluate"},
        {"conditions": {"ref_name": {"include": ["refs/heads/dev"], "exclude": []}}},
    ],
    ids=["disabled", "only tried", "of another branch"],
)
def test_our_ruleset_that_is_not_in_force_is_put_in_force(
    github: GitHub, project: Project, change: dict[str, Any]
) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    github.write(rulesets=[ruleset | change])
    assert main(["protect", "--check"]) == 1
    protect(project.repository)
    assert github.writes() == ["POST", "PUT"] and [*github.in_force()] == KINDS
    (after,) = github.read("rulesets")
    kept = change.get("conditions", after["conditions"])["ref_name"]["include"]
    assert {*kept} <= {*after["conditions"]["ref_name"]["include"]}


def test_what_somebody_made_stricter_stays(github: GitHub, project: Project) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    ruleset["rules"][0]["parameters"]["required_approving_review_count"] = 3
    checks = ruleset["rules"][1]["parameters"]["required_status_checks"]
    checks[:] = [{"context": "checks", "integration_id": 77}, {"context": "lint"}]
    ruleset["rules"].append({"type": "required_signatures"})
    ruleset["bypass_actors"] = OTHERS["bypass_actors"]
    weaker(ruleset, "deletion")
    github.write(rulesets=[ruleset])
    protect(project.repository)
    assert github.in_force()["pull_request"]["required_approving_review_count"] == 3
    assert github.in_force()["required_status_checks"]["required_status_checks"] == checks
    assert {"required_signatures", "deletion"} <= {*github.in_force()}
    assert github.read("rulesets")[0]["bypass_actors"] == OTHERS["bypass_actors"]


def test_rulesets_of_others_stay_as_they_are(github: GitHub, project: Project) -> None:
    organisation = copy.deepcopy(OTHERS) | {"id": 8, "name": NAME, "source_type": "Organization"}
    organisation["rules"] = [{"type": "deletion"}]
    github.write(rulesets=[OTHERS])
    protect(project.repository)
    assert github.read("rulesets")[0] == OTHERS and len(github.read("rulesets")) == 2
    github.write(rulesets=[OTHERS, organisation])  # of our name, but not ours to change
    github.write(calls=[], fails={})
    assert main(["protect", "--check"]) == 1


def test_what_an_organisation_demands_already_is_not_set_again(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    protect(project.repository)
    (ruleset,) = github.read("rulesets")
    demanded = ruleset | {"name": "All", "source_type": "Organization"}
    github.write(rulesets=[demanded], calls=[])
    protect(project.repository)
    assert github.writes() == []
    weaker(demanded, "non_fast_forward")
    github.write(rulesets=[demanded])
    protect(project.repository)
    assert github.writes() == ["POST"] and github.read("rulesets")[0] == demanded
    assert [rule["type"] for rule in github.read("rulesets")[1]["rules"]] == ["non_fast_forward"]


def test_a_merge_queue_keeps_the_history_in_one_line_too(github: GitHub, project: Project) -> None:
    queue = {"type": "merge_queue", "parameters": {"merge_method": "MERGE"}}
    github.write(rulesets=[OTHERS | {"rules": [queue]}])
    protect(project.repository)
    assert "required_linear_history" not in github.in_force()
    assert main(["protect", "--check"]) == 0


def test_a_training_that_was_reviewed_and_squashed_is_released(project: Project) -> None:
    """What the README says of a protected branch: it takes no push and no merge commit."""
    project.git("remote", "set-url", "origin", str(project.origin))
    project.git("switch", "--quiet", "--create", "train")
    fake_pipeline.write_outputs(project.folder, 0.98, code=code_sha256())
    project.git("commit", "--quiet", "--all", "-m", "Train")
    project.git("push", "--quiet", "--set-upstream", "origin", "train")
    project.review("fetch", "--quiet", "origin")
    project.review("merge", "--quiet", "--squash", "origin/train")
    project.review("commit", "--quiet", "-m", "Train (#1)")
    project.review("push", "--quiet", "origin", "main")
    follow("`git switch main && git pull`", project)
    release(project.repository)
    assert "release/staging-v1" in project.branches()


# -- refusals --------------------------------------------------------------------------------------


def test_without_its_command_line_nothing_is_done(
    github: GitHub,
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (github.programs / "gh").rename(github.programs / "away")
    monkeypatch.setenv("PATH", f"{github.programs}:{Path(WHICH('git')).parent}")
    assert said(capfd) == (
        "error: GitHub's command line is not here: install `gh`, as https://cli.github.com says"
    )
    (github.programs / "away").rename(github.programs / "gh")
    assert main(["protect"]) == 0


@pytest.mark.parametrize("options", [[], ["--check"]], ids=["set", "check"])
def test_without_an_account_the_way_to_log_in_is_named(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str], options: list[str]
) -> None:
    github.write(account=False)
    line = said(capfd, *options)
    assert line.startswith("error: gh is not logged in to github.com: ")
    assert "`gh auth login --hostname github.com`" in line
    github.write(account=True)
    assert main(["protect"]) == 0


@pytest.mark.parametrize(
    "url",
    [
        "../origin.git",
        "https://me:secret@gitlab.example/acme/digits",
        "https://me:secret@github.com/acme",
        "https://me:secret@github.com.example/acme/digits",
    ],
    ids=["a folder", "another host", "no repository", "a look-alike"],
)
def test_a_remote_that_is_not_on_github_is_told_from_one_that_is(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    """Being logged in to github.com says nothing of another host."""
    project.git("remote", "set-url", "origin", url)
    line = said(capfd)
    assert line.startswith("error: origin is on no GitHub that gh knows") and "secret" not in line
    assert github.writes() == []
    line = line.replace("`gh auth login --hostname <host>`", "")
    follow(line, project, address="https://github.com/acme/digits")
    assert main(["protect"]) == 0


def test_without_a_remote_the_way_to_one_is_named(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.git("remote", "remove", "origin")
    follow(said(capfd), project, address="https://github.com/acme/digits")
    assert main(["protect"]) == 0


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, "Resource not accessible by personal access token"),
        (403, "Upgrade to GitHub Pro or make this repository public to enable this feature."),
        (404, "Not Found"),
    ],
    ids=["no right", "no plan", "hidden"],
)
def test_who_may_not_protect_it_is_told_so(
    github: GitHub,
    project: Project,
    capfd: pytest.CaptureFixture[str],
    status: int,
    reason: str,
) -> None:
    github.write(fails={"POST": [status, reason]})
    line = said(capfd)
    assert reason in line and "as an administrator of acme/digits" in line
    assert github.read("rulesets") == []
    github.write(fails={})
    assert main(["protect"]) == 0


def test_a_repository_that_the_account_cannot_see(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    github.write(name="acme/other")
    line = said(capfd, "--check")
    assert "rules" in line or "codeowners" in line
    assert "CODEOWNERS: `git push" not in line
    follow(line.replace("`gh auth login --hostname github.com`", ""), project, address="acme")
    github.write(name="acme/digits")
    project.git("remote", "set-url", "origin", "ssh://git@ssh.github.com:443/acme/digits.git")
    assert main(["protect"]) == 0


@pytest.mark.parametrize("answer", ["", "<html>", '[{"type"'], ids=["none", "a page", "half"])
def test_an_answer_that_is_none_is_not_believed(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str], answer: str
) -> None:
    github.write(fails={"GET repos/acme/digits/rules/": answer})
    assert "github.com gave no JSON for rules/branches/main" in said(capfd, "--check")
    github.write(fails={})
    assert main(["protect"]) == 0


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ("rules", "null"),
        ("rules", "[1]"),
        ("rules", '[{"type": "pull_request", "type": "deletion"}]'),
        ("rules", "[" * 3000),
        ("codeowners", "{}"),
        ("codeowners", '{"errors": ["x"]}'),
    ],
)
def test_an_answer_of_another_form_is_not_believed(
    github: GitHub, capfd: pytest.CaptureFixture[str], request_: str, answer: str
) -> None:
    github.write(fails={f"GET repos/acme/digits/{request_}": answer})
    assert f"github.com gave no JSON for {request_}" in said(capfd, "--check")


def test_parameters_of_another_type_demand_nothing(
    github: GitHub, capfd: pytest.CaptureFixture[str]
) -> None:
    odd = '[{"type": "pull_request", "parameters": {"required_approving_review_count": "1"}}]'
    github.write(fails={"GET repos/acme/digits/rules": odd})
    assert "main of acme/digits is not protected" in said(capfd, "--check")


def test_a_yes_that_protects_nothing_is_not_believed(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    github.write(fails={"POST": "{}"})
    assert "error: main of acme/digits is not protected: " in said(capfd)


def test_owners_that_github_does_not_know_protect_nothing(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    github.write(owners=[{"line": 4, "column": 1, "kind": "Unknown owner", "message": "x"}])
    line = said(capfd)
    assert "name a user or team in .github/CODEOWNERS that may write to it" in line
    assert [*github.in_force()] == KINDS  # the rest is
    github.write(owners=[])
    assert main(["protect", "--check"]) == 0


def test_owners_that_were_not_pushed_come_first(
    github: GitHub, project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    """With the rules in force nobody could push them any more."""
    github.write(owners=None)
    line = said(capfd)
    assert "has no .github/CODEOWNERS: `git push origin main` first" in line
    assert github.writes() == []
    project.git("remote", "set-url", "origin", str(project.origin))
    assert follow(line, project) == ["git push origin main"]
    project.git("remote", "set-url", "origin", "https://github.com/acme/digits")
    github.write(owners=[])
    assert main(["protect"]) == 0


def test_the_checks_are_jobs_of_the_workflows() -> None:
    jobs: set[str] = set()
    for path in (UNBAKED / ".github/workflows").glob("*.yaml"):
        workflow = yaml.safe_load(path.read_text())
        when = workflow[True]  # YAML's `on`
        if {"pull_request", "merge_group"} <= when.keys():
            # a job that needs another says no more than that one
            every = workflow["jobs"].items()
            jobs |= {job.get("name", name) for name, job in every if "needs" not in job}
    assert {*CHECKS} == jobs
