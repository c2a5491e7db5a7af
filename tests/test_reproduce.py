"""A released model is made again in a fresh clone, with its data from S3, by the real pipeline."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cloud import REGION, Account, credentials, mock_cloud
from conftest import Project, cookiecutter

BUCKET = "images-of-digits"
RELEASE = "argocd/environments/staging/model.yaml"
STAGES = ["prepare", "train", "evaluate", "export", "report"]
ROWS = ["image", "data", "test_data", "code"]
ROWS += ["accuracy", "macro_f1", "calibration_error", "loss", "support"]
SMALL = {
    "prepare": {"source": "folder"},
    "train": {"epochs": 3, "options": {"width": 4}},
    "evaluate": {"bootstrap_samples": 100},
    "gate": {"min_accuracy": 0.01, "min_macro_f1": 0.01},
}
WRITE_IMAGES = """
from pathlib import Path
from PIL import Image
from sklearn.datasets import load_digits
digits = load_digits()
for i in range(400):
    folder = Path("data/raw", str(digits.target[i]))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((digits.images[i] * 15).astype("uint8")).save(folder / f"{i:03}.png")
"""


@dataclass(frozen=True)
class Clone(Project):
    """A clone of the repository, with the environment that these tests run in."""

    venv: Path
    endpoint: str

    def run(self, *command: str, timeout: float = 900, **environment: str):
        own = {"VENV": str(self.venv), "PYTHONPATH": str(self.folder / "src")}
        own |= {"GIT_CONFIG_GLOBAL": "/dev/null"}
        own |= {f"GIT_{role}_NAME": "A Tester" for role in ("AUTHOR", "COMMITTER")}
        own |= {f"GIT_{role}_EMAIL": "tester@example.com" for role in ("AUTHOR", "COMMITTER")}
        own |= {n: v for n, v in credentials("").items() if n != "AWS_ENDPOINT_URL"}
        return super().run(*command, timeout=timeout, **(own | environment))

    def done(self, *command: str) -> str:
        result = self.run(*command)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def commit(self, message: str) -> str:
        """Commit everything and push it; return the commit."""
        self.done("git", "add", "--all")
        self.done("git", "commit", "--quiet", "--message", message)
        self.done("git", "push", "--quiet", "origin", "main")
        return self.done("git", "rev-parse", "HEAD")

    def dvc(self, *arguments: str) -> None:
        self.done(str(self.venv / "bin/python"), "-m", "dvc", "--quiet", *arguments)

    def change(self, changes: dict[str, object]) -> None:
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, values in changes.items():
            params[name] = params[name] | values if isinstance(values, dict) else values
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def find_store(self) -> None:
        """Say on this machine only where S3 is."""
        self.dvc("remote", "modify", "--local", "store", "endpointurl", self.endpoint)
        (self.venv / "ready").touch()  # or make finds it older than the clone's files

    def clone(self, folder: Path, origin: Path | None = None) -> "Clone":
        """Clone the repository as another machine would."""
        origin = origin or Path(self.done("git", "remote", "get-url", "origin"))
        self.done("git", "clone", "--quiet", str(origin), str(folder))
        made = Clone(folder, self.venv, self.endpoint)
        made.find_store()
        return made


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty bucket in S3's API on loopback."""
    with mock_cloud(tmp_path_factory.mktemp("cloud") / "log") as address:
        location = {"LocationConstraint": REGION}
        s3 = Account(address).client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration=location)
        yield address


