"""The data store: what is pushed, what a pull believes, and which folder the pictures are in."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloud import Account, credentials, mock_cloud
from conftest import UNBAKED
from delivery import dvc
from delivery.__main__ import main

FILES = {f"{kind}/{i}.png": f"picture {i} of a {kind}" for kind in ("cat", "dog") for i in range(2)}


def make(folder: Path, raw: str = "data/raw") -> Path:
    """A project with pictures, settings of DVC as they are shipped, and no Git."""
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(UNBAKED / ".dvc/config", folder / ".dvc/config")
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text(f"prepare: {{source: folder, folder: {raw}}}\n")
    for name, content in FILES.items():
        (folder / raw / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / raw / name).write_text(content)
    return folder


def read(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the data were made; the working directory."""
    folder = make(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def clone(project: Path) -> Path:
    """Another machine's checkout: all that is small."""
    other = project.with_name("clone")
    left_out = shutil.ignore_patterns("cache", "tmp", "raw", ".local")
    return shutil.copytree(project, other, ignore=left_out)


@pytest.fixture(params=["a folder", "S3"])
def stored(
    request: pytest.FixtureRequest,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """The project with its data in the store, one of whose objects was replaced since."""
    dvc.dvc(project, "add", "data/raw", "--quiet")
    if request.param == "a folder":
        store = tmp_path / "store"
        dvc.dvc(project, "remote", "modify", "store", "url", str(store))
        assert main(["data-push"]) == 0
        (store / object_of(project)).chmod(0o600)
        (store / object_of(project)).write_text("another picture")
        yield project
        return
    with mock_cloud(tmp_path / "log") as endpoint:
        for name, value in credentials(endpoint).items():
            monkeypatch.setenv(name, value)
        s3 = Account(endpoint).client("s3")
        region = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration=region)
        dvc.dvc(project, "remote", "modify", "store", "url", "s3://bucket/dvc")
        assert main(["data-push"]) == 0
        key = f"dvc/{object_of(project)}"
        s3.put_object(Bucket="bucket", Key=key, Body=b"another picture")
        yield project


def object_of(project: Path, content: str = FILES["cat/0.png"]) -> str:
    """Where DVC puts the first cat, or the list of all files."""
    (found,) = [
        path.relative_to(project / ".dvc/cache").as_posix()
        for path in (project / ".dvc/cache").rglob("*")
        if path.is_file() and content in path.read_text()
    ]
    return found


def remove(address: str) -> None:
    """Do what the sentence says."""
    if address.startswith("s3://"):
        bucket, _, key = address.removeprefix("s3://").partition("/")
        Account(os.environ["AWS_ENDPOINT_URL"]).client("s3").delete_object(Bucket=bucket, Key=key)
    else:
        Path(address.removeprefix("file://")).unlink()


def test_a_replaced_object_is_not_taken_and_the_cure_works(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pulled_when_cured(stored, monkeypatch, capfd, object_of(stored), taken={})


def dogs_only(files: str) -> str:
    """A list of fewer files."""
    return json.dumps([each for each in json.loads(files) if "dog" in each["relpath"]])


@pytest.mark.parametrize("change", [dogs_only, lambda files: "no list"], ids=["fewer", "none"])
def test_a_replaced_list_of_files_is_not_believed_and_the_cure_works(
    change: Callable[[str], str],
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """DVC says "2 files added", which are in the store."""
    dvc.dvc(project, "add", "data/raw", "--quiet")
    dvc.dvc(project, "remote", "modify", "store", "url", str(tmp_path / "store"))
    assert main(["data-push"]) == 0
    files = object_of(project, "relpath")
    path = tmp_path / "store" / files
    path.chmod(0o600)
    whole = path.read_text()
    path.write_text(change(whole))
    dogs = {name: content for name, content in FILES.items() if "dog" in name}
    taken = dogs if "relpath" in path.read_text() else {}
    pulled_when_cured(project, monkeypatch, capfd, files, taken)


def pulled_when_cured(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    replaced: str,
    taken: dict[str, str],
) -> None:
    other = clone(project)
    monkeypatch.chdir(other)
    assert main(["data-pull"]) == 1
    printed, error = capfd.readouterr()
    assert read(other / "data/raw") == taken
    assert error.strip().splitlines()[-1] == (
        "error: the data store does not have what was put there: remove the objects that are "
        "listed above, run `make data-push` where the data were made, and try again here"
    )
    listed = [line for line in printed.splitlines() if "/files/md5/" in line]
    assert any(line.endswith(replaced) for line in listed)
    assert any(line.endswith(".dir") for line in listed), "which DVC takes for all files"
    for address in listed:
        remove(address)
    monkeypatch.chdir(project)
    assert main(["data-push"]) == 0
    monkeypatch.chdir(other)
    assert main(["data-pull"]) == 0
    assert read(other / "data/raw") == FILES


def test_data_behind_a_link_are_not_pushed_until_they_are_copied(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (project / "data/raw/cat").rename(project.parent / "cat")
    (project / "data/raw/cat").symlink_to(project.parent / "cat")
    dvc.dvc(project, "add", "data/raw", "--quiet")  # keeps the dogs only
    assert main(["data-push"]) == 1
    error = capfd.readouterr().err
    assert "data/raw/cat is a link to a folder, of which DVC would keep nothing" in error
    (project / "data/raw/cat").unlink()
    shutil.copytree(project.parent / "cat", project / "data/raw/cat")
    dvc.dvc(project, "add", "data/raw", "--quiet")
    assert main(["data-push"]) == 0


def test_what_was_never_pushed_is_had_after_a_push(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    dvc.dvc(project, "add", "data/raw", "--quiet")
    dvc.dvc(project, "remote", "modify", "store", "url", str(tmp_path / "store"))
    (tmp_path / "store").mkdir()
    other = clone(project)
    monkeypatch.chdir(other)
    assert main(["data-pull"]) == 1
    assert "; run `make data-push` where it was made, or" in capfd.readouterr().err
    monkeypatch.chdir(project)
    assert main(["data-push"]) == 0
    monkeypatch.chdir(other)
    assert main(["data-pull"]) == 0
    assert read(other / "data/raw") == FILES


@pytest.mark.parametrize("raw", ["pictures", "data/of mine/raw"])
def test_the_folder_of_the_parameters_is_the_one_that_is_kept(
    raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    project = make(tmp_path / "project", raw)
    monkeypatch.chdir(project)
    assert main(["data-push"]) == 1
    error = capfd.readouterr().err
    assert f"error: DVC does not know {raw} yet, so it would stay on this machine" in error
    dvc.dvc(project, "add", raw, "--quiet")
    assert main(["data-push"]) == 0
    assert dvc.unknown_data(project) == ""
    shutil.rmtree(project / raw)
    dvc.make_raw(project)
    assert not (project / raw).exists() and not (project / "data/raw").exists()


def test_an_empty_folder_of_the_parameters_is_made(project: Path) -> None:
    (project / "params.yaml").write_text("prepare: {folder: pictures}")
    dvc.make_raw(project)
    assert (project / "pictures").is_dir()
    for elsewhere in (f"{project.parent}/typo", "../typo"):
        (project / "params.yaml").write_text(f"prepare: {{folder: {elsewhere}}}")
        dvc.make_raw(project)
        assert not (project.parent / "typo").exists(), "other people's folders are theirs"
        assert dvc.unknown_data(project) == ""
