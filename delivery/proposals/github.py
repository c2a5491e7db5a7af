"""The remote as a repository on GitHub, asked through GitHub's command line."""

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, Repository
from workspace.errors import said
from workspace.settings import Kind, SettingsError, check, parse_json

GITHUB = "github.com"
# <scheme>://[user@]host[:port]/<owner>/<name>[.git], or [user@]host:<owner>/<name>[.git]
ADDRESS = re.compile(
    r"(?:(?P<scheme>https?|ssh|git)://)?(?:[^@/]*@)?(?P<host>[\w.-]+)"
    r"(?(scheme)(?::\d+)?/|:)/*(?P<path>[\w.-]+/[\w.-]+?)(?:\.git)?/*"
)
TERMINAL = ("CLICOLOR_FORCE", "GH_FORCE_TTY")  # variables that would colour what gh prints
INSTALL = "install `gh`, as https://cli.github.com says"


class GitHubError(DeliveryError):
    """A request failed; `status` is GitHub's, 0 where it gave none."""

    def __init__(self, message: str, status: int = 0):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class GitHub:
    """The repository `name`, which is `<owner>/<name>`, at a host; `folder` is a clone of it."""

    host: str
    name: str
    folder: Path

    def command(self, path: str, *options: str) -> list[str]:
        """Return the command of a request; `path` is what follows the repository in the API."""
        return ["gh", "api", "--hostname", self.host, *options, f"repos/{self.name}/{path}"]

    def answer(self, path: str, *options: str, body: str | None = None) -> str:
        """Return what GitHub answers; `body` is what `--input -` sends. Raises GitHubError."""
        return self._answer(self.command(path, *options), path, body)

    def query(self, kind: type[Kind], query: str, what: str) -> Kind:
        """Return the data that a query of GitHub's GraphQL finds. Raises GitHubError."""
        body = json.dumps({"query": query})
        command = ["gh", "api", "--hostname", self.host, "--method", "POST", "--input", "-"]
        return self._checked(kind, self._answer([*command, "graphql"], what, body), what)

    def _answer(self, command: list[str], what: str, body: str | None) -> str:
        result = gh(self.folder, *command[1:], text=body)
        if result.returncode:
            raise self._error(what, said(result.stderr))
        return result.stdout

    def ask(self, kind: type[Kind], path: str, *options: str, body: str | None = None) -> Kind:
        """Return the JSON of some kind that GitHub answers. Raises GitHubError."""
        return self._checked(kind, self.answer(path, *options, body=body), path)

    def _checked(self, kind: type[Kind], text: str, what: str) -> Kind:
        try:
            return check(kind, parse_json(text, what), what)
        except SettingsError as error:
            raise GitHubError(
                f"{self.host} gave no JSON for {what} that can be read ({error}): try again"
            ) from None

    def _error(self, path: str, reason: str) -> GitHubError:
        found = re.search(r"\(HTTP (\d+)\)", reason)
        status = int(found[1]) if found else 0
        login = f"`gh auth login --hostname {self.host}`"
        cure = {
            401: login,
            403: f"{login} as an administrator of {self.name}; private ones need a paid plan, too",
            404: f"{login} as an administrator of {self.name}, or `git remote set-url {REMOTE} "
            "<address>` if that is not its name",
        }.get(status, "try again")
        return GitHubError(
            f"GitHub does not answer {path} of {self.name} ({reason}): {cure}", status
        )


def github_repository(repository: Repository) -> str | None:
    """Return the remote as `gh` names it, `<host>/<owner>/<name>`; None if it is not GitHub's.

    It is where Git goes in the end, after its own and ssh's abbreviations.
    """
    address = repository.ask("remote", "get-url", REMOTE)
    found = ADDRESS.fullmatch(address)
    if not found:
        return None
    host = found["host"].lower()
    if found["scheme"] not in ("http", "https"):
        host = ssh_host(host)
    if host.endswith(f".{GITHUB}"):  # such as ssh.github.com
        host = GITHUB
    return f"{host}/{found['path']}" if host == GITHUB or knows(host) else None


def ssh_host(alias: str) -> str:
    """Return the host that stands behind a name in ssh's settings."""
    with suppress(OSError):
        answer = subprocess.run(["ssh", "-G", "--", alias], capture_output=True, text=True)
        if name := re.search(r"(?m)^hostname (\S+)$", answer.stdout):
            return name[1].lower()
    return alias


def knows(host: str) -> bool:
    """Tell whether GitHub's command line is installed and has an account on a host."""
    return (
        bool(shutil.which("gh")) and not gh(None, "auth", "status", "--hostname", host).returncode
    )


def gh(
    folder: Path | None, *arguments: str, text: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run GitHub's command line in a folder; `text` is its standard input."""
    plain = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    return subprocess.run(
        ["gh", *arguments],
        cwd=folder,
        env=plain,
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def find_github(repository: Repository) -> GitHub:
    """Return the remote's repository on GitHub, where `gh` is logged in. Raises DeliveryError."""
    if not shutil.which("gh"):
        raise DeliveryError(f"GitHub's command line is not here: {INSTALL}")
    if not repository.says_yes("remote", "get-url", REMOTE):
        raise DeliveryError(f"there is no remote {REMOTE}: `git remote add {REMOTE} <address>`")
    home = github_repository(repository)
    if home is None:
        raise DeliveryError(
            f"{REMOTE} is on no GitHub that gh knows, so its host must take only reviewed changes "
            f"of {BRANCH} by its own settings; if it is one, `gh auth login --hostname <host>`, or "
            f"`git remote set-url {REMOTE} <address>`"
        )
    host, _, name = home.partition("/")
    if not knows(host):
        raise DeliveryError(f"gh is not logged in to {host}: `gh auth login --hostname {host}`")
    return GitHub(host, name, repository.folder)


def reached_github(repository: Repository) -> GitHub | None:
    """Return the remote's repository on GitHub, or None where gh does not reach one."""
    if not repository.says_yes("remote", "get-url", REMOTE):
        return None
    host, _, name = (github_repository(repository) or "").partition("/")
    return GitHub(host, name, repository.folder) if host and knows(host) else None
