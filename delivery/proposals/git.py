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
    """The repository whose root is `folder`."""

    folder: Path

    def run(self, *arguments: str, stdin: bytes = b"", index: Path | None = None) -> bytes:
        """Run a Git command and return its output. Raises GitError with Git's own reason."""
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        if index:
            environment["GIT_INDEX_FILE"] = str(index)
        result = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            input=stdin,
            env=environment,
            capture_output=True,
        )
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
        return self.ask("rev-parse", "--verify", "HEAD")

    def fetch(self) -> str:
        """Bring the remote's branch up to date here and return its commit. Raises GitError."""
        self.run("fetch", "--quiet", REMOTE, f"+refs/heads/{BRANCH}:refs/remotes/{REMOTE}/{BRANCH}")
        if self.ask("rev-parse", "--is-shallow-repository") == "true":
            raise GitError("this clone is shallow and lacks releases: `git fetch --unshallow`")
        return self.ask("rev-parse", "--verify", f"refs/remotes/{REMOTE}/{BRANCH}")

    def changed_files(self) -> list[str]:
        """List what the working tree has and the commit has not, or otherwise."""
        return [line[3:] for line in self.run("status", "--porcelain").decode().splitlines()]

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
