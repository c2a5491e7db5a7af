"""The time from a merge to the version that serves, part by part, on a real cluster.

    TRITON_VENV=.venv-triton .venv/bin/python benchmarks/merge_to_served.py

It makes the cluster of `make test-cluster`, which must have run once, delivers a project with a
tiny model to it, merges one version after the other and records what Kubernetes, Argo CD and Argo
Rollouts say of themselves meanwhile. In half of the rounds Argo CD is told of the merge as GitHub's
webhook tells it, in the others it has to look. What is measured is the way, not the load of a large
model or a new node.
"""

import json
import random
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "<<cookiecutter.project>>" / "src"))
sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "delivery"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "cluster"))

import pytest
from tqdm import tqdm

import results
from cluster_project import NAME, OWNER, push_event
from delivered import Delivered, healthy_with, synced
from kubernetes_api import documents
from merge_timeline import PARTS, PICTURE, Record, draw, durations, moments

ROOT = Path(__file__).parents[1]
ROUNDS = 3  # of each kind
POLL = 60  # seconds in which a merge of the rounds without webhook comes, at any time
LATE = 20  # seconds that the recorder may hear of something later than the rest
BOTH = ("webhook", "polling")


@dataclass
class Recorder:
    """What was heard of a cluster's objects, and when Git was asked for its branches."""

    records: list[Record] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)

    def hear(self, stream: Iterator[str]) -> None:
        """Note every object of kubectl's stream when its last line comes."""
        for each in documents(stream):
            self.records.append(Record(time.time(), each))

    def listen(self, stream: Iterator[str]) -> None:
        """Note every question to the Git server for its branches."""
        for line in stream:
            if "info/refs" in line:
                self.asked.append(time.time())


@contextmanager
def recorded(delivered: Delivered) -> Iterator[Recorder]:
    """Record an environment's Application, Rollout and pods, as long as the context lasts."""
    namespace = delivered.namespace()
    kubectl = ["kubectl", f"--kubeconfig={delivered.kubernetes.kubeconfig}", "get", "-w", "-ojson"]
    only = f"--field-selector=metadata.name={namespace}"
    git = ["tail", "--lines=0", "--follow", str(delivered.here.logs / "git.log")]
    recorder = Recorder()
    watches = [
        ([*kubectl, "applications.argoproj.io", "-n", "argocd", only], recorder.hear),
        ([*kubectl, "rollouts.argoproj.io", "-n", namespace], recorder.hear),
        ([*kubectl, "pods", "-n", namespace], recorder.hear),
        (git, recorder.listen),
    ]
    with following(watches):
        yield recorder


@contextmanager
def following(watches: Sequence[tuple[list[str], Any]]) -> Iterator[None]:
    """Run programs, and what reads from each in a thread."""
    started = [
        (subprocess.Popen(command, stdout=subprocess.PIPE, text=True), reader)
        for command, reader in watches
    ]
    threads = [threading.Thread(target=read, args=[each.stdout]) for each, read in started]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()


def tell(delivered: Delivered, commit: str) -> None:
    """Tell both of Argo CD's endpoints of a push, as GitHub does."""
    changed = "argocd/environments/staging/model.yaml"
    body = json.dumps(push_event(f"{OWNER}/{NAME}", commit, changed)).encode()
    headers = {"Content-Type": "application/json", "X-GitHub-Event": "push"}
    context = ssl._create_unverified_context()  # the server makes its own certificate
    for scheme, name, port in (
        ("https", "argocd-server", 443),
        ("http", "argocd-applicationset-controller", 7000),
    ):
        address = delivered.kubernetes.get(f"service/{name}")["spec"]["clusterIP"]
        delivered.here.wait_for_port(address, port)
        request = Request(f"{scheme}://{address}:{port}/api/webhook", body, headers)
        urlopen(request, context=context if scheme == "https" else None, timeout=30).close()


def hear_webhooks(delivered: Delivered) -> None:
    """Start anew, as `make webhook` does, who hears of no push if a Secret was made later."""
    controller = ("deployment/argocd-applicationset-controller", "--namespace=argocd")
    for command in ("restart", "status"):
        delivered.kubernetes.kubectl("rollout", command, *controller)


def measure(delivered: Delivered, version: int, told: bool) -> dict[str, float]:
    """Merge a version; return the seconds of each part until it serves."""
    release = delivered.project.build(version, 0.9 + version / 1000)
    with recorded(delivered) as recorder:
        if not told:
            time.sleep(random.uniform(0, POLL))
        commit = delivered.project.deploy_release(release)
        merged = time.time()
        if told:
            tell(delivered, commit)
        delivered.kubernetes.until(
            "rollout/triton",
            lambda seen: healthy_with(seen, version),
            delivered.namespace(),
            patience=600,
        )
        application = f"application/{delivered.namespace()}"  # which nobody asks to look
        delivered.kubernetes.until(application, synced, patience=600)
        end = time.monotonic() + LATE
        while True:
            ends = moments(recorder.records, recorder.asked, merged, commit, version)
            if ends.keys() == PARTS.keys():
                return durations(merged, ends)
            assert time.monotonic() < end, f"never seen: {PARTS.keys() - ends.keys()}"
            time.sleep(0.1)


def test_the_time_from_merge_to_served(delivered: Delivered) -> None:
    """Measure all rounds, in turns; write table, figures and picture."""
    first = delivered.serving().version + 1
    hear_webhooks(delivered)
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in BOTH}
    for version in tqdm(range(first, first + 2 * ROUNDS), unit="merge"):
        kind = BOTH[(version - first) % 2]
        rounds[kind].append(measure(delivered, version, told=kind == "webhook"))
    report(rounds)


def report(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Write a table of the medians, and the figures of every round."""
    medians = {
        kind: {part: statistics.median(each[part] for each in found) for part in PARTS}
        for kind, found in rounds.items()
    }
    rows = [
        [f"{part}: {what}", *(f"{medians[kind][part]:.1f}" for kind in BOTH)]
        for part, what in PARTS.items()
    ]
    spans = {kind: [sum(each.values()) for each in found] for kind, found in rounds.items()}
    rows.append(["in all", *(f"{statistics.median(spans[kind]):.0f}" for kind in BOTH)])
    seen = {kind: [each["seen"] for each in found] for kind, found in rounds.items()}
    between = {kind: f"{min(each):.1f} to {max(each):.1f}" for kind, each in seen.items()}
    rows.append(["seen, from the shortest to the longest", *(between[kind] for kind in BOTH)])
    body = f"Seconds, medians of {len(rounds[BOTH[0]])} merges each.\n\n"
    body += results.table(["until", *BOTH], rows)
    PICTURE.write_text(draw(medians))
    results.write(
        "merge_to_served", "From merge to served", body, {"medians": medians, "rounds": rounds}
    )


if __name__ == "__main__":
    fixtures = ["-p", "conftest", "-p", "cluster.conftest"]
    sys.exit(pytest.main([__file__, *fixtures, "--rootdir", str(ROOT), "-q", "-s", "-rs"]))
