"""Git where it has other settings, another history or another environment than in most tests."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

import fake_pipeline
from classifier import params
from conftest import TEMPLATE, UNBAKED, clean_template, cookiecutter
from delivery.__main__ import main
from delivery.cluster.git_http import Handler
from delivery.commands.promote import run as promote
from delivery.commands.release import run as release
from delivery.commands.rollback import run as rollback
from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from delivery.model.rebuild import cloned
from delivery.parameters import committed_parameters
from delivery.proposals.release_file import next_number, parse_release
from delivery.proposals.run_file import RUN_FILE, Run, next_run, parse_run
from fake_project import CODE, EXPORT, Project, follow, make_project
from workspace.model_code import code_sha256
from workspace.settings import SettingsError

STAGING = "argocd/environments/staging/model.yaml"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return make_project(tmp_path, monkeypatch)


def refusal(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """Run a command that fails with one sentence; return the sentence."""
    capsys.readouterr()
    assert main(list(command)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def merge_as_a_colleague(project: Project, change: Callable[[], None]) -> None:
    """Let main change while a colleague commits, who then runs `git pull` and `git push`."""
    project.review("fetch", "--quiet")
    project.review("reset", "--quiet", "--hard", "origin/main")
    fake_pipeline.write(project.reviewer, "notes.md", "Of a colleague.\n")
    project.review("add", "--all")
    project.review("commit", "--quiet", "-m", "Take notes")
    change()
    project.review("pull", "--quiet", "--no-rebase", "--no-edit")
    project.review("push", "--quiet")
    project.git("pull", "--quiet")


# -- an environment of another repository ----------------------------------------------------------


@pytest.fixture
def other(project: Project) -> tuple[dict[str, str], Callable[[], list[str]]]:
    """Variables as Git's hooks have them in another repository, and what that is like."""
    folder = project.folder.parent / "other"
    project.git("init", "--quiet", str(folder), folder=project.folder.parent)
    fake_pipeline.write(folder, "file", "content\n")
    project.git("add", "file", folder=folder)
    project.git("commit", "--quiet", "-m", "Begin", folder=folder)
    variables = {
        "GIT_DIR": str(folder / ".git"),
        "GIT_WORK_TREE": str(folder),
        "GIT_INDEX_FILE": str(folder / ".git/index"),
        "GIT_OBJECT_DIRECTORY": str(folder / ".git/objects"),
        "GIT_PREFIX": "src/",
        "GIT_CONFIG_PARAMETERS": "'core.bare=true'",
        "GIT_QUARANTINE_PATH": str(folder / ".git/objects/incoming"),
    }

    def state() -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return sorted(f"{path} {path.read_bytes()!r}" for path in files)

    return variables, state


def run(project: Project, command: list[str], variables: dict[str, str]) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project.folder,
        env=os.environ | {"PYTHONPATH": f"{TEMPLATE}:{UNBAKED / 'src'}"} | variables,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_release_in_a_hook_of_another_repository(project: Project, other: tuple) -> None:
    variables, state = other
    before = state()
    run(project, ["delivery", "release"], variables)
    assert "release/staging-v1" in project.branches()
    assert state() == before


def test_a_preview_in_a_hook_of_another_repository(project: Project, other: tuple) -> None:
    variables, state = other
    before = state()
    ports = ["--http-port=0", "--grpc-port=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "delivery", "preview", "staging", *ports],
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)} | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = iter(process.stdout.readline, "")
    assert any("Synced, Missing: nothing is released yet" in line for line in lines)
    process.terminate()
    process.communicate()
    assert state() == before
    assert project.git("rev-parse", "--is-bare-repository") == "false"


def test_a_pipeline_in_a_hook_of_another_repository(project: Project, other: tuple) -> None:
    variables, state = other
    before = state()
    stage = "show: {cmd: 'git rev-parse --show-toplevel > artifacts/top', outs: [artifacts/top]}"
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{stage}, {EXPORT}}}}}\n")
    project.use_dvc()
    project.commit("Let DVC run a stage")
    assert "would let it pass" in run(project, ["delivery", "pipeline"], variables)
    assert (project.folder / "artifacts/top").read_text().strip() == str(project.folder)
    assert state() == before


