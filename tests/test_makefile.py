"""A generated Makefile in another person's shell: what it runs is what its command line says."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import TEMPLATE, Project, cookiecutter

VENV = Path(sys.prefix)  # stands for the project's environment

SAY = "RUN=printf '<%s>'"  # what a module would be told

# Target: what its command line may say, and the option that comes of it.
ASKED = {
    "release": {
        "VERSION=7": "--version 7",
        "ACCEPT_TEST_DATA=1": "--accept-test-data",
        "OUTPUT=said": "--output said",
    },
    "rollback": {
        "TO=3": "--to 3",
        "CONTEXT=here": "--context here",
        "EVENT=e.json": "--event e.json",
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
    "promote": {"CONTEXT=here": "--context here", "SOAKED=1": "--soaked"},
    "server-image": {"PUSH=ghcr.io/a/b": "--push ghcr.io/a/b"},
    "cluster": {
        "CONTEXT=here": "--context here",
        "HOST=10.0.0.1": "--host 10.0.0.1",
        "IMAGE=oci:x": "--image oci:x",
    },
    "check": {"BASE=v1": "--base v1", "HEAD=v2": "--head v2"},
    "status": {"ADDRESS=qa=:1": "--address qa=:1"},
    "protect": {"CHECK=1": "--check"},
    "webhook": {"CHECK=1": "--check", "URL=https://b": "https://b"},
    "update": {"TO=v2": "--to v2"},
    "comment": {"REPORT=a.md": "--report a.md"},
    "login": {"PUSH=ghcr.io/a/b": "--push"},
}
NEEDED = {
    "rollback": ["ENV=staging"],
    "reproduce": ["VERSION=7"],
    "rehearse": ["ENV=staging"],
    "tune-serving": ["P99=20"],
    "webhook": ["URL=https://a"],
    "comment": ["PR=7"],
    "captured": ["ENV=staging"],
    "drift": ["ENV=staging"],
    "ingest": ["BATCH=june"],
    "preview": ["ENV=staging"],
    "review": ["BATCH=june"],
    "take-down": ["CONTEXT=here"],
    "train-on-cluster": ["IMAGE=oci:x"],
    "verify": ["VERSION=7"],
}
# Values that make, or the shell that it calls, would run if it took them for its own language.
HOSTILE = [
    "$(shell touch DONE)",
    "$$(touch DONE)",
    "$(touch DONE)",
    "1; touch DONE #",
    "'; touch DONE; '",
    '"; touch DONE; "',
    "1\ntouch DONE #",
]
LISTS = {"ADDRESS", "ROOTS", "RUNS"}  # of words
FLAGS = {"ACCEPT_TEST_DATA", "CHECK", "FORCE", "FROM", "KEEP", "PULL", "SOAKED", "WATCH"}
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
    asked = (target, *NEEDED.get(target, []), SAY)
    plain = make(folder, *asked)
    assert plain.returncode == 0, plain.stderr
    assert make(folder, *asked, **EVERY).stdout == plain.stdout
    for pair, option in ASKED[target].items():
        words = "".join(f"<{word}>" for word in option.split())
        said = make(folder, *asked, pair).stdout
        assert words in said and words not in plain.stdout


def recipes(makefile: str) -> dict[str, set[str]]:
    """What each target's recipe takes of what it may be told, where a module does the work."""
    (ports,) = re.findall(r"(?m)^PORTS := (.*)", makefile)
    plain = re.sub(r"\$\(error .*?\)", "", makefile.replace("$(PORTS)", ports))
    return {
        target: {*re.findall(r"\b[A-Z][A-Z0-9_]+\b", recipe)} - {"FETCHED", "PYTHON", "RUN"}
        for target, recipe in re.findall(r"(?m)^([a-z-]+):.*\n((?:\t.*\n)+)", plain)
        if re.match(r"\t@?(exec )?\$\((RUN\)|PYTHON\) infra/)", recipe)
    }


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_is_text_to_make_and_to_its_shell(folder: Path, value: str) -> None:
    told = recipes((folder / "Makefile").read_text())
    assert {"train-on-cluster", "rollback", "ingest", "infra-plan"} < told.keys()
    assert {"ENV", "TO", "EVENT", "CONTEXT"} == told["rollback"]
    for target, names in told.items():
        asked = (target, *NEEDED.get(target, []), SAY, SAY.replace("RUN", "PYTHON"))
        for name in names:
            said = make(folder, *asked, f"{name}={value}").stdout
            words = value.split() if name in LISTS else [value]
            words = [] if name in FLAGS or (target, name) == ("login", "PUSH") else words
            assert all(f"<{word}>" in said for word in words), f"{target} {name}: {said}"
        make(folder, *asked, **dict.fromkeys(names, value))
        assert not (folder / "DONE").exists(), target


@pytest.mark.parametrize("path", ["my photos (1)", "it's", 'a "b" `c`', "$5 $(HOME)"])
def test_a_path_comes_as_it_was_typed(folder: Path, path: str) -> None:
    for target, variable in (("ingest", "BATCH"), ("review", "BATCH"), ("predict", "IMAGE")):
        said = make(folder, target, f"{variable}={path}", SAY).stdout
        assert f"<{path}>" in said
    assert "say which: make ingest BATCH=folder" in make(folder, "ingest", BATCH=path).stderr
    assert path not in make(folder, "predict", SAY, IMAGE=path).stdout


def test_what_was_fetched_last_is_a_batch(folder: Path) -> None:
    assert (
        "there is none: make captured ENV=" in make(folder, "ingest", "FROM=captured", SAY).stderr
    )
    for name in ("2026-11-26-100000-staging", "2026-11-26-090000-production"):
        (folder / ".local/captured" / name).mkdir(parents=True)
    said = make(folder, "ingest", "FROM=captured", SAY)
    assert "<.local/captured/2026-11-26-100000-staging>" in said.stdout, said.stderr
    assert "say which" in make(folder, "ingest", SAY, FROM="captured").stderr


def test_what_the_readme_takes_from_the_environment_is_taken(folder: Path) -> None:
    for target in ("serve", "predict"):
        said = make(folder, target, SAY, HTTP_PORT="18000", GRPC_PORT="18001").stdout
        assert "<--http-port><18000><--grpc-port><18001>" in said
    said = make(folder, "train-on-cluster", "IMAGE=oci:x", SAY, NODES="3").stdout
    assert "<--nodes><3>" in said
    said = make(folder, "infra-plan", SAY.replace("RUN", "PYTHON"), ROOTS="registry cluster").stdout
    assert "roots.py><plan><registry><cluster>" in said


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
