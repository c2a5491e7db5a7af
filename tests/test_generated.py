"""A generated project does what its README says, by its own commands, with the real Triton."""

import json
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from conftest import Project, clean_environment
from test_configurations import READERS

STAGES = ["prepare", "train", "evaluate", "export", "report"]
PORTS = ("HTTP_PORT", "GRPC_PORT", "METRICS_PORT")
SMALL = {"epochs": 3, "options": {"width": 8}}
ENVIRONMENTS = {"VENV": ".venv", "TRITON_VENV": ".venv-triton"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stages_run(printed: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", printed)


def change(project: Project, section: str, **values: object) -> None:
    path = project.folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params[section] |= values
    path.write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def trained(project: Project) -> Project:
    """The default project after its pipeline, shrunk."""
    change(project, "train", **SMALL)
    assert stages_run(project.make("pipeline")) == STAGES
    return project


def test_its_lint_is_clean(project: Project) -> None:
    project.make("lint")


# Every Python of an environment notes which file of tests opens a certain file.
WATCH = """
import os, sys
def note(event, given):
    if event == "open" and isinstance(given[0], str) and os.path.abspath(given[0]) == {watched!r}:
        with open({log!r}, "a") as log:
            print(os.environ.get("PYTEST_CURRENT_TEST", "no test").partition("::")[0], file=log)
sys.addaudithook(note)
"""


@contextmanager
def watched(project: Project, name: str) -> Iterator[Path]:
    """Have the tests noted that open a file of the project, until the block ends."""
    (packages,) = (project.folder / ".venv/lib").glob("python*/site-packages")
    log = project.folder.parent / "opened"
    watch = WATCH.format(watched=str(project.folder / name), log=str(log))
    (packages / "watch.py").write_text(watch)
    (packages / "watch.pth").write_text("import watch\n")
    yield log
    (packages / "watch.pth").unlink()


def test_its_tests_pass(project: Project) -> None:
    """And what the owner sets is of account to those alone that are run as others set it."""
    with watched(project, "params.yaml") as log:
        printed = project.make("test", timeout=1800)
    assert re.search(r"\d+ passed", printed) and "failed" not in printed
    assert set(log.read_text().splitlines()) == READERS


def test_a_second_run_of_the_pipeline_does_nothing(trained: Project) -> None:
    assert stages_run(trained.make("pipeline")) == []


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("export", {"golden_images": 48}, ["export", "report"]),
        ("evaluate", {"bootstrap_samples": 100}, ["evaluate", "export", "report"]),
        ("gate", {"min_accuracy": 0.1}, []),
        ("train", {"epochs": 4}, ["train", "evaluate", "export", "report"]),
    ],
    ids=["export", "evaluate", "gate", "train"],
)
def test_a_changed_parameter_reruns_only_what_depends_on_it(
    section: str, values: dict[str, object], expected: list[str], trained: Project
) -> None:
    change(trained, section, **values)
    assert stages_run(trained.make("pipeline")) == expected


def test_a_typo_in_the_parameters_stops_the_pipeline_with_a_sentence(trained: Project) -> None:
    path = trained.folder / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("  epochs:", "  epoch:"))
    result = trained.run("make", "pipeline")
    path.write_text(before)
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "params.yaml: there is no 'train.epoch': did you mean 'epochs'?" in result.stderr


def test_what_the_pipeline_made_is_known_to_git_or_ignored(trained: Project) -> None:
    changed = trained.run("git", "status", "--porcelain").stdout.splitlines()
    names = {line[3:] for line in changed}
    written = {"MODEL_CARD.md", "data/", "dvc.lock", "lineage.json", "metrics.json", "plots/"}
    assert names == written | {"params.yaml"}


@dataclass(frozen=True)
class Clone(Project):
    """A clone of a project elsewhere, with the environments of the first one."""

    origin: Project

    def run(self, *command: str, timeout: float = 900, **environment: str):
        venv = {name: str(self.origin.folder / folder) for name, folder in ENVIRONMENTS.items()}
        return super().run(*command, timeout=timeout, **venv, **environment)


