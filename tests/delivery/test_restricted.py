"""What callers of a server with the manifests' arguments may do, and what administrators may."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import TEMPLATE
from delivery.manifests.server_pod import ServerPod, read_server_pod
from delivery.triton import http2, restricted
from delivery.triton.client import PROTOCOLS, connect
from delivery.triton.loopback import HOST
from delivery.triton.server import Server, ready_path, start
from tiny import SHAPE, write_repository

VALUE = "0123456789abcdef"


def manifest() -> dict:
    document = yaml.safe_load((TEMPLATE / "argocd/triton/rollout.yaml").read_text())
    document["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"] = "1"
    return document


@pytest.fixture(scope="module")
def pod() -> ServerPod:
    return read_server_pod({("Rollout", "triton"): manifest()})


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(pod: ServerPod, repository: Path) -> Iterator[Server]:
    known = replace(pod, settings=(("ADMINISTRATION", VALUE),))
    with start(repository, repository / "log", arguments=known.expanded()) as running:
        running.wait(ready_path(1), 300)
        yield running


def ask(port: int, request: str, **headers: str) -> int:
    """Return the status of a request such as `GET /v2`."""
    method, path = request.split()
    url = f"http://{HOST}:{port}{path}"
    asked = urllib.request.Request(url, method=method, headers=headers)
    asked.data = b"{}" if method == "POST" else None
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as refusal:
        return refusal.code


@pytest.mark.parametrize(
    "request_",
    [
        "GET /v2/systemsharedmemory/status",
        "GET /v2/cudasharedmemory/status",
        "POST /v2/systemsharedmemory/region/x/register",
        "POST /v2/systemsharedmemory/unregister",
        "GET /v2/models/classifier/config",
        "GET /v2/models/classifier/versions/1/config",
        "POST /v2/repository/index",
        "POST /v2/repository/models/classifier/load",
        "POST /v2/repository/models/classifier/unload",
        "GET /v2/models/stats",
        "GET /v2/models/classifier/stats",
        "GET /v2/models/classifier/versions/1/stats",
        "GET /v2/trace/setting",
        "POST /v2/trace/setting",
        "POST /v2/models/classifier/trace/setting",
        "GET /v2/logging",
        "POST /v2/logging",
    ],
)
def test_administration_is_refused(server: Server, request_: str) -> None:
    assert ask(server.ports.http, request_) == 403
    assert ask(server.ports.http, request_, administration="guessed") == 403
    assert ask(server.ports.http, request_, administration=VALUE) != 403


@pytest.mark.parametrize(
    "path",
    ["health/live", "health/ready", "", "models/classifier", "models/classifier/versions/1/ready"],
)
def test_what_probes_and_callers_need_is_answered(server: Server, path: str) -> None:
    assert ask(server.ports.http, f"GET /v2/{path}".rstrip("/")) == 200


def test_metrics_are_scraped_as_before(server: Server) -> None:
    assert ask(server.ports.metrics, "GET /metrics") == 200


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_as_the_manifests_say_has_no_faults(server: Server, protocol: str) -> None:
    assert restricted.faults(protocol, server.ports) == []
    with connect(protocol, server.ports) as client:
        assert client.infer(np.zeros((1, *SHAPE), np.uint8)).version == 1


@pytest.fixture(scope="module")
def closed(repository: Path) -> Iterator[Server]:
    """A server whose manifests restrict too much, and only some of what they must."""
    arguments = [
        f"--{flag}=metadata,statistics:key=value"
        for flag in ("http-restricted-api", "grpc-restricted-protocol")
    ]
    with start(repository, repository / "closed.log", arguments=arguments) as running:
        running.wait(ready_path(1), 300)
        yield running


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_restrictions_are_named(closed: Server, protocol: str) -> None:
    *too_open, too_closed = restricted.faults(protocol, closed.ports)
    missing = [name for name in restricted.RESTRICTED if name != "statistics"]
    assert too_open == [f"{name} answers everyone" for name in missing]
    assert too_closed.startswith("metadata does not answer: the server refused")


# -- how long connections live ---------------------------------------------------------------------


def test_grpc_clients_are_asked_to_connect_anew(server: Server) -> None:
    """Here in seconds, as the manifest's number is milliseconds; never without the argument."""

    async def asked() -> bool:
        peer = await http2.connect(server.ports.grpc)
        await peer.flush()
        async with asyncio.timeout(30):
            async for _ in peer.events():
                await peer.flush()
        peer.writer.close()
        return peer.leaving

    assert asyncio.run(asked())


# -- what the kubelet fills in ---------------------------------------------------------------------


def test_the_value_is_made_for_the_occasion(pod: ServerPod) -> None:
    first, second = (
        dict(each.split(":administration=") for each in pod.expanded() if ":adm" in each)
        for _ in range(2)
    )
    assert len(first) == 2 and len(set(first.values())) == 1
    assert all(len(value) == 64 for value in first.values())
    assert [*first.values()] != [*second.values()] and first.keys() == second.keys()
    assert pod == read_server_pod({("Rollout", "triton"): manifest()}), "no reason to sync"


@pytest.mark.parametrize(
    ("written", "filled_in"),
    [
        ("--a=$(NAME)", "--a=value"),
        ("--a=$(NAME)-$(NAME)", "--a=value-value"),
        ("--a=$$(NAME)", "--a=$(NAME)"),
        ("--a=$(OTHER)", "--a=$(OTHER)"),
        ("--a=$(FIELD)", "--a=$(FIELD)"),
        ("--a=$NAME", "--a=$NAME"),
        ("--a=$(EMPTY)", "--a="),
    ],
)
def test_variables_are_filled_in_as_kubernetes_does(written: str, filled_in: str) -> None:
    rollout = manifest()
    (container,) = rollout["spec"]["template"]["spec"]["containers"]
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    container["env"] = [{"name": "NAME", "value": "value"}, {"name": "EMPTY"}]
    container["env"] += [{"name": "FIELD", "valueFrom": field}]
    container["args"].append(written)
    assert read_server_pod({("Rollout", "triton"): rollout}).expanded()[-1] == filled_in
