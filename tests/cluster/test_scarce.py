"""Without a GPU to spare: one server of the old version goes before one of the new comes."""

from collections.abc import Iterator

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
    with Traffic(address, {"http": 2}, keep=False) as traffic:
        delivered.project.deploy_release(release, ENVIRONMENT)
        delivered.see(ENVIRONMENT)
        for seen in delivered.kubernetes.watch("rollout/triton", place, PATIENCE):
            states.append(seen["status"])
            if healthy_with(seen, release.version):
                break
    delivered.answers(release, ENVIRONMENT)
    assert {each["replicas"] for each in states} <= {1, 2}, "never three"
    available = {each.get("availableReplicas", 0) for each in states}
    assert min(available) == 1, "one is missing while another starts"
    assert traffic.versions["http"].keys() == {before.version, release.version}
    assert not any(traffic.lost.values()), traffic.lost
