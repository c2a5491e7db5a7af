"""GitHub's command line as far as delivery needs it: it keeps what is made, and checks requests.

The schemas are those of the REST API's description, "Create a repository ruleset", "Create a
repository webhook" and "Update a repository webhook".
"""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

HOST = "github.com"
WHICH = shutil.which  # as it is before a project of the tests finds no programs


def rule(kind: str, required: tuple[str, ...] = (), **parameters: Any) -> dict[str, Any]:
    given = {"type": "object", "properties": parameters, "required": [*required]}
    given["additionalProperties"] = False
    properties = {"type": {"const": kind}} | ({"parameters": given} if parameters else {})
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


BOOLEAN, TEXT, NUMBER = {"type": "boolean"}, {"type": "string"}, {"type": "integer"}
REVIEW = {
    "dismiss_stale_reviews_on_push": BOOLEAN,
    "require_code_owner_review": BOOLEAN,
    "require_last_push_approval": BOOLEAN,
    "required_approving_review_count": {"type": "integer", "minimum": 0, "maximum": 10},
    "required_review_thread_resolution": BOOLEAN,
}
METHODS = {
    "type": "array",
    "minItems": 1,
    "items": {"enum": ["merge", "squash", "rebase"]},
}
CHECK = {
    "type": "object",
    "properties": {"context": TEXT, "integration_id": NUMBER},
    "required": ["context"],
    "additionalProperties": False,
}
RULES = [
    *map(rule, ("creation", "deletion", "non_fast_forward")),
    *map(rule, ("required_linear_history", "required_signatures")),
    rule("pull_request", tuple(REVIEW), **REVIEW, allowed_merge_methods=METHODS),
    rule(
        "required_status_checks",
        ("required_status_checks", "strict_required_status_checks_policy"),
        required_status_checks={"type": "array", "minItems": 1, "items": CHECK},
        strict_required_status_checks_policy=BOOLEAN,
        do_not_enforce_on_create=BOOLEAN,
    ),
]
NAMES = {"type": "array", "items": TEXT}
REFS = {
    "type": "object",
    "properties": {"include": NAMES, "exclude": NAMES},
    "additionalProperties": False,
}
RULESET = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "target": {"enum": ["branch", "tag", "push"]},
        "enforcement": {"enum": ["disabled", "active", "evaluate"]},
        "bypass_actors": {"type": "array"},
        "conditions": {
            "type": "object",
            "properties": {"ref_name": REFS},
            "additionalProperties": False,
        },
        "rules": {"type": "array", "items": {"oneOf": RULES}},
    },
    "required": ["name", "enforcement"],
    "additionalProperties": False,
}


WEBHOOK = {
    "type": "object",
    "properties": {
        "name": {"const": "web"},
        "config": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "format": "uri"},
                "content_type": {"enum": ["json", "form"]},
                "secret": TEXT,
                "insecure_ssl": {"enum": ["0", "1", 0, 1]},
            },
            "required": ["url"],
            "additionalProperties": False,
        },
        "events": {"type": "array", "items": TEXT},
        "active": BOOLEAN,
    },
    "additionalProperties": False,
}


class GitHub:
    """A repository on GitHub, as `gh` shows it; the state is a file that the stand-in keeps."""

    def __init__(self, folder: Path):
        self.place = folder / "github.json"
        self.programs = folder / "bin"
        self.programs.mkdir()
        script = self.programs / "gh"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        script.chmod(0o755)
        self.write(name="acme/digits", account=True, owners=[], rulesets=[], hooks=[])
        self.write(calls=[], fails={}, comments=[], statuses={}, pulls=[], author="Bot")
        self.write(deployments=[])

    def write(self, **state: Any) -> None:
        before = json.loads(self.place.read_text()) if self.place.exists() else {}
        self.place.write_text(json.dumps(before | state))

    def read(self, name: str) -> Any:
        return json.loads(self.place.read_text())[name]

    def writes(self) -> list[str]:
        """The methods of the requests that changed something."""
        calls = self.read("calls")
        return [call[call.index("--method") + 1] for call in calls if "--method" in call]

    def in_force(self) -> dict[str, Any]:
        rules = rules_of_a_branch({"rulesets": self.read("rulesets")}, "main", "", None)
        return {each["type"]: each.get("parameters", {}) for each in rules}


