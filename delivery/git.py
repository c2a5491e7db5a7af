"""Git as the delivery uses it: read commits, propose one more, never rewrite or check out.

A commit is built from objects and a temporary index, so the user's branch, index and files stay as
they are whatever happens, and it is visible to others only once its branch is pushed, which Git
does as one step.

Git always runs in the user's repository, because that has the settings that reach the remote; what
it must not write there (an index, files, fetched objects) it is told to write elsewhere.
"""

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from workspace.errors import said
from workspace.root import without_outer_repository
from workspace.settings import LARGEST, check_size

REMOTE = "origin"
BRANCH = "main"  # what Argo CD follows
TRACKED = f"refs/remotes/{REMOTE}/{BRANCH}"  # where it was when it was last looked at
# What a user's environment must not change: no question is asked, a commit and a path are what
# their names say, a commit is of now, and files that are kept elsewhere come with the others.
ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_GRAFT_FILE": f"{os.devnull}/none",  # of one that is there Git complains
    "GIT_NAMESPACE": "",
    **{f"GIT_{role}_DATE": "" for role in ("AUTHOR", "COMMITTER")},
    "GIT_LFS_SKIP_SMUDGE": "0",
    **{f"GIT_{kind}_PATHSPECS": "0" for kind in ("LITERAL", "GLOB", "NOGLOB", "ICASE")},
}
# Of an index apart from the user's: all of it is in its own file, and of the whole commit.
APART = ("core.splitIndex=false", "core.fsmonitor=false", "core.sparseCheckout=false")
FIRST_STEPS = (
    f"git init --initial-branch={BRANCH}",
    "git add --all",
    "git commit --message Generate",
)
FETCH = ("fetch", "--quiet", "--refmap=", "--no-recurse-submodules")
NAMELESS = ("--no-write-fetch-head", "--no-tags", "--no-auto-maintenance")  # nothing but objects


class GitError(DeliveryError):
    """A Git command failed."""


