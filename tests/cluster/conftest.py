"""A cluster for all tests, of this machine's own."""

import os
import shutil
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

import cluster_project
import installation
import network
import programs
from conftest import TEMPLATE, begin_with
from delivered import Delivered
from kubernetes_api import Kubernetes
from local_cluster import LocalCluster, cluster, folder_of

CACHE = TEMPLATE / ".cache" / "cluster"
# Where several processes share the tests, each has a cluster.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
# What takes longest, the longest first, and last what leaves nothing for other tests.
LONGEST = "test_gateway test_scaling test_faults test_judged test_bad_versions".split()
LAST = "test_way_down"
OUTSIDE = {name: network.address(1) for name in ("github.com", "raw.githubusercontent.com")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the files that take longest begin first, and the way down come last."""
    begin_with(LONGEST, items)
    items.sort(key=lambda item: item.path.stem == LAST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have every failure show what a person would look at; one that waited in vain has shown it."""
    report = yield
    here = getattr(item, "funcargs", {}).get("here")
    if report.failed and here and "$ kubectl" not in report.longreprtext:
        kubernetes = Kubernetes(here.kubeconfig)
        for namespace in (f"{cluster_project.NAME}-{each}" for each in ("staging", "production")):
            report.sections.append((namespace, kubernetes.account(namespace)))
    return report


def why_not() -> str:
    """Why no cluster can be made here; empty where it can."""
    if sys.platform != "linux" or os.geteuid():
        return "a cluster of its own needs Linux and root"
    packages = [name for file, name in programs.PACKAGES.items() if not Path(file).exists()]
    if missing := packages + [each for each in ("kubectl", "nsenter") if not shutil.which(each)]:
        return f"missing: {', '.join(missing)}"
    needed = [each for each in programs.programs().values() if not each.optional]
    unbuilt = [each.name for each in needed if not built(each).exists()]
    return f"not built yet: {', '.join(unbuilt)}" if unbuilt else ""


def built(program: programs.Program) -> Path:
    """Where `make test-cluster` builds a program."""
    return CACHE / "programs" / program.file


@pytest.fixture(scope="session")
def remotes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what the Git server serves."""
    return tmp_path_factory.mktemp("remotes")


@pytest.fixture(scope="session")
def here(remotes: Path) -> Iterator[LocalCluster]:
    """This machine's own cluster, with a registry and a Git server, and nothing installed."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CLUSTER_REQUIRED") else pytest.skip)(reason)
    registry, logs = (CACHE / name / WORKER for name in ("registry", "logs"))
    registry.mkdir(parents=True, exist_ok=True)
    (CACHE / "layers").mkdir(exist_ok=True)
    with FileLock(CACHE / "layers.lock"):
        installation.make_layers(CACHE / "layers")
    network.isolate()
    known = {
        name: built(each) for name, each in programs.programs().items() if built(each).exists()
    }
    with cluster(folder_of(os.getpid()), known, registry, OUTSIDE) as made:
        try:
            installation.push_images(made, CACHE / "layers")
            installation.serve_git(made, remotes, network.address(1))
            yield made
        finally:
            shutil.rmtree(logs, ignore_errors=True)
            shutil.copytree(made.logs, logs)


@pytest.fixture(scope="session")
def delivered(
    here: LocalCluster, tmp_path_factory: pytest.TempPathFactory, remotes: Path
) -> Delivered:
    """A project that Argo CD delivers from now on; nothing is released yet."""
    project = cluster_project.make_project(tmp_path_factory.mktemp("owner"), remotes)
    installation.place_upstream(remotes, project.folder / "argocd/base")
    made = Delivered(project, Kubernetes(here.kubeconfig), here, OUTSIDE)
    made.install()
    return made
