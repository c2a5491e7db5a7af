"""Webhook: have GitHub tell Argo CD of a push, so that a merge is seen at once.

Argo CD's server looks at Applications again, its ApplicationSet controller makes them, and each is
told at an endpoint of its own. Component `webhook` has both at one path; a query says which is
meant. GitHub signs what it sends with a secret that is made here and kept in the cluster alone.
"""

import base64
import binascii
import json
import re
import secrets
import subprocess
from typing import Any

from delivery.errors import DeliveryError
from delivery.git import Repository
from delivery.proposals.github import GitHub, find_github
from workspace.errors import said, shown
from workspace.settings import Settings, SettingsError, check, parse_json

ADDRESS = re.compile(r"https://[\w.-]+(:\d+)?")
QUERIES = ("", "?for=applicationsets")  # of argocd/components/webhook/http-route.yaml
SECRET, KEY = "argocd-secret", "webhook.github.secret"
CONTROLLER = "deployment/argocd-applicationset-controller"
WANTED = {"content_type": "json", "insecure_ssl": "0"}  # Argo CD reads nothing but JSON

ARGUMENTS = {
    "url": {"help": "where the cluster's gateway is reached, https://<host>"},
    "--check": {"action": "store_true", "help": "say what is missing, change nothing"},
}


class Answer(Settings, extra="ignore"):
    """What came of GitHub's last delivery; no code where nothing was sent."""

    code: int | None = None
    message: str | None = None


class Hook(Settings, extra="ignore"):
    """A webhook of the repository; its secret is shown as stars."""

    id: int
    active: bool
    events: list[str]
    config: dict[str, Any]
    last_response: Answer | None = None


class KeptSecret(Settings, extra="ignore"):
    """A Secret of the cluster; its values are in base64."""

    data: dict[str, str] | None = None


def run(repository: Repository, url: str, check: bool = False) -> None:
    """Set what is missing, or only say it. Raises DeliveryError unless nothing is missing then."""
    addresses = hook_addresses(url)
    github = find_github(repository)
    lacks = missing(github, addresses, kept_secret())
    if lacks and not check:
        lacks = repair(github, addresses)
    print(*(f"missing: {each}" for each in lacks), sep="\n", end="\n" if lacks else "")
    if lacks:
        raise DeliveryError(
            f"GitHub does not tell Argo CD of pushes to {github.name}: `make webhook URL={url}`"
        )
    print(f"GitHub calls {' and '.join(addresses)} when {github.name} is pushed to")


def hook_addresses(url: str) -> list[str]:
    """Return where GitHub is to call. Raises DeliveryError."""
    if not ADDRESS.fullmatch(url):
        raise DeliveryError(
            f"URL={shown(url)} is not https:// and a host: give the one at which the gateway is "
            "reached, such as `make webhook URL=https://argocd.example.com`"
        )
    return [f"{url}/api/webhook{query}" for query in QUERIES]


def missing(github: GitHub, addresses: list[str], secret: str) -> list[str]:
    """List what keeps pushes from being told."""
    hooks = hooks_by_address(github)
    found = {each: hook_lacks(hooks.get(each)) for each in addresses}
    without = [] if secret else [f"{KEY} in the cluster's {SECRET}"]
    return without + [f"{what} at {each}" for each, what in found.items() if what]


def hook_lacks(hook: Hook | None) -> str:
    """Say what a webhook lacks; nothing if it is as it should be, and its last call was taken."""
    if hook is None:
        return "a webhook"
    config = {name: str(value) for name, value in hook.config.items()}
    told = hook.active and {"push", "*"} & {*hook.events} and config.get("secret")
    if not told or not config.items() >= WANTED.items():
        return "a webhook that signs, and sends pushes as JSON,"
    answer = hook.last_response
    if answer and answer.code and not 200 <= answer.code < 300:
        reason = f"{answer.code} {answer.message or ''}".strip()
        return f"a good answer to GitHub's last call (it was {shown(reason)})"
    return ""


def hooks_by_address(github: GitHub) -> dict[str, Hook]:
    """Return the repository's webhooks by where they call."""
    hooks = github.ask(list[Hook], "hooks?per_page=100")
    return {str(hook.config.get("url")): hook for hook in hooks}


def repair(github: GitHub, addresses: list[str]) -> list[str]:
    """Have cluster and GitHub use one secret, and GitHub call; return what is missing then.

    The webhooks come last: where they are as they should be, so is all before them.
    """
    secret = kept_secret() or secrets.token_hex(32)
    keep_secret(secret)
    print(f"{KEY} is in the cluster's {SECRET}", flush=True)
    kubectl("rollout", "restart", CONTROLLER)  # it reads the secret when it starts, and only then
    kubectl("rollout", "status", CONTROLLER, "--timeout=2m", "--request-timeout=0")
    hooks = hooks_by_address(github)
    for each in addresses:
        ours = set_hook(github, hooks.get(each), each, secret)
        github.answer(f"hooks/{ours.id}/pings", "--method", "POST")
        print(f"webhook: {each}", flush=True)
    print("the same with CHECK=1 says in a minute whether GitHub's calls arrive")
    hooks = hooks_by_address(github)  # GitHub's word alone is not believed
    return [f"a webhook at {each}" for each in addresses if each not in hooks]


def set_hook(github: GitHub, hook: Hook | None, address: str, secret: str) -> Hook:
    """Make a webhook, or have the one that is there be as it should. Raises GitHubError."""
    config = {"url": address, "secret": secret, **WANTED}
    body = json.dumps({"config": config, "events": ["push"], "active": True})
    place, method = (f"hooks/{hook.id}", "PATCH") if hook else ("hooks", "POST")
    return github.ask(Hook, place, "--method", method, "--input", "-", body=body)


# -- the cluster -----------------------------------------------------------------------------------


def kept_secret() -> str:
    """Return the secret that Argo CD knows, empty if none. Raises DeliveryError."""
    text = kubectl("get", "secret", SECRET, "--ignore-not-found", "--output=json")
    if not text.strip():
        raise DeliveryError(
            "there is no Argo CD in the cluster of kubectl's context: choose another by "
            "`kubectl config use-context <name>`, or install it as infra/README.md says"
        )
    try:
        data = check(KeptSecret, parse_json(text, SECRET), SECRET).data or {}
        return base64.b64decode(data.get(KEY, ""), validate=True).decode()
    except (SettingsError, binascii.Error, UnicodeDecodeError):
        return ""  # one that nobody can read signs nothing, either: it is replaced


def keep_secret(secret: str) -> None:
    """Put the secret where Argo CD looks for it; it is on no command line and in no file."""
    patch = json.dumps({"stringData": {KEY: secret}})
    kubectl("patch", "secret", SECRET, "--type=merge", "--patch-file=/dev/stdin", text=patch)


def kubectl(*arguments: str, text: str = "") -> str:
    """Run kubectl in Argo CD's namespace; return what it prints. Raises DeliveryError."""
    command = ["kubectl", "--namespace=argocd", "--request-timeout=20s", *arguments]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        raise DeliveryError(
            "kubectl is not here: install it, as https://kubernetes.io/docs/tasks/tools says"
        ) from None
    if done.returncode:
        raise DeliveryError(
            f"kubectl cannot {' '.join(arguments[:3])} ({said(done.stderr)}): look at "
            "`kubectl --namespace argocd get pods`, then try again"
        )
    return done.stdout
