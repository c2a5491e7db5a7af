"""A gateway before staging: who may call, how requests are shared, and that bumps lose none."""

import secrets
import ssl
import subprocess
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import gevent.ssl
import pytest
import tritonclient.grpc
import tritonclient.grpc.auth
import tritonclient.http
import tritonclient.http.auth
import trustme
import yaml

import installation
import measuring
import test_judged
from cluster_project import NAME, add_component, hurry, patch
from delivered import Delivered, healthy_with, synced
from kubernetes_api import PATIENCE, Object, ten_in_a_row
from traffic import Traffic, picture

STAGING = f"{NAME}-staging"
OVERLAY = "argocd/environments/staging/kustomization.yaml"
HOST, CALLER = "gateway.test", "shop"
CLIENTS = {"http": 6, "grpc": 6}
BUMPS = 20
RARELY = 0.15  # seconds from an answer to the next question, as two versions start at a time
ENVIRONMENTS = ("staging", "production")
INFER = "/v2/models/classifier/infer"
QUESTION = (
    b'{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 1, 1, 1], "data": [0]}]}'
)


@dataclass(frozen=True)
class Gateway:
    """The gateway of staging, as its callers know it.

    Attributes:
        address: `<host>:<port>`.
        authority: the file with the certificate that it is known by.
        password: of the one caller.
    """

    delivered: Delivered
    address: str
    authority: Path
    password: str

    def connect(self, protocol: str, address: str) -> Any:
        """NVIDIA's client over TLS, with a name and a password."""
        if protocol == "grpc":
            named = [("grpc.ssl_target_name_override", HOST)]
            client = tritonclient.grpc.InferenceServerClient(
                address, ssl=True, root_certificates=str(self.authority), channel_args=named
            )
            client.register_plugin(tritonclient.grpc.auth.BasicAuth(CALLER, self.password))
            return client
        client = tritonclient.http.InferenceServerClient(
            address,
            ssl=True,
            ssl_options={"ca_certs": str(self.authority), "server_hostname": HOST},
            ssl_context_factory=gevent.ssl.create_default_context,
        )
        client.register_plugin(tritonclient.http.auth.BasicAuth(CALLER, self.password))
        return client

    def traffic(self, rest: float = 0.05) -> Traffic:
        """Clients of both protocols that keep their connections."""
        address = dict.fromkeys(CLIENTS, self.address)
        return Traffic(address, CLIENTS, rest=rest, connect=self.connect)

    def status(
        self,
        path: str,
        body: bytes | None = None,
        shown: tuple[str, str] | None = None,
        **headers: str,
    ) -> int:
        """The status of an answer over HTTP; `shown` are files of a certificate and its key."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.check_hostname = False  # it is called by its address here
        if shown:
            context.load_cert_chain(*shown)
        try:
            with urlopen(
                Request(f"https://{self.address}{path}", body, headers), context=context, timeout=60
            ) as answer:
                return answer.status
        except HTTPError as refusal:
            return refusal.code

    @property
    def authorization(self) -> str:
        """What a caller with a password says."""
        return f"Basic {b64encode(f'{CALLER}:{self.password}'.encode()).decode()}"


@pytest.fixture(scope="module")
def gateway(delivered: Delivered) -> Iterator[Gateway]:
    """The gateway is opened by its line, and closed again by taking the line away."""
    installation.optional(delivered.here, "traefik")
    release = delivered.serving()
    delivered.look_at("gateway-kinds")
    delivered.kubernetes.until("application/gateway-kinds", synced)
    password = make_secrets(delivered)
    overlay = delivered.project.folder / OVERLAY
    before = overlay.read_text()
    try:
        overlay.write_text(opened(before))
        delivered.project.commit("Open the gateway")
        delivered.see()
        delivered.kubernetes.until("deployment/gateway", whole, STAGING)
        delivered.go_on()
        delivered.served(release)
        service = delivered.kubernetes.get("service/gateway", STAGING)
        authority = delivered.here.folder / "authority.crt"
        made = Gateway(delivered, f"{service['spec']['clusterIP']}:443", authority, password)
        leads_there(made)
        yield made
    finally:
        overlay.write_text(before)
        delivered.project.commit("Close the gateway")
        delivered.see()
        gone = ("--for=delete", f"--timeout={PATIENCE}s", "-n", STAGING)
        delivered.kubernetes.kubectl("wait", "deployment/gateway", "ingressroute/model", *gone)
        delivered.served(delivered.project.released())


def leads_there(gateway: Gateway) -> None:
    """Wait until ten requests in a row reach the servers that are not about to end."""

    def reached() -> bool:
        before, status = requests(gateway.delivered), 0
        with suppress(OSError):  # a gateway that is about to end may ask for something else
            status = gateway.status(INFER, QUESTION, authorization=gateway.authorization)
        return status == 200 and requests(gateway.delivered) == before + 1

    ten_in_a_row(reached, "the gateway does not lead to what serves")


def opened(overlay: str) -> str:
    """An overlay with the gateway, and with a pause, which the cluster's project takes away."""
    settings = yaml.safe_load(overlay)
    settings["components"].append("../../base/components/gateway")
    settings["patches"] = [each for each in settings["patches"] if "pause" not in each["patch"]]
    long = {"/spec/strategy/canary/steps/4/pause/duration": "30m"}  # until a test has it go on
    settings["patches"].append(patch("Rollout", "triton", long))
    return yaml.safe_dump(settings)


