"""Code, infrastructure and workflows, judged by programs on a checkout of the head.

Only lint and tests of code run anything of the head, by the base's Makefile.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delivery.checks.changes import Changes
from delivery.checks.findings import Part
from delivery.git import Repository
from workspace.errors import said, shown
from workspace.machine import this_machine
from workspace.markdown import block, code
from workspace.settings import SettingsError, parse_yaml

ENVIRONMENT = ("pyproject.toml", "constraints.txt", "serving/requirements.txt")
TAIL = 30  # lines of what a program printed
PLACE = re.compile(r"(?m)^(?:\.?/)?([\w./-]+\.\w+):(\d+)(?::\d+)?: ?(.*)$|--> ([\w./-]+):(\d+):\d+")
# What a program of the head is told: of the machine, and how packages are had. Anything else may
# open other doors: logins, or the files by which a step of CI sets what the next ones have.
TOLD = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TERM|TZ|TMPDIR|LANG|LANGUAGE|LC_\w+|XDG_(CACHE|CONFIG|DATA)_HOME"
    r"|PYTHON|CXX|LD_LIBRARY_PATH|(CUDA|MKL|OMP|OPENBLAS)_\w+|(?i:(https?|all|no)_proxy)"
    r"|\w+_CA_BUNDLE|SSL_CERT_(DIR|FILE)|(PIP|UV|TF_CLI|TF_PLUGIN)_\w+"
    r"|GO(BIN|CACHE|FLAGS|MODCACHE|PATH|PROXY|ROOT|SUMDB|TOOLCHAIN)"
)
UNTOLD = re.compile(r"TOKEN|SECRET|PASSWORD|_KEY$")  # even if called like one of these
PINNED = re.compile(r"\./.*|[^@]+@[0-9a-f]{40}|docker://[^@]+@sha256:[0-9a-f]{64}")
DANGEROUS = ("pull_request_target", "workflow_run")
# Comments that have a linter pass over what it finds.
SILENCE = re.compile(
    r"zizmor: *ignore(?:\[[^]]*\])?|shellcheck +disable=\S+"
    r"|(?:checkov|bridgecrew|cortex):skip= *\w+"
)
CHECKOV = "checkov==3.3.30"
ZIZMOR = "zizmor==1.32.0"
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
FETCHED = {  # how a linter of workflows is had where it is not installed
    "actionlint": ("go", "run", ACTIONLINT),
    "zizmor": ("uv", "tool", "run", "--from", ZIZMOR, "zizmor"),
}
# What tells a tool what to leave out, wherever it looks for that.
OF_CHECKOV = (".checkov.yaml", ".checkov.yml", "infra/.checkov.yaml", "infra/.checkov.yml")
OF_ACTIONLINT = (".github/actionlint.yaml", ".github/actionlint.yml")
OF_ZIZMOR = (".github/zizmor.yml", ".github/zizmor.yaml", "zizmor.yml", "zizmor.yaml")


@dataclass(frozen=True)
class Ended:
    """How a program ended: status, and all that it printed."""

    status: int
    printed: str

    @property
    def tail(self) -> str:
        """The end of what it printed, as Markdown."""
        return block("\n".join(self.printed.splitlines()[-TAIL:]))


Run = Callable[[Sequence[str], Path], Ended]  # a command line, and the folder that it runs in


def run(command: Sequence[str], folder: Path) -> Ended:
    """Run a program to its end. Raises OSError when it cannot be started."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if TOLD.fullmatch(name) and not UNTOLD.search(name)
    }
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return Ended(result.returncode, re.sub(r"\x1b\[[0-9;]*m", "", result.stdout))


def check_out(repository: Repository, tree: str, folder: Path) -> Path:
    """Write the files of a tree into a new folder, without filters; return it."""
    folder.mkdir(parents=True)
    with repository.index_apart(tree) as index:
        plain = ["core.autocrlf=false", "core.eol=lf", "core.symlinks=true", "filter.lfs.smudge="]
        repository.run(
            "checkout-index", "--all", "--force", index=index, work_tree=folder, settings=plain
        )
    return folder


