"""What merging a head into a base changes, read from Git's objects: nothing of the head is run."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from delivery.errors import DeliveryError
from delivery.git import GitError, Repository
from delivery.parameters import Parameters, committed_parameters
from delivery.proposals.release_file import RELEASE_FILE
from delivery.proposals.releases import ENVIRONMENTS
from workspace.settings import SettingsError

REMOVED = "D"
FILE = "100644"  # the mode of a file that is no link and no program
PICTURE = re.compile(r"\.(png|jpe?g|svg)$")
OUTPUTS = ("dvc.lock", "metrics.json", "lineage.json", "MODEL_CARD.md", "plots/", "tuning/")
# What judges pull requests: whoever changes it changes the next verdict.
JUDGES = re.compile(
    r"(src/(delivery|workspace|reporting)|\.github)/.*|CODEOWNERS|docs/CODEOWNERS|\.gitlab-ci\.yml"
    r"|Makefile|pyproject\.toml|constraints\.txt|serving/requirements\.txt"
    r"|(infra/)?\.checkov\.ya?ml|zizmor\.ya?ml"
)
KINDS = {  # kind: what its paths begin with; the first that fits counts
    "release": (),
    "manifests": ("argocd/",),
    "infrastructure": ("infra/",),
    "workflows": (".github/", ".gitlab-ci.yml"),
    "data": ("params.yaml", "dvc.yaml", "data/", ".dvc/", "reviews/", *OUTPUTS),
    "code": (
        "src/",
        "tests/",
        "serving/",
        "Makefile",
        "Dockerfile",
        "pyproject.toml",
        "constraints.txt",
    ),
    "texts": ("",),
}


@dataclass(frozen=True)
class Changed:
    """A file that differs: Git's letter for how, the mode that it gets, and its path."""

    how: str
    mode: str
    path: str

    @property
    def kind(self) -> str:
        """Which of KINDS it is."""
        folder, _, name = self.path.rpartition("/")
        if name == RELEASE_FILE and folder.rpartition("/")[0] == ENVIRONMENTS:
            return "release"
        return next(kind for kind, starts in KINDS.items() if self.path.startswith(starts))


@dataclass(frozen=True)
class Changes:
    """A base, what it would be with the head merged, and the files that differ."""

    repository: Repository
    base: str
    head: str
    tree: str
    files: tuple[Changed, ...]

    @cached_property
    def parameters(self) -> Parameters:
        """The base's params.yaml: floors and settings of the check. Raises SettingsError."""
        return committed_parameters(self.repository, self.base)

    def of(self, *kinds: str) -> list[Changed]:
        """Return the changed files of some kinds."""
        return [each for each in self.files if each.kind in kinds]

    def before(self, path: str) -> bytes | None:
        """Return a file of the base, or None. Raises SettingsError for a huge one."""
        return self.repository.read(self.base, path)

    def after(self, path: str) -> bytes | None:
        """Return a file as the merge would have it, or None. Raises SettingsError as `before`."""
        return self.repository.read(self.tree, path)

    @cached_property
    def pictures(self) -> dict[str, bytes]:
        """The pictures that are new or other ones, by path; huge ones are nothing to look at."""
        found = {}
        for each in self.files:
            if each.mode == FILE and PICTURE.search(each.path):
                with suppress(SettingsError):
                    found[each.path] = self.after(each.path) or b""
        return found

    @cached_property
    def added(self) -> dict[str, dict[int, str]]:
        """The lines that are new, by path and number; a file that only loses some has where."""
        command = ("diff", "--unified=0", "--inter-hunk-context=0", "--text", "--no-color")
        plain = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=none")
        names = ("--src-prefix=a/", "--dst-prefix=b/", self.base, self.tree)
        text = self.repository.run(*command, *plain, *names, settings=["core.quotePath=true"])
        return read_added(os.fsdecode(text).split("\n"))

    def place(self, needle: str, paths: Iterable[str] = ()) -> tuple[str, int]:
        """Return path and line of the first new line with a text, or else of the first change.

        Only files whose paths begin with one of `paths` count, if any are given.
        """
        starts = tuple(paths) or ("",)
        found = {path: lines for path, lines in self.added.items() if path.startswith(starts)}
        for path, lines in found.items():
            for number, line in lines.items():
                if needle in line:
                    return path, number
        for path, lines in found.items():
            return path, next(iter(lines), 1)
        return next((each.path for each in self.files if each.path.startswith(starts)), "."), 1


def read_added(diff: Iterable[str]) -> dict[str, dict[int, str]]:
    """Read a diff without context: new lines by path and number."""
    found: dict[str, dict[int, str]] = {}
    path, number, left = "", 0, 0
    for line in diff:
        if left and line.startswith("+"):
            found[path][number] = line[1:]
            number, left = number + 1, left - 1
        elif line.startswith(("+++ b/", '+++ "b/')):
            path = unquoted(line.removeprefix("+++ ").rstrip("\t")).removeprefix("b/")
        elif hunk := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            number, left = int(hunk[1]), int(hunk[2] or 1)
            found.setdefault(path, {})
            if not left:
                found[path][max(1, number)] = ""
    return found


def unquoted(name: str) -> str:
    """Return a path as it is; Git quotes one with quotes, control signs or more than ASCII."""
    if not name.startswith('"'):
        return name
    return os.fsdecode(name[1:-1].encode().decode("unicode_escape").encode("latin-1"))


def read_changes(repository: Repository, base: str, head: str) -> Changes:
    """Read what merging `head` into `base` would change; both are names of commits.

    Raises GitError for what is no commit here, and DeliveryError when the two do not merge.
    """
    base, head = (commit_of(repository, each) for each in (base, head))
    tree = merged(repository, base, head)
    raw = ("diff-tree", "-r", "-z", "--no-renames", "--no-commit-id", base, tree)
    fields = repository.listed(*raw)
    described = [each.split() for each in fields[::2]]
    files = [Changed(d[4], d[1], path) for d, path in zip(described, fields[1::2], strict=True)]
    return Changes(repository, base, head, tree, tuple(files))


def commit_of(repository: Repository, name: str) -> str:
    """Return the commit that a name stands for. Raises GitError."""
    try:
        return repository.ask("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except GitError:
        raise GitError(
            f"{name!r} is no commit of this repository: `git fetch origin`, or give another BASE"
        ) from None


def merged(repository: Repository, base: str, head: str) -> str:
    """Return the tree that a merge would have. Raises DeliveryError for one with conflicts."""
    if repository.contains(head, base):
        return repository.ask("rev-parse", f"{head}^{{tree}}")
    if not repository.says_yes("merge-base", base, head):
        raise DeliveryError(
            f"{head[:12]} shares no commit with {base[:12]}, or the clone is shallow"
        )
    command = ("merge-tree", "--write-tree", "--name-only", "--no-messages", "-z", base, head)
    tree, *conflicts = repository.listed(*command, fine=(0, 1))
    if conflicts:
        raise DeliveryError(
            f"{conflicts[0]}, line 1: the base changed it, too, and Git cannot merge the two: "
            "a release is proposed again, other changes are brought up to date by `git merge`"
        )
    return tree