def make_secrets(delivered: Delivered) -> str:
    """The Secrets as `argocd/README.md` has them; the caller's password."""
    certificate, key = delivered.here.issue("gateway", HOST)
    kubectl = ("kubectl", "--namespace", STAGING, "create", "secret")
    delivered.run(*kubectl, "tls", "gateway-tls", f"--cert={certificate}", f"--key={key}")
    password = secrets.token_hex(32)
    digest = b64encode(sha1(password.encode()).digest()).decode()
    callers = delivered.here.write("callers", f"{CALLER}:{{SHA}}{digest}\n")
    delivered.run(*kubectl, "generic", "gateway-callers", f"--from-file=users={callers}")
    return password


def whole(deployment: Object) -> bool:
    """Whether all of its pods are ready, of the newest kind, and no others are there."""
    status, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    counted = {status.get(kind) for kind in ("replicas", "updatedReplicas", "readyReplicas")}
    known = status.get("observedGeneration") == deployment["metadata"]["generation"]
    return known and counted == {wanted}


# -- with ------------------------------------------------------------------------------------------


def test_who_does_not_say_who_calls_reaches_no_pod(gateway: Gateway) -> None:
    before = requests(gateway.delivered)
    wrong = f"Basic {b64encode(b'shop:guessed').decode()}"
    for headers in ({}, {"authorization": wrong}):
        assert gateway.status(INFER, QUESTION, **headers) == 401
    stranger = tritonclient.grpc.InferenceServerClient(
        gateway.address,
        ssl=True,
        root_certificates=str(gateway.authority),
        channel_args=[("grpc.ssl_target_name_override", HOST)],
    )
    with stranger, pytest.raises(Exception, match="UNAUTHENTICATED"):
        stranger.infer("classifier", [picture(tritonclient.grpc)])
    assert requests(gateway.delivered) == before
    assert gateway.status(INFER, QUESTION, authorization=gateway.authorization) == 200
    assert requests(gateway.delivered) == before + 1


def requests(delivered: Delivered) -> float:
    """What Triton counted of its requests, over all pods."""
    counted = 0.0
    for pod in delivered.pods():
        with urlopen(f"http://{pod['status']['podIP']}:8002/metrics", timeout=20) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("nv_inference_request_success"):
                    counted += float(line.rpartition(" ")[2])
    return counted


def test_administrators_are_not_let_in(gateway: Gateway) -> None:
    secret = gateway.delivered.kubernetes.get("secret/triton-administration", STAGING)
    value = subprocess.run(
        ["base64", "--decode"], input=secret["data"]["value"], capture_output=True, text=True
    ).stdout
    said = {"authorization": gateway.authorization, "administration": value}
    assert gateway.status("/v2/logging", **said) == 403


def test_what_is_too_large_is_refused(gateway: Gateway) -> None:
    before = requests(gateway.delivered)
    large = b"0" * (16 * 2**20 + 1)
    with suppress(OSError):  # the gateway ends the connection when it has seen enough
        assert gateway.status(INFER, large, authorization=gateway.authorization) == 413
    assert requests(gateway.delivered) == before