@dataclass(frozen=True)
class Repository:
    """The repository whose root is `folder`.

    New objects go to `objects`, and a command may take `patience` seconds, if they are given.
    """

    folder: Path
    objects: Path | None = None
    patience: float | None = None

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        settings: Sequence[str] = (),
        fine: Sequence[int] = (0,),
        index: Path | None = None,
        work_tree: Path | None = None,
    ) -> bytes:
        """Run a Git command and return its output. Raises GitError with Git's own reason.

        `settings`, each a `name=value`, come before the user's, `fine` are the statuses of a good
        end; `index` and `work_tree` take the place of the user's own, which stay as they are.
        """
        settings = [*settings, *(APART if index else ())]
        options = [option for setting in settings for option in ("-c", setting)]
        places = {
            "GIT_INDEX_FILE": index,
            "GIT_WORK_TREE": work_tree,
            "GIT_OBJECT_DIRECTORY": self.objects,
        }
        environment = without_outer_repository(os.environ) | ENVIRONMENT
        environment |= {name: str(place) for name, place in places.items() if place}
        try:
            result = subprocess.run(
                ["git", *options, *arguments],
                cwd=self.folder,
                input=stdin,
                env=environment,
                capture_output=True,
                timeout=self.patience,
            )
        except subprocess.TimeoutExpired:
            raise GitError(f"git {arguments[0]} took more than {self.patience:.0f} s") from None
        if result.returncode not in fine:
            reason = said(result.stderr) or result.returncode
            raise GitError(f"git {arguments[0]} failed: {reason}")
        return result.stdout

    def ask(self, *arguments: str, **options: Any) -> str:
        """Run a Git command, with the options of `run`, and return its output as text."""
        return os.fsdecode(self.run(*arguments, **options)).strip()

    def listed(self, *arguments: str, **options: Any) -> list[str]:
        """Run a Git command that lists with `-z`; return its lines, as `ask` returns all."""
        return os.fsdecode(self.run(*arguments, **options)).split("\0")[:-1]

    def says_yes(self, *arguments: str) -> bool:
        """Tell whether a Git command ends well."""
        try:
            self.run(*arguments)
        except GitError:
            return False
        return True

    def beside(self, objects: Path) -> "Repository":
        """Return this repository with an empty folder for all that it fetches.

        Then no branch here moves, and whatever a killed run left behind is gone.
        """
        shutil.rmtree(objects, ignore_errors=True)
        (objects / "info").mkdir(parents=True)
        own = (self.folder / self.ask("rev-parse", "--git-path", "objects")).resolve()
        (objects / "info/alternates").write_bytes(os.fsencode(own) + b"\n")
        return replace(self, objects=objects.absolute())

    def check_root(self) -> None:
        """Raise GitError when the folder is inside of another repository."""
        below = ""
        with suppress(GitError, FileNotFoundError):  # no repository yet; no Git, as in an image
            below = self.ask("rev-parse", "--show-prefix")
        if below:
            raise GitError(
                f"{self.folder} is the folder {below} of another repository, but Argo CD, DVC and "
                f"pull requests need the root of one: `{' && '.join(FIRST_STEPS)}` makes it one"
            )

    def head(self) -> str:
        """Return the commit that is checked out. Raises GitError."""
        try:
            return self.ask("rev-parse", "--verify", "HEAD")
        except GitError:
            steps = " && ".join(self._first_steps())
            raise GitError(f"there is no commit yet in {self.folder}: `{steps}`") from None

    def fetch(self) -> str:
        """Bring the remote's branch up to date here and return its commit.

        Raises GitError, which says how to make the remote or the branch if there is none, and how
        to mend a branch that was rewritten.
        """
        if self.objects:
            return self._fetch_beside()
        try:
            self.run(*FETCH, REMOTE, f"refs/heads/{BRANCH}")
        except GitError:
            self._check_remote()
            raise
        if self.ask("rev-parse", "--is-shallow-repository") == "true":
            raise GitError("this clone is shallow and lacks releases: `git fetch --unshallow`")
        tip = self.ask("rev-parse", "--verify", "FETCH_HEAD")
        self._check_rewritten(tip)
        self.run("update-ref", TRACKED, tip)
        return tip

    def _fetch_beside(self) -> str:
        """Fetch objects and no more; return the commit that the branch had just before."""
        tip = self.remote_branch(BRANCH)
        if tip is None:
            self._check_remote()
            raise GitError(f"{REMOTE} has no branch {BRANCH} any more: push it again")
        self.run(*FETCH, *NAMELESS, REMOTE, f"refs/heads/{BRANCH}")
        return self.ask("rev-parse", "--verify", f"{tip}^{{commit}}")

    def _check_rewritten(self, tip: str) -> None:
        """Raise GitError when the remote's branch lacks what it had here, or in this ref's log."""
        if not self.says_yes("rev-parse", "--verify", TRACKED):
            return
        logged = self.ask("rev-list", "--walk-reflogs", "--ignore-missing", TRACKED)
        seen = "\n".join([f"^{tip}", self.ask("rev-parse", TRACKED), logged]).encode()
        newest = ("rev-list", "--ignore-missing", "--max-count=1", "--stdin")
        if lost := self.ask(*newest, stdin=seen):
            raise GitError(
                f"{BRANCH} of {REMOTE} was rewritten: it lacks {lost[:12]}, which it had, and with "
                f"it perhaps a release. Put it back: `git fetch {REMOTE} {BRANCH} && git switch "
                f"--detach FETCH_HEAD && git merge --no-edit {lost} && git push {REMOTE} "
                f"HEAD:{BRANCH} && git switch -`; or, where all agree that it is to go, forget it: "
                f"git update-ref -d {TRACKED}"
            )

    def _check_remote(self) -> None:
        """Raise GitError when the remote or its branch has never been made."""
        missing, steps = f"{REMOTE} has no branch {BRANCH} yet", self._first_steps()
        if not self.says_yes("remote", "get-url", REMOTE):
            missing = f"there is no remote named {REMOTE}"
            steps.append(f"git remote add {REMOTE} <address>")
        elif not self.says_yes("ls-remote", REMOTE) or self.remote_branch(BRANCH):
            return
        raise GitError(f"{missing}: `{' && '.join([*steps, f'git push -u {REMOTE} {BRANCH}'])}`")

    def _first_steps(self) -> list[str]:
        """List what a person does until there is a commit on the branch.

        Raises GitError where there is a repository that Git does not read, such as another user's.
        """
        if not (self.folder / ".git").exists() and not self.says_yes("rev-parse", "--git-dir"):
            return [*FIRST_STEPS]
        steps = [] if self.says_yes("rev-parse", "--verify", "HEAD") else [*FIRST_STEPS[1:]]
        if self.ask("branch", "--show-current") != BRANCH and not self.ask(
            "branch", "--list", BRANCH
        ):
            steps.append(f"git branch -M {BRANCH}")
        return steps

    def changed_files(self) -> list[str]:
        """List what the working tree has and the commit has not, or otherwise."""
        status = ("status", "--porcelain", "--no-renames", "--untracked-files=normal", "-z")
        return [line[3:] for line in self.listed(*status)]

    def check_clean(self, why: str) -> None:
        """Raise DeliveryError, which says why, unless the working tree is what is committed."""
        if changed := self.changed_files():
            raise DeliveryError(
                f"the working tree is not what is committed ({', '.join(changed[:5])}): "
                f"commit or stash it, {why}"
            )
        if overlooked := self._overlooked_files():
            raise DeliveryError(
                f"{overlooked[0]} is not what this commit has, although `git status` passes over "
                f"it: `git read-tree HEAD` makes it see, then commit or stash it, {why}"
            )

    def _overlooked_files(self) -> list[str]:
        """List files that are there and not what is committed, whatever the user's index says.

        Its marks (assume unchanged, skip), times and watchers of files are not believed.
        """
        status = ("status", "--porcelain", "--no-renames", "--untracked-files=no", "-z")
        with self.index_apart("HEAD") as index:
            lines = self.listed(*status, index=index)
        return [line[3:] for line in lines if line[1] != "D"]  # sparse: not there

    @contextmanager
    def index_apart(self, tree: str) -> Iterator[Path]:
        """Give an index of a tree that is not the user's, for a while."""
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            self.run("read-tree", tree, index=index)
            yield index

    def conflicts(self) -> list[str]:
        """List the files that a merge left for a person to resolve."""
        return self.ask("diff", "--name-only", "--diff-filter=U").splitlines()

    def contains(self, commit: str, other: str) -> bool:
        """Tell whether a commit has another one in its history."""
        return self.says_yes("merge-base", "--is-ancestor", other, commit)

    def files(self, commit: str, *paths: str) -> list[str]:
        """List the files of a commit below some paths."""
        return self.listed("ls-tree", "-r", "-z", "--name-only", commit, "--", *paths)

    def read(self, commit: str, path: str, largest: int = LARGEST) -> bytes | None:
        """Return a file's content at a commit, or None where it has no such file.

        Raises SettingsError for one of more than `largest` bytes, of which none are read.
        """
        if path not in self.files(commit, path):
            return None
        name = f"{commit}:{path}"
        check_size(int(self.ask("cat-file", "-s", name)), f"{path} at {commit[:12]}", largest)
        return self.run("cat-file", "blob", name)

    def blob(self, commit: str, path: str) -> str:
        """Return the name of a file's content at a commit, without reading it; "" without one."""
        return self.ask("rev-parse", "--verify", "--quiet", f"{commit}:{path}", fine=(0, 1))

    def history(self, commit: str, path: str, since: str = "") -> list[str]:
        """List all commits up to one that changed a file, newest first, also those of a merge.

        What a colleague's `git pull` merged is no less history than the line that it is merged to.
        Commits up to `since` are left out.
        """
        ends = [commit, f"^{since}"] if since else [commit]
        order = ("rev-list", "--full-history", "--date-order")
        return self.ask(*order, *ends, "--", path).split()

    def versions(self, commit: str, pattern: str, largest: int) -> list[tuple[str, bytes]]:
        """Return what all files of a pattern ever were up to a commit: path, content; newest first.

        Links and folders of such a name are no files; what has more than `largest` bytes is passed
        over.
        """
        glob = f":(glob){pattern}"
        commits = "".join(f"{each}\n" for each in self.history(commit, glob)).encode()
        raw = ("diff-tree", "--stdin", "-m", "-r", "--root", "--no-renames", "--no-commit-id", "-z")
        fields = self.listed(*raw, "--", glob, stdin=commits)
        changes = zip(map(str.split, fields[::2]), fields[1::2], strict=True)
        found = [(path, new) for (_, mode, _, new, _), path in changes if mode.startswith("100")]
        sizes = self.sizes(blob for _, blob in found)
        content = self.contents(blob for blob, size in sizes.items() if size <= largest)
        return [(path, content[blob]) for path, blob in found if blob in content]

    def sizes(self, blobs: Iterable[str]) -> dict[str, int]:
        """Return how many bytes blobs have. Raises GitError for one that is lost."""
        asked = "\n".join(blobs).encode()
        lines = self.ask("cat-file", "--batch-check", stdin=asked).splitlines()
        return dict(_described(line) for line in lines)

    def contents(self, blobs: Iterable[str]) -> dict[str, bytes]:
        """Return the content of blobs, of any size. Raises GitError for one that is lost."""
        asked = "\n".join(dict.fromkeys(blobs)).encode()
        answer, found = io.BytesIO(self.run("cat-file", "--batch", stdin=asked)), {}
        while line := answer.readline():
            blob, size = _described(line.decode())
            found[blob] = answer.read(size + 1)[:-1]  # a newline follows
        return found

    def remote_branch(self, branch: str) -> str | None:
        """Return the commit of a branch on the remote, now, or None."""
        name = f"refs/heads/{branch}"
        listed = [line.split("\t") for line in self.ask("ls-remote", REMOTE, name).splitlines()]
        # Git also lists refs whose name ends so
        return next((commit for commit, found in listed if found == name), None)

    def remote_branches(self, pattern: str) -> list[str]:
        """List the remote's branches, now, that match a pattern in which `*` is anything."""
        lines = self.ask("ls-remote", REMOTE, f"refs/heads/{pattern}").splitlines()
        names = [line.partition("\t")[2].removeprefix("refs/heads/") for line in lines]
        return [each for each in names if fnmatchcase(each, pattern)]

    def commit_file(self, parent: str, path: str, content: str, message: str) -> str:
        """Make a commit that sets one file, on no branch, and return it."""
        blob = self.ask("hash-object", "-w", "--stdin", stdin=content.encode())
        with self.index_apart(parent) as index:
            self.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
            tree = self.ask("write-tree", index=index)
        return self.commit_tree(tree, parent, message)

    def commit_tree(self, tree: str, parent: str, message: str) -> str:
        """Make a commit of a tree, on no branch, signed where the user's commits are; return it."""
        self.check_identity()
        signs = self.ask("config", "--type=bool", "--default=false", "--get", "commit.gpgSign")
        command = ["commit-tree", *(["-S"] if signs == "true" else []), tree, "-p", parent]
        encoding = ["i18n.commitEncoding=UTF-8"]
        return self.ask(*command, "-F", "-", stdin=message.encode(), settings=encoding)

    def check_identity(self) -> None:
        """Raise GitError when Git does not know who makes commits here."""
        if not self.says_yes("var", "GIT_COMMITTER_IDENT"):
            raise GitError(
                "Git does not know who you are: `git config user.name <name> && "
                "git config user.email <address>`"
            )

    def push_new_branch(self, branch: str, commit: str) -> None:
        """Make a branch on the remote. Raises GitError when someone else was faster."""
        ref = f"refs/heads/{branch}"
        # the lease without a commit demands that the branch does not exist; nothing is forced
        lease = f"--force-with-lease={ref}:"
        self.run("push", "--quiet", "--no-follow-tags", lease, REMOTE, f"{commit}:{ref}")


def _described(line: str) -> tuple[str, int]:
    """Read what `git cat-file` says of a blob: its name and size. Raises GitError if it is lost."""
    blob, kind, *size = line.split()
    if kind != "blob":
        raise GitError(
            f"this repository lacks {blob}, which its history has: "
            f"`git fetch --refetch {REMOTE}` brings it"
        )
    return blob, int(size[0])