@pytest.fixture(scope="module")
def author(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The repository in which a model of images of one's own was trained, released and merged."""
    output = tmp_path_factory.mktemp("author")
    assert cookiecutter(output, project="image-classifier").returncode == 0
    author = Clone(output / "image-classifier", Path(sys.prefix), endpoint)
    origin = str(output / "origin.git")
    author.done("git", "init", "--quiet", "--initial-branch=main")
    author.done("git", "init", "--quiet", "--bare", "--initial-branch=main", origin)
    author.done("git", "remote", "add", "origin", origin)
    author.dvc("remote", "modify", "store", "url", f"s3://{BUCKET}/dvc")
    author.find_store()
    author.done(str(author.venv / "bin/python"), "-c", WRITE_IMAGES)
    author.dvc("add", "data/raw")
    author.change(SMALL)
    author.commit("Describe digits as images of our own")
    author.make("pipeline")
    author.commit("Train")
    author.make("release")
    author.done("git", "fetch", "--quiet", "origin")
    author.done("git", "merge", "--quiet", "--no-ff", "--no-edit", "origin/release/staging-v1")
    author.done("git", "push", "--quiet", "origin", "main")
    return author


def stored(endpoint: str) -> set[str]:
    pages = Account(endpoint).client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


def answers(printed: str) -> dict[str, str]:
    """Read the table: what was compared, and whether it is the same."""
    return dict(re.findall(r"^(\w+) +\S+ +\S+ +(yes|NO)$", printed, re.M))


def test_a_release_puts_its_data_into_the_store(author: Clone, endpoint: str) -> None:
    raw = yaml.safe_load((author.folder / "data/raw.dvc").read_text())["outs"][0]
    assert raw["nfiles"] == 400
    kept = stored(endpoint)
    assert f"dvc/files/md5/{raw['md5'][:2]}/{raw['md5'][2:]}" in kept and len(kept) > 400


def test_a_fresh_clone_makes_the_same_image(author: Clone, tmp_path: Path) -> None:
    clone = author.clone(tmp_path / "clone")
    assert not (clone.folder / ".dvc/cache").exists() and not (clone.folder / "data/raw").exists()
    printed = clone.make("reproduce", "VERSION=1", PYTHONHASHSEED="7", TZ="Asia/Tokyo")
    assert re.findall(r"Running stage '(\w+)'", printed) == STAGES
    assert answers(printed) == dict.fromkeys(ROWS, "yes")
    digest = yaml.safe_load((clone.folder / RELEASE).read_text())["data"]["image"].split("@")[1]
    assert f"model 1 was made again: its image is {digest[:19]}, as released" in printed
    assert clone.done("git", "status", "--porcelain") == ""
    assert not (clone.folder / ".local/reproduce/v1").exists()


def test_a_release_of_another_seed_is_told_from_the_commit(author: Clone, tmp_path: Path) -> None:
    author.done("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    editor = author.clone(tmp_path / "editor", tmp_path / "origin.git")
    editor.change({"seed": 43})
    commit = editor.commit("Change the seed, but train nothing")
    path = editor.folder / RELEASE
    path.write_text(re.sub(r"(commit: ).*", rf'\1"{commit}"', path.read_text()))
    editor.commit("Claim that model 1 came from there")
    result = editor.run("make", "reproduce", "VERSION=1")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    wrong = {name for name, answer in answers(result.stdout).items() if answer == "NO"}
    # the ledger of splits is the commit's, so another seed tests with the same pictures
    assert {"image", "loss"} <= wrong and not wrong & {"code", "support", "data", "test_data"}
    assert "error: model 1 made again differs from the release in image, " in result.stderr
    assert "(lineage.json params.seed: 42 → 43); report: .local/reproduce/v1.md" in result.stderr
    report = (editor.folder / ".local/reproduce/v1.md").read_text()
    assert (
        "- prepare: data/prepared\n" in report and "| lineage.json seed | 42 | 43 | NO |" in report
    )


def test_a_store_that_does_not_answer_is_named(author: Clone, tmp_path: Path) -> None:
    clone = author.clone(tmp_path / "clone")
    clone.dvc("remote", "modify", "--local", "store", "endpointurl", "http://127.0.0.1:1")
    result = clone.run("make", "reproduce", "VERSION=1", AWS_MAX_ATTEMPTS="1")
    assert result.returncode != 0 and "Traceback" not in result.stderr
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be had (dvc pull failed: " in sentence and "127.0.0.1:1" in sentence
    assert "correct the default remote in .dvc/config" in sentence


def test_data_and_models_travel_through_s3(author: Clone, tmp_path: Path) -> None:
    author.make("data-push")
    clone = author.clone(tmp_path / "clone")
    clone.make("data-pull")
    model = "artifacts/model/classifier/1/model.onnx"
    assert (clone.folder / model).read_bytes() == (author.folder / model).read_bytes()
    assert len(list(clone.folder.glob("data/raw/*/*.png"))) == 400
    assert re.findall(r"Running stage '(\w+)'", clone.make("pipeline")) == []
    assert clone.done("git", "status", "--porcelain") == ""
