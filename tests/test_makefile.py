"""A generated Makefile in another person's shell: what it runs is what its command line says."""

import shutil
import sys
from pathlib import Path

import pytest

from conftest import TEMPLATE, Project, cookiecutter

VENV = Path(sys.prefix)  # stands for the project's environment

# Target: what its command line may say, and the option that comes of it.
ASKED = {
    "release": {
        "VERSION=7": "--version 7",
        "ACCEPT_TEST_DATA=1": "--accept-test-data",
        "OUTPUT=said": '--output "$OUTPUT"',
    },
    "rollback": {
        "TO=3": "--to 3",
        "CONTEXT=here": '--context "$CONTEXT"',
        "EVENT=e.json": '--event "$EVENT"',
    },
    "reproduce": {"KEEP=1": "--keep", "ENV=qa": "--environment qa"},
    "rehearse": {"IMAGE=oci:x": "--image oci:x"},
    "pipeline": {"PULL=1": "--pull"},
    "compare": {"RUNS=v1": "compare v1"},
    "report": {"VERSION=8": "--version 8"},
    "train": {"FORCE=1": "--force"},
    "tune": {"NETWORK=mlp": "--network mlp", "TRIALS=3": "--trials 3"},
    "tune-serving": {"CLIENTS=3": "--clients 3"},
    "image": {"PUSH=ghcr.io/a/b": "--push ghcr.io/a/b"},
    "promote": {"CONTEXT=here": '--context "$CONTEXT"', "SOAKED=1": "--soaked"},
    "server-image": {"PUSH=ghcr.io/a/b": "--push ghcr.io/a/b"},
    "cluster": {
        "CONTEXT=here": '--context "$CONTEXT"',
        "HOST=10.0.0.1": '--host "10.0.0.1"',
        "IMAGE=oci:x": '--image "oci:x"',
    },
    "check": {"BASE=v1": '--base "$BASE"', "HEAD=v2": '--head "$HEAD"'},
    "status": {"ADDRESS=qa=:1": "--address qa=:1"},
    "protect": {"CHECK=1": "--check"},
    "webhook": {"CHECK=1": "--check", "URL=https://b": '"https://b"'},
    "update": {"TO=v2": '--to "v2"'},
    "comment": {"REPORT=a.md": '--report "$REPORT"'},
    "login": {"PUSH=ghcr.io/a/b": "--push"},
}
NEEDED = {
    "rollback": ["ENV=staging"],
    "reproduce": ["VERSION=7"],
    "rehearse": ["ENV=staging"],
    "tune-serving": ["P99=20"],
    "webhook": ["URL=https://a"],
    "comment": ["PR=7"],
}
EVERY = {
    pair.partition("=")[0]: pair.partition("=")[2]
    for asked in ASKED.values()
    for pair in asked
    if not pair.startswith("ADDRESS")
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made")
    assert cookiecutter(output).returncode == 0
    return output / "digit-classifier"


def make(folder: Path, *arguments: str, **variables: str):
    ready = ["-o", f"{VENV}/ready", "-o", ".venv-triton/ready"]
    command = ["make", "--no-print-directory", *ready, f"VENV={VENV}", *arguments]
    return Project(folder).run(*command, **variables)


@pytest.mark.parametrize("target", ASKED)
def test_only_the_command_line_says_what_is_asked(folder: Path, target: str) -> None:
    needed = NEEDED.get(target, [])
    plain = make(folder, "--dry-run", target, *needed)
    assert plain.returncode == 0, plain.stderr
    assert make(folder, "--dry-run", target, *needed, **EVERY).stdout == plain.stdout
    for pair, option in ASKED[target].items():
        asked = make(folder, "--dry-run", target, *needed, pair)
        assert option in asked.stdout and option not in plain.stdout


@pytest.mark.parametrize("path", ["my photos (1)", "it's", 'a "b" `c`'])
def test_a_path_comes_as_it_was_typed(folder: Path, path: str) -> None:
    for target, variable in (("ingest", "BATCH"), ("review", "BATCH"), ("predict", "IMAGE")):
        said = make(folder, target, f"{variable}={path}", "RUN=printf '<%s>'").stdout
        assert f"<{path}>" in said
    assert "say which: make ingest BATCH=folder" in make(folder, "ingest", BATCH=path).stderr
    assert path not in make(folder, "predict", "RUN=printf '<%s>'", IMAGE=path).stdout


def test_what_was_fetched_last_is_a_batch(folder: Path) -> None:
    say = "RUN=printf '<%s>'"
    assert (
        "there is none: make captured ENV=" in make(folder, "ingest", "FROM=captured", say).stderr
    )
    for name in ("2026-11-26-100000-staging", "2026-11-26-090000-production"):
        (folder / ".local/captured" / name).mkdir(parents=True)
    said = make(folder, "ingest", "FROM=captured", say)
    assert "<.local/captured/2026-11-26-100000-staging>" in said.stdout, said.stderr
    assert "say which" in make(folder, "ingest", say, FROM="captured").stderr


def test_what_the_readme_takes_from_the_environment_is_taken(folder: Path) -> None:
    shown = make(folder, "--dry-run", "serve", HTTP_PORT="18000").stdout
    assert "--http-port 18000" in shown
    assert (
        "roots.py plan cluster" in make(folder, "--dry-run", "infra-plan", ROOTS="cluster").stdout
    )


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Variables by which another project would get between."""
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in ("yaml", "delivery", "workspace", "sitecustomize"):
        (modules / f"{name}.py").write_text("raise SystemExit('of another project')\n")
    return {
        "PYTHONPATH": str(modules),
        "PYTHONHOME": "/nowhere",
        "PYTHONSTARTUP": "/nowhere",
        "PYTHONINSPECT": "1",
        "PYTHONIOENCODING": "ascii",
        "PYTHONWARNINGS": "error",
        "PYTHONOPTIMIZE": "2",
        "LC_ALL": "C",
        "CDPATH": "/usr:/tmp",
        "GREP_OPTIONS": "--color=always",
        "MAKEFLAGS": "-k",
        "HOME": "/dev/null/nowhere",
    }


def test_a_command_is_this_projects_whatever_a_shell_says(
    folder: Path, shell: dict[str, str]
) -> None:
    result = make(folder, "package", **shell)
    assert result.returncode == 2
    assert "error: the pipeline has not written" in result.stderr, result.stderr
    assert "of another project" not in result.stdout + result.stderr


def test_the_infrastructures_commands_are_too(folder: Path, shell: dict[str, str]) -> None:
    result = make(folder, "infra-plan", "ROOTS=clutser", f"PYTHON={sys.executable}", **shell)
    assert "there is no root clutser: choose of bootstrap" in result.stderr, result.stderr


def test_the_list_of_commands_is_the_same(folder: Path, shell: dict[str, str]) -> None:
    assert make(folder, **shell).stdout == make(folder).stdout != ""


@pytest.mark.parametrize("name", ["with blanks", "it's", 'a "quote"', "\u00dcml\u00e4ut"])
def test_a_project_may_be_in_a_folder_of_any_name(
    name: str, folder: Path, tmp_path: Path, shell: dict[str, str]
) -> None:
    moved = tmp_path / name / "project"
    moved.parent.mkdir()
    shutil.copytree(folder, moved)
    result = make(moved, "package", **shell)
    assert "error: the pipeline has not written" in result.stderr, result.stderr


def test_make_knows_how_to_do_all_that_the_template_lists() -> None:
    listed = make(TEMPLATE, "help").stdout
    targets = [line.split()[0] for line in listed.splitlines()]
    assert {"demo", "test", "test-cluster"} < set(targets)
    for target in targets:
        tried = make(TEMPLATE, "--dry-run", target)
        assert tried.returncode == 0, f"{target}: {tried.stderr}"
