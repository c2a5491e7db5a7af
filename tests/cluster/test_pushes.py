"""GitHub's calls reach both endpoints of Argo CD through a gateway, and nothing else of it."""

import base64
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import installation
import network
from cluster_project import NAME, OWNER, push_event
from conftest import TEMPLATE, mark_root
from delivered import Delivered
from fake_gh import GitHub
from kubernetes_api import PATIENCE, Object, ten_in_a_row

HOST, PORT = "argocd.example.com", 8443
URL = f"https://{HOST}:{PORT}"
GATEWAYS = "gateways"  # the namespace that the lines of `platform.yaml` name
CLASS = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GatewayClass",
    "metadata": {"name": "traefik"},
    "spec": {"controllerName": "traefik.io/gateway-controller"},
}
GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "public", "namespace": GATEWAYS},
    "spec": {
        "gatewayClassName": "traefik",
        "listeners": [
            {
                "name": "https",
                "protocol": "HTTPS",
                "port": PORT,
                "tls": {"certificateRefs": [{"name": "certificate"}]},
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }
        ],
    },
}


@dataclass(frozen=True)
class Hooks:
    """A project whose pushes are told to Argo CD by a stand-in for GitHub."""

    delivered: Delivered
    github: GitHub
    folder: Path

    def make_webhook(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `make webhook` where the remote is on GitHub; kubectl is the real one."""
        return subprocess.run(
            [sys.executable, "-m", "delivery", "webhook", URL, *options],
            cwd=self.folder,
            env=os.environ
            | {
                "PYTHONPATH": str(TEMPLATE),
                "PATH": f"{self.github.programs}:{os.environ['PATH']}",
                "FAKE_GITHUB": str(self.github.place),
                "KUBECONFIG": str(self.delivered.kubernetes.kubeconfig),
            },
            capture_output=True,
            text=True,
        )

    def deliver(self, event: str, payload: dict[str, Any]) -> list[str]:
        """Call all webhooks as GitHub does; the status of each answer."""
        body = json.dumps(payload)
        return [self.post(each["config"], event, body) for each in self.github.read("hooks")]

    def post(self, config: dict[str, str], event: str, body: str) -> str:
        """Send what a webhook sends, signed with its secret."""
        signature = hmac.new(config["secret"].encode(), body.encode(), hashlib.sha256).hexdigest()
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": event,
            "X-Hub-Signature-256": f"sha256={signature}",
        }
        return self.call(
            config["url"], *(f"-H{key}: {has}" for key, has in headers.items()), "-d", body
        )

    def call(self, url: str, *options: str) -> str:
        """Ask the gateway, whose certificate is checked; the status of its answer, 000 without one.

        While a program starts anew the gateway may still lead to the one that ended.
        """
        here = self.delivered.here
        return subprocess.run(
            [
                *("curl", "--silent", "--output", "/dev/null", "--max-time", "30"),
                *("--write-out", "%{http_code}", "--cacert", str(here.folder / "authority.crt")),
                *("--resolve", f"{HOST}:{PORT}:{network.address(1)}", *options, url),
            ],
            capture_output=True,
            text=True,
        ).stdout

    def push(self, commit: str, *files: str) -> list[str]:
        """Tell of a push to main, as GitHub does."""
        return self.deliver("push", push_event(self.github.read("name"), commit, *files))


@pytest.fixture(scope="module")
def hooks(delivered: Delivered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooks]:
    """A gateway, Argo CD's route through it, and GitHub's stand-in; nothing is registered yet."""
    open_gateway(delivered)
    open_route(delivered)
    folder = tmp_path_factory.mktemp("webhook")
    github = GitHub(folder)
    github.write(name=f"{OWNER}/{NAME}")
    clone = folder / "clone"
    mark_root(clone)
    address = f"git@github.com:{OWNER}/{NAME}.git"
    for command in (["init", "-q"], ["remote", "add", "origin", address]):
        subprocess.run(["git", *command], cwd=clone, check=True)
    yield Hooks(delivered, github, clone)
    delivered.here.stop("gateway")


def open_gateway(delivered: Delivered) -> None:
    """Start Traefik as the controller of a gateway that ends TLS on the first node."""
    here, kubernetes = delivered.here, delivered.kubernetes
    program = installation.optional(here, "traefik")
    for file in (installation.module("gateway-api") / "config/crd/standard").glob("*.yaml"):
        kubernetes.kubectl("apply", "--server-side", "-f", str(file))
    certificate, key = here.issue("gateway", HOST)
    kubernetes.kubectl("create", "namespace", GATEWAYS)
    tls = ["secret", "tls", "certificate", f"--cert={certificate}", f"--key={key}"]
    kubernetes.kubectl("create", *tls, f"--namespace={GATEWAYS}")
    kinds = [f"crd/{each}.gateway.networking.k8s.io" for each in ("gatewayclasses", "gateways")]
    established = ("--for=condition=Established", f"--timeout={PATIENCE}s")
    kubernetes.kubectl("wait", *kinds, *established)
    end = time.monotonic() + PATIENCE  # the API server tells of a kind a moment later
    while kubernetes.run("get", "gatewayclasses,gateways", "--all-namespaces").returncode:
        assert time.monotonic() < end, "the API server does not know the kinds of gateways"
        time.sleep(0.2)
    kubernetes.apply([CLASS, GATEWAY])
    command = [
        *(str(program), f"--entrypoints.https.address=:{PORT}"),
        *("--providers.kubernetesgateway=true", "--global.checknewversion=false"),
    ]
    here.start("gateway", 1, command, KUBECONFIG=str(kubernetes.kubeconfig))


def open_route(delivered: Delivered) -> None:
    """Uncomment the lines of `argocd/README.md`; wait until the gateway has the route."""
    name = "argocd/apps/platform.yaml"
    lines = re.search(
        r"(?m)^    # kustomize:\n(    #.*\n)+", (delivered.project.folder / name).read_text()
    )
    assert lines
    delivered.project.change(name, lines[0], re.sub(r"(?m)^    # ?", "    ", lines[0]))
    kubernetes = delivered.kubernetes
    kubernetes.kubectl(
        *("annotate", "--overwrite", "-n", "argocd", "application/root"),
        "argocd.argoproj.io/refresh=normal",
    )
    kubernetes.until("httproute/webhook", accepted)
    kubernetes.until("deployment/argocd-server", without_tls)
    kubernetes.kubectl("rollout", "status", "deployment/argocd-server", "-n", "argocd")


def accepted(route: Object) -> bool:
    """Tell whether a gateway has taken a route, with all that it leads to."""
    parents = route.get("status", {}).get("parents", [])
    true = {each["type"] for p in parents for each in p["conditions"] if each["status"] == "True"}
    return {"Accepted", "ResolvedRefs"} <= true


def without_tls(deployment: Object) -> bool:
    """Tell whether Argo CD's server is to leave TLS to the gateway."""
    return "--insecure" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def follow(hooks: Hooks, deployment: str, words: str) -> None:
    """Wait until a program of Argo CD's says something. Fails after PATIENCE."""
    process = subprocess.Popen(
        [
            *("kubectl", f"--kubeconfig={hooks.delivered.kubernetes.kubeconfig}", "-n", "argocd"),
            *("logs", "--follow", "--since=10m", f"deployment/{deployment}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        assert process.stdout and any(words in line for line in process.stdout), words
    finally:
        timer.cancel()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def registered(hooks: Hooks) -> Hooks:
    """Both webhooks, by our command; Argo CD has read the secret."""
    result = hooks.make_webhook()
    assert result.returncode == 0, result.stdout + result.stderr
    # Both programs that are told start anew by themselves; then the gateway leads to the new ones.
    for each in hooks.github.read("hooks"):
        unsigned = each["config"] | {"secret": "another"}
        ten_in_a_row(
            lambda config=unsigned: hooks.post(config, "ping", "{}") == "400",
            f"{each['config']['url']} does not know the secret",
            rest=0.3,
        )
    return hooks


def test_what_is_signed_with_the_secret_is_taken_and_nothing_else(registered: Hooks) -> None:
    kept = registered.delivered.kubernetes.get("secret/argocd-secret")["data"]
    secret = base64.b64decode(kept["webhook.github.secret"]).decode()
    found = registered.github.read("hooks")
    assert [each["config"]["secret"] for each in found] == [secret] * 2
    assert registered.deliver("ping", {"zen": "Design for failure."}) == ["200", "200"]
    for each in found:
        assert registered.post(each["config"] | {"secret": "another"}, "ping", "{}") == "400"
        assert registered.call(each["config"]["url"], "-HX-GitHub-Event: ping", "-d", "{}") == "400"
    check = registered.make_webhook("--check")
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("path", ["/", "/api/v1/session", "/api/version", "/api/webhook/x"])
def test_nothing_else_of_argo_cd_is_reached(registered: Hooks, path: str) -> None:
    assert registered.call(f"{URL}{path}") == "404"
    assert registered.call(f"{URL}/api/webhook") == "404"  # GET


def test_a_push_is_told_to_what_serves_and_to_what_makes_applications(registered: Hooks) -> None:
    delivered = registered.delivered
    delivered.serving()
    release = delivered.project.build(delivered.next_version(), 0.93)
    commit = delivered.project.deploy_release(release)
    told = registered.push(commit, "argocd/environments/staging/model.yaml")
    assert told == ["200", "200"]
    follow(registered, "argocd-server", f"refreshing app '{NAME}-staging' from webhook")
    controller = "argocd-applicationset-controller"
    follow(registered, controller, "refresh ApplicationSet argocd/models from webhook")
    delivered.served(release)
