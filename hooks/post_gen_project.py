"""Clean what was generated, note what it was made from, and say what comes next."""

import json
import os
import shlex
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

CONTEXT = dict(json.loads(r"""<< cookiecutter.items() | list | tojson >>"""))  # in their order
ANSWERS = {name: value for name, value in CONTEXT.items() if not name.startswith("_")}


def template_folder() -> Path:
    """Find the template: cookiecutter stands in it while a hook runs, wherever its user stood."""
    process = Path(f"/proc/{os.getppid()}/cwd")
    typed = Path(os.environ.get("PWD", ""), CONTEXT["_repo_dir"])
    return (process if process.exists() else typed).resolve()


def git(*arguments: str, folder: Path | None = None) -> str:
    """Ask Git about the template, or about a folder; an empty answer where it has none.

    What names another repository in the environment, as in a hook of Git's, is left out.
    """
    command = ["git", *arguments]
    plain = {name: value for name, value in os.environ.items() if name not in OTHERS}
    try:
        answer = subprocess.run(
            command, cwd=folder or TEMPLATE, env=plain, capture_output=True, text=True
        )
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def address() -> str:
    """Return where the template came from: of a clone that cookiecutter made, the original."""
    cloned = CONTEXT["_template"] != CONTEXT["_repo_dir"]
    origin = git("config", "remote.origin.url") if cloned else ""
    return without_credentials(origin) or str(TEMPLATE)


def without_credentials(address: str) -> str:
    """Return a Git address without what only its user may know; ssh keeps the user's name."""
    parts = urlsplit(address)
    if not parts.netloc:  # a path, or git@host:path
        return address
    user, _, host = parts.netloc.rpartition("@")
    name = "" if parts.scheme in ("http", "https") else user.partition(":")[0]
    place = f"{name}@{host}" if name else host
    return urlunsplit(parts._replace(netloc=place, query="", fragment=""))


def forget_caches() -> None:
    """Remove what a person who works in the template has there, and cookiecutter copied."""
    source = next(TEMPLATE.glob("*cookiecutter.project*"))
    for place, folders, _ in os.walk(source, followlinks=True):
        for cache in set(folders) & CACHES:
            folders.remove(cache)
            shutil.rmtree(Path(place, cache).relative_to(source), ignore_errors=True)


def say(*lines: str) -> None:
    """Print; where nobody listens any more, what was made stays all the same."""
    with suppress(OSError):
        os.write(1, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))


OTHERS: list[str] = []
TEMPLATE = template_folder()
OTHERS = git("rev-parse", "--local-env-vars").split()
CACHES = {".local", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".terraform"}
forget_caches()

COMMIT = git("rev-parse", "HEAD") if git("rev-parse", "--show-toplevel") == str(TEMPLATE) else None
ORIGIN = {"address": address(), "commit": COMMIT or None, "answers": ANSWERS}
Path(".template.json").write_text(json.dumps(ORIGIN, indent=2) + "\n")

say(f"\nMade {Path.cwd().name} from {ORIGIN['address']}:")
say(*(f"  {name:<18} {value}" for name, value in ANSWERS.items()))
if not COMMIT:
    say("The template is no Git repository with a commit: `make update` cannot work as it is.")
elif git("status", "--porcelain"):
    say("The template has changes that are not committed: `make update` takes them for yours.")
outer = git("rev-parse", "--show-toplevel", folder=Path.cwd())
if outer and not Path(outer).samefile(Path.cwd()):
    say(f"It lies in the repository {outer}, but must be the root of one of its own: `git init`.")
say(
    "Next:",
    f"  cd {shlex.quote(str(Path.cwd()))}",
    '  git init --initial-branch=main && git add --all && git commit --message "Generate"',
    "  make setup pipeline serve",
)
