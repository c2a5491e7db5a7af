import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import fake_pipeline
from delivery.__main__ import main
from delivery.commands.release import run as release
from delivery.dvc import parse_lock
from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.oci.layout import Layout
from delivery.oci.registry import pull
from delivery.proposals.github import github_repository
from delivery.proposals.release_file import parse_release
from fake_project import CODE, EXPORT, Project, follow, kill, make_project
from registry_tools import need
from workspace import model_code

PATH = "argocd/environments/staging/model.yaml"
BRANCH = "release/staging-v1"
DVC = Path(sys.prefix) / "bin/dvc"  # as a person types it: it is not on the PATH


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


def release_and_merge(project: Project, version: int) -> None:
    release(project.repository)
    project.merge(f"release/staging-v{version}")


# -- what works ------------------------------------------------------------------------------------


def test_a_release_is_a_branch_with_one_commit_that_changes_one_file(project: Project) -> None:
    before, main_before = project.state(), project.branches()["main"]
    release(project.repository)
    changed = project.git("diff", "--name-only", f"main..{BRANCH}", folder=project.origin)
    assert changed == PATH
    assert project.git("rev-parse", f"{BRANCH}^", folder=project.origin) == main_before
    assert project.branches()["main"] == main_before, "only a merge deploys"
    assert project.state() == before


def test_the_release_file_says_what_was_measured_and_where_it_came_from(project: Project) -> None:
    release(project.repository)
    found = parse_release(project.show(BRANCH, PATH), PATH)
    assert (found.version, found.accuracy, found.macro_f1, found.support) == (1, 0.97, 0.96, 200)
    assert (found.data, found.test_data) == ("a" * 64, "b" * 64)
    assert found.commit == project.branches()["main"]


def test_the_image_in_the_release_file_is_the_model(project: Project, tmp_path: Path) -> None:
    release(project.repository)
    pull(parse_release(project.show(BRANCH, PATH), PATH).image, tmp_path / "models")
    model = (tmp_path / "models/classifier/1/model.onnx").read_bytes()
    assert model == fake_pipeline.model(0.97)


def test_versions_count_up_with_every_release(project: Project) -> None:
    for version, accuracy in ((1, 0.95), (2, 0.96), (3, 0.97)):
        project.train(accuracy)
        release_and_merge(project, version)
    assert parse_release(project.show("main", PATH), PATH).version == 3


def test_a_rolled_back_version_is_never_given_again(project: Project) -> None:
    release_and_merge(project, 1)
    project.train(0.98)
    release_and_merge(project, 2)
    assert main(["rollback", "staging"]) == 0
    project.merge("rollback/staging-v2-to-v1")
    project.train(0.99)
    release(project.repository)
    assert parse_release(project.show("release/staging-v3", PATH), PATH).version == 3


def test_the_description_compares_with_the_released_model(project: Project) -> None:
    release_and_merge(project, 1)
    project.train(0.98)
    release(project.repository)
    message = project.git("log", "-1", "--format=%B", "release/staging-v2", folder=project.origin)
    assert message.startswith("Release model 2 to staging\n")
    assert "| figure | model 2 | model 1 (released) | change |" in message
    assert "| accuracy | 0.98 | 0.97 | +0.01 |" in message
    assert "- data: `aaaaaaaaaaaa`, unchanged" in message
    assert parse_release(project.show("release/staging-v2", PATH), PATH).image in message


def test_the_description_says_what_fewer_bits_cost(project: Project) -> None:
    export = fake_pipeline.read(project.folder, "artifacts/export.json")
    found = {"flips": 3, "accuracy": 0.97, "accuracy_fp32": 0.975, "interval": [-0.01, 0.002]}
    bits = {
        "precision": "int8",
        "against_fp32": found | {"max_accuracy_loss": 0.02, "passed": True},
    }
    fake_pipeline.write(project.folder, "artifacts/export.json", export | bits)
    release(project.repository)
    said = project.git("log", "-1", "--format=%b", BRANCH, folder=project.origin).splitlines()[0]
    assert said == (
        "int8 gives another class to 3 of 36 test pictures than fp32, accuracy 0.9700 instead of "
        "0.9750 (difference -0.0100 to 0.0020)."
    )


