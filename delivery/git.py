"""Git as the delivery uses it: read commits, propose one more, never rewrite or check out.

A commit is built from objects and a temporary index, so the user's branch, index and files stay as
they are whatever happens, and it is visible to others only once its branch is pushed, which Git
does as one step.
"""

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError

REMOTE = "origin"
BRANCH = "main"  # what Argo CD follows


class GitError(DeliveryError):
    """A Git command failed."""


@dataclass(frozen=True)
class Repository:
    """The repository whose root is `folder`; a command may take `patience` seconds."""

    folder: Path
    patience: float | None = None

    def run(self, *arguments: str, stdin: bytes = b"", index: Path | None = None) -> bytes:
        """Run a Git command and return its output. Raises GitError with Git's own reason."""
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        if index:
            environment["GIT_INDEX_FILE"] = str(index)
        try:
            result = subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                input=stdin,
                env=environment,
                capture_output=True,
                timeout=self.patience,
            )
        except subprocess.TimeoutExpired:
            raise GitError(f"git {arguments[0]} took more than {self.patience:.0f} s") from None
        if result.returncode:
            reason = " ".join(result.stderr.decode(errors="replace").split())
            raise GitError(f"git {arguments[0]} failed: {reason or result.returncode}")
        return result.stdout

    def ask(self, *arguments: str) -> str:
        """Run a Git command and return its output as text."""
        return self.run(*arguments).decode().strip()

    def says_yes(self, *arguments: str) -> bool:
        """Tell whether a Git command ends well."""
        try:
            self.run(*arguments)
        except GitError:
            return False
        return True

    def head(self) -> str:
        """Return the commit that is checked out. Raises GitError."""
        try:
            return self.ask("rev-parse", "--verify", "HEAD")
        except GitError:
            steps = " && ".join(self._first_steps())
            raise GitError(f"there is no commit yet in {self.folder}: `{steps}`") from None

    def fetch(self) -> str:
        """Bring the remote's branch up to date here and return its commit.

        Raises GitError, which says how to make the remote or the branch if there is none.
        """
        try:
            remote = f"refs/remotes/{REMOTE}/{BRANCH}"
            self.run("fetch", "--quiet", REMOTE, f"+refs/heads/{BRANCH}:{remote}")
        except GitError:
            self._check_remote()
            raise
        if self.ask("rev-parse", "--is-shallow-repository") == "true":
            raise GitError("this clone is shallow and lacks releases: `git fetch --unshallow`")
        return self.ask("rev-parse", "--verify", remote)

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
        commit = ["git add --all", "git commit --message Generate"]
        if not (self.folder / ".git").exists() and not self.says_yes("rev-parse", "--git-dir"):
            return [f"git init --initial-branch={BRANCH}", *commit]
        if self.ask("rev-parse", "--is-bare-repository") == "true":
            return []  # a mirror, whose commits are the remote's
        steps = [] if self.says_yes("rev-parse", "--verify", "HEAD") else commit
        if self.ask("branch", "--show-current") != BRANCH and not self.ask(
            "branch", "--list", BRANCH
        ):
            steps.append(f"git branch -M {BRANCH}")
        return steps

    def changed_files(self) -> list[str]:
        """List what the working tree has and the commit has not, or otherwise."""
        return [line[3:] for line in self.run("status", "--porcelain").decode().splitlines()]

    def conflicts(self) -> list[str]:
        """List the files that a merge left for a person to resolve."""
        return self.ask("diff", "--name-only", "--diff-filter=U").splitlines()

    def contains(self, commit: str, other: str) -> bool:
        """Tell whether a commit has another one in its history."""
        return self.says_yes("merge-base", "--is-ancestor", other, commit)

    def files(self, commit: str, *paths: str) -> list[str]:
        """List the files of a commit below some paths."""
        listed = self.run("ls-tree", "-r", "-z", "--name-only", commit, "--", *paths)
        return [name for name in listed.decode().split("\0") if name]

    def read(self, commit: str, path: str) -> bytes | None:
        """Return a file's content at a commit, or None where it has no such file."""
        if not self.files(commit, path):
            return None
        return self.run("cat-file", "blob", f"{commit}:{path}")

    def history(self, commit: str, path: str) -> list[str]:
        """List the commits on a branch that changed a file, newest first; a merge counts as one."""
        return self.ask("log", "--first-parent", "--format=%H", commit, "--", path).split()

    def remote_branch(self, branch: str) -> str | None:
        """Return the commit of a branch on the remote, now, or None."""
        listed = self.ask("ls-remote", REMOTE, f"refs/heads/{branch}")
        return listed.split()[0] if listed else None

    def commit_file(self, parent: str, path: str, content: str, message: str) -> str:
        """Make a commit that sets one file, on no branch, and return it."""
        blob = self.run("hash-object", "-w", "--stdin", stdin=content.encode()).decode().strip()
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            self.run("read-tree", parent, index=index)
            self.run("update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", index=index)
            tree = self.run("write-tree", index=index).decode().strip()
        commit = self.run("commit-tree", tree, "-p", parent, "-F", "-", stdin=message.encode())
        return commit.decode().strip()

    def push_new_branch(self, branch: str, commit: str) -> None:
        """Make a branch on the remote. Raises GitError when someone else was faster."""
        ref = f"refs/heads/{branch}"
        # the lease without a commit demands that the branch does not exist; nothing is forced
        self.run("push", "--quiet", f"--force-with-lease={ref}:", REMOTE, f"{commit}:{ref}")
