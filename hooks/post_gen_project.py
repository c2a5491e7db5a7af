"""Check and clean what was generated, note what it was made from, and say what comes next."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

for folder in ("infra/modules", "argocd/base", "src/delivery", "src/workspace"):
    if not Path(folder).is_dir():
        sys.exit(
            f"{folder} is not a folder: this copy of the template lost its symbolic links, as zip "
            "archives do; generate from a git clone or from the repository's address instead."
        )

# A clone in which somebody worked holds caches, which cookiecutter copies with the rest.
CACHES = (".local", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".terraform")
for cache in CACHES:
    for folder in list(Path().rglob(cache)):
        shutil.rmtree(folder, ignore_errors=True)

CONTEXT = dict(json.loads(r"""<< cookiecutter.items() | list | tojson >>"""))  # in their order
ANSWERS = {name: value for name, value in CONTEXT.items() if not name.startswith("_")}


def template_folder() -> Path:
    """Find the template: cookiecutter stands in it while a hook runs, wherever its user stood."""
    process = Path(f"/proc/{os.getppid()}/cwd")
    typed = Path(os.environ.get("PWD", ""), CONTEXT["_repo_dir"])
    return (process if process.exists() else typed).resolve()


def outside_of_hooks() -> dict[str, str]:
    """Return the environment without the repository that Git names to its own hooks."""
    command = ["git", "rev-parse", "--local-env-vars"]
    names = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return {name: value for name, value in os.environ.items() if name not in names}


def git(*arguments: str) -> str:
    """Ask Git about the template; an empty answer where there is no Git, or no repository."""
    command = ["git", *arguments]
    try:
        known = outside_of_hooks()
        answer = subprocess.run(command, cwd=TEMPLATE, env=known, capture_output=True, text=True)
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


TEMPLATE = template_folder()
COMMIT = git("rev-parse", "HEAD") if git("rev-parse", "--show-toplevel") == str(TEMPLATE) else None
ORIGIN = {"address": address(), "commit": COMMIT or None, "answers": ANSWERS}
Path(".template.json").write_text(json.dumps(ORIGIN, indent=2) + "\n")

print(f"\nMade {Path.cwd().name} from {ORIGIN['address']}:")
for name, value in ANSWERS.items():
    print(f"  {name:<18} {value}")
if not COMMIT:
    print("The template is no Git repository with a commit: `make update` cannot work as it is.")
elif git("status", "--porcelain"):
    print("The template has changes that are not committed: `make update` takes them for yours.")
print(
    "Next:",
    f"cd {shlex.quote(str(Path.cwd()))}",
    'git init --initial-branch=main && git add --all && git commit --message "Generate"',
    "make setup pipeline serve",
    sep="\n  ",
)