def test_without_github_the_next_command_is_printed_and_works(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release(project.repository)
    command = capsys.readouterr().out.rpartition("next: ")[2].strip()
    subprocess.run(command, shell=True, cwd=project.folder, check=True, capture_output=True)
    assert parse_release(project.show("main", PATH), PATH).version == 1


def test_with_a_github_remote_the_next_command_opens_the_pull_request(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.serve_as("git@github.com:acme/digits.git")
    release(project.repository)
    command = "gh pr create --repo github.com/acme/digits --head release/staging-v1 --base main"
    assert command in capsys.readouterr().out
    assert "accuracy" in (project.folder / ".local/pull-requests/release-staging-v1.md").read_text()


def fake_github(project: Project, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a `gh` on the path that notes how it was called."""
    folder = project.folder.parent / "bin"
    folder.mkdir()
    calls = folder / "calls"
    command = folder / "gh"
    command.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr("shutil.which", lambda name: str(folder / name))
    return calls


def test_with_github_the_pull_request_is_opened(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.serve_as("git@github.com:acme/digits.git")
    script = 'case "$2" in create) echo https://github.com/acme/digits/pull/1 ;; esac'
    calls = fake_github(project, monkeypatch, script)
    release(project.repository)
    assert "pull request: https://github.com/acme/digits/pull/1" in capsys.readouterr().out
    assert "--title Release model 1 to staging --body-file" in calls.read_text()


def test_a_pull_request_that_is_open_is_not_opened_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.serve_as("git@ssh.github.com:acme/digits")
    script = (
        'case "$2" in list) echo https://github.com/acme/digits/pull/1 ;; create) exit 1 ;; esac'
    )
    fake_github(project, monkeypatch, script)
    release(project.repository)
    assert "pull request: https://github.com/acme/digits/pull/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "noise",
    [
        "echo 'A new release of gh is available: 2.1'",
        "echo '<html>'",
        "echo https://x.test/a/b/pull/1",
    ],
    ids=["a notice", "a page", "another host"],
)
def test_only_a_pull_request_counts_as_one(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    noise: str,
) -> None:
    project.serve_as("git@github.com:acme/digits.git")
    calls = fake_github(project, monkeypatch, noise)
    assert main(["release"]) == 1
    assert "gh does not name the pull request that it opened: run the same make command" in (
        capsys.readouterr().err
    )
    url = "https://github.com/acme/digits/pull/1"
    with calls.with_name("gh").open("a") as script:
        script.write(f'case "$2" in create) echo {url} ;; esac\n')
    release(project.repository)
    assert f"pull request: {url}\n" in capsys.readouterr().out


def test_a_pull_request_of_a_fork_is_not_ours(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.serve_as("git@github.com:acme/digits.git")
    calls = fake_github(project, monkeypatch, "echo https://github.com/acme/digits/pull/1")
    release(project.repository)
    assert "--base main --json url,isCrossRepository --jq" in calls.read_text()


def test_colours_that_a_terminal_wants_are_not_in_an_address(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CLICOLOR_FORCE", "GH_FORCE_TTY"):
        monkeypatch.setenv(name, "1")
    project.serve_as("git@github.com:acme/digits.git")
    colour = "${GH_FORCE_TTY:+colour }"
    fake_github(project, monkeypatch, f'echo "{colour}https://github.com/acme/digits/pull/1"')
    release(project.repository)
    assert "pull request: https://github.com/acme/digits/pull/1\n" in capsys.readouterr().out


ELSEWHERE = [
    "git@git.example.com:acme/digits.git",
    "https://git.example.com/github.com/digits.git",
    "https://github.com.example.com/acme/digits",
    "/srv/github.com/acme/digits.git",
    "../github.com/digits.git",
    "file:///srv/github.com/acme/digits.git",
]


@pytest.mark.parametrize("address", ELSEWHERE)
def test_an_account_on_github_does_not_make_another_remote_githubs(
    project: Project, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    fake_github(project, monkeypatch, 'test "$4" = github.com')
    project.git("remote", "set-url", "origin", address)
    assert github_repository(project.repository) is None


def test_without_github_nothing_is_asked_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = fake_github(project, monkeypatch, "true")
    release(project.repository)
    assert "next: git fetch origin" in capsys.readouterr().out
    assert not calls.exists()


@pytest.mark.parametrize(
    ("address", "home"),
    [
        ("https://x:token@GitHub.com/acme/digits", "github.com/acme/digits"),
        ("ssh://git@github.com:22/acme/digits.git/", "github.com/acme/digits"),
        ("https://github.example.com/acme/digits.git", "github.example.com/acme/digits"),
        ("short:digits", "github.com/acme/digits"),
        ("git@work:acme/digits.git", "github.com/acme/digits"),
    ],
)
def test_a_repository_on_github_is_known_by_where_git_goes(
    project: Project, monkeypatch: pytest.MonkeyPatch, address: str, home: str
) -> None:
    fake_github(project, monkeypatch, 'test "$4" = github.example.com')
    ssh = project.folder.parent / "bin/ssh"
    ssh.write_text('#!/bin/sh\ntest "$3" != work || set -- 1 2 github.com\necho "hostname $3"\n')
    ssh.chmod(0o755)
    project.git("config", "url.https://github.com/acme/.insteadOf", "short:")
    project.git("remote", "set-url", "origin", address)
    assert github_repository(project.repository) == home


# -- refusals: one sentence, nothing pushed, nothing changed ---------------------------------------


def failed_floor(project: Project) -> str:
    project.train(0.5)
    return "min_accuracy: accuracy 0.5 is below the floor 0.9"


def worse_than_champion(project: Project) -> str:
    release_and_merge(project, 1)
    project.train(0.92)
    return (
        "accuracy 0.92 is below 0.97 of the released model 1 on the same 200 pictures, by more "
        "than the tolerance 0.01"
    )


def nan_metrics(project: Project) -> str:
    project.change("metrics.json", loss=float("nan"))
    return "finite: metrics.loss is nan"


def accuracy_in_percent(project: Project) -> str:
    project.change("metrics.json", accuracy=97.0)
    return "the new release file: accuracy is 97.0: give a number from 0 to 1"


def examine_on(project: Project, numbers: range) -> None:
    """Have a part of the pictures, perhaps with others, as the test set."""
    fake_pipeline.write(project.folder, "data/prepared/report.json", fake_pipeline.report("e" * 64))
    fake_pipeline.write_test_pictures(project.folder, numbers)
    fake_pipeline.write_predictions(project.folder, 0.97, numbers)
    data = {"source": "digits", "sha256": "a" * 64, "test_sha256": "e" * 64}
    project.change("lineage.json", data=data)


def released_model_that_is_gone(project: Project) -> str:
    release_and_merge(project, 1)
    shutil.rmtree(project.folder / ".local/registry")
    return (
        "not compared: this model's and the released model 1's answers and interfaces on the same "
        "pictures cannot be compared (its image cannot be had: oci:.local/registry does not hold"
    )


def change_of_labels(project: Project) -> str:
    release_and_merge(project, 1)
    fake_pipeline.write(project.folder, "artifacts/model/classifier/labels.txt", "zero\none\ntwo\n")
    return (
        "interface: what clients of the released model 1 rely on changes, labels: + two; when all "
        'of them are ready for it, write `accept_interface_change: "labels: + two"` below '
        "`release:` in params.yaml, and say why in its commit"
    )


def missing_pipeline_outputs(project: Project) -> str:
    (project.folder / "artifacts/export.json").unlink()
    return "the pipeline has not written artifacts/export.json: run `make pipeline`"


def truncated_pipeline_output(project: Project) -> str:
    path = project.folder / "artifacts/export.json"
    path.write_text(path.read_text()[:20])
    return "artifacts/export.json is not JSON"


def pipeline_output_of_another_form(project: Project) -> str:
    project.change("lineage.json", data={"source": "digits"})
    return "lineage.json: 'data.sha256' is missing: run `make pipeline`"


def dirty_tree(project: Project) -> str:
    fake_pipeline.write(project.folder, "src/classifier/networks.py", "LAYERS = 3\n")
    return "the working tree is not what is committed (src/classifier/networks.py)"


def untracked_file(project: Project) -> str:
    fake_pipeline.write(project.folder, "src/classifier/extra.py", "")
    return "the working tree is not what is committed (src/classifier/extra.py)"


def code_changed_since_training(project: Project) -> str:
    fake_pipeline.write(project.folder, "src/classifier/networks.py", "LAYERS = 3\n")
    project.commit("Add a layer")
    return "the model was made by code"


def serving_config_changed_since_export(project: Project) -> str:
    fake_pipeline.write(project.folder, "serving/classifier/config.pbtxt", "max_batch_size: 8\n")
    project.commit("Halve the batches")
    return "the model was made by code"


def parameters_changed_since_training(project: Project) -> str:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 3", "epochs: 9"))
    project.commit("Train longer")
    return "the model was made with train.epochs = 3, but params.yaml says 9"


def data_of_another_model(project: Project) -> str:
    report = fake_pipeline.report() | {"sha256": "f" * 64}
    fake_pipeline.write(project.folder, "data/prepared/report.json", report)
    return "made with data aaaaaaaaaaaa (sha256), but data/prepared holds ffffffffffff"


def model_of_another_export(project: Project) -> str:
    fake_pipeline.write(project.folder, "artifacts/model/classifier/1/model.onnx", b"other")
    return "artifacts/model/classifier/1/model.onnx is d9298a10d1b0, but artifacts/export.json is"


def account_not_in_git(project: Project) -> str:
    project.git("rm", "--quiet", "--cached", "metrics.json")
    fake_pipeline.write(project.folder, ".git/info/exclude", "/metrics.json\n")
    project.commit("Forget the metrics")
    return "metrics.json is not in Git: commit what the pipeline wrote"


def stale_champion(project: Project) -> str:
    release(project.repository)
    head = project.git("rev-parse", "HEAD")
    project.merge(BRANCH)
    project.git("reset", "--quiet", "--hard", head)
    return (
        f"origin/main is at {project.branches()['main'][:12]}, you are at {head[:12]}: `git pull`"
    )


def unpushed_commit(project: Project) -> str:
    project.git("commit", "--quiet", "--allow-empty", "-m", "Not pushed")
    return "`git push` first, and release again"


def skipped_version(project: Project) -> str:
    os.environ["VERSION_ASKED"] = "3"
    return "version 3 is not the next: give 1, or no version"


def repeated_version(project: Project) -> str:
    release_and_merge(project, 1)
    os.environ["VERSION_ASKED"] = "1"
    return "version 1 is not the next: give 2, or no version"


def concurrent_release(project: Project) -> str:
    project.review("checkout", "--quiet", "-b", BRANCH)
    project.review("commit", "--quiet", "--allow-empty", "-m", "Another release of version 1")
    project.review("push", "--quiet", "origin", BRANCH)
    return f"the branch {BRANCH} exists and proposes something else"


def release_file_that_nobody_can_read(project: Project) -> str:
    fake_pipeline.write(project.folder, PATH, "kind: ConfigMap\n")
    project.commit("Break the release file")
    return "is not one ConfigMap named model-release"


def misspelt_limit(project: Project) -> str:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("min_macro_f1", "min_f1"))
    project.commit("Misspell a limit")
    return "params.yaml: there is no 'gate.min_f1': did you mean 'min_macro_f1'?"


def limit_in_percent(project: Project) -> str:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("min_accuracy: 0.9", "min_accuracy: 90"))
    project.commit("Ask for 90")
    return "params.yaml: gate.min_accuracy is 90: give a number from 0 to 1"


def registry_down(project: Project) -> str:
    params = project.folder / "params.yaml"
    params.write_text(params.read_text().replace("oci:.local/registry", "127.0.0.1:1/team/model"))
    project.commit("Use another registry")
    return "skopeo failed with 127.0.0.1:1/team/model (Connection refused)"


def no_remote(project: Project) -> str:
    project.git("remote", "remove", "origin")
    return "there is no remote named origin: `git remote add origin <address> && git push -u "


def shallow_clone(project: Project) -> str:
    project.git("fetch", "--quiet", "--depth=1", f"file://{project.origin}", "main")
    fake_pipeline.write(project.folder, ".git/shallow", project.git("rev-parse", "HEAD") + "\n")
    return "this clone is shallow and lacks releases: `git fetch --unshallow`"


@pytest.mark.parametrize(
    "fault",
    [
        failed_floor,
        worse_than_champion,
        nan_metrics,
        accuracy_in_percent,
        released_model_that_is_gone,
        change_of_labels,
        missing_pipeline_outputs,
        truncated_pipeline_output,
        pipeline_output_of_another_form,
        dirty_tree,
        untracked_file,
        code_changed_since_training,
        serving_config_changed_since_export,
        parameters_changed_since_training,
        data_of_another_model,
        model_of_another_export,
        account_not_in_git,
        stale_champion,
        unpushed_commit,
        skipped_version,
        repeated_version,
        concurrent_release,
        release_file_that_nobody_can_read,
        misspelt_limit,
        limit_in_percent,
        registry_down,
        no_remote,
        shallow_clone,
    ],
)
def test_a_release_is_refused(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Project], str],
) -> None:
    need("skopeo")
    monkeypatch.setattr("delivery.oci.remote.DELAYS", [])
    monkeypatch.setenv("VERSION_ASKED", "")
    sentence = fault(project)
    state, branches = project.state(), project.branches()
    asked = os.environ["VERSION_ASKED"]
    assert main(["release", *(["--version", asked] if asked else [])]) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and sentence in error
    assert "Traceback" not in error
    assert project.state() == state
    assert project.branches() == branches


def run_the_pipeline(project: Project) -> None:
    """Do what `make pipeline` does, and commit what it writes."""
    fake_pipeline.write_outputs(project.folder, code=model_code.code_sha256(project.folder))
    train = yaml.safe_load((project.folder / "params.yaml").read_text())["train"]
    project.change("lineage.json", params={"seed": 42, "train": train})


def commit_what_was_written(project: Project) -> None:
    project.git("add", "--force", "metrics.json")
    project.commit("Commit what the pipeline wrote")


def restore_from_git(project: Project) -> None:
    project.git("rm", "--quiet", PATH)
    project.commit("Restore that there is no release")


def ask_for_no_version(project: Project) -> None:
    os.environ["VERSION_ASKED"] = ""


def give_the_number(project: Project) -> None:
    os.environ["VERSION_ASKED"] = "1"


def make_it_whole(project: Project) -> None:
    follow("`git fetch --unshallow`", project)


@pytest.mark.parametrize(
    ("fault", "cure"),
    [
        *(
            (fault, run_the_pipeline)
            for fault in (
                missing_pipeline_outputs,
                truncated_pipeline_output,
                pipeline_output_of_another_form,
                code_changed_since_training,
                serving_config_changed_since_export,
                parameters_changed_since_training,
                data_of_another_model,
                model_of_another_export,
            )
        ),
        (account_not_in_git, commit_what_was_written),
        (release_file_that_nobody_can_read, restore_from_git),
        (skipped_version, give_the_number),
        (skipped_version, ask_for_no_version),
        (shallow_clone, make_it_whole),
    ],
)
def test_what_a_refused_release_is_told_to_do_works(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Project], str],
    cure: Callable[[Project], None],
) -> None:
    monkeypatch.setenv("VERSION_ASKED", "")
    sentence = fault(project)
    options = ("--version", os.environ["VERSION_ASKED"])
    assert main(["release", *(options if options[1] else ())]) == 1
    assert sentence in capsys.readouterr().err
    cure(project)
    options = ("--version", os.environ["VERSION_ASKED"])
    assert main(["release", *(options if options[1] else ())]) == 0


def message_of(project: Project, branch: str) -> str:
    return project.git("log", "-1", "--format=%b", branch, folder=project.origin)


def test_a_model_that_cannot_be_compared_is_released_on_a_word(project: Project) -> None:
    released_model_that_is_gone(project)
    assert main(["release", "--accept-test-data"]) == 0
    message = message_of(project, "release/staging-v2")
    assert message.startswith("**Whether clients of model 1 must change is not known:** its image")
    assert "**Not compared on the same pictures:** its image cannot be had" in message


def test_the_released_model_is_judged_on_the_present_test_pictures(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release_and_merge(project, 1)
    examine_on(project, range(3, 180))
    assert main(["judge"]) == 0
    said = capsys.readouterr().out
    assert "| accuracy, the present test set (177) | 0.9831 | 0.9831 | +0.0000 |" in said
    assert "gate:     would let it pass" in said
    served = project.folder / "artifacts/served"
    assert json.loads((served / "served.json").read_text()) == {
        "version": 1,
        "image": parse_release(project.show("main", PATH), PATH).digest,
    }
    header, first, *rest = (served / "predictions.csv").read_text().splitlines()
    assert header == "sha256,file,label,predicted,confidence,p_zero,p_one"
    assert first == f"{3:064x},3.png,one,zero,0.970000,0.970000,0.030000" and len(rest) == 176
    release(project.repository)
    message = message_of(project, "release/staging-v2")
    assert "**The test data differ, so the figures above cannot be compared.**" in message
    assert "| accuracy, the present test set (177) | 0.9831 | 0.9831 |" in message
    assert "| accuracy, the released model's own test set of 200 (177) |" in message
    assert "The smallest loss that chance does not explain is 3 of 177 pictures." in message
    assert "\n    x-axis model [1, 2]\n" in message


def test_a_worse_model_on_other_test_data_is_refused(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.train(0.995)
    release_and_merge(project, 1)
    project.train(0.95)
    fake_pipeline.write_test_pictures(project.folder, range(100))
    fake_pipeline.write_predictions(project.folder, 0.95, range(100))
    assert main(["release", "--accept-test-data"]) == 1, "no word helps where there is an answer"
    assert "accuracy 0.9 is below 0.99 of the released model 1 on the same 100" in (
        capsys.readouterr().err
    )


def test_a_released_model_of_an_earlier_version_has_no_account_of_its_answers(
    project: Project,
) -> None:
    (project.folder / "artifacts/predictions.csv").unlink()
    release_and_merge(project, 1)
    project.train(0.98)
    release(project.repository)
    message = message_of(project, "release/staging-v2")
    assert "the present test set (200)" in message and "model's own test" not in message


def accept(project: Project, change: str) -> None:
    params = (project.folder / "params.yaml").read_text()
    before = params.partition("release:")[0]
    target = f"release:\n  registry: oci:.local/registry\n  {change}\n"
    fake_pipeline.write(project.folder, "params.yaml", before + target)
    project.commit("Accept a change of the interface")


def test_a_change_of_the_interface_is_named_before_it_is_released(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    accept(project, 'accept_interface_change: "shape: 1x1x1 -> 2x2x1"')
    change_of_labels(project)
    assert main(["promote"]) == 0
    project.merge("release/production-v1")
    assert main(["release", "--accept-test-data"]) == 1
    said = capsys.readouterr().err
    assert "instead of 'shape: 1x1x1 -> 2x2x1', which is another change" in said
    (line,) = re.findall("`(accept_interface_change: .*?)`", said)
    accept(project, line)
    release(project.repository)
    message = message_of(project, "release/staging-v2")
    assert message.splitlines()[0] == "**Clients of model 1 must change:** `labels: + two`"
    project.merge("release/staging-v2")
    release(project.repository)
    assert message_of(project, "release/staging-v3").startswith("| figure |"), "nothing changes"
    assert main(["promote"]) == 0
    message = message_of(project, "release/production-v2")
    assert message.splitlines()[0] == "**Clients of model 1 must change:** `labels: + two`"
    own = "| accuracy, the released model's own test set of 200 (200) | 0.9700 | 0.9700 |"
    assert own in message
    assert main(["rollback", "staging"]) == 0
    message = message_of(project, "rollback/staging-v2-to-v1")
    assert message.splitlines()[0] == "**Clients of model 2 must change:** `labels: - two`"


def test_a_pull_request_that_failed_is_opened_by_the_same_command(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.serve_as("git@github.com:acme/digits.git")
    fake_github(project, monkeypatch, 'case "$2" in create) echo no network >&2; exit 1 ;; esac')
    assert main(["release"]) == 1
    assert "(no network): run the same make command again" in capsys.readouterr().err
    shutil.rmtree(project.folder.parent / "bin")
    url = "https://github.com/acme/digits/pull/1"
    fake_github(project, monkeypatch, f'case "$2" in create) echo {url} ;; esac')
    assert main(["release"]) == 0
    assert f"pull request: {url}" in capsys.readouterr().out


@pytest.fixture
def tracked(project: Project) -> Project:
    """Return the project with one of its outputs kept by DVC, and something else in its store."""
    stage = f"stages: {{{EXPORT}, outs: [artifacts/export.json, plots/confusion.png]}}}}\n"
    fake_pipeline.write(project.folder, "dvc.yaml", stage)
    project.use_dvc()
    project.dvc("commit", "--force")
    project.commit("Let DVC keep the versions")
    return project


def test_outputs_of_another_commit_are_noticed_by_dvc(
    tracked: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release_and_merge(tracked, 1)
    export = fake_pipeline.read(tracked.folder, "artifacts/export.json")
    fake_pipeline.write(tracked.folder, "artifacts/export.json", export | {"images": 35})
    tracked.dvc("commit", "--force")  # as the pipeline does, at another commit
    tracked.git("checkout", "dvc.lock")
    assert main(["release"]) == 1
    said = capsys.readouterr().err
    assert f"are not those of this commit (stage export): run `{DVC} checkout`" in said
    follow(said, tracked)
    assert main(["release"]) == 0


@pytest.mark.parametrize("cure", ["restored", "removed"])
def test_a_lock_that_cannot_be_read_is_restored_or_made_anew(
    tracked: Project, capsys: pytest.CaptureFixture[str], cure: str
) -> None:
    before = tracked.git("rev-parse", "HEAD")
    fake_pipeline.write(tracked.folder, "dvc.lock", "stages: 3\n")
    with pytest.raises(DeliveryError, match="; restore it, or remove it and run `make pipeline`"):
        parse_lock((tracked.folder / "dvc.lock").read_bytes())
    if cure == "restored":
        tracked.git("checkout", before, "dvc.lock")
    else:
        (tracked.folder / "dvc.lock").unlink()
        tracked.dvc("commit", "--force")  # what the pipeline ends with
    assert parse_lock((tracked.folder / "dvc.lock").read_bytes()).stages
    tracked.commit("Do what was said")
    assert main(["release"]) == 0


def test_a_lock_that_was_left_out_is_committed(
    tracked: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tracked.git("rm", "--quiet", "dvc.lock")
    tracked.commit("Forget the lock")
    assert main(["release"]) == 1
    assert "dvc.lock is not in Git: run `make pipeline` and commit" in capsys.readouterr().err
    tracked.dvc("commit", "--force")  # what the pipeline ends with
    tracked.commit("Commit what the pipeline wrote")
    assert main(["release"]) == 0


def test_a_release_sends_what_dvc_keeps_to_its_store(
    tracked: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release(tracked.repository)
    assert "data: 2 files pushed\n" in capsys.readouterr().out
    kept = [path for path in (tracked.folder / ".local/data/files").rglob("*") if path.is_file()]
    export = (tracked.folder / "artifacts/export.json").read_bytes()
    assert export in [path.read_bytes() for path in kept] and len(kept) == 2


def test_images_that_only_this_machine_has_are_not_released(
    tracked: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = "prepare: {cmd: 'true', deps: [data/raw], outs: [plots/confusion.png]}"
    fake_pipeline.write(tracked.folder, "dvc.yaml", f"stages: {{{stage}, {EXPORT}}}}}\n")
    fake_pipeline.write(tracked.folder, "data/raw/zero/1.png", b"an image")
    fake_pipeline.write(tracked.folder, ".gitignore", "/data/?*/\n/artifacts/\n/plots/\n/.local/\n")
    tracked.dvc("commit", "--force")
    tracked.commit("Read images of our own")
    assert main(["release"]) == 1
    said = capsys.readouterr().err
    assert (
        "error: data/raw, which the stage prepare read, is neither in Git nor in DVC, so nobody "
        f"could make the model again: `{DVC} add data/raw && git add data/raw.dvc && git commit "
        "--message 'Add data/raw' && git push`\n"
    ) in said
    follow(said, tracked)
    release(tracked.repository)


def test_without_its_data_in_the_store_nothing_is_released(
    tracked: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pipeline.write(tracked.folder, ".local/data", "in the way of the folder")
    state, branches = tracked.state(), tracked.branches()
    assert main(["release"]) == 1
    error = capsys.readouterr().err
    assert error.count("error: ") == 1 and "Traceback" not in error
    assert error.startswith("error: the data cannot be sent to their store (dvc push failed: ")
    assert "correct the default remote in .dvc/config" in error and error.count("\n") == 1
    assert (tracked.state(), tracked.branches()) == (state, branches)
    assert not (tracked.folder / ".local/registry").exists()


# -- two at once, and interruptions ----------------------------------------------------------------


def test_of_two_releases_at_once_one_wins(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look = Repository.remote_branch

    def look_too_early(self: Repository, branch: str) -> str | None:
        monkeypatch.setattr(Repository, "remote_branch", look)
        seen = look(self, branch)
        concurrent_release(project)
        return seen

    monkeypatch.setattr(Repository, "remote_branch", look_too_early)
    assert main(["release"]) == 1
    assert f"the branch {BRANCH} exists and proposes something else" in capsys.readouterr().err
    assert "Another release" in project.git("log", "-1", BRANCH, folder=project.origin)
    project.git("push", "--quiet", "origin", "--delete", BRANCH)  # what the sentence says
    assert main(["release"]) == 0


STEPS = {
    "data": "delivery.commands.release.push_data",
    "package": "delivery.model.packaging.write_layer",
    "push": "delivery.oci.layout.Layout.write_manifest",
    "commit": "delivery.git.Repository.commit_file",
    "branch": "delivery.git.Repository.push_new_branch",
    "pull request": "delivery.proposals.proposal.open_pull_request",
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_a_killed_release_leaves_all_or_nothing(project: Project, step: str, when: str) -> None:
    state, main_before = project.state(), project.branches()["main"]
    assert kill(project, ["release"], step, when) == 9
    assert project.state() == state
    left = project.branches()
    assert left["main"] == main_before
    if BRANCH in left:
        changed = project.git("diff", "--name-only", f"main..{BRANCH}", folder=project.origin)
        assert changed == PATH
    release(project.repository)  # doing it again finishes it
    image = parse_release(project.show(BRANCH, PATH), PATH).image
    assert Layout(project.folder / ".local/registry").path(image.rpartition("@")[2]).is_file()
    assert left.get(BRANCH) in (None, project.branches()[BRANCH]), "it was made once"
    assert project.state() == state


def test_the_code_hash_ignores_what_does_not_make_the_model(project: Project) -> None:
    fake_pipeline.write(project.folder, "src/classifier/README.md", "Read me.\n")
    fake_pipeline.write(project.folder, "src/delivery/gate.py", "")
    project.commit("Document the model")
    release(project.repository)
    assert BRANCH in project.branches() and len(CODE) == 2