def settings(changes: Changes, option: str, paths: Sequence[str], folder: Path) -> list[str]:
    """Return how a tool is told what the base's file says, if one of these is there.

    Only the base may say what is left out, or who proposes would.
    """
    for path in paths:
        if (content := changes.before(path)) is not None:
            file = folder / path.rpartition("/")[2]
            file.write_bytes(content)
            return [option, str(file)]
    return []


def installed(program: str) -> str | None:
    """Return where a program is, in this environment or in PATH."""
    return shutil.which(program, path=f"{Path(sys.prefix) / 'bin'}:{os.environ.get('PATH', '')}")


# -- code ------------------------------------------------------------------------------------------


def judge_code(changes: Changes, head: Path, part: Part, run: Run = run) -> None:
    """Lint and test the head in its checkout, in this environment if it asks for no other."""
    makefile = head.parent / "Makefile"
    makefile.write_bytes(changes.before("Makefile") or b"")
    for target in ("lint", "test"):
        ended = run(["make", "--file", str(makefile), *environment(changes), target], head)
        if ended.status:
            path, line, what = blamed(ended.printed, head)
            part.refuse(path or fallback(changes), line, [f"`make {target}` fails: {what}"])
            part.folded[f"what `make {target}` printed"] = ended.tail
        else:
            part.told.append(f"`make {target}` passes{counted(ended.printed)}.")


def environment(changes: Changes) -> list[str]:
    """Return the settings of make that take this environment, where the head asks for no other."""
    same = all(changes.before(name) == changes.after(name) for name in ENVIRONMENT)
    here = Path(sys.prefix)
    if not same or not (here / "bin/ruff").exists():
        return []
    triton = this_machine().triton_venv.absolute()
    ready = [f"--assume-old={each}/ready" for each in (here, triton) if each.is_dir()]
    return [f"VENV={here}", f"TRITON_VENV={triton}", *ready]


def blamed(printed: str, head: Path) -> tuple[str, int, str]:
    """Return file, line and reason of the first complaint that a program printed."""
    text = plain(printed.replace(f"{head}/", ""))
    for found in PLACE.finditer(text):
        path = found[1] or found[4]
        if (head / path).is_file():
            before = text[: found.start()].rstrip().splitlines()
            why = found[3] if found[1] else (before[-1] if before else "")
            return path, int(found[2] or found[5]), said(why)
    if unformatted := re.search(r"(?m)^Would reformat: (.+)$", text):
        return unformatted[1], 1, "ruff would format it otherwise"
    lines = [line for line in text.splitlines() if line.strip()]
    return "", 1, said(lines[-1] if lines else "nothing was printed")


def plain(printed: str) -> str:
    """Write complaints for GitHub's pages, and yamllint's, as `path:line: what`, as others do."""
    text = re.sub(r"(?m)^::\w+ file=([^,]+),line=(\d+).*?::(?:\S*\d+:\d*:? )?", r"\1:\2: ", printed)
    return re.sub(r"(?m)^(\S+)\n +(\d+):\d+ +\w+ +(.*?)(?:  \(\S+\))?$", r"\1:\2: \3", text)


def fallback(changes: Changes) -> str:
    """Return the first changed file of code."""
    return next((each.path for each in changes.of("code")), "Makefile")


def counted(printed: str) -> str:
    """Return how many tests passed, if pytest says so."""
    found = re.search(r"\d+ passed(?:, \d+ \w+)*(?= in )", printed)
    return f": {found[0]}" if found else ""


# -- infrastructure --------------------------------------------------------------------------------


