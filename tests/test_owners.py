"""Who owns what in a generated project, and that its text has the same bytes everywhere."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pathspec
import pytest

from conftest import TEMPLATE, Project, cookiecutter

OWNER = "@Odd-Owner/deployers"
FREE = ("README.md", "reviews/", "src/curation/", "src/tuning/", "tuning/")

# Files that commands and people add, and that decide what is deployed, built, checked or kept.
ADDED = """
argocd/environments/staging/model.yaml argocd/environments/production/model.yaml
argocd/environments/qa/kustomization.yaml argocd/environments/qa/patches/replicas.yaml
argocd/training/run.yaml argocd/apps/another.yaml argocd/base/triton/another.yaml
argocd/another.yaml infra/backend.hcl infra/outputs.env infra/bootstrap/.terraform.lock.hcl
infra/new/main.tf
src/delivery/commands/another.py src/delivery/another/rule.py src/another/__init__.py
serving/classifier/another.py dvc.lock data/raw.dvc metrics.json lineage.json MODEL_CARD.md
.github/workflows/deploy.yaml .github/actions/build/action.yaml .github/dependabot.yml
.pre-commit-config.yaml .githooks/pre-push .gitmodules .lfsconfig argocd/.gitattributes CODEOWNERS
docs/CODEOWNERS setup.py conftest.py sitecustomize.py .env
""".split()


def owners(codeowners: str, path: str) -> list[str]:
    """Who must approve a change of a file: the owners in the last line whose pattern matches."""
    found: list[str] = []
    for line in codeowners.splitlines():
        pattern, *names = line.partition("#")[0].split() or [""]
        # Patterns are those of .gitignore, apart from these, in which the two differ.
        assert not re.search(r"^!|[][\\]|./\*$", pattern), f"{pattern} is not what it seems"
        if pattern and pathspec.GitIgnoreSpec.from_lines([pattern]).match_file(path):
            found = names
    return found


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("owned")
    result = cookiecutter(folder, github_owner="Odd-Owner", approvers=OWNER)
    assert result.returncode == 0, result.stderr
    return folder / "digit-classifier"


def files(folder: Path) -> list[str]:
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert len(found) > 150
    return found


def test_all_that_is_deployed_or_decides_it_has_an_owner(generated: Path) -> None:
    text = (generated / ".github/CODEOWNERS").read_text()
    of = {path: owners(text, path) for path in [*files(generated), *ADDED]}
    without = {path for path, names in of.items() if names != [OWNER]}
    assert without == {path for path in of if path.startswith(FREE)}
    assert len(without) > 10 and not any(of[path] for path in without)


@pytest.mark.parametrize(
    "place",
    [
        *("argocd/base/triton/rollout.yaml", "argocd/root.yaml", "params.yaml", "dvc.yaml"),
        *("src/delivery/proposals/gate.py", "src/workspace/settings.py", "Makefile", "Dockerfile"),
        *("serving/classifier/config.pbtxt", "serving/requirements.txt", ".gitattributes"),
        *(".github/CODEOWNERS", ".github/workflows/checks.yaml", ".dvc/config", "pyproject.toml"),
        *("constraints.txt", "infra/modules/ci_identity/policies.tf", ".template.json"),
        *("src/classifier/evaluation.py", "tests/test_export.py"),
    ],
)
def test_a_file_that_decides_is_there_and_owned(generated: Path, place: str) -> None:
    assert (generated / place).is_file()
    assert owners((generated / ".github/CODEOWNERS").read_text(), place) == [OWNER]


def test_only_one_file_says_who_owns_what(generated: Path) -> None:
    """GitHub takes the first of .github/, the root and docs/, and only 3 MB of it."""
    found = [path for path in files(generated) if path.endswith("CODEOWNERS")]
    assert found == [".github/CODEOWNERS"]
    assert (generated / ".github/CODEOWNERS").stat().st_size < 3_000_000


def test_the_last_line_that_matches_counts() -> None:
    text = "* @a\n/argocd/ @b # deploys\n/argocd/free/\n*.md @c\n"
    assert owners(text, "argocd/root.yaml") == ["@b"]
    assert owners(text, "argocd/free/x.yaml") == []
    assert owners(text, "argocd/free/x.md") == ["@c"]
    assert owners(text, "other/argocd/x") == ["@a"]


# -- the same bytes everywhere ---------------------------------------------------------------------

SETTINGS = {
    "Windows": ["core.autocrlf=true", "core.eol=crlf"],
    "input": ["core.autocrlf=input"],
    "none": ["core.autocrlf=false", "core.eol=crlf"],
}


def contents(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_checkout_has_the_bytes_that_were_committed(
    settings: list[str], bake: Callable[..., Project], tmp_path: Path
) -> None:
    project = bake()
    before = contents(project.folder)
    assert not any(b"\r\n" in content for content in before.values())
    options = [part for each in settings for part in ("-c", each)]
    git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", *options]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "Generate"]):
        assert project.run(*git, *command).returncode == 0
    clone = tmp_path / "clone"
    assert project.run(*git, "clone", "-q", *options, ".", str(clone)).returncode == 0
    assert contents(clone) == before


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_text_that_an_editor_wrote_with_other_line_ends_is_committed_without(
    settings: list[str], bake: Callable[..., Project]
) -> None:
    project = bake()
    git = ["git", *(part for each in settings for part in ("-c", each))]
    network = project.folder / "src/classifier/networks.py"
    wanted = network.read_bytes()
    network.write_bytes(wanted.replace(b"\n", b"\r\n"))
    picture = project.folder / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\r\n")
    for command in (["init", "-q"], ["add", "-A"]):
        assert project.run(*git, *command).returncode == 0
    (project.folder / "wanted").write_bytes(wanted)
    for path, content in (("src/classifier/networks.py", "wanted"), ("picture.png", "picture.png")):
        same = project.run("sh", "-c", f"git cat-file blob :{path} | cmp - {content}")
        assert same.returncode == 0, same.stdout


def test_the_template_has_the_same_bytes_everywhere_too() -> None:
    assert "* text=auto eol=lf\n" in (TEMPLATE / ".gitattributes").read_text()


def test_dvc_adds_no_ignore_file_of_its_own(bake: Callable[..., Project]) -> None:
    project = bake()
    assert project.run("git", "init", "-q").returncode == 0
    for command in (["status"], ["remote", "modify", "--local", "store", "url", "other"]):
        result = project.run(sys.executable, "-m", "dvc", *command)
        assert result.returncode == 0, result.stderr
    (project.folder / ".dvc/cache").mkdir(exist_ok=True)
    (project.folder / ".dvc/cache/part").touch()
    listed = project.run("git", "status", "--porcelain", "--untracked-files=all", ".dvc").stdout
    assert listed == "?? .dvc/config\n"
