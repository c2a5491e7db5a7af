"""Which figure takes bad versions away on a real cluster, after how many requests, and no good one.

    TRITON_VENV=.venv-triton .venv/bin/python benchmarks/caught_versions.py

It makes the cluster of `make test-cluster`, which must have run once. Three clients call staging
and three production, one request after the other; each version is merged in one of them and judged
as `components/judged` says, with the shorter windows of the tests. Staging has a monitor in its
path. While good versions are merged, a program that does nothing keeps a core busy.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "<<cookiecutter.project>>" / "src"))
sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "delivery"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "cluster"))

import numpy as np
import pytest

import results
from cluster_project import GOLDEN, ClusterProject, add_patches, patch
from delivered import Delivered, aborted, healthy_with
from delivery.proposals.release_file import Release
from test_judged import ENVIRONMENTS, called, judged, release_both, spec, taken_away

__all__ = ["judged"]  # a fixture, which pytest finds here

ROOT = Path(__file__).parents[1]
PLACE = "/spec/template/spec/containers/0/resources"
MEMORY = {f"{PLACE}/{name}/memory": "1Gi" for name in ("requests", "limits")}
FIGURE = re.compile(r'Metric "([\w-]+)" assessed')


def faulty(**faults: float) -> Callable[[ClusterProject, int], Release]:
    """Make a version with right golden answers, and with faults."""
    return lambda project, version: project.build_faulty(version, 0.91, **faults)


def mislabelled(project: ClusterProject, version: int) -> Release:
    """Make a version whose recorded answers are others than the model's."""
    project.write_model(0.92)
    file = project.folder / "artifacts/model/classifier/golden.npz"
    recorded = dict(np.load(file))
    recorded["probabilities"] = recorded["probabilities"][:, ::-1]
    np.savez(file, **recorded | {"labels": 1 - recorded["labels"]})
    return project.packaged(version)


VERSIONS: dict[str, Callable[[ClusterProject, int], Release]] = {
    "fails one request in 20": faulty(FAILS=20),
    "takes 100 ms longer": faulty(SECONDS=0.1),
    "its server ends after 8 s, each time": faulty(LIVES=8),
    "answers with other classes than recorded": mislabelled,
    "answers 99 % sure where 91 % were recorded": faulty(SURE=0.99),
    "keeps 50 MiB of each request, of 1 GiB": faulty(LEAKS=50),
    "is surer of what callers ask than of golden requests": faulty(SURE=0.99, FROM=GOLDEN),
    "its server ends at once": faulty(LIVES=0.1),
}
GOOD = 30


@pytest.fixture(scope="module", autouse=True)
def promised(judged: Delivered) -> None:
    """Servers have a limit of memory, and slowness the component's own; of 50 requests or more."""
    names = [each["name"] for each in spec()["args"]]
    values = {"slowness": "1.2", "requests": "50"}
    places = {f"/spec/args/{names.index(name)}/value": each for name, each in values.items()}
    for each in ENVIRONMENTS:  # merged with the first versions
        overlay = judged.project.path(each).with_name("kustomization.yaml")
        limits = patch("AnalysisTemplate", "live-figures", places)
        add_patches(overlay, patch("Rollout", "triton", MEMORY), limits)


def test_each_bad_version_is_taken_away(judged: Delivered) -> None:
    """Merge them in pairs; write table and figures."""
    names, found = list(VERSIONS), {}
    for pair in zip(names[::2], names[1::2], strict=True):
        first = judged.next_version()
        versions = range(first, first + len(pair))
        releases = [
            VERSIONS[name](judged.project, each) for name, each in zip(pair, versions, strict=True)
        ]
        with called(judged, *ENVIRONMENTS) as traffic:
            release_both(judged, *releases)
            for place, name in enumerate(pair):
                message = taken_away(judged, ENVIRONMENTS[place], releases[place])
                figure, callers = FIGURE.search(message), traffic[place]
                found[name] = {
                    "figure": figure[1] if figure else message,
                    "answered": callers.versions["http"][versions[place]],
                    "failed": sum(callers.lost["http"].values()),
                }
    rows = [[name, *map(str, figures.values())] for name, figures in found.items()]
    head = ["a version that", "is taken away by", "requests it answered", "requests that failed"]
    results.write("caught_versions", "Caught versions", results.table(head, rows), found)


def test_no_good_version_is_taken_away(judged: Delivered) -> None:
    """Merge one in each environment, pair after pair; count what became of them."""
    found: dict[str, Counter[str]] = {name: Counter() for name in ENVIRONMENTS}
    with noise(), called(judged, *ENVIRONMENTS) as traffic:
        for place in range(GOOD // len(ENVIRONMENTS)):
            version, accuracy = judged.next_version(), 0.92 + place / 1000
            releases = [judged.project.build(version + each, accuracy) for each in range(2)]
            release_both(judged, *releases)
            for name, release in zip(ENVIRONMENTS, releases, strict=True):
                found[name][outcome(judged, name, release)] += 1
    callers = dict(zip(ENVIRONMENTS, traffic, strict=True))
    lost = {name: sum(each.lost["http"].values()) for name, each in callers.items()}
    figures = {
        name: [counted["passed"], counted["taken away"], callers[name].answered, lost[name]]
        for name, counted in found.items()
    }
    rows = [[name, *(f"{each:,}" for each in row)] for name, row in figures.items()]
    head = ["good versions of", "passed", "taken away", "requests answered", "requests that failed"]
    results.write("good_versions", "Good versions", results.table(head, rows), figures)


@contextmanager
def noise() -> Iterator[None]:
    """Keep a core busy as long as the context lasts."""
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def outcome(judged: Delivered, environment: str, release: Release) -> str:
    """Wait until a release is served or was taken away; which of them it is."""
    version = release.version
    rollout = judged.rollout(
        lambda seen: healthy_with(seen, version) or aborted(seen, version), environment
    )
    return "taken away" if aborted(rollout, version) else "passed"


if __name__ == "__main__":
    fixtures = ["-p", "conftest", "-p", "cluster.conftest"]
    sys.exit(pytest.main([__file__, *fixtures, "--rootdir", str(ROOT), "-q", "-s", "-rs"]))
