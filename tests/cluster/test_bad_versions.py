"""Versions that cannot serve: the ones before them go on, and people are told why.

Each environment gets another one at the same time, because it takes a minute to be sure.
"""

import dataclasses
import time

import pytest

from delivered import Delivered
from delivery.proposals.release_file import Release


@pytest.fixture(scope="module")
def serving(delivered: Delivered) -> Delivered:
    """Staging and production serve."""
    release = delivered.serving()
    if not delivered.project.path("production").exists():
        delivered.deploy(release, "production")
    delivered.served(delivered.project.released("production"), "production")
    return delivered


def test_them(serving: Delivered) -> None:
    project = serving.project
    served = project.released()
    bad = project.build(serving.next_version(), 0.97)
    project.write_model(0.98)
    (project.folder / "artifacts/model/classifier/model.onnx").write_bytes(b"no graph")
    crash = project.packaged(serving.next_version())
    missing = bad.model_copy(update={"image": bad.image[:-4] + "0000"})
    project.deploy_release(crash)
    project.deploy_release(missing, "production")
    begun = time.monotonic()
    serving.see()
    serving.see("production")
    for environment in ("production", "staging"):
        seen = serving.rollout(lambda seen: seen["status"].get("phase") == "Degraded", environment)
        print(environment, time.monotonic() - begun, seen["status"]["message"])
        print(
            serving.kubernetes.kubectl(
                "get", "analysisruns", "-n", serving.namespace(environment), "-o", "yaml"
            )
        )
        print(
            serving.kubernetes.kubectl(
                "get", "application", serving.namespace(environment), "-n", "argocd", "-o", "yaml"
            )
        )
        print(
            serving.kubernetes.kubectl(
                "get", "rollout", "triton", "-n", serving.namespace(environment), "-o", "yaml"
            )
        )
    assert 0