def logged_in(folder: Path, patch: "pytest.MonkeyPatch") -> GitHub:
    """Have a test's commands find this `gh`, which knows one repository."""
    made = GitHub(folder)
    patch.setattr("shutil.which", WHICH)
    patch.setenv("PATH", str(made.programs), prepend=":")
    patch.setenv("FAKE_GITHUB", str(made.place))
    return made


def answering(folder: Path, patch: "pytest.MonkeyPatch") -> GitHub:
    """Have this `gh` answer a test's commands in the test's own process."""
    made = logged_in(folder, patch)
    patch.setattr("subprocess.run", in_process({"gh": (sys.modules[__name__], made.place)}, patch))
    return made


def in_process(programs: dict[str, Any], monkeypatch: "pytest.MonkeyPatch") -> Any:
    """`subprocess.run` that has the stand-ins answer without a start of Python for each call."""
    run = subprocess.run

    def answered(command: Any, **options: Any) -> Any:
        if options.get("shell") or command[0] not in programs:
            return run(command, **options)
        program, place = programs[command[0]]
        monkeypatch.setattr(sys, "stdin", io.StringIO(options.get("input") or ""))
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as error:
            status = program.main(command[1:], place)
        return subprocess.CompletedProcess(command, status, out.getvalue(), error.getvalue())

    return answered


class RequestError(Exception):
    """An HTTP status and what GitHub says."""


def main(arguments: list[str], place: Path) -> int:
    """Answer one call; `place` is the JSON file that holds GitHub's state."""
    state = json.loads(place.read_text())
    state["calls"].append(arguments)
    try:
        if arguments[:2] == ["auth", "status"]:
            return 0 if arguments[2:] == ["--hostname", HOST] and state["account"] else 1
        if arguments[0] == "pr":
            print(pull_request(arguments[1], arguments[2:], state))
            return 0
        answer = request(arguments, state)
        print(answer if isinstance(answer, str) else json.dumps(answer))
    except RequestError as error:
        status, message = error.args
        print(json.dumps({"message": message, "status": str(status)}))
        print(f"gh: {message} (HTTP {status})", file=sys.stderr)
        return 1
    finally:
        place.write_text(json.dumps(state))
    return 0


