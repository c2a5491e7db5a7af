"""The manifests of a commit as Argo CD reads them: its objects, whatever attributes say."""

import os
import shutil
from pathlib import Path

import pytest

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.manifests import snapshot as module
from delivery.manifests.snapshot import snapshot
from tiny_project import TinyProject, make_project


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make_project(tmp_path)


def taken(project: TinyProject, folder: str = "taken") -> Path:
    commit = project.merge("Change the manifests")
    return snapshot(Repository(project.folder), commit, project.folder.parent / folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "attributes",
    [
        "* export-ignore",
        "* export-subst",
        "* text eol=crlf",
        "* ident",
        "* filter=louder",
        "* working-tree-encoding=UTF-16",
    ],
)
def test_attributes_change_nothing(project: TinyProject, attributes: str) -> None:
    place = project.folder / "argocd"
    (place / "note.yaml").write_text("by: $Format:%an$\nat: $Id$\n")
    before = taken(project)
    expected = contents(before)
    assert expected["argocd/note.yaml"] == b"by: $Format:%an$\nat: $Id$\n"
    project.git("config", "filter.louder.smudge", "tr a-z A-Z")
    (project.folder / ".gitattributes").write_text(f"argocd/** {attributes.removeprefix('* ')}\n")
    project.git("add", ".gitattributes")
    project.git("commit", "--quiet", "-m", "Set attributes")
    commit = project.git("rev-parse", "HEAD")
    after = snapshot(Repository(project.folder), commit, project.folder.parent / "after")
    assert contents(after) == expected


def test_modes_and_links_inside_are_kept(project: TinyProject) -> None:
    place = project.folder / "argocd"
    (place / "run.sh").write_text("true\n")
    (place / "run.sh").chmod(0o755)
    (place / "same").symlink_to("base/triton")
    folder = taken(project) / "argocd"
    assert os.access(folder / "run.sh", os.X_OK)
    assert not os.access(folder / "root.yaml", os.X_OK)
    assert (folder / "same").readlink() == Path("base/triton")
    assert (folder / "same" / "rollout.yaml").is_file()


def test_what_was_there_before_is_gone(project: TinyProject) -> None:
    deep = taken(project)
    for _ in range(1500):  # deeper than Python's stack
        deep = deep / "d"
        try:
            deep.mkdir()
        except OSError:  # longer than a path may be
            break
    assert not (taken(project) / "d").exists()


@pytest.mark.parametrize(
    ("links", "named"),
    [
        ({"out": "../outside"}, "'argocd/out' is a link to '../outside'"),
        ({"out": "/etc/passwd"}, "'argocd/out' is a link to '/etc/passwd'"),
        ({"out": "base/../../outside"}, "'argocd/out' is a link"),
        ({"out": "out"}, "'argocd/out' is a link to 'out'"),
        ({"base/up": "..", "out": "base/up/../outside"}, "'argocd/out' is a link"),
    ],
)
def test_links_that_leave_are_refused(
    project: TinyProject, links: dict[str, str], named: str
) -> None:
    for name, target in links.items():
        (project.folder / "argocd" / name).symlink_to(target)
    with pytest.raises(DeliveryError) as refusal:
        taken(project)
    assert named in str(refusal.value) and "leads out of argocd: put the file" in str(refusal.value)
    (project.folder / "argocd/out").unlink()  # the cure
    (project.folder / "argocd/out").write_text("the file itself\n")
    assert (taken(project) / "argocd/out").read_text() == "the file itself\n"


def test_a_submodule_is_refused(project: TinyProject) -> None:
    commit = project.git("rev-parse", "HEAD")
    project.git("update-index", "--add", "--cacheinfo", f"160000,{commit},argocd/module")
    (project.folder / "argocd/module").mkdir()
    with pytest.raises(DeliveryError, match="'argocd/module' is a submodule: keep its files"):
        taken(project)
    project.git("rm", "--quiet", "--cached", "argocd/module")
    (project.folder / "argocd/module").mkdir(exist_ok=True)
    (project.folder / "argocd/module/file.yaml").write_text("kind: List\n")
    assert (taken(project) / "argocd/module/file.yaml").is_file()


def test_a_tree_that_leads_out_is_refused(project: TinyProject) -> None:
    repository = Repository(project.folder)
    blob = repository.run("hash-object", "-w", "--stdin", stdin=b"escaped").decode().strip()

    def tree(*entries: tuple[str, str, str]) -> str:
        raw = b"".join(
            f"{mode} {name}\0".encode() + bytes.fromhex(sha) for mode, name, sha in entries
        )
        command = ("hash-object", "-t", "tree", "-w", "--literally", "--stdin")
        return repository.run(*command, stdin=raw).decode().strip()

    above = tree(("40000", "..", tree(("100644", "escaped", blob))))
    commit = project.git("commit-tree", tree(("40000", "argocd", above)), "-m", "Leave")
    with pytest.raises(DeliveryError, match="leads out of argocd"):
        snapshot(repository, commit, project.folder.parent / "taken")
    assert not (project.folder.parent / "taken/escaped").exists()
    kept = tree(("40000", "argocd", tree(("100644", "kept", blob))))  # without it
    commit = project.git("commit-tree", kept, "-m", "Remove it")
    assert (snapshot(repository, commit, project.folder.parent / "next") / "argocd/kept").is_file()


def test_a_commit_without_manifests(project: TinyProject) -> None:
    project.git("rm", "-r", "--quiet", "argocd")
    with pytest.raises(DeliveryError, match="has no folder argocd: put it back"):
        taken(project)
    project.revert()
    assert (taken(project) / "argocd").is_dir()


def test_too_much_is_refused(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(module, "LARGEST", 1000)
        with pytest.raises(DeliveryError, match="at most 1000 are read: keep in it what describes"):
            taken(project)
        shutil.rmtree(project.folder / "argocd")
        (project.folder / "argocd").mkdir()
        (project.folder / "argocd/small.yaml").write_text("kind: List\n")
        assert (taken(project) / "argocd/small.yaml").is_file()
