"""Protect: have GitHub take only reviewed and checked changes of the branch that is deployed.

What is in force counts, whoever set it; what is missing is set in one ruleset of our own, so that
those of others stay as they are.
"""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import BRANCH, REMOTE, Repository
from delivery.proposals.github import GITHUB, GitHub, GitHubError, find_github
from workspace.errors import printable
from workspace.files import write
from workspace.settings import Settings

NAME = f"{BRANCH} is deployed"  # of our ruleset
BODY = Path(".local/ruleset.json")
OWNERS = ".github/CODEOWNERS"
CHECKS = ("checks",)  # the jobs of .github/workflows that pass before a merge
ACTIONS = 15368  # who tells of them, on github.com: who may write statuses can name one like them

Parameters = Mapping[str, Any]

REVIEW: Parameters = {
    "required_approving_review_count": 1,
    "require_code_owner_review": True,
    "dismiss_stale_reviews_on_push": True,
    "require_last_push_approval": True,
    "required_review_thread_resolution": False,
}
CHECKED: Parameters = {
    "required_status_checks": [{"context": name} for name in CHECKS],
    "strict_required_status_checks_policy": False,
}
LINEAR, QUEUE = "required_linear_history", "merge_queue"  # either keeps the history in one line
RULES: dict[str, tuple[Parameters, str]] = {  # kind: parameters, and what it changes
    "pull_request": (
        REVIEW,
        f"a change comes by a pull request, and of {OWNERS} an owner approves its last commit, "
        "which somebody else pushed",
    ),
    "required_status_checks": (
        CHECKED,
        f"{', '.join(CHECKS)} of its workflows must pass, on {GITHUB} by the word of its Actions "
        "alone",
    ),
    LINEAR: ({}, "it is squashed or rebased when it is merged, so that history is one line"),
    "non_fast_forward": ({}, "nobody pushes by force"),
    "deletion": ({}, "nobody deletes the branch"),
}


class Owners(Settings, extra="ignore"):
    """What GitHub says of the file of owners."""

    errors: list[dict[str, Any]]


class Rule(Settings, extra="ignore"):
    """A rule that is in force."""

    type: str
    parameters: dict[str, Any] | None = None


ARGUMENTS = {
    "--check": {"action": "store_true", "help": "say what is missing, change nothing"},
}


def run(repository: Repository, check: bool = False) -> None:
    """Set what is missing, or only say it. Raises DeliveryError unless nothing is missing then."""
    github = find_github(repository)
    missing = missing_rules(rules_in_force(github), github.host)
    unknown = unknown_owners(github)
    if missing and not check:
        set_rules(github, missing)
        # GitHub's word alone protects nothing
        missing = missing_rules(rules_in_force(github), github.host)
    lacks = [*(RULES[kind][1] for kind in missing), *unknown]
    print(*(f"missing: {each}" for each in lacks), sep="\n", end="\n" if lacks else "")
    if lacks:
        cure = f"`make protect`, or see https://{github.host}/{github.name}/settings/rules"
        owner = f"name a user or team in {OWNERS} that may write to it"
        raise DeliveryError(
            f"{BRANCH} of {github.name} is not protected: {cure if missing else owner}"
        )
    print(f"{BRANCH} of {github.name} is protected")


def unknown_owners(github: GitHub) -> list[str]:
    """List what GitHub says against the file of owners, without which no review is asked for.

    Raises DeliveryError when the branch, which was seen before, does not have it.
    """
    try:
        found = github.ask(Owners, f"codeowners/errors?ref={BRANCH}").errors
    except GitHubError as error:
        if error.status != 404:
            raise
        raise DeliveryError(
            f"{BRANCH} of {github.name} has no {OWNERS}: `git push {REMOTE} {BRANCH}` first"
        ) from None
    return [
        printable(f"{each.get('kind')} in line {each.get('line')} of {OWNERS}") for each in found
    ]


def rules_in_force(github: GitHub) -> dict[str, Parameters]:
    """Return the rules of the branch by kind, whoever set them; of several the strictest count."""
    found: dict[str, Parameters] = {}
    for rule in github.ask(list[Rule], f"rules/branches/{BRANCH}?per_page=100"):
        kind, given = rule.type, rule.parameters or {}
        found[kind] = stricter(found.get(kind, {}), given) if kind in RULES else given
    return found


