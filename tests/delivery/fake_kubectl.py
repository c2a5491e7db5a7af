"""kubectl as far as webhooks need it: it keeps the Secret of Argo CD's and counts restarts."""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any


class Cluster:
    """A cluster, as `kubectl` shows it; the state is a file that the stand-in keeps."""

    def __init__(self, folder: Path, programs: Path):
        self.place = folder / "cluster.json"
        script = programs / "kubectl"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
        script.chmod(0o755)
        self.write(context="ours", secret={"admin.password": "aGFzaA=="}, calls=[], fails={})

    def write(self, **state: Any) -> None:
        before = json.loads(self.place.read_text()) if self.place.exists() else {}
        self.place.write_text(json.dumps(before | state))

    def read(self, name: str) -> Any:
        return json.loads(self.place.read_text())[name]

    def keep(self, secret: str) -> None:
        encoded = base64.b64encode(secret.encode()).decode()
        self.write(secret=self.read("secret") | {"webhook.github.secret": encoded})

    def secret(self) -> str:
        """The secret that Argo CD reads; empty if there is none."""
        return base64.b64decode(self.read("secret").get("webhook.github.secret", "")).decode()

    def restarts(self) -> int:
        return sum(call[:2] == ["rollout", "restart"] for call in self.read("calls"))


def main(arguments: list[str], place: Path) -> int:
    """Answer one call; `place` is the JSON file that holds the cluster's state."""
    state = json.loads(place.read_text())
    if arguments[:2] == ["config", "use-context"]:
        state["context"] = arguments[2]
        place.write_text(json.dumps(state))
        return 0
    if arguments[0] == "--namespace":
        arguments = [f"--namespace={arguments[1]}", *arguments[2:]]
    assert arguments[0] == "--namespace=argocd", arguments
    words = [each for each in arguments[1:] if not each.startswith("--request-timeout=")]
    state["calls"].append(words)
    failure = next((said for verb, said in state["fails"].items() if words[0] == verb), "")
    if not failure and state["context"] == "ours":
        answer(words, state)
    place.write_text(json.dumps(state))
    print(failure, file=sys.stderr)
    return 1 if failure else 0


def answer(words: list[str], state: dict[str, Any]) -> None:
    match words:
        case ["get", "secret", "argocd-secret", "--ignore-not-found", "--output=json"]:
            print(json.dumps({"kind": "Secret", "data": state["secret"]}))
        case ["patch", "secret", "argocd-secret", "--type=merge", "--patch-file=/dev/stdin"]:
            for key, value in json.load(sys.stdin)["stringData"].items():
                state["secret"][key] = base64.b64encode(value.encode()).decode()
        case ["rollout", "restart" | "status", "deployment/argocd-applicationset-controller", *_]:
            pass
        case ["get", "pods"]:
            pass
        case _:
            raise AssertionError(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(os.environ["FAKE_CLUSTER"])))
