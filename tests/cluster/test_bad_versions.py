"""Versions that cannot serve: the ones before them go on, and people are told why.

Three environments get one each at the same time, because it takes a while to be sure of a crash:
staging a model whose graph does not load, production one that answers otherwise than recorded, and
one more environment one whose image is nowhere.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import cluster_project
import github_api
from cluster_project import GOLDEN
from delivered import Delivered, aborted
from delivery.proposals.release_file import Release
from kubernetes_api import Object
from notifications import listen, secret, settings
from traffic import Traffic

QA = "qa"


@pytest.fixture(scope="module")
def before(delivered: Delivered) -> Iterator[Release]:
    """What all three environments serve; all of them do again at the end."""
    release = delivered.serving()
    project = delivered.project
    overlay = project.folder / "argocd/environments/staging/kustomization.yaml"
    added = project.path(QA)
    added.parent.mkdir()
    try:
        text = overlay.read_text().replace("-staging", f"-{QA}")
        (added.parent / overlay.name).write_text(text)
        delivered.run("sh", "argocd/base/administration.sh")
        delivered.deploy(release, "production", QA)
        yield release
    finally:
        shutil.rmtree(added.parent)
        project.commit(f"Remove the environment {QA}")
        delivered.deploy(release, "production")
        name = delivered.namespace(QA)
        for each in (f"application/{name}", f"namespace/{name}"):
            delivered.kubernetes.kubectl("delete", each, "-n", "argocd", "--wait=false")


@pytest.fixture(scope="module")
def bad(delivered: Delivered, before: Release) -> dict[str, Release]:
    """The bad release that each environment got, once Argo Rollouts is done with it.

    Clients lose nothing meanwhile, wherever they call.
    """
    project, version = delivered.project, delivered.next_version()
    model = project.folder / "artifacts/model/classifier"
    project.write_model(0.91)
    (model / "1/model.onnx").write_bytes(b"no graph")
    found = {"staging": project.packaged(version + 1)}
    project.write_model(0.92)
    recorded = dict(np.load(model / "golden.npz"))
    recorded["probabilities"] = recorded["probabilities"][:, ::-1]
    np.savez(model / "golden.npz", **recorded | {"labels": 1 - recorded["labels"]})
    found["production"] = project.packaged(version)
    nowhere = f"{cluster_project.REGISTRY}/{cluster_project.NAME}@sha256:{'0' * 64}"
    found[QA] = before.model_copy(update={"version": version + 2, "image": nowhere})
    with ExitStack() as calling:
        callers = [calling.enter_context(calls(delivered, each)) for each in found]
        for environment, release in found.items():
            project.deploy_release(release, environment)
            delivered.see(environment)
        for environment in found:
            delivered.rollout(aborted, environment)
        for each in callers:
            each.until_answered(100)
    for each in callers:
        assert not any(each.lost.values()), each.lost
    return found


def calls(delivered: Delivered, environment: str) -> Traffic:
    """A client of each protocol, which connects anew for each request."""
    return Traffic(delivered.reachable(environment), {"http": 1, "grpc": 1}, keep=False)


@pytest.mark.parametrize(
    ("environment", "metric"), [("staging", "starts"), (QA, "starts"), ("production", "answers")]
)
def test_the_version_before_goes_on(
    delivered: Delivered, before: Release, bad: dict[str, Release], environment: str, metric: str
) -> None:
    delivered.application(
        lambda seen: seen["status"]["health"]["status"] == "Degraded", environment
    )
    rollout = delivered.rollout(aborted, environment)
    delivered.answers_alone(before, rollout, environment)
    assert f'Metric "{metric}" assessed Failed' in rollout["status"]["message"], "not the deadline"


def test_status_says_why(delivered: Delivered, bad: dict[str, Release]) -> None:
    result = delivered.command("status")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    told = {line.split()[0]: lines[place + 1] for place, line in enumerate(lines) if "Git:" in line}
    taken = "it was taken away again, because"
    crashed = f"model {bad['staging'].version}: {taken} its container crashed with exit status 1 ("
    assert crashed in told["staging"]
    wrong = f"model {bad['production'].version}: {taken} its golden requests were not answered"
    none = f"{GOLDEN} of {GOLDEN} answers are not as recorded: class "
    assert f"{wrong} as recorded ({none}" in told["production"]
    pulled = f"model {bad[QA].version}: {taken} an image cannot be pulled ("
    assert pulled in told[QA] and "0" * 64 in told[QA]


@pytest.fixture(scope="module")
def told(
    delivered: Delivered, bad: dict[str, Release], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """What a GitHub is told, which Argo CD's notifications know from now on."""
    file, address = listen(delivered.here, tmp_path_factory.mktemp("github"))
    delivered.kubernetes.apply([secret(), settings(address)])
    for environment in bad:
        delivered.see(environment)  # the controller looks at what changes
    yield file
    nothing = ("--type=merge", '--patch={"data":null}')
    delivered.kubernetes.kubectl(
        "patch", "configmap/argocd-notifications-cm", *nothing, "-n", "argocd"
    )
    delivered.here.stop("github")


def has_told(trigger: str) -> Callable[[Object], bool]:
    """Whether GitHub was told of an Application, as the controller notes on it."""
    noted = "notified.notifications.argoproj.io"
    return lambda seen: f'"{trigger}:' in seen["metadata"].get("annotations", {}).get(noted, "")


def statuses(file: Path, environment: str) -> list[tuple[str, str]]:
    """State and commit of each status that GitHub was told of an environment."""
    found = [each for each in github_api.read(file) if "context" in each["body"]]
    found = [each for each in found if each["body"]["context"] == f"{environment}/healthy"]
    return [(each["body"]["state"], each["path"].rpartition("/")[2]) for each in found]


def test_github_is_told_of_each_release_that_was_taken_away(
    delivered: Delivered, bad: dict[str, Release], told: Path
) -> None:
    for environment in bad:
        delivered.application(has_told("degraded"), environment)
        found = {*statuses(told, environment)}  # it may be told twice
        assert len(found) == 1 and {state for state, _ in found} == {"failure"}, found
    failed = [each["body"] for each in github_api.read(told) if "ref" in each["body"]]
    assert {each["environment"] for each in failed} == {*bad}
    head = delivered.project.git("rev-parse", "HEAD")
    assert {each["ref"] for each in failed} <= {*delivered.project.git("rev-list", head).split()}, (
        "a deployment names the commit"
    )


def test_what_was_taken_away_is_not_promoted_and_a_rollback_heals(
    delivered: Delivered, before: Release, bad: dict[str, Release]
) -> None:
    refused = delivered.command("promote")
    version = bad["staging"].version
    assert refused.returncode == 1
    assert f"staging does not serve model {version}: it was taken away again" in refused.stderr
    assert delivered.command("rollback", "staging").returncode == 0
    branch = f"rollback/staging-v{version}-to-v{before.version}"
    project = delivered.project
    said = project.git("log", "-1", "--format=%B", branch, folder=project.origin)
    assert f"**Model {version} is not served well:** it was taken away again, because its" in said
    project.merge(branch)
    delivered.served(before)
    assert "running: model" in delivered.command("status").stdout


def test_github_is_told_that_staging_is_well_again(delivered: Delivered, told: Path) -> None:
    delivered.application(has_told("healthy"))
    state, commit = statuses(told, "staging")[-1]
    assert (state, commit) == ("success", delivered.project.git("rev-parse", "HEAD"))