@pytest.fixture
def rarely(gateway: Gateway) -> Iterator[Path]:
    """A caller may ask a pod of the gateway once a second; the overlay, until the test ends."""
    delivered = gateway.delivered
    once = {"/spec/rateLimit/average": 1, "/spec/rateLimit/burst": 2}
    with delivered.having(patch("Middleware", "rate", once)) as overlay:
        delivered.application(synced)
        yield overlay
    delivered.application(synced)
    delivered.kubernetes.until("deployment/gateway", whole, STAGING)
    leads_there(gateway)


def test_who_asks_too_often_is_told_so_and_may_be_known_by_a_certificate(
    gateway: Gateway, rarely: Path, tmp_path: Path
) -> None:
    refused(gateway, authorization=gateway.authorization)
    delivered = gateway.delivered
    authority = f"--from-file=ca.crt={gateway.authority}"
    kubectl = ("kubectl", "--namespace", STAGING, "create", "secret", "generic")
    delivered.run(*kubectl, "gateway-client-authority", authority)
    add_component(rarely, "client-certificates")
    delivered.project.commit("Ask callers for certificates")
    delivered.see()
    delivered.application(synced)
    delivered.kubernetes.until("deployment/gateway", whole, STAGING)
    shop, till = (delivered.here.issue(name, HOST) for name in ("shop", "till"))
    refused(gateway, shown=shop)
    before = requests(delivered)
    assert gateway.status(INFER, QUESTION, shown=till) == 200
    assert requests(delivered) == before + 1
    made = trustme.CA().issue_cert(HOST, common_name="shop")  # of an authority that nobody knows
    made.private_key_and_cert_chain_pem.write_to_path(tmp_path / "shop.pem")
    stranger = (str(tmp_path / "shop.pem"), str(tmp_path / "shop.pem"))
    for shown in (None, stranger):
        with pytest.raises(OSError, match=r"alert|EOF|reset"):
            gateway.status(INFER, QUESTION, shown, authorization=gateway.authorization)
    assert requests(delivered) == before + 1


def refused(gateway: Gateway, **caller: Any) -> None:
    """Ask until a caller has asked too often."""
    answers = Counter[int]()
    while not answers[429]:
        answers[gateway.status(INFER, QUESTION, **caller)] += 1
        assert answers.total() < 1000 and not answers.keys() - {200, 429}, answers


def test_weights_are_shares_of_requests(gateway: Gateway) -> None:
    delivered, project = gateway.delivered, gateway.delivered.project
    old = project.released()
    new = project.build(delivered.next_version(), old.accuracy + 0.01)
    with gateway.traffic() as traffic:
        project.deploy_release(new)
        delivered.see()
        rollout = delivered.rollout(lambda seen: half_way(seen, new.version))
        goes_on(delivered, rollout["status"]["currentPodHash"])
        answer(traffic, 1000, delivered, new.version)  # both gateways have the weights then
        before = {name: Counter(answered) for name, answered in traffic.versions.items()}
        answer(traffic, 2000, delivered, new.version)
        during = {name: Counter(traffic.versions[name]) - before[name] for name in before}
        delivered.go_on()
        delivered.served(new)
    for protocol, answered in during.items():
        share = answered[new.version] / answered.total()
        assert abs(share - 0.5) <= 0.03, (protocol, answered)
    assert not traffic.lost["http"] and not traffic.lost["grpc"], traffic.lost


def goes_on(delivered: Delivered, pods: str) -> None:
    """Assert that the server that was asked its golden requests is the one that serves."""
    found = delivered.kubernetes.items("pods", STAGING, f"rollouts-pod-template-hash={pods}")
    asked = delivered.kubernetes.items("pods", STAGING, f"answers-of={pods}")
    ((server,), (job,)) = ([each["metadata"] for each in kind] for kind in (found, asked))
    assert server["creationTimestamp"] <= job["creationTimestamp"], "it was started anew"


def answer(traffic: Traffic, requests: int, delivered: Delivered, version: int) -> None:
    """Wait until so many more requests are answered, all while a version is half way."""
    enough, end = traffic.answered + requests, time.monotonic() + PATIENCE
    while traffic.answered < enough:
        assert time.monotonic() < end, f"{traffic.answered} answers, not {enough}: {traffic.lost}"
        assert half_way(delivered.kubernetes.get("rollout/triton", STAGING), version)
        time.sleep(0.5)


