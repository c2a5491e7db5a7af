"""Commands where a machine or a shell has something unusual: they work, or say why not."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fake_pipeline
from conftest import TEMPLATE, UNBAKED
from fake_project import EXPORT, Project, make_project

# Each in its own process, as make starts them; the last is refused, as there is nothing to go to.
COMMANDS = {"package": 0, "release": 0, "status": 0, "promote": 1, "rollback staging": 1}
RUN = "; ".join(f"{{python}} -m delivery {each} {{end}}; echo $? >&9" for each in COMMANDS)

NOWHERE = "/dev/null/nowhere"  # no folder, and nobody can make it one
FOREIGN = {  # variables of other programs and projects
    "PYTHONSTARTUP": NOWHERE,
    "PIP_INDEX_URL": "https://index.invalid/simple",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "UV_INDEX_URL": "https://index.invalid/simple",
    "UV_OFFLINE": "1",
    "KUBECONFIG": NOWHERE,
    "TF_WORKSPACE": "other",
    "TF_CLI_ARGS": "-bogus",
    "AWS_PROFILE": "absent",
    "AWS_CONFIG_FILE": NOWHERE,
    "CDPATH": "/usr:/tmp",
    "GREP_OPTIONS": "--color=always",
    "MAKEFLAGS": "-k",
    "PAGER": "false",
    "GIT_PAGER": "false",
    "GIT_EDITOR": "false",
    "COLUMNS": "1",
    "TERM": "unknown",
    "CLICOLOR_FORCE": "1",
    "TZ": "Nowhere/Nothing",
    "SOURCE_DATE_EPOCH": "never",
}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

# name: variables (None: unset), what a shell does before, and after the command
SURROUNDINGS: dict[str, tuple[dict[str, str | None], str, str]] = {
    "no home": ({"HOME": None}, "", ""),
    "a home that cannot be written": ({"HOME": NOWHERE}, "", ""),
    "an empty home": ({"HOME": ""}, "", ""),
    "no settings for the user": ({"XDG_CONFIG_HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE}, "", ""),
    "no name": ({"USER": None, "LOGNAME": None, "USERNAME": None}, "", ""),
    "few open files": ({}, "ulimit -n 64", ""),
    "few processes": ({}, "ulimit -u 64", ""),
    "no core files, a small stack": ({}, "ulimit -c 0 -s 1024", ""),
    "no standard input": ({}, "", "<&-"),
    "no standard output": ({}, "", ">&-"),
    "no standard error": ({}, "", "2>&-"),
    "no standard streams": ({}, "", "<&- >&- 2>&-"),
    "a private umask": ({}, "umask 077", ""),
    "a folder for temporary files that is none": ({"TMPDIR": NOWHERE}, "", ""),
    "a folder for temporary files with blanks": ({"TMPDIR": "{folder}/a b'c"}, "", ""),
    "the C locale": ({"LANG": "C", "LC_ALL": "C"}, "", ""),
    "a locale without letters": (ASCII, "", ""),
    "a locale that is none": ({"LANG": "xx_XX.UTF-8", "LC_ALL": "xx_XX.UTF-8"}, "", ""),
    "ASCII streams": ({"PYTHONIOENCODING": "ascii"}, "", ""),
    "warnings as errors": ({"PYTHONWARNINGS": "error::SyntaxWarning"}, "", ""),
    "no docstrings": ({"PYTHONOPTIMIZE": "2"}, "", ""),
    "variables of other programs": (FOREIGN, "", ""),
}
# What is tried at once: nothing of it hides what else is there.
AT_ONCE = [
    (
        *("no home", "few open files", "no standard input", "the C locale"),
        "a folder for temporary files that is none",
    ),
    (
        *("a home that cannot be written", "few processes", "no standard output"),
        *("a locale without letters", "a folder for temporary files with blanks"),
    ),
    (
        *("an empty home", "a locale that is none", "no docstrings"),
        "variables of other programs",
    ),
    ("no settings for the user", "no name", "ASCII streams", "warnings as errors"),
    ("no standard error", "no core files, a small stack"),
    ("no standard streams", "a private umask"),
]


def run(
    project: Project, variables: dict[str, str | None], before: str = "", end: str = ""
) -> tuple[list[int], str]:
    """Run the commands in a shell; return their statuses and what they printed on both streams."""
    environment = os.environ | {"PYTHONPATH": str(TEMPLATE)}
    for name, value in variables.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value.replace("{folder}", str(project.folder.parent))
    script = RUN.format(python=shlex.quote(sys.executable), end=end)
    statuses = project.folder.parent / "statuses"
    result = subprocess.run(
        ["bash", "-c", f"exec 9> {shlex.quote(str(statuses))}; {before or 'true'}; {script}"],
        cwd=project.folder,
        env=environment,
        capture_output=True,
    )
    printed = (result.stdout + result.stderr).decode(errors="replace")
    return [int(line) for line in statuses.read_text().split()], printed


def check(statuses: list[int], printed: str) -> None:
    """Each command did what it does elsewhere."""
    assert statuses == [*COMMANDS.values()], printed
    assert "Traceback" not in printed and "Exception ignored" not in printed


@pytest.mark.parametrize("names", AT_ONCE, ids=" and ".join)
def test_commands_work_in_unusual_surroundings(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, monkeypatch)
    (tmp_path / "a b'c").mkdir()
    variables, before, end = {}, [], []
    for name in names:
        its_variables, its_before, its_end = SURROUNDINGS[name]
        variables |= its_variables
        before += [its_before] * bool(its_before)
        end.append(its_end)
    check(*run(project, variables, "; ".join(before), " ".join(end)))
    assert "release/staging-v1" in project.branches()


def test_all_surroundings_are_tried_once() -> None:
    assert sorted(name for names in AT_ONCE for name in names) == sorted(SURROUNDINGS)


@pytest.mark.parametrize(
    "names",
    [
        ("with blanks", "it's", "Ümläut ✓"),
        ('a "quote"', "-n", "a%20b#c"),
        ("$HOME `id`", "[a]*?", "a\nb"),
    ],
    ids=lambda names: names[0],
)
def test_commands_work_in_a_folder_of_any_name(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is the name of a folder that the project is in."""
    folder = tmp_path.joinpath(*names)
    folder.mkdir(parents=True)
    project = make_project(folder, monkeypatch)
    check(*run(project, {}))
    assert "release/staging-v1" in project.branches()