def test_a_project_generated_in_a_hook_of_another_repository(
    tmp_path: Path, other: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables, state = other
    before = state()
    clean_template()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cookiecutter(tmp_path).returncode == 0
    made = json.loads((tmp_path / "digit-classifier/.template.json").read_text())
    assert made["commit"] is None, "the template of the tests is no repository"
    assert state() == before


@pytest.mark.parametrize("tests", [TEMPLATE / "tests", UNBAKED / "tests"], ids=["own", "project's"])
def test_tests_in_a_hook_have_repositories_of_their_own(tests: Path) -> None:
    code = "import conftest, os; print(*(name for name in os.environ if name in conftest_names))"
    code = f"conftest_names = {{'GIT_DIR', 'GIT_INDEX_FILE'}}; {code}"
    folders = (tests, TEMPLATE, UNBAKED / "src", UNBAKED / "tests", TEMPLATE / "tests/delivery")
    path = ":".join(map(str, folders))
    variables = {"PYTHONPATH": path, "GIT_DIR": "/a/repository", "GIT_INDEX_FILE": "/an/index"}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert (printed.stdout, printed.returncode) == ("\n", 0), printed.stderr


# -- settings of the user's repository -------------------------------------------------------------


def test_commits_are_signed_where_the_users_are(project: Project) -> None:
    key = project.folder.parent / "key"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run(make, check=True)
    for name, value in {
        "commit.gpgSign": "true",
        "gpg.format": "ssh",
        "user.signingKey": f"{key}.pub",
    }.items():
        project.git("config", name, value)
    release(project.repository)
    public = key.with_suffix(".pub").read_text()
    fake_pipeline.write(key.parent, "signers", f"tester@example.com {public}")
    signers = f"gpg.ssh.allowedSignersFile={key.parent / 'signers'}"
    branch = "release/staging-v1"
    project.git("-c", signers, "verify-commit", branch, folder=project.origin)


def test_without_a_signing_key_a_release_is_refused_and_nothing_is_pushed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.git("config", "commit.gpgSign", "true")
    project.git("config", "gpg.format", "ssh")
    project.git("config", "user.signingKey", "/nowhere/key.pub")
    before = project.branches()
    assert "git commit-tree failed: " in refusal(capsys, "release")
    assert project.branches() == before


def test_a_person_without_a_name_is_asked_for_it_before_anything_is_sent(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith(("GIT_AUTHOR_", "GIT_COMMITTER_"))]:
        monkeypatch.delenv(name)
    project.git("config", "user.useConfigOnly", "true")
    said = refusal(capsys, "release")
    assert "Git does not know who you are: `git config user.name <name> && git config" in said
    assert not (project.folder / ".local/registry").exists()
    follow(said, project, name="Tester", address="tester@example.com")
    release(project.repository)


def test_annotated_tags_stay_at_home(project: Project) -> None:
    project.git("config", "push.followTags", "true")
    project.git("tag", "--annotate", "--message", "Mine", "mine")
    release(project.repository)
    assert project.branches().keys() == {"main", "release/staging-v1"}


def test_an_index_that_is_split_leaves_nothing_behind(project: Project) -> None:
    project.git("config", "core.splitIndex", "true")
    project.git("config", "splitIndex.maxPercentChange", "0")
    project.git("read-tree", "HEAD")
    project.git("status")

    def shared() -> list[Path]:
        return sorted((project.folder / ".git").glob("sharedindex.*"))

    before = shared()
    release(project.repository)
    assert content(project, project.git("rev-parse", "HEAD"), "dvc.yaml")
    assert shared() == before
    assert project.git("status", "--porcelain", folder=project.folder / ".local/clone") == ""


def test_settings_do_not_hide_what_is_not_committed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.git("config", "status.showUntrackedFiles", "no")
    fake_pipeline.write(project.folder, "src/classifier/extra é.py", "")
    assert "(src/classifier/extra é.py)" in refusal(capsys, "release")


@pytest.mark.parametrize("kind", ["LITERAL", "NOGLOB", "ICASE"])
def test_the_environment_does_not_hide_history(
    project: Project, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    project.deploy("staging", 1, project.image(1))
    project.train(0.99)
    monkeypatch.setenv(f"GIT_{kind}_PATHSPECS", "1")
    release(project.repository)
    assert "release/staging-v2" in project.branches()


@pytest.mark.parametrize("date", ["never", "2001-01-01T00:00:00Z"])
def test_a_proposal_is_of_now(project: Project, monkeypatch: pytest.MonkeyPatch, date: str) -> None:
    for role in ("AUTHOR", "COMMITTER"):  # as a hook of Git gets it
        monkeypatch.setenv(f"GIT_{role}_DATE", date)
    release(project.repository)
    when = project.git(
        "show", "-s", "--format=%as %cs", "release/staging-v1", folder=project.origin
    )
    assert "2001" not in when


@pytest.mark.parametrize("command", [["release"], ["rollback", "staging"], ["promote"]])
def test_settings_of_the_repository_reach_its_remote(project: Project, command: list[str]) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2, project.image(2))
    project.train(0.99)
    project.serve_as("git@git.example.com:acme/digits.git")
    before = project.branches().keys()
    assert main(command) == 0
    assert len(project.branches().keys() - before) == 1


def test_a_preview_fetches_as_the_repository_does_and_leaves_it_as_it_is(project: Project) -> None:
    project.serve_as("git@git.example.com:acme/digits.git")
    objects = project.folder / ".local/preview/staging/objects"
    fake_pipeline.write(objects.parent, "objects/pack/tmp_pack_x", "of a killed preview")
    beside = project.repository.beside(objects)
    fake_pipeline.write(project.reviewer, "notes.md", "Of a colleague.\n")
    project.review("add", "--all")
    project.review("commit", "--quiet", "-m", "Take notes")
    project.review("push", "--quiet")

    def state() -> list[str]:
        refs = project.git("for-each-ref")
        return [*project.state(), refs, *sorted(map(str, (project.folder / ".git").rglob("*")))]

    before = state()
    tip = beside.fetch()
    assert tip == project.branches()["main"]
    assert beside.read(tip, "notes.md") == b"Of a colleague.\n"
    assert not project.repository.says_yes("cat-file", "-e", tip)
    assert state() == before and not list(objects.rglob("tmp_pack_x"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http.extraHeader", "Authorization: Basic YTpi"),
        ("credential.helper", "!f() { echo username=a; echo password=b; }; f"),
    ],
    ids=["a header", "a helper"],
)
def test_what_lets_the_repository_in_lets_a_preview_in(
    project: Project, name: str, value: str
) -> None:
    class Closed(Handler):
        folder = project.origin

        def answer(self, body: bytes) -> None:
            if self.headers["Authorization"] == "Basic YTpi":
                return super().answer(body)
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/digits.git"
        project.git("remote", "set-url", "origin", address)
        beside = project.repository.beside(project.folder / ".local/preview/staging/objects")
        with pytest.raises(GitError):
            beside.fetch()
        project.git("config", name, value)
        assert beside.fetch() == project.branches()["main"]
        server.shutdown()


def test_a_remote_with_a_relative_path_is_previewed(project: Project) -> None:
    project.git("remote", "set-url", "origin", "../origin.git")
    beside = project.repository.beside(project.folder / ".local/preview/staging/objects")
    assert beside.fetch() == project.branches()["main"]


def test_a_shallow_clone_is_previewed_and_stays_shallow(project: Project) -> None:
    folder = project.folder.parent / "shallow"
    project.git("clone", "--quiet", "--depth=1", f"file://{project.origin}", str(folder))
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    shallow = (folder / ".git/shallow").read_text()
    beside = Repository(folder).beside(folder / ".local/objects")
    tip = beside.fetch()
    assert b'version: "2"' in (beside.read(tip, STAGING) or b"")
    assert (folder / ".git/shallow").read_text() == shallow


def test_line_ends_that_git_changes_are_not_other_code(project: Project) -> None:
    project.git("config", "core.autocrlf", "input")
    networks = project.folder / "src/classifier/networks.py"
    networks.write_bytes(networks.read_bytes().replace(b"\n", b"\r\n"))
    fake_pipeline.write_outputs(project.folder, 0.98, code=code_sha256(project.folder))
    project.commit("Train on a file with other line ends")
    assert b"\r\n" in networks.read_bytes() and project.git("status", "--porcelain") == ""
    release(project.repository)
    clone = project.folder / ".local/clone"
    with cloned(project.repository, project.git("rev-parse", "HEAD"), clone, keep=True):
        assert code_sha256(clone) == code_sha256(project.folder)


def test_a_rewritten_main_is_forgotten_where_all_agree(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.deploy("staging", 1)
    project.repository.fetch()
    project.review("push", "--quiet", "--force", "origin", "main")  # it lacks the release
    said = refusal(capsys, "promote")
    follow(f"`{said.rpartition('forget it: ')[2].strip()}`", project)
    assert "was rewritten" not in refusal(capsys, "promote")


def test_a_branch_that_was_pushed_again_is_previewed(project: Project) -> None:
    beside = project.repository.beside(project.folder / ".local/objects")
    project.git("push", "--quiet", "origin", "main:kept")
    project.git("update-ref", "-d", "refs/heads/main", folder=project.origin)
    with pytest.raises(DeliveryError, match="has no branch main"):
        beside.fetch()
    project.git("push", "--quiet", "origin", "main")
    assert beside.fetch() == project.git("rev-parse", "HEAD")


def test_a_file_of_history_that_is_lost_is_fetched_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    blob = project.git("rev-parse", f"HEAD~1:{STAGING}")
    (project.folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    said = refusal(capsys, "rollback", "staging")
    assert f"this repository lacks {blob}, which its history has: `git fetch --refetch" in said
    follow(said, project)
    rollback(project.repository, "staging")


def ignored(project: Project) -> str:
    fake_pipeline.write(project.folder, ".git/info/exclude", "extra.py\n")
    fake_pipeline.write(project.folder, "src/classifier/extra.py", "LAYERS = 3\n")
    return "src/classifier/extra.py"


def overlooked(project: Project) -> str:
    path = "src/classifier/networks.py"
    project.git("update-index", "--assume-unchanged", path)
    fake_pipeline.write(project.folder, path, "LAYERS = 3\n")
    return path


def skipped(project: Project) -> str:
    path = overlooked(project)
    project.git("update-index", "--no-assume-unchanged", path)
    project.git("update-index", "--skip-worktree", path)
    return path


def overlooked_within_a_second(project: Project) -> str:
    """Change a file so that Git, which compares seconds and sizes, takes it for the old one."""
    path = project.folder / "src/classifier/networks.py"
    project.git("config", "core.trustctime", "false")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    project.git("add", str(path))
    overlooked(project)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return "src/classifier/networks.py"


@pytest.mark.parametrize("hidden", [ignored, overlooked, skipped, overlooked_within_a_second])
def test_code_that_git_status_passes_over_is_named(
    project: Project, capsys: pytest.CaptureFixture[str], hidden: Callable[[Project], str]
) -> None:
    stage = "export: {cmd: 'true', deps: [src/classifier, serving/classifier/config.pbtxt]}"
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{stage}}}\n")
    project.commit("Name the whole folder")
    path = hidden(project)
    fake_pipeline.write_outputs(project.folder, 0.98, code=code_sha256(project.folder))
    project.commit("Train")
    said = refusal(capsys, "release")
    assert f"{path} makes" in said or f"{path} is not what this commit has, although" in said
    follow(said.replace("`git status`", ""), project)
    project.commit("Commit what made the model")
    release(project.repository)


@pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("metrics.json", "0.91", "0.99"),
        ("params.yaml", "0.9,", "0.1,"),
        ("dvc.yaml", "'true'", "'false'"),
    ],
)
def test_what_the_gate_reads_is_what_is_committed(
    project: Project, capsys: pytest.CaptureFixture[str], mark: str, path: str, old: str, new: str
) -> None:
    project.train(0.91)
    project.git("update-index", mark, path)
    text = (project.folder / path).read_text()
    assert old in text
    fake_pipeline.write(project.folder, path, text.replace(old, new))
    before = project.state()
    said = refusal(capsys, "release")
    assert f"{path} is not what this commit has, although `git status` passes over it" in said
    assert project.state() == before and project.branches().keys() == {"main"}
    follow(said.replace("`git status`", ""), project)
    project.git("checkout", "--quiet", path)
    release(project.repository)


