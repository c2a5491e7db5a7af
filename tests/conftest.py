"""`bake(**answers)` generates a project as a user would: with the cookiecutter command."""

import atexit
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import fake_pipeline
from classifier.ray_cluster import SETTINGS, THIS_MACHINE
from delivery.model.packaging import package
from delivery.oci.layout import Layout
from workspace.machine import this_machine
from workspace.root import git_variables

# Git's hooks run tests, too; these are about repositories of their own.
for variable in git_variables():
    os.environ.pop(variable, None)

TEMPLATE = Path(__file__).parent.parent
UNBAKED = TEMPLATE / "<<cookiecutter.project>>"

# The packaged Triton with which delivery is tested; generated projects install their own.
os.environ.setdefault("TRITON_VENV", str(TEMPLATE / ".venv-triton"))

# What the outer environment must not lend to a generated project.
LEAKS = """
VIRTUAL_ENV VENV TRITON_VENV MAKEFLAGS MAKELEVEL MFLAGS PYTHONPATH RAY_ADDRESS DEVICES NODES STORAGE
""".split()


# Under nohup, or in the background, some signals are ignored, and so they are in what is started
# from here. With a handler of its own a process passes on what is usual.
for each in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(each) == signal.SIG_IGN:
        signal.signal(each, lambda *_: None)


# What takes longest, the longest first: begun last, it would leave a core idle at the end.
LONGEST = """
test_generated test_infra test_distributed test_surroundings test_preview test_reproduce
test_tuning test_reproduce_release test_ingest test_check test_order test_update test_workflows
""".split()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the files that take longest begin first."""
    begin_with(LONGEST, items)


def begin_with(names: list[str], items: list[pytest.Item]) -> None:
    """Have files of these names come first, in that order."""
    ranks = {name: rank for rank, name in enumerate(names)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


def pytest_collection_finish() -> None:
    """Take what is imported by now, which stays, out of each search for garbage."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let what is left be found again, or a library calls it a leak when the process ends."""
    gc.unfreeze()


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in LEAKS}


@dataclass(frozen=True)
class Project:
    """A generated project and the ways a user acts on it."""

    folder: Path

    def run(self, *command: str, timeout: float = 900, **environment: str):
        return subprocess.run(
            command,
            cwd=self.folder,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def make(self, *arguments: str, timeout: float = 900, **environment: str) -> str:
        """Run `make`; fail with what it printed unless it succeeds."""
        result = self.run("make", *arguments, timeout=timeout, **environment)
        assert result.returncode == 0, f"make {arguments}\n{result.stdout}\n{result.stderr}"
        return result.stdout


def tracked() -> list[Path]:
    """Files of the template that git knows or would add, relative to it; not what tools left."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in names.split("\0") if name and os.path.lexists(TEMPLATE / name)]


@functools.cache
def clean_template() -> Path:
    """A copy of the template as a fresh clone would hold it."""
    folder = Path(tempfile.mkdtemp(prefix="template-"))
    atexit.register(shutil.rmtree, folder)
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TEMPLATE / path, folder / path, follow_symlinks=False)
    return folder


def cookiecutter(
    output: Path,
    typed: str | None = None,
    template: Path | None = None,
    options: Sequence[str] = (),
    **answers: str,
) -> subprocess.CompletedProcess[str]:
    """Generate a project below `output`: from answers on the command line, or typed at prompts."""
    template = template or clean_template()
    pairs = [f"{name}={value}" for name, value in answers.items()]
    silent = ["--no-input"] if typed is None else []
    command = [sys.executable, "-m", "cookiecutter", str(template), *silent, *options, *pairs]
    return subprocess.run(
        [*command, "--output-dir", str(output)],
        env=clean_environment(),
        input=typed,
        capture_output=True,
        text=True,
    )


def mark_root(folder: Path) -> None:
    """Make a folder the root of a project: settings, pipeline, how Triton serves."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(UNBAKED / name, folder)
    shutil.copytree(UNBAKED / "serving", folder / "serving", dirs_exist_ok=True)


@pytest.fixture(scope="session", autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the tests in a folder like a project's, not in the template."""
    folder, before = tmp_path_factory.mktemp("root"), Path.cwd()
    mark_root(folder)
    os.chdir(folder)
    yield
    os.chdir(before)


@pytest.fixture(autouse=True)
def fresh_environment() -> None:
    """Have the variables that a test sets be read: a program reads them once."""
    this_machine.cache_clear()


@pytest.fixture(scope="session")
def ray_with_its_settings() -> None:
    """Ray reads its settings when it is imported: once, whichever test of a process comes first."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SETTINGS | THIS_MACHINE).items():
            patch.setenv(name, value)
        import ray  # noqa: F401


@pytest.fixture
def bake(tmp_path: Path) -> Callable[..., Project]:
    def generate(**answers: str) -> Project:
        result = cookiecutter(tmp_path, **answers)
        assert result.returncode == 0, result.stderr
        (folder,) = tmp_path.iterdir()
        return Project(folder)

    return generate


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    """A folder for gigabytes, where the folder of temporary files may be the memory's."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def project(disk: Path) -> Project:
    """The default project, with its environments installed and its first commit made."""
    output = disk / "default"
    result = cookiecutter(output)
    assert result.returncode == 0, result.stderr
    made = Project(output / "digit-classifier")
    git = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.com")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "Generate")):
        assert made.run(*git, *arguments).returncode == 0
    made.make("setup")
    share_compiled(made.folder / ".venv")
    return made


def share_compiled(venv: Path) -> None:
    """Give a new environment the modules that this one has compiled, of files that are the same.

    Where one is another's, Python sees it, and compiles it anew: for all of them that takes longer
    than what is tested.
    """
    (there,) = (venv / "lib").glob("python*/site-packages")
    here = Path(sysconfig.get_path("purelib"))
    for folder in here.rglob("__pycache__"):
        place = there / folder.relative_to(here)
        if place.parent.is_dir():
            shutil.copytree(folder, place, dirs_exist_ok=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An image layout that is empty."""
    return Layout(tmp_path / "local")


@pytest.fixture
def digest(tmp_path: Path, layout: Layout) -> str:
    """A model of version 8 that is packaged into the layout."""
    fake_pipeline.write_outputs(tmp_path / "project")
    return package(tmp_path / "project", 8, layout)