def judge_infrastructure(changes: Changes, head: Path, part: Part, run: Run = run) -> None:
    """Format, validate and test the Terraform of the head; look for what is insecure."""
    refuse_silence(changes, "infrastructure", part)
    if shutil.which("terraform") is None:
        part.undone.append("not run: terraform is not installed: install Terraform 1.11 or newer")
        return
    formatted(changes, head, part, run)
    for folder in sorted({path.parent for path in head.glob("infra/**/main.tf")}):
        validated(head, folder, part, run)
    checkov(changes, head, part, run)
    part.without.append("not run: the plan, which needs the cloud's credentials (make infra-plan)")


def formatted(changes: Changes, head: Path, part: Part, run: Run) -> None:
    """Refuse files that Terraform would format otherwise."""
    ended = run(["terraform", "fmt", "-check", "-recursive", "-diff", "-no-color"], head / "infra")
    path = ""
    for line in ended.printed.splitlines():
        if line.startswith("+++ "):
            path = line.split()[1].removeprefix("new/")
        elif hunk := re.match(r"@@ -(\d+)", line):
            what = "`terraform fmt` would write it otherwise"
            part.refuse(f"infra/{path}", int(hunk[1]), [what])
            path = ""
    if ended.status and not part.findings:
        broken = re.search(r"on (\S+\.tf) line (\d+)", ended.printed)
        place = changes.place("", ["infra/"])
        if broken:
            place = f"infra/{broken[1].removeprefix('infra/')}", int(broken[2])
        part.refuse(*place, [f"`terraform fmt`: {reason(ended)}"])


def refuse_silence(changes: Changes, kind: str, part: Part) -> None:
    """Refuse new lines that silence a linter, unless the base accepts that by its words."""
    for each in changes.of(kind):
        for number, line in changes.added.get(each.path, {}).items():
            for words in SILENCE.findall(line):
                if words not in changes.parameters.check.accept:
                    what = (
                        f"{shown(words)} has a linter pass over what it finds; if it is meant, add "
                        f"{shown(words)} to `check.accept` in params.yaml, merged before"
                    )
                    part.refuse(each.path, number, [what])


def validated(head: Path, folder: Path, part: Part, run: Run) -> None:
    """Refuse a module that is not valid, or whose tests fail."""
    place = folder.relative_to(head)
    steps = [["init", "-backend=false", "-input=false"], ["validate"]]
    steps += [["test"]] if list(folder.glob("*.tftest.hcl")) else []
    for step in steps:
        ended = run(["terraform", f"-chdir={folder}", *step, "-no-color"], head)
        if ended.status and step[0] == "init":
            part.undone.append(f"not run: {place} cannot be initialised ({reason(ended)})")
            return
        if ended.status:
            broken = re.search(r"on (\S+\.(?:tf|hcl)) line (\d+)", ended.printed)
            path, line = (
                (f"{place}/{broken[1]}", int(broken[2])) if broken else (f"{place}/main.tf", 1)
            )
            part.refuse(path, line, [f"`terraform {step[0]}`: {reason(ended)}"])
            return
    part.told.append(f"{code(place)}: {', '.join(step[0] for step in steps[1:])} passed.")


def checkov(changes: Changes, head: Path, part: Part, run: Run) -> None:
    """Refuse what checkov finds insecure, where it can be had."""
    uv = installed("uv")
    if uv is None:
        part.without.append("not run: checkov, which needs uv")
        return
    for path in OF_CHECKOV:  # it takes these by itself
        if changes.after(path) is not None:
            (head / path).unlink()
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--compact", "--quiet"]
    command += settings(changes, "--config-file", OF_CHECKOV, head.parent)
    ended = run([*command, "--directory", "infra", "--framework", "terraform"], head)
    if failed := re.findall(
        r"Check: (\w+): \"(.*?)\"\s+FAILED[^\n]*\s+File: /?(\S+?):(\d+)", ended.printed
    ):
        for rule, what, path, line in failed:
            part.refuse(
                f"infra/{path.removeprefix('infra/')}", int(line), [f"checkov {rule}: {said(what)}"]
            )
    elif ended.status:
        part.without.append(f"not run: checkov ({reason(ended)})")
    else:
        part.told.append("checkov finds nothing.")