def test_a_watcher_of_files_that_misses_a_change_is_not_believed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    watcher = project.folder.parent / "watcher"
    watcher.write_text("#!/bin/sh\nprintf 'now\\0'\n")
    watcher.chmod(0o755)
    project.git("config", "core.fsmonitor", str(watcher))
    project.git("update-index", "--fsmonitor")
    project.git("status")
    project.git("status")
    path = project.folder / "params.yaml"
    path.write_text(path.read_text().replace("0.9,", "0.1,"))
    assert project.git("status", "--porcelain") == ""
    said = refusal(capsys, "release")
    assert "params.yaml is not what this commit has" in said
    follow(said.replace("`git status`", ""), project)
    assert project.git("status", "--porcelain") == "M params.yaml"


def test_what_a_sparse_checkout_leaves_out_hinders_no_release(project: Project) -> None:
    fake_pipeline.write(project.folder, "docs/long.md", "Long.\n")
    project.commit("Write")
    project.git("sparse-checkout", "set", "src", "serving", "argocd")
    assert not (project.folder / "docs").exists()
    release(project.repository)


def test_parameters_are_compared_as_the_pipeline_understands_them(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (project.folder / "params.yaml").read_text()
    written = "{epochs: '3', learning_rate: 1e0, augmentation: {shift: 0.1}, size: [8, '8']}"
    fake_pipeline.write(project.folder, "params.yaml", text.replace("{epochs: 3}", written))
    augmentation = {"shift": 0.1, "flip": False}
    train = {"epochs": 3, "learning_rate": 1.0, "augmentation": augmentation, "size": [8, 8]}
    project.change("lineage.json", params={"seed": 42, "train": train})
    release(project.repository)
    for place, changed in (("epochs", {"epochs": 4}), ("size.1", {"size": [8, 9]})):
        project.change("lineage.json", params={"seed": 42, "train": train | changed})
        said = refusal(capsys, "release")
        assert f"the model was made with train.{place} = " in said


def test_parameters_as_the_pipeline_of_a_project_reads_them(project: Project) -> None:
    text = (UNBAKED / "params.yaml").read_text()
    for old, new in (("learning_rate: 0.01 ", "learning_rate: 1e-2 "), ("    flip: false\n", "")):
        assert old in text
        text = text.replace(old, new)
    fake_pipeline.write(project.folder, "params.yaml", text)
    used = json.loads(params.load(project.folder).model_dump_json())
    assert used["train"]["learning_rate"] == 0.01 and "flip" in used["train"]["augmentation"]
    project.change("lineage.json", params=used)
    release(project.repository)


# -- what a commit's checkout has ------------------------------------------------------------------


def filtered(project: Project, **commands: str) -> str:
    """Commit a file that goes through a filter; return the commit."""
    for name, command in {"clean": "tr a-z A-Z", "smudge": "tr A-Z a-z", **commands}.items():
        project.git("config", f"filter.big.{name}", command)
    fake_pipeline.write(project.folder, ".gitattributes", "weights filter=big\n")
    fake_pipeline.write(project.folder, "weights", "many\n")
    project.commit("Keep a file elsewhere")
    return project.git("rev-parse", "HEAD")


def content(project: Project, commit: str, name: str = "weights") -> str:
    """Return a file of a fresh clone."""
    clone = project.folder / ".local/clone"
    with cloned(project.repository, commit, clone, keep=True):
        assert project.git("rev-parse", "HEAD", folder=clone) == commit
        return (clone / name).read_text()


def test_a_filter_of_the_repository_is_used(project: Project) -> None:
    assert content(project, filtered(project)) == "many\n"


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("false", "git checkout-index failed: .*smudge filter big failed"),
        ("echo half", "Git wrote weights otherwise than commit"),
    ],
    ids=["fails", "gives half"],
)
def test_a_filter_that_fails_is_not_believed(project: Project, command: str, sentence: str) -> None:
    commit = filtered(project)
    project.git("config", "filter.big.smudge", command)
    with pytest.raises(DeliveryError, match=sentence):
        content(project, commit)
    project.git("config", "filter.big.smudge", "tr A-Z a-z")
    assert content(project, commit) == "many\n"