def test_commands_work_for_a_user_that_the_machine_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is started with another user's number."""
    stranger = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*stranger, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces of users here")
    project = make_project(tmp_path, monkeypatch)
    lines = []
    for command, status in COMMANDS.items():
        result = subprocess.run(
            [*stranger, sys.executable, "-m", "delivery", *command.split()],
            cwd=project.folder,
            env=os.environ | {"PYTHONPATH": str(TEMPLATE), "HOME": NOWHERE},
            capture_output=True,
            text=True,
        )
        assert result.returncode == status, result.stderr
        lines += result.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines if "Traceback" in line)


def test_a_release_without_a_name_for_its_author_says_how_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, monkeypatch)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.delenv(f"GIT_{role}_NAME")
        monkeypatch.delenv(f"GIT_{role}_EMAIL")
    project.git("config", "user.useConfigOnly", "true")
    statuses, printed = run(project, {})
    assert statuses[:2] == [0, 1] and "Traceback" not in printed
    assert "git config" in printed and "release/staging-v1" not in project.branches()
    project.git("config", "user.email", "you@example.com")
    project.git("config", "user.name", "Your Name")
    check(*run(project, {}))


WITH_DVC = {
    "no home, another project's stage, ASCII streams": {
        **{"HOME": None, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None},
        **{"DVC_ROOT": NOWHERE, "DVC_STAGE": "other", "DVC_NO_SCM": "1"},
        "PYTHONIOENCODING": "ascii",
    },
    "a home that is not there, a locale without letters": {
        **{"HOME": "/nonexistent", "XDG_CACHE_HOME": None},
        **ASCII,
    },
    "another project's settings, variables of other programs": {
        "DVC_GLOBAL_CONFIG_DIR": "{folder}/dvc",
        **FOREIGN,
    },
}


