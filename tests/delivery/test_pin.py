"""Pinning against a registry and a chart repository on loopback."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from conftest import UNBAKED, mark_root
from delivery.__main__ import main
from delivery.commands import pin as pinning
from delivery.commands.pin import pin
from delivery.manifests.rendering import build, rollout
from fake_registry import FakeRegistry, alone_with_registry
from workspace.errors import UserError

BASE = UNBAKED / "argocd/base"
CONTENT = b'{"schemaVersion": 2, "manifests": []}'
IMAGE = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
CHART = "a" * 64
GATEWAY = "v3.6.24"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRegistry]:
    """A registry with the servers' tags that is also every chart's repository."""
    with alone_with_registry(monkeypatch, tmp_path) as server:
        server.content["26.07-py3"] = server.content[GATEWAY] = CONTENT
        yield server


@pytest.fixture
def base(registry: FakeRegistry, tmp_path: Path) -> Path:
    """The shipped manifests, with every address changed to the registry's."""
    copy = tmp_path / "argocd/base"
    shutil.copytree(BASE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, image in (
        ("triton/rollout.yaml", "nvcr.io/nvidia/tritonserver"),
        ("components/gateway/deployment.yaml", "docker.io/library/traefik"),
    ):
        server = copy / name
        server.write_text(server.read_text().replace(image, registry.name))
    entries = {}
    for path in (copy / "platform/controllers").glob("*.yaml"):
        chart = yaml.safe_load(path.read_text())
        address = f"http://127.0.0.1:{registry.server_port}"
        path.write_text(path.read_text().replace(chart["repository"], address))
        entries[chart["chart"]] = [
            {"version": "0.0.1", "digest": "b" * 64},
            {"version": chart["version"], "digest": CHART},
        ]
    registry.content["index.yaml"] = yaml.safe_dump({"entries": entries}).encode()
    return copy


def texts(base: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in base.rglob("*") if path.is_file()}


def test_tags_and_versions_become_digests_and_nothing_else_changes(
    base: Path, registry: FakeRegistry
) -> None:
    before = texts(base)
    lines = pin(base)
    (container,) = rollout(build(base / "triton"))["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{registry.name}:26.07-py3@{IMAGE}"
    charts = [yaml.safe_load(each.read_text()) for each in base.glob("platform/controllers/*")]
    assert {chart["digest"] for chart in charts} == {f"sha256:{CHART}"}
    gateway = (base / "components/gateway/deployment.yaml").read_text()
    assert f" {registry.name}:{GATEWAY}@{IMAGE}\n" in gateway
    assert len(lines) == 2 + len(charts)
    for path, text in texts(base).items():
        kept = text.replace(f"@{IMAGE}", "").replace(f"digest: sha256:{CHART}\n", "")
        assert kept == before[path], path


def test_pinning_again_changes_nothing(base: Path) -> None:
    pin(base)
    before = texts(base)
    pin(base)
    assert texts(base) == before


def test_a_new_version_is_pinned_in_place_of_the_old(base: Path, registry: FakeRegistry) -> None:
    pin(base)
    server = base / "triton/rollout.yaml"
    server.write_text(server.read_text().replace(f"26.07-py3@{IMAGE}", "26.08-py3"))
    registry.content["26.08-py3"] = b"{}"
    pin(base)
    assert f":26.08-py3@sha256:{hashlib.sha256(b'{}').hexdigest()}\n" in server.read_text()


def tag_moved(base: Path, registry: FakeRegistry) -> None:
    pin(base)
    registry.content["26.07-py3"] = b"{}"


def chart_published_again(base: Path, registry: FakeRegistry) -> None:
    pin(base)
    registry.content["index.yaml"] = registry.content["index.yaml"].replace(b"a" * 64, b"c" * 64)


def tag_unknown(base: Path, registry: FakeRegistry) -> None:
    del registry.content["26.07-py3"]


def chart_version_unknown(base: Path, registry: FakeRegistry) -> None:
    index = registry.content["index.yaml"]
    registry.content["index.yaml"] = index.replace(b"2.41.0", b"2.40.0")


def index_is_a_web_page(base: Path, registry: FakeRegistry) -> None:
    registry.content["index.yaml"] = b"<html>{{ not: [yaml</html>"


def index_without_end(base: Path, registry: FakeRegistry) -> None:
    registry.content["index.yaml"] = b"#" * (pinning.LARGEST + 1)


def registry_is_down_for_the_last_chart(base: Path, registry: FakeRegistry) -> None:
    last = max((base / "platform/controllers").glob("*.yaml"))
    last.write_text(last.read_text().replace(f":{registry.server_port}", ":1"))


def controller_without_a_chart(base: Path, registry: FakeRegistry) -> None:
    (base / "platform/controllers/new.yaml").write_text("version: 1.0.0\n")


def two_images(base: Path, registry: FakeRegistry) -> None:
    server = base / "triton/rollout.yaml"
    server.write_text(server.read_text() + "# \n    image: busybox/busybox:1.37\n")


Fault = Callable[[Path, FakeRegistry], None]
FAULTS: dict[Fault, str] = {
    tag_moved: "take another version",
    chart_published_again: "take another version",
    tag_unknown: "has no tag 26.07-py3",
    chart_version_unknown: "argo-rollouts 2.41.0",
    index_is_a_web_page: "index of a chart repository",
    index_without_end: r"index.yaml is larger than 67,108,864 bytes",
    registry_is_down_for_the_last_chart: "no answer from",
    controller_without_a_chart: "new.yaml: 'repository' is missing: give the address",
    two_images: "2 lines",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_one_sentence_and_leaves_every_file_alone(
    fault: Fault, base: Path, registry: FakeRegistry
) -> None:
    fault(base, registry)
    before = texts(base)
    with pytest.raises(UserError, match=FAULTS[fault]) as refusal:
        pin(base)
    assert "\n" not in str(refusal.value)
    assert texts(base) == before


def test_the_command_prints_what_it_found(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_root(base.parent.parent)
    monkeypatch.chdir(base.parent.parent)
    assert main(["pin"]) == 0
    printed = capsys.readouterr()
    assert f"keda 2.20.2 sha256:{CHART}" in printed.out
    assert "pin:" not in printed.err, "progress where there is no terminal"


def drop_the_digest(base: Path, registry: FakeRegistry) -> None:
    server = base / "triton/rollout.yaml"
    server.write_text(server.read_text().replace(f"@{IMAGE}", ""))


def add_the_address(base: Path, registry: FakeRegistry) -> None:
    (base / "platform/controllers/new.yaml").unlink()


def leave_one_image(base: Path, registry: FakeRegistry) -> None:
    server = base / "triton/rollout.yaml"
    server.write_text(server.read_text().replace("# \n    image: busybox/busybox:1.37\n", ""))


def drop_the_charts_digest(base: Path, registry: FakeRegistry) -> None:
    for path in (base / "platform/controllers").glob("*.yaml"):
        path.write_text(path.read_text().replace(f"digest: sha256:{CHART}\n", ""))


def take_a_tag_that_was_published(base: Path, registry: FakeRegistry) -> None:
    server = base / "triton/rollout.yaml"
    server.write_text(server.read_text().replace(":26.07-py3", ":26.08-py3"))
    registry.content["26.08-py3"] = CONTENT


def take_a_version_that_is_listed(base: Path, registry: FakeRegistry) -> None:
    for path in (base / "platform/controllers").glob("*.yaml"):
        path.write_text(path.read_text().replace("version: 2.41.0", "version: 2.40.0"))


def give_an_index(base: Path, registry: FakeRegistry) -> None:
    registry.content["index.yaml"] = registry.content["kept"]


def version_left_out(base: Path, registry: FakeRegistry) -> None:
    chart = min((base / "platform/controllers").glob("*.yaml"))
    version = yaml.safe_load(chart.read_text())["version"]
    chart.write_text(chart.read_text().replace(f"version: {version}", f'"version": {version}'))


def add_the_version(base: Path, registry: FakeRegistry) -> None:
    chart = min((base / "platform/controllers").glob("*.yaml"))
    chart.write_text(chart.read_text().replace('"version":', "version:"))


def try_again(base: Path, registry: FakeRegistry) -> None:
    last = max((base / "platform/controllers").glob("*.yaml"))
    last.write_text(last.read_text().replace(":1\n", f":{registry.server_port}\n"))


CURES: dict[Fault, Fault] = {
    tag_moved: drop_the_digest,
    chart_published_again: drop_the_charts_digest,
    tag_unknown: take_a_tag_that_was_published,
    chart_version_unknown: take_a_version_that_is_listed,
    index_is_a_web_page: give_an_index,
    index_without_end: give_an_index,
    registry_is_down_for_the_last_chart: try_again,
    version_left_out: add_the_version,
    controller_without_a_chart: add_the_address,
    two_images: leave_one_image,
}


@pytest.mark.parametrize("fault", CURES, ids=lambda fault: fault.__name__)
def test_what_a_refusal_says_helps(fault: Fault, base: Path, registry: FakeRegistry) -> None:
    registry.content["kept"] = registry.content["index.yaml"]
    fault(base, registry)
    with pytest.raises(UserError):
        pin(base)
    CURES[fault](base, registry)
    assert pin(base)