def request(arguments: list[str], state: dict[str, Any]) -> Any:
    """Do what `gh api` is asked to do."""
    assert arguments[:3] == ["api", "--hostname", HOST], arguments
    *options, path = arguments[3:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given.keys() <= {"--method", "--input"}
    method = given.get("--method", "GET")
    for pattern, failure in state["fails"].items():
        if f"{method} {path}".startswith(pattern):
            if isinstance(failure, str):
                return failure
            raise RequestError(*failure)
    if path == "graphql":
        return queried(state, json.loads(content(given["--input"]))["query"])
    prefix = f"repos/{state['name']}/"
    if not path.startswith(prefix):
        raise RequestError(404, "Not Found")
    body = json.loads(content(given["--input"])) if "--input" in given else None
    route, _, query = path.removeprefix(prefix).partition("?")
    return ROUTES[method, route.partition("/")[0]](state, route, query, body)


def content(place: str) -> str:
    return sys.stdin.read() if place == "-" else Path(place).read_text()


def rules_of_a_branch(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    branch = route.removeprefix("rules/branches/")
    return [
        each | {"ruleset_id": ruleset["id"], "ruleset_source_type": ruleset["source_type"]}
        for ruleset in state["rulesets"]
        if ruleset["enforcement"] == "active"
        and {f"refs/heads/{branch}", "~ALL"} & {*ruleset["conditions"]["ref_name"]["include"]}
        for each in ruleset["rules"]
    ]


def rulesets(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    if route != "rulesets":
        return found(state, route)
    own = "includes_parents=false" in query.split("&")
    kept = [each for each in state["rulesets"] if each["source_type"] == "Repository" or not own]
    return [{key: each[key] for key in each if key not in ("rules", "conditions")} for each in kept]


def found(state: dict[str, Any], route: str) -> dict[str, Any]:
    for each in state["rulesets"]:
        if route == f"rulesets/{each['id']}" and each["source_type"] == "Repository":
            return each
    raise RequestError(404, "Not Found")


def make(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    check_ruleset(body)
    if any(each["name"] == body["name"] for each in state["rulesets"]):
        raise RequestError(422, "Validation Failed: Name must be unique")
    made = {"id": 1 + len(state["rulesets"]), "source_type": "Repository", "bypass_actors": []}
    state["rulesets"].append(made | body)
    return made | body


def change(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    check_ruleset(body)
    kept = found(state, route)
    kept.update(body)
    return kept


def check(body: Any, schema: dict[str, Any]) -> None:
    import jsonschema  # longer than all else here, and few calls send something

    try:
        jsonschema.validate(body, schema)
    except jsonschema.ValidationError as error:
        raise RequestError(422, f"Invalid request. {error.message}") from None


def check_ruleset(body: Any) -> None:
    check(body, RULESET)
    kinds = [each["type"] for each in body.get("rules", [])]
    if len(kinds) != len(set(kinds)):
        raise RequestError(422, "Invalid rules: a kind twice")


def hooks(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    return [masked(each) for each in state["hooks"]]


def masked(hook: dict[str, Any]) -> dict[str, Any]:
    """A webhook as GitHub shows it."""
    stars = {"secret": "*" * 8} if "secret" in hook["config"] else {}
    return hook | {"config": hook["config"] | stars}


def make_hook(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    if route != "hooks":
        return ping(state, route)
    check(body, WEBHOOK)
    if any(each["config"]["url"] == body["config"]["url"] for each in state["hooks"]):
        raise RequestError(422, "Validation Failed: Hook already exists on this repository")
    made = {"id": 1 + len(state["hooks"]), "last_response": {"code": None, "status": "unused"}}
    state["hooks"].append(made | body)
    return masked(made | body)


def ping(state: dict[str, Any], route: str) -> str:
    """Call the webhook; nothing is answered, and the call itself comes later."""
    found_hook(state, route.removesuffix("/pings"))
    return ""


def change_hook(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    check(body, WEBHOOK)
    kept = found_hook(state, route)
    kept.update(body)
    return masked(kept)


def found_hook(state: dict[str, Any], route: str) -> dict[str, Any]:
    for each in state["hooks"]:
        if route == f"hooks/{each['id']}":
            return each
    raise RequestError(404, "Not Found")


COMMENT = {
    "type": "object",
    "properties": {"body": {"type": "string", "minLength": 1, "maxLength": 65536}},
    "required": ["body"],
    "additionalProperties": False,
}


def comments(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    """A page of what is said about a pull request, oldest first."""
    given = dict(each.split("=") for each in query.split("&"))
    size, page = int(given["per_page"]), int(given["page"])
    about = [each for each in state["comments"] if route == f"issues/{each['about']}/comments"]
    return about[(page - 1) * size : page * size]


LABELS = {
    "type": "object",
    "properties": {"labels": {"type": "array", "minItems": 1, "items": TEXT}},
    "required": ["labels"],
    "additionalProperties": False,
}


def add_labels(state: dict[str, Any], route: str, body: Any) -> Any:
    """Label a pull request; labels that are new are made, and those that it has stay."""
    check(body, LABELS)
    pull = state["pulls"][int(route.split("/")[1]) - 1]
    pull["labels"] = sorted({*pull.get("labels", []), *body["labels"]})
    return [{"name": each} for each in pull["labels"]]


def say(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    if route.endswith("/labels"):
        return add_labels(state, route, body)
    check(body, COMMENT)
    if int(route.split("/")[1]) > 100:
        raise RequestError(404, "Not Found")
    bot = state["author"] == "Bot"
    made = {
        "id": 1 + max((each["id"] for each in state["comments"]), default=0),
        "about": int(route.split("/")[1]),
        "user": {"login": "github-actions[bot]" if bot else "somebody", "type": state["author"]},
        "author_association": "NONE" if bot else "MEMBER",
    }
    state["comments"].append(made | body)
    return made | body


def said(state: dict[str, Any], route: str) -> dict[str, Any]:
    for each in state["comments"]:
        if route == f"issues/comments/{each['id']}":
            return each
    raise RequestError(404, "Not Found")


def edit(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    check(body, COMMENT)
    said(state, route).update(body)
    return said(state, route)


def unsay(state: dict[str, Any], route: str, query: str, body: None) -> str:
    state["comments"].remove(said(state, route))
    return ""


def queried(state: dict[str, Any], query: str) -> Any:
    """The newest status of a name for each commit that a query of GraphQL names."""
    owner, name = re.findall(r'repository\(owner: "(.*?)", name: "(.*?)"\)', query)[0]
    if f"{owner}/{name}" != state["name"]:
        raise RequestError(404, "Could not resolve to a Repository")
    commit = r'(\w+): object\(oid: "([0-9a-f]{40})"\) \{ \.\.\. on Commit \{ status \{ '
    each = re.findall(commit + r'context\(name: "(.*?)"\) \{ state createdAt description', query)
    assert len(each) == query.count("object(") <= 100
    return {"data": {"repository": {alias: _status(state, *of) for alias, *of in each}}}


def _status(state: dict[str, Any], commit: str, name: str) -> Any:
    if commit not in state["statuses"]:
        return {"status": None}
    of = [each for each in state["statuses"][commit] if each["context"] == name]
    return {"status": {"context": of[-1] if of else None}}


def pull_request(what: str, arguments: list[str], state: dict[str, Any]) -> str:
    """List or open pull requests, as `gh pr` does; returns the address, or nothing."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert given["--repo"] == f"{HOST}/{state['name']}"
    for pattern, failure in state["fails"].items():
        if f"pr {what}".startswith(pattern):
            raise RequestError(*failure)
    numbers = [
        1 + place
        for place, each in enumerate(state["pulls"])
        if each["--head"] == given["--head"]
        and given.get("--state", "open") in ("all", each.get("state", "open"))
    ]
    if what == "create":
        assert not numbers and Path(given["--body-file"]).is_file()
        state["pulls"].append(given)
        numbers = [len(state["pulls"])]
    return "".join(f"https://{HOST}/{state['name']}/pull/{each}" for each in numbers)


def describe(state: dict[str, Any], route: str, query: str, body: Any) -> Any:
    check(body, COMMENT)
    state["pulls"][int(route.removeprefix("pulls/")) - 1].update(body)
    return body


def owners(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    assert (route, query) == ("codeowners/errors", "ref=main")
    if state["owners"] is None:
        raise RequestError(404, "Not Found")
    return {"errors": state["owners"]}


def deployments(state: dict[str, Any], route: str, query: str, body: None) -> Any:
    """The deployments of a task and an environment, the newest first."""
    given = dict(each.split("=") for each in query.split("&"))
    wanted = {key: given[key] for key in ("task", "environment")}
    found = [each for each in state["deployments"] if wanted.items() <= each.items()]
    return found[::-1][: int(given["per_page"])]


ROUTES = {
    ("GET", "deployments"): deployments,
    ("GET", "rules"): rules_of_a_branch,
    ("GET", "rulesets"): rulesets,
    ("POST", "rulesets"): make,
    ("PUT", "rulesets"): change,
    ("GET", "codeowners"): owners,
    ("GET", "hooks"): hooks,
    ("POST", "hooks"): make_hook,
    ("PATCH", "hooks"): change_hook,
    ("GET", "issues"): comments,
    ("POST", "issues"): say,
    ("PATCH", "issues"): edit,
    ("DELETE", "issues"): unsay,
    ("PATCH", "pulls"): describe,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ["FAKE_GITHUB"])))