@pytest.fixture(scope="module")
def clone(trained: Project, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """Another machine's clone of the trained commit."""
    folder = tmp_path_factory.mktemp("elsewhere") / "clone"
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    for command in (
        ("add", "--all"),
        (*author, "commit", "--message", "Train"),
        ("clone", ".", str(folder)),
    ):
        assert trained.run("git", *command).returncode == 0
    for environment in ENVIRONMENTS.values():  # or make finds them older than the clone's files
        (trained.folder / environment / "ready").touch()
    return Clone(folder, trained)


def test_a_clone_has_the_pictures_that_the_model_card_shows(clone: Clone) -> None:
    card = (clone.folder / "MODEL_CARD.md").read_text()
    pictures = re.findall(r"!\[.+\]\((.+)\)", card)
    kept = clone.run("git", "ls-files", "plots").stdout.splitlines()
    assert sorted(pictures) == kept != []
    sizes = [(clone.folder / name).stat().st_size for name in kept]
    assert all(10_000 < size < 200_000 for size in sizes)  # so that Git can keep each version


def test_a_pull_from_an_empty_data_store_says_what_to_do(clone: Clone) -> None:
    result = clone.run("make", "data-pull")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "run `make data-push` where it was made, or `make pipeline`" in result.stderr


def test_what_was_pushed_is_not_made_again_elsewhere(trained: Project, clone: Clone) -> None:
    trained.make("data-push")
    (clone.folder / ".local").mkdir(exist_ok=True)
    (clone.folder / ".local/data").symlink_to(trained.folder / ".local/data")
    clone.make("data-pull")
    assert stages_run(clone.make("pipeline")) == []
    assert clone.run("git", "status", "--porcelain").stdout == ""


def test_a_batch_for_embedded_data_is_refused_with_a_sentence(trained: Project) -> None:
    result = trained.run("make", "ingest", "BATCH=data/prepared/samples")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "prepare.source in params.yaml is 'digits': set it to folder" in result.stderr


@contextmanager
def served(project: Project) -> Iterator[dict[str, str]]:
    """`make serve` until the block ends; gives the ports as make variables."""
    ports = {name: str(free_port()) for name in PORTS}
    command = ["make", "serve", *(f"{name}={port}" for name, port in ports.items())]
    process = subprocess.Popen(
        command, cwd=project.folder, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    try:
        assert any(line.startswith("serving version 1") for line in process.stdout)
        yield ports
    finally:
        process.terminate()
        assert process.wait(timeout=60) is not None


ANSWERS = """
import sys
from pathlib import Path
from delivery.model import golden
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.server import Ports
recorded = golden.load(Path("artifacts/model/classifier/golden.npz"))
for protocol in PROTOCOLS:
    for batch in (1, 7, 32):
        with connect(protocol, Ports(int(sys.argv[1]), int(sys.argv[2]))) as client:
            found = golden.compare(client, recorded, batch)
        print(protocol, batch, found.images, found.equal, found.difference, found.passed)
"""


def test_the_served_model_answers_as_the_trained_one(trained: Project) -> None:
    with served(trained) as ports:
        result = trained.run(
            ".venv/bin/python", "-c", ANSWERS, ports["HTTP_PORT"], ports["GRPC_PORT"]
        )
        assert result.returncode == 0, result.stderr
        rows = [line.split() for line in result.stdout.splitlines()]
        assert [row[:2] for row in rows] == [
            [p, b] for p in ("http", "grpc") for b in ("1", "7", "32")
        ]
        for _, _, images, equal, difference, passed in rows:
            assert images == equal == "48" and float(difference) <= 1e-4 and passed == "True"

        samples = sorted(Path(trained.folder).glob("data/prepared/samples/*.png"))
        names = " ".join(str(path.relative_to(trained.folder)) for path in samples)
        answers = trained.make("predict", *(f"{n}={p}" for n, p in ports.items()), f"IMAGE={names}")
        assert len(re.findall(r"\.png: \d \d+\.\d%, .* \(version 1\)$", answers, re.M)) == len(
            samples
        )

        status, message = post(ports["HTTP_PORT"], shape=[1, 9, 8, 1], datatype="UINT8")
        assert status == 400 and "shape" in message and "[-1,8,8,1]" in message
        status, message = post(ports["HTTP_PORT"], shape=[1, 8, 8, 1], datatype="FP32")
        assert status == 400 and "UINT8" in message
        status, _ = post(ports["HTTP_PORT"], shape=[1, 8, 8, 1], datatype="UINT8")
        assert status == 200


def readme_block(project: Project, language: str, holds: str, ports: dict[str, str]) -> str:
    """A block of code of the README, with the ports of a test's server."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme(project), re.M | re.S)
    (block,) = [each for each in blocks if holds in each]
    for usual, name in (("8000", "HTTP_PORT"), ("8001", "GRPC_PORT")):
        block = block.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{ports[name]}")
    return block


def readme(project: Project) -> str:
    return (project.folder / "README.md").read_text()


def test_the_calls_of_the_readme_work(trained: Project) -> None:
    with served(trained) as ports:
        shell = readme_block(trained, "sh", "curl", ports)
        called = trained.run("bash", "-e", "-c", shell)
        assert called.returncode == 0, called.stderr
        (output,) = json.loads(called.stdout)["outputs"]
        assert (output["name"], output["shape"]) == ("probabilities", [1, 3])
        probability, index, label = output["data"][0].split(":")
        assert (index, label) == ("3", "3") and float(probability) > 0.5
        called = trained.run("bash", "-e", "-c", readme_block(trained, "sh", "client.py", ports))
        assert called.returncode == 0, called.stderr
        http, grpc = called.stdout.splitlines()
        sample = "data/prepared/samples/3-0.png"
        assert re.match(rf"{sample}: 3 \d+\.\d%, \d \d+\.\d%, ", http) and http == grpc


def post(port: str, shape: list[int], datatype: str) -> tuple[int, str]:
    """Send zeros of a shape and type to the model; return status and body."""
    numbers = shape[1] * shape[2] * [0]
    tensor = {"name": "image", "shape": shape, "datatype": datatype, "data": numbers}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/models/classifier/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_serving_ends_with_its_server(trained: Project) -> None:
    with served(trained) as ports:
        pass
    time.sleep(0.5)
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", int(ports["HTTP_PORT"])))