def test_a_filter_that_is_not_set_up_is_named(project: Project) -> None:
    commit = filtered(project)
    project.git("config", "--remove-section", "filter.big")
    sentence = f"weights of commit {commit[:12]} goes through Git's filter 'big', which is not set"
    with pytest.raises(DeliveryError, match=sentence):
        content(project, commit)
    for name, command in {"clean": "tr a-z A-Z", "smudge": "tr A-Z a-z"}.items():
        project.git("config", f"filter.big.{name}", command)  # as its program's installation does
    assert content(project, commit) == "many\n"


def test_hooks_that_the_user_wants_in_new_clones_are_not_run(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = project.folder.parent / "template/hooks/reference-transaction"
    fake_pipeline.write(hook.parent, hook.name, "#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(hook.parent.parent))
    assert content(project, project.git("rev-parse", "HEAD"), "dvc.yaml")


def test_git_that_leaves_files_out_is_not_believed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = project.folder.parent / "half/git"
    fake_pipeline.write(half.parent, "git", f'#!/bin/sh\nPATH="{os.environ["PATH"]}"\ngit "$@"\n')
    with half.open("a") as script:
        script.write('case "$*" in *checkout-index*) rm "$GIT_WORK_TREE/params.yaml" ;; esac\n')
    half.chmod(0o755)
    monkeypatch.setenv("PATH", str(half.parent), prepend=os.pathsep)
    with pytest.raises(DeliveryError, match=r"Git wrote params\.yaml otherwise than commit"):
        content(project, project.git("rev-parse", "HEAD"))


def test_a_clone_has_what_a_sparse_checkout_leaves_out(project: Project) -> None:
    project.git("sparse-checkout", "set", "src")
    assert not (project.folder / "serving").exists()
    commit = project.git("rev-parse", "HEAD")
    path = "serving/classifier/config.pbtxt"
    assert content(project, commit, path) == CODE[path]
    assert not (project.folder / "serving").exists()


def test_what_a_partial_clone_lacks_is_fetched(project: Project) -> None:
    partial = project.folder.parent / "partial"
    project.git("config", "uploadpack.allowFilter", "true", folder=project.origin)
    project.git("config", "uploadpack.allowAnySHA1InWant", "true", folder=project.origin)
    clone = ("clone", "--quiet", "--no-checkout", "--filter=blob:none")
    project.git(*clone, f"file://{project.origin}", str(partial), folder=partial.parent)
    there = Project(partial, project.origin, project.reviewer)
    there.serve_as("git@git.example.com:acme/digits.git")
    commit = project.git("rev-parse", "HEAD")
    assert content(there, commit, "src/classifier/networks.py") == "LAYERS = 2\n"


# -- history ---------------------------------------------------------------------------------------


def test_numbers_come_from_all_that_a_colleague_merged(project: Project) -> None:
    project.deploy("staging", 1, project.image(1))

    def released_and_taken_back() -> None:
        project.deploy("staging", 2)
        rollback(project.repository, "staging")
        project.merge("rollback/staging-v2-to-v1")

    merge_as_a_colleague(project, released_and_taken_back)
    project.train(0.99)
    release(project.repository)
    assert "release/staging-v3" in project.branches()


def test_numbers_come_from_all_environments(project: Project) -> None:
    project.deploy("production", 4)
    project.git("rm", "--quiet", "-r", "argocd/environments/production")
    project.commit("Give up production")
    project.train(0.99)
    release(project.repository)
    assert "release/staging-v5" in project.branches()


def test_a_rollback_finds_what_a_colleague_merged(project: Project) -> None:
    project.deploy("staging", 1)

    def two_releases() -> None:
        project.deploy("staging", 2)
        project.deploy("staging", 3)

    merge_as_a_colleague(project, two_releases)
    rollback(project.repository, "staging")
    assert "rollback/staging-v3-to-v2" in project.branches()


UNREADABLE = {
    "not UTF-8": b"kind: \xff\xfe\x80\n",
    "a bad date": b"kind: 2026-99-99\n",
    "a tag": b"kind: !!int x\n",
    "an empty number": b"kind: !!int ''\n",
    "a Python object": b"kind: !!python/object:os.system {}\n",
    "brackets": b"[" * 3000,
    "a bomb": b"a: &a [1, 1]\nb: &b [*a, *a, *a]\nkind: [*b, *b, *b]\n",
    "UTF-16": "kind: ConfigMap\n".encode("utf-16"),
    "a NUL": b"kind: \0\n",
    "nothing": b"",
}


@pytest.mark.parametrize("poison", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_file_in_history_that_cannot_be_read_stops_nothing(
    project: Project, capsys: pytest.CaptureFixture[str], poison: bytes
) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    fake_pipeline.write(project.folder, STAGING, poison)
    project.commit("Break the release file")
    project.deploy("staging", 3, project.image(3))
    project.train(0.99)
    rollback(project.repository, "staging")
    release(project.repository)
    assert {"rollback/staging-v3-to-v2", "release/staging-v4"} < project.branches().keys()
    assert "give VERSION=1, 2, 3" in refusal(capsys, "reproduce", "7")


@pytest.mark.parametrize("poison", [b"kind: \xff\n", b"[" * 3000, b"kind: !!int ''\n"])
def test_a_run_file_in_history_that_cannot_be_read_stops_nothing(
    project: Project, poison: bytes
) -> None:
    run = Run(run=4, image=f"host/name@sha256:{1:064x}", nodes=2, commit="c" * 40)
    for content in (run.to_yaml(), poison):
        fake_pipeline.write(project.folder, RUN_FILE, content)
        project.commit("Change the run file")
    project.git("rm", "--quiet", RUN_FILE)
    project.commit("Remove the run file")
    assert next_run(project.repository, project.repository.fetch()) == 5


LAST = 999_999_999  # no number of one more digit is read


@pytest.mark.parametrize("healed", [True, False])
def test_a_version_that_nobody_counted_ends_no_release(project: Project, healed: bool) -> None:
    project.deploy("staging", 1, project.image(1))
    good = project.git("rev-parse", "HEAD")
    counted = parse_release(project.show("main", STAGING), STAGING)
    image = f"{counted.image.partition('@')[0]}@{project.image(LAST)}"
    written = counted.model_copy(update={"version": LAST, "image": image})
    fake_pipeline.write(project.folder, STAGING, written.to_yaml())
    project.commit("Write a number by hand")
    if healed:
        project.git("checkout", "--quiet", good, "--", STAGING)
        project.commit("Heal it")
    for version, accuracy in ((2, 0.98), (3, 0.99)):
        project.train(accuracy)
        release(project.repository)
        project.merge(f"release/staging-v{version}")
        assert parse_release(project.show("main", STAGING), STAGING).version == version


def test_a_run_that_nobody_counted_ends_no_training(project: Project) -> None:
    made = Run(run=LAST, image=f"host/name@sha256:{1:064x}", nodes=2, commit="c" * 40)
    for number in (1, LAST):
        run = made.model_copy(update={"run": number})
        fake_pipeline.write(project.folder, RUN_FILE, run.to_yaml())
        project.commit("Change the run file")
    following = next_run(project.repository, project.repository.fetch())
    assert parse_run(made.model_copy(update={"run": following}).to_yaml().encode(), "").run == 2


@pytest.mark.parametrize(
    ("given", "following"),
    [([], 1), ([2, 1, 5], 6), ([LAST - 1], LAST), ([LAST], 1), ([1, LAST, 2, 4], 3)],
)
def test_a_number_is_given_once(given: list[int], following: int) -> None:
    assert next_number(given) == following


HUGE = bytes(4 * 2**20)  # no file with a few settings


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The most bytes that a call of Git has given."""
    found, ask = [0], Repository.run

    def measured(repository: Repository, *arguments: str, **options: object) -> bytes:
        given = ask(repository, *arguments, **options)
        found[0] = max(found[0], len(given))
        return given

    monkeypatch.setattr(Repository, "run", measured)
    return found


def test_a_huge_file_in_history_is_never_read_again(project: Project, most: list[int]) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2, project.image(2))
    good, branch = project.git("rev-parse", "HEAD"), "rollback/staging-v2-to-v1"
    rollback(project.repository, "staging")
    merge_but_keep(project, branch, squash=True)
    for path in (STAGING, RUN_FILE):
        fake_pipeline.write(project.folder, path, HUGE)
    project.commit("Break both files")
    project.git("rm", "--quiet", RUN_FILE)
    project.git("checkout", "--quiet", good, "--", STAGING)
    project.commit("Heal them")
    rollback(project.repository, "staging")  # beside the branch that was merged before
    project.train(0.99)
    release(project.repository)
    assert {f"{branch}-2", "release/staging-v3"} < project.branches().keys()
    assert next_run(project.repository, project.repository.fetch()) == 1
    assert most[0] < len(HUGE)


@pytest.mark.parametrize("command", ["release", "promote", "rollback staging"])
def test_a_huge_release_file_is_one_sentence_and_restored(
    project: Project, capsys: pytest.CaptureFixture[str], most: list[int], command: str
) -> None:
    for version in (1, 2):
        project.deploy("staging", version, project.image(version))
    project.train(0.99)
    fake_pipeline.write(project.folder, STAGING, HUGE)
    project.commit("Break the release file")
    said = refusal(capsys, *command.split())
    tip = project.git("rev-parse", "--short=12", "HEAD")
    assert f"{STAGING} at {tip} is too large: at most 65,536 bytes are read; or restore" in said
    project.git("checkout", "--quiet", "HEAD~1", "--", STAGING)
    project.commit("Restore it from Git")
    assert main(command.split()) == 0
    assert most[0] < len(HUGE)


def test_other_files_may_be_larger(project: Project) -> None:
    content = project.repository.read("HEAD", "params.yaml") or b""
    size = len(content)
    assert size and project.repository.read("HEAD", "params.yaml", size) == content
    with pytest.raises(
        SettingsError, match=f"params.yaml at HEAD is too large: at most {size - 1}"
    ):
        project.repository.read("HEAD", "params.yaml", size - 1)
    fake_pipeline.write(project.folder, "params.yaml", content.ljust(len(HUGE)))
    project.commit("Add blanks")
    assert committed_parameters(project.repository, "HEAD").gate.min_accuracy == 0.9


def test_links_and_folders_in_place_of_a_release_file_are_passed_over(project: Project) -> None:
    project.deploy("staging", 1)
    path = project.folder / STAGING
    path.unlink()
    path.symlink_to("kustomization.yaml")
    project.commit("Put a link there")
    path.unlink()
    fake_pipeline.write(project.folder, f"{STAGING}/inside", "A folder.\n")
    project.commit("Put a folder there")
    assert project.repository.read("HEAD", STAGING) is None
    (path / "inside").unlink()
    path.rmdir()
    project.deploy("staging", 2)
    rollback(project.repository, "staging")
    assert "rollback/staging-v2-to-v1" in project.branches()


def test_file_names_that_are_not_utf_8_stop_nothing(project: Project) -> None:
    odd = os.fsencode(project.folder) + b"/caf\xe9.md"
    Path(os.fsdecode(odd)).write_text("Odd.\n")
    project.git("config", "core.quotePath", "false")
    assert main(["release"]) == 1
    project.commit("Keep an odd name")
    release(project.repository)
    assert (
        content(project, project.git("rev-parse", "HEAD"), os.fsdecode(b"caf\xe9.md")) == "Odd.\n"
    )


def test_grafts_of_the_user_change_no_history(project: Project) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2)
    fake_pipeline.write(project.folder, ".git/info/grafts", project.git("rev-parse", "HEAD") + "\n")
    rollback(project.repository, "staging")
    assert "rollback/staging-v2-to-v1" in project.branches()


def test_an_environment_is_a_folder_directly_among_the_others(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("eu/staging", "eu/other"):
        path = f"argocd/environments/{folder}/kustomization.yaml"
        fake_pipeline.write(project.folder, path, "resources: []\n")
    project.commit("Keep folders in folders")
    said = refusal(capsys, "rollback", "other")
    assert "no environment 'other': give ENV=production or ENV=staging\n" in said


# -- a branch that was rewritten -------------------------------------------------------------------


@pytest.mark.parametrize("seen", ["by a command", "by git fetch"])
@pytest.mark.parametrize("beyond", [False, True], ids=["shorter", "other"])
def test_a_main_that_lost_a_release_is_refused_and_put_back(
    project: Project, capsys: pytest.CaptureFixture[str], beyond: bool, seen: str
) -> None:
    project.deploy("staging", 1)
    project.deploy("staging", 2, project.image(2))
    project.repository.fetch()
    project.review("fetch", "--quiet")
    project.review("reset", "--quiet", "--hard", "origin/main~1")
    if beyond:
        fake_pipeline.write(project.reviewer, "notes.md", "Instead of the release.\n")
        project.review("add", "--all")
        project.review("commit", "--quiet", "-m", "Take notes")
    project.review("push", "--quiet", "--force", "origin", "main")
    if seen == "by git fetch":
        project.git("fetch", "--quiet")
    before = project.branches()
    said = [refusal(capsys, *command) for command in (["rollback", "staging"], ["promote"])]
    assert said[0] == said[1] and "main of origin was rewritten: it lacks " in said[0]
    assert project.branches() == before
    follow(said[0], project)
    project.git("pull", "--quiet")
    assert project.show("main", STAGING).count('version: "2"') == 1
    project.train(0.99)
    release(project.repository)
    assert "release/staging-v3" in project.branches()


def test_a_main_that_was_rewritten_by_agreement_is_forgotten_on_a_word(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.commit("Not to be kept")
    project.git("reset", "--quiet", "--hard", "HEAD~1")
    project.git("push", "--quiet", "--force", "origin", "main")
    said = refusal(capsys, "release")
    project.git(*said.strip().rpartition("forget it: git ")[2].split())
    release(project.repository)


# -- branches on the remote ------------------------------------------------------------------------


def test_a_branch_is_known_by_its_whole_name(project: Project) -> None:
    head = project.git("rev-parse", "HEAD")
    for name in ("refs/a/refs/heads/release/staging-v1", "refs/heads/refs/heads/x"):
        project.git("update-ref", name, head, folder=project.origin)
    assert project.repository.remote_branch("x") is None
    release(project.repository)
    assert project.branches()["release/staging-v1"] != head


def merge_but_keep(project: Project, branch: str, squash: bool) -> None:
    """Merge a pull request as GitHub does where branches are not removed."""
    project.review("fetch", "--quiet", "origin")
    project.review("reset", "--quiet", "--hard", "origin/main")
    how = ["--squash"] if squash else ["--no-ff", "-m", "Merge"]
    project.review("merge", "--quiet", *how, f"origin/{branch}")
    if squash:
        project.review("commit", "--quiet", "-m", "Merge")
    project.review("push", "--quiet", "origin", "main")
    project.git("pull", "--quiet")


@pytest.mark.parametrize("squash", [False, True], ids=["merged", "squashed"])
def test_a_merged_branch_that_is_kept_is_no_open_proposal(
    project: Project, capsys: pytest.CaptureFixture[str], squash: bool
) -> None:
    for version in (1, 2):
        project.deploy("staging", version)
    first = "rollback/staging-v2-to-v1"
    rollback(project.repository, "staging")
    kept = project.branches()[first]
    merge_but_keep(project, first, squash)
    rollback(project.repository, "staging", 2)
    merge_but_keep(project, "rollback/staging-v1-to-v2", squash)
    rollback(project.repository, "staging")
    assert project.branches()[first] == kept
    text = (project.folder / f".local/pull-requests/{first.replace('/', '-')}-2.md").read_text()
    assert f"`git push origin --delete {first}-2`" in text
    rollback(project.repository, "staging")  # again: it is open
    assert f"{first}-3" not in project.branches()
    merge_but_keep(project, f"{first}-2", squash)
    assert parse_release(project.show("main", STAGING), STAGING).version == 1


def test_a_push_that_ends_well_elsewhere_is_not_believed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = project.origin.with_name("elsewhere.git")
    project.git("clone", "--quiet", "--bare", str(project.origin), str(elsewhere))
    project.git("remote", "set-url", "--push", "origin", str(elsewhere))
    said = refusal(capsys, "release")
    assert "origin does not have the branch release/staging-v1" in said
    project.git("config", "--unset", "remote.origin.pushurl")
    release(project.repository)
    assert "release/staging-v1" in project.branches()


def test_a_branch_of_another_history_is_no_merged_proposal(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = project.git("rev-parse", "HEAD^{tree}")
    orphan = project.git("commit-tree", tree, "-m", "Begin anew")
    project.git("push", "--quiet", "origin", f"{orphan}:refs/heads/release/staging-v1")
    said = refusal(capsys, "release")
    assert "the branch release/staging-v1 exists and proposes something else" in said
    project.git("push", "--quiet", "origin", "--delete", "release/staging-v1")
    release(project.repository)


def test_a_branch_in_the_way_of_a_proposal_is_named_and_renamed(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    head = project.git("rev-parse", "HEAD")
    project.git("push", "--quiet", "origin", f"{head}:refs/heads/release")
    said = refusal(capsys, "release")
    assert "origin has a branch release, so it can have none named release/staging-v1" in said
    follow(said, project, name="releases")
    release(project.repository)
    assert project.branches()["releases"] == head


# -- one version, one image ------------------------------------------------------------------------


def edit(project: Project, **changes: object) -> None:
    """Merge a release file of staging that someone edited."""
    release = parse_release(project.show("main", STAGING), STAGING)
    fake_pipeline.write(project.folder, STAGING, release.model_copy(update=changes).to_yaml())
    project.commit("Edit the release by hand")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": 9}, "this image was released as model 2"),
        ({"image": f"oci:.local/registry@sha256:{9:064x}"}, "model 2 was released with the image"),
        ({"version": 1}, "model 1 was released with the image"),
    ],
    ids=["another version", "another image", "an older version"],
)
def test_the_image_of_a_version_never_changes(
    project: Project, capsys: pytest.CaptureFixture[str], changes: dict, sentence: str
) -> None:
    project.deploy("staging", 1)
    project.deploy("production", 1)
    project.deploy("staging", 2)
    edit(project, **changes)
    said = refusal(capsys, "promote")
    assert sentence in said and "`make rollback ENV=staging` if someone edited" in said
    rollback(project.repository, "staging")
    (branch,) = (name for name in project.branches() if name.startswith("rollback"))
    project.merge(branch)
    assert parse_release(project.show("main", STAGING), STAGING).version == 2
    promote(project.repository)


def test_an_image_may_move_to_another_registry(project: Project) -> None:
    project.deploy("staging", 1)
    edit(project, image=f"registry.example.com/models@sha256:{1:064x}")
    promote(project.repository)


def test_a_rollback_to_an_image_that_is_gone_says_so(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    release(project.repository)
    project.merge("release/staging-v1")
    project.deploy("staging", 2)
    project.deploy("staging", 3)
    rollback(project.repository, "staging")
    said = "**oci:.local/registry does not give the image of model 2 ("
    assert said in capsys.readouterr().out
    text = (project.folder / ".local/pull-requests/rollback-staging-v3-to-v2.md").read_text()
    assert text.startswith(said)
    rollback(project.repository, "staging", 1)
    assert "does not give" not in capsys.readouterr().out


# -- a folder of another repository ----------------------------------------------------------------


@pytest.mark.parametrize("command", [["pipeline"], ["release"], ["preview", "staging"], ["status"]])
def test_a_project_in_a_folder_of_another_repository_is_told_at_once(
    project: Project, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (project.folder / ".git").rename(project.folder.parent / "moved")
    project.git("init", "--quiet", folder=project.folder.parent)
    said = refusal(capsys, *command)
    assert f"{project.folder} is the folder project/ of another repository, but" in said
    follow(said, project)
    Repository(project.folder).check_root()
