"""What tests ask of a cluster: through kubectl, and by watching, so that no test waits blindly."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 240  # seconds: generous, because nothing here is a measurement
Object = dict[str, Any]


@dataclass(frozen=True)
class Kubernetes:
    """A cluster, as an administrator reaches it."""

    kubeconfig: Path

    def run(self, *arguments: str, content: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, whatever becomes of it."""
        return subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            input=content,
            capture_output=True,
            text=True,
        )

    def kubectl(self, *arguments: str, content: str | None = None) -> str:
        """Run kubectl, which must succeed; what it printed."""
        result = self.run(*arguments, content=content)
        assert result.returncode == 0, f"kubectl {' '.join(arguments)}: {result.stderr}"
        return result.stdout

    def get(self, what: str, namespace: str = "argocd") -> Object:
        """An object, `kind/name`, or all of a kind as a list in `items`."""
        return json.loads(self.kubectl("get", what, "-n", namespace, "-o", "json"))

    def items(self, what: str, namespace: str, selector: str = "") -> list[Object]:
        """The objects of a kind in a namespace, perhaps those with a label only."""
        chosen = [f"--selector={selector}"] if selector else []
        listed = self.kubectl("get", what, "-n", namespace, "-o", "json", *chosen)
        return json.loads(listed)["items"]

    def apply(self, manifest: Object | list[Object]) -> None:
        """Apply objects on the server's side."""
        objects = manifest if isinstance(manifest, list) else [manifest]
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", content=content)

    def until(
        self,
        what: str,
        wanted: Callable[[Object], Any],
        namespace: str = "argocd",
        patience: float = PATIENCE,
    ) -> Object:
        """Watch an object until `wanted` is true of it; give it.

        It need not exist yet. Fails, with what the namespace looks like, after `patience` seconds.
        """
        found, seen = self.within(patience, what, wanted, namespace)
        if found:
            return seen
        last = json.dumps(seen.get("status", seen), indent=1)[:4000]
        raise AssertionError(
            f"{what} in {namespace} did not become what the test waits for.\n"
            f"last: {last}\n{self.account(namespace)}"
        )

    def within(
        self, seconds: float, what: str, wanted: Callable[[Object], Any], namespace: str = "argocd"
    ) -> tuple[bool, Object]:
        """Watch an object for so long; whether `wanted` became true of it, and its last state."""
        seen: Object = {}
        for seen in self.watch(what, namespace, seconds):
            if wanted(seen):
                return True, seen
        return False, seen

    def watch(self, what: str, namespace: str, patience: float) -> Iterator[Object]:
        """Every state of an object, or of all of a kind, for at most `patience` seconds.

        What ends a watch before, a kind that is not known yet or an API server that is busy, ends
        nothing: it is begun again.
        """
        kind, _, name = what.partition("/")
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            selected = [f"--field-selector=metadata.name={name}"] if name else []
            yield from self._changes(left, kind, "-n", namespace, *selected)
            time.sleep(max(0, min(0.5, end - time.monotonic())))

    def _changes(self, seconds: float, *which: str) -> Iterator[Object]:
        """Every state of objects from now on, until kubectl ends or so many seconds are over."""
        process = subprocess.Popen(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", "get", *which, "--watch", "-o", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            assert process.stdout
            yield from documents(process.stdout)
        finally:
            timer.cancel()
            process.kill()
            process.wait()

    def account(self, namespace: str) -> str:
        """What a person would look at: Applications, Rollouts, pods, events and logs."""
        parts = [
            ("get", "applications.argoproj.io", "-n", "argocd", "-o", "json"),
            ("get", "rollouts.argoproj.io", "-n", namespace, "-o", "json"),
        ]
        told = [self._statuses(*part) for part in parts]
        for part in (
            ("get", "pods", "-n", namespace, "-o", "wide"),
            ("events", "-n", namespace, "--types=Warning"),
            ("logs", "-n", namespace, "--selector=app.kubernetes.io/name=triton", "--tail=15"),
        ):
            result = self.run(*part)
            told.append(f"$ kubectl {' '.join(part)}\n{(result.stdout + result.stderr)[-3000:]}")
        return "\n".join(told)

    def _statuses(self, *part: str) -> str:
        found = self.run(*part)
        objects = json.loads(found.stdout)["items"] if not found.returncode else []
        return "\n".join(
            f"{each['kind']} {each['metadata']['name']}: "
            + json.dumps({key: each.get("status", {}).get(key) for key in ("phase", "message")})
            + json.dumps(each.get("status", {}).get("conditions", ""))[:800]
            for each in objects
        )


def ten_in_a_row(holds: Callable[[], bool], otherwise: str, rest: float = 0) -> None:
    """Wait until something is true ten times, one after the other, with a rest after each look.

    While servers change it may be true of one and not of another. Raises AssertionError.
    """
    row, end = 0, time.monotonic() + PATIENCE
    while row < 10:
        assert time.monotonic() < end, otherwise
        row = row + 1 if holds() else 0
        time.sleep(rest)


def documents(stream: Iterator[str]) -> Iterator[Object]:
    """The JSON objects that follow each other in a stream of lines, each as soon as it is whole."""
    text = ""
    for line in stream:
        text += line
        if line.rstrip() == "}":  # kubectl indents what is inside of an object
            yield json.loads(text)
            text = ""