def half_way(rollout: Object, version: int) -> bool:
    """Whether a Rollout pauses at a weight of 50 for a version."""
    status = rollout.get("status", {})
    weights = status.get("canary", {}).get("weights") or {}
    return (
        rollout["metadata"]["labels"]["app.kubernetes.io/version"] == str(version)
        and bool(status.get("pauseConditions"))
        and weights.get("canary", {}).get("weight") == 50
    )


def test_a_version_that_fails_behind_the_gateway_is_taken_away_by_that_figure(
    gateway: Gateway,
) -> None:
    delivered, project = gateway.delivered, gateway.delivered.project
    good = project.released()
    with delivered.having(*test_judged.figures(), component="judged"):
        delivered.rollout(test_judged.is_judged)
        failing = project.build_faulty(delivered.next_version(), 0.91, FAILS=20)
        with (
            measuring.prometheus(delivered.here, delivered.kubernetes),
            gateway.traffic() as traffic,
        ):
            project.deploy_release(failing)
            delivered.see()
            message = test_judged.taken_away(delivered, "staging", failing)
    assert 'Metric "failing" assessed Failed' in message
    for protocol, answered in traffic.versions.items():
        assert answered[good.version] and answered[failing.version], protocol
    delivered.deploy(good)
    delivered.rollout(lambda seen: not test_judged.is_judged(seen))


@contextmanager
def watched(gateway: Gateway) -> Iterator[str]:
    """A monitor that gets a copy of each request, and asks for as little as a test's server.

    Gives its address.
    """
    delivered = gateway.delivered
    small = patch("Deployment", "monitor", {"/spec/template/spec/containers/0/resources": {}})
    every = patch("TraefikService", "watched", {"/spec/mirroring/mirrors/0/percent": 100})
    with delivered.having(small, every, component="monitor"):
        delivered.kubernetes.until("deployment/monitor", whole, STAGING)
        (pod,) = delivered.kubernetes.items("pods", STAGING, "app.kubernetes.io/name=monitor")
        yield pod["status"]["podIP"]
    gone = ("--for=delete", f"--timeout={PATIENCE}s", "-n", STAGING)
    delivered.kubernetes.kubectl("wait", "deployment/monitor", "traefikservice/watched", *gone)


def test_a_monitor_beside_the_path_comes_and_goes_and_costs_no_request(gateway: Gateway) -> None:
    with gateway.traffic() as traffic, watched(gateway) as address:
        end = time.monotonic() + PATIENCE
        while not seen(address) or traffic.answered < 200:
            assert not any(traffic.lost.values()), traffic.lost
            assert time.monotonic() < end, f"{traffic.answered} answers, or none seen"
    assert traffic.versions["http"].total() > 0 and not any(traffic.lost.values()), traffic.lost


def seen(address: str) -> float:
    """How many pictures a monitor was asked about."""
    with urlopen(f"http://{address}:8002/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    counted = [each for each in lines if each.startswith("behaviour_seen_total")]
    return sum(float(line.rpartition(" ")[2]) for line in counted)


@pytest.fixture
def hurried(gateway: Gateway) -> Iterator[Delivered]:
    """Production serves, too, by one server; staging has no pause of a minute again."""
    delivered, project = gateway.delivered, gateway.delivered.project
    if not project.path("production").exists():
        delivered.deploy(project.released(), "production")
    delivered.scale(1, "production")
    hurry(project.folder / OVERLAY, step=4)
    project.commit("Take the pause away")
    yield delivered
    delivered.scale(2, "production")


def test_bumps_lose_no_request_and_without_the_gateway_none_over_grpc(
    gateway: Gateway, hurried: Delivered
) -> None:
    direct = {"grpc": hurried.address("grpc", "production")}
    without = Traffic(direct, {"grpc": 6}, rest=RARELY)
    with gateway.traffic(RARELY) as behind, without:
        for _ in range(BUMPS):
            bump(hurried)
    assert all(len(versions) == 2 for versions in behind.versions.values())
    assert len(without.versions["grpc"]) >= 2, "it may have served a third one before"
    assert not any(behind.lost.values()), behind.lost
    assert not any(without.lost.values()), without.lost


def bump(delivered: Delivered) -> None:
    """Have both environments serve the other version."""
    release = delivered.merge_the_other()
    delivered.project.deploy_release(release, "production")
    for environment in ENVIRONMENTS:
        delivered.see(environment)
    for environment in ENVIRONMENTS:
        delivered.rollout(lambda seen: healthy_with(seen, release.version), environment)
