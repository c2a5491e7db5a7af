"""Without a GPU to spare: one server of the old version goes before one of the new comes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from delivered import Delivered, healthy_with
from delivery.proposals.release_file import Release
from kubernetes_api import PATIENCE, Object
from traffic import Traffic

ENVIRONMENT = "production"  # two servers


@pytest.fixture
def before(delivered: Delivered) -> Iterator[Release]:
    """What production serves, which has the component's line until the test is over."""
    release = delivered.serving()
    delivered.deploy(release, ENVIRONMENT)
    with delivered.having(component="scarce", environment=ENVIRONMENT):
        delivered.rollout(lambda seen: surge(seen) == 0, ENVIRONMENT)
        yield release
    delivered.deploy(release, ENVIRONMENT)
    delivered.rollout(lambda seen: surge(seen) == 1, ENVIRONMENT)


def surge(rollout: Object) -> int:
    """How many servers more a Rollout may have while versions change."""
    return int(rollout["spec"]["strategy"]["canary"]["maxSurge"])


def test_a_version_takes_no_server_more_and_loses_no_request(
    delivered: Delivered, before: Release
) -> None:
    release = delivered.project.build(delivered.next_version(), 0.94)
    place, states = delivered.namespace(ENVIRONMENT), []
    address = {"http": delivered.address("http", ENVIRONMENT)}
    with (
        ThreadPoolExecutor() as beside,
        Traffic(address, {"http": 2}, keep=False) as traffic,
    ):
        most = beside.submit(most_asked_for, delivered, release)
        delivered.project.deploy_release(release, ENVIRONMENT)
        delivered.see(ENVIRONMENT)
        for seen in delivered.kubernetes.watch("rollout/triton", place, PATIENCE):
            states.append(seen["status"])
            if healthy_with(seen, release.version):
                break
    delivered.answers_alone(release, seen, ENVIRONMENT)
    assert most.result() == 2, "never three"
    available = {each.get("availableReplicas", 0) for each in states}
    assert min(available) == 1, "one is missing while another starts"
    assert traffic.versions["http"].keys() == {before.version, release.version}
    assert not any(traffic.lost.values()), traffic.lost


def most_asked_for(delivered: Delivered, release: Release) -> int:
    """The most servers that all versions together were to have until a release has both.

    A Rollout tells of those that are there, also of one that is about to end.
    """
    asked: dict[str, int] = {}
    sums = []

    def has_both(replicas: Object) -> bool:
        asked[replicas["metadata"]["name"]] = replicas["spec"]["replicas"]
        sums.append(sum(asked.values()))
        version = replicas["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"]
        return version == str(release.version) and replicas["spec"]["replicas"] == 2

    place = delivered.namespace(ENVIRONMENT)
    delivered.kubernetes.until("replicasets", has_both, place, patience=2 * PATIENCE)
    return max(sums)