WITHOUT_DVC = {  # DVC does not work there
    "a home that is no folder": {"HOME": NOWHERE, "XDG_CONFIG_HOME": None},
    "a cache that cannot be written": {"DVC_SITE_CACHE_DIR": NOWHERE},
    "settings that cannot be read": {"DVC_GLOBAL_CONFIG_DIR": NOWHERE},
}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with images of its own in DVC; `dvc` beside it has another project's settings."""
    project = make_project(tmp_path, monkeypatch)
    stage = "prepare: {cmd: 'true', deps: [data/raw], outs: [plots/confusion.png]}"
    fake_pipeline.write(project.folder, "dvc.yaml", f"stages: {{{stage}, {EXPORT}}}}}\n")
    fake_pipeline.write(project.folder, "data/raw/zero/1.png", b"an image")
    shutil.copy(UNBAKED / ".gitignore", project.folder)
    project.use_dvc()
    project.dvc("commit", "--force")
    project.dvc("add", "data/raw")
    project.commit("Read images of our own")
    other = "['remote \"other\"']\n    url = /dev/null/x\n"
    fake_pipeline.write(tmp_path, "dvc/config", f"[core]\n    remote = other\n{other}")
    return project


@pytest.mark.parametrize("name", WITH_DVC)
def test_the_data_reach_their_store_in_unusual_surroundings(name: str, pictures: Project) -> None:
    check(*run(pictures, WITH_DVC[name]))
    kept = [path for path in (pictures.folder / ".local/data").rglob("*") if path.is_file()]
    assert b"an image" in [path.read_bytes() for path in kept]


@pytest.mark.parametrize("name", WITHOUT_DVC)
def test_where_dvc_does_not_work_a_release_says_what_is_in_its_way(
    name: str, pictures: Project
) -> None:
    statuses, printed = run(pictures, WITHOUT_DVC[name])
    assert statuses[1] == 1 and NOWHERE in printed
    assert "Traceback" not in printed and "\nerror: dvc " in printed
    assert pictures.branches().keys() == {"main"}
    check(*run(pictures, {}))


@pytest.mark.parametrize("blocks", [0, 1], ids=["no file", "a small file"])
def test_a_limit_of_a_files_size_is_said_and_nothing_is_half_written(
    blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends a program that does not ignore the signal; what is left must be whole."""
    project = make_project(tmp_path, monkeypatch)
    fake_pipeline.write_model(project.folder, os.urandom(5000))
    project.commit("Train a larger model")
    statuses, printed = run(project, {}, before=f"ulimit -f {blocks}")
    assert all(statuses[:2]) and "Traceback" not in printed
    assert project.branches().keys() == {"main"}
    check(*run(project, {}))  # nothing is in the way of the next try


@pytest.mark.parametrize("end", ["| true", "2>&1 | true", "> /dev/full"])
@pytest.mark.parametrize("unbuffered", [None, "1"], ids=["buffered", "unbuffered"])
def test_output_that_goes_nowhere_ends_a_command_without_a_traceback(
    unbuffered: str | None, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path, monkeypatch)
    statuses, printed = run(project, {"PYTHONUNBUFFERED": unbuffered}, end=end)
    assert len(statuses) == len(COMMANDS)
    assert "Traceback" not in printed and "Exception ignored" not in printed
    if end == "> /dev/full":
        assert all(statuses) and "error: [Errno 28] No space left on device" in printed


def reporting(code: str, end: str = "", **variables: str) -> "subprocess.CompletedProcess[bytes]":
    """Run code that `reported` reports, in a shell."""
    script = f"import subprocess, sys; from workspace.errors import reported; sys.exit({code})"
    return subprocess.run(
        ["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {end}"],
        env=os.environ | {"PYTHONPATH": str(TEMPLATE)} | variables,
        capture_output=True,
    )


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, ASCII], ids=["streams", "C"])
def test_a_sign_that_the_terminal_lacks_ends_no_command(variables: dict[str, str]) -> None:
    result = reporting('reported(lambda: print("loading \\u2026"))', **variables)
    assert (result.returncode, result.stdout) == (0, b"loading \\u2026\n"), result.stderr


@pytest.mark.parametrize("end", [">&-", "<&- >&- 2>&-"], ids=["output", "all"])
def test_what_a_command_starts_has_standard_streams(end: str) -> None:
    """Without them it would write into the first file that it opens, or fail."""
    started = "subprocess.run(['sh', '-c', 'echo x && cat && echo x >&2'], check=True)"
    assert reporting(f"reported(lambda: {started})", end=end).returncode == 0