def reason(ended: Ended) -> str:
    """Return what a program complains of, on one line."""
    errors = re.search(r"Error: (.*)", ended.printed)
    lines = [line for line in ended.printed.splitlines() if line.strip()]
    return said(errors[1] if errors else (lines[-1] if lines else f"status {ended.status}"))


# -- workflows -------------------------------------------------------------------------------------


def judge_workflows(changes: Changes, head: Path, part: Part, run: Run = run) -> None:
    """Refuse triggers that lend strangers secrets, actions that can move, and what tools find."""
    for path, line, sentence in rules(changes):
        part.refuse(path, line, [sentence])
    refuse_silence(changes, "workflows", part)
    files = [each.path for each in changes.of("workflows") if (head / each.path).is_file()]
    github = [each for each in files if each.startswith(".github/workflows/")]
    if not github:
        return
    known = settings(changes, "-config-file", OF_ACTIONLINT, head.parent)
    audits = settings(changes, "--config", OF_ZIZMOR, head.parent) or ["--no-config"]
    for tool, arguments in (
        ("actionlint", ["-no-color", *known, *github]),
        ("zizmor", ["--offline", "--no-progress", "--format=github", *audits, *github]),
    ):
        if command := linter(tool, head.parent, run):
            reported(tool, run([*command, *arguments], head), head, part)
        else:
            needed = FETCHED[tool][0]
            part.without.append(f"not run: {tool}, which is not installed, nor fetched by {needed}")


def linter(tool: str, folder: Path, run: Run) -> list[str]:
    """Return how a linter is called, fetched if it has to be and can be; nothing otherwise.

    It is fetched from a folder without anything of the head.
    """
    if program := installed(tool):
        return [program]
    fetcher, *words = FETCHED[tool]
    command = [installed(fetcher) or "", *words]
    return command if command[0] and not run([*command, "--version"], folder).status else []


def rules(changes: Changes) -> Iterator[tuple[str, int, str]]:
    """Give what a workflow may never say, where the base does not say it as often."""
    for each in changes.of("workflows"):
        if each.path.endswith((".yml", ".yaml")):
            was: Counter[tuple[str, str]] = Counter()
            with suppress(SettingsError):  # what is broken says nothing
                was.update(forbidden(changes.before(each.path), each.path))
            will = Counter(forbidden(changes.after(each.path), each.path))
            for words, what in will - was:
                yield *changes.place(words, [each.path]), what


def forbidden(content: bytes | None, path: str) -> Iterator[tuple[str, str]]:
    """Give the words of a workflow that are never allowed, and why. Raises SettingsError.

    It is read as YAML, which has many ways to write the same.
    """
    document = parse_yaml(content or b"", path)
    events = document.get("on") if isinstance(document, dict) else None
    for trigger in DANGEROUS:
        if trigger == events or (isinstance(events, dict | list) and trigger in events):
            yield trigger, f"{trigger} runs with the base's secrets on what strangers wrote"
    for action in actions(document):
        if not PINNED.fullmatch(action):
            name, _, moves = action.rpartition("@" if "@" in action else ":")
            what = f"{name or action} is taken by {shown(moves)}, which can be moved"
            yield action, f"{what}: give its commit"


def actions(value: Any) -> Iterator[str]:
    """Give what is used anywhere in a workflow."""
    if isinstance(value, dict) and isinstance(used := value.get("uses"), str):
        yield used
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from actions(inner)


def reported(tool: str, ended: Ended, head: Path, part: Part) -> None:
    """Add what a tool found; a tool that fails without finding anything is not a pass."""
    found = [
        each
        for each in PLACE.finditer(plain(ended.printed))
        if each[1] and (head / each[1]).is_file()
    ]
    for each in found:
        part.refuse(each[1], int(each[2]), [f"{tool}: {said(each[3])}"])
    if ended.status and not found:
        part.undone.append(f"not run: {tool} ({reason(ended)})")
    elif not found:
        part.told.append(f"{tool} finds nothing.")