def missing_rules(in_force: dict[str, Parameters], host: str) -> dict[str, Parameters]:
    """Return the rules that are not in force, or less strictly: what each demands, by kind."""
    kinds = [kind for kind in RULES if kind != LINEAR or QUEUE not in in_force]
    wanted = {kind: demanded(kind, host) for kind in kinds}
    return {kind: each for kind, each in wanted.items() if not demands(in_force.get(kind), each)}


def demanded(kind: str, host: str) -> Parameters:
    """Return what a rule demands; on github.com also that its Actions tell of the checks."""
    parameters, _ = RULES[kind]
    if parameters is not CHECKED or host != GITHUB:
        return parameters
    checks = [{"context": name, "integration_id": ACTIONS} for name in CHECKS]
    return {**parameters, "required_status_checks": checks}


def demands(given: Parameters | None, wanted: Parameters) -> bool:
    """Tell whether the parameters of a rule that is in force demand all that is wanted."""
    needs = {name: value for name, value in wanted.items() if value}
    return given is not None and stricter(given, needs) == given


def stricter(one: Parameters, other: Parameters) -> dict[str, Any]:
    """Return the parameters of a rule that demands what two of its kind demand."""
    both = {name: _both(one[name], other[name]) for name in one.keys() & other.keys()}
    return {**one, **other, **both}


def _both(one: Any, other: Any) -> Any:
    if isinstance(one, list) and isinstance(other, list):
        names = [_name(each) for each in one]
        new = [each for each in other if _name(each) not in names]
        return [_narrower(each, other) for each in one] + new
    return max(one, other) if isinstance(one, int) and isinstance(other, int) else other


def _name(entry: Any) -> Any:
    return entry["context"] if isinstance(entry, dict) and "context" in entry else entry


def _narrower(entry: Any, others: list[Any]) -> Any:
    """Return an entry with what others of its name add, such as who may tell of a check."""
    if not isinstance(entry, dict):
        return entry
    same = [each for each in others if isinstance(each, dict) and _name(each) == _name(entry)]
    said = {key: value for key, value in entry.items() if value is not None}
    return {key: value for each in [entry, *same, said] for key, value in each.items()}


def set_rules(github: GitHub, missing: dict[str, Parameters]) -> None:
    """Make our ruleset or add to it, after saying what that changes. Raises GitHubError."""
    ours = our_ruleset(github)
    body = json.dumps(ruleset(ours, missing), indent=2) + "\n"
    write(github.folder / BODY, body)
    place = f"rulesets/{ours['id']}" if ours else "rulesets"
    request = (place, "--method", "PUT" if ours else "POST", "--input", str(BODY))
    print(f"changes on {BRANCH} of {github.name}:")
    print(*(f"  {RULES[kind][1]}" for kind in missing), sep="\n")
    print(f"by: {shlex.join(github.command(*request))}\n{body}", end="", flush=True)
    github.ask(dict[str, Any], *request)


def our_ruleset(github: GitHub) -> dict[str, Any]:
    """Return the ruleset of our name with its rules, or nothing."""
    listed = github.ask(list[dict[str, Any]], "rulesets?includes_parents=false&per_page=100")
    for each in listed:
        if each.get("name") == NAME:
            return github.ask(dict[str, Any], f"rulesets/{each.get('id')}")
    return {}


def ruleset(ours: Mapping[str, Any], missing: dict[str, Parameters]) -> dict[str, Any]:
    """Return our ruleset with what is missing; what somebody added to it stays."""
    rules = {rule["type"]: rule.get("parameters") or {} for rule in ours.get("rules", [])}
    for kind, wanted in missing.items():
        rules[kind] = stricter(rules.get(kind, {}), wanted)
    include = ours.get("conditions", {}).get("ref_name", {}).get("include", [])
    branches = _both([f"refs/heads/{BRANCH}"], include)
    return {
        "name": NAME,
        "target": "branch",
        "enforcement": "active",
        "conditions": {"ref_name": {"include": branches, "exclude": []}},
        "rules": [
            {"type": kind, "parameters": given} if given else {"type": kind}
            for kind, given in rules.items()
        ],
    }
