"""A project whose manifests Argo CD keeps on a cluster, and what people do and see there."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cluster_project
import installation
import network
from cluster_project import ClusterProject
from conftest import TEMPLATE
from delivery.model import golden
from delivery.oci.registry import pull
from delivery.proposals.release_file import Release
from delivery.proposals.releases import all_releases, next_version
from delivery.triton.client import Client
from kubernetes_api import PATIENCE, Kubernetes, Object
from local_cluster import LocalCluster

PORTS = {"http": 8000, "grpc": 8001}
REFRESH = "argocd.argoproj.io/refresh"  # an annotation, which Argo CD takes away once it has looked
OFTEN = 15  # seconds
LOOKS = 5  # of which the first may have begun before what they are to see


@dataclass(frozen=True)
class Delivered:
    """A project, the cluster it is delivered to, and the machine's part of that cluster."""

    project: ClusterProject
    kubernetes: Kubernetes
    here: LocalCluster
    hosts: dict[str, str]
    good: list[Release] = field(default_factory=list)  # what staging served, the newest last
    seen: dict[str, list[str]] = field(default_factory=dict)  # every health of an Application

    def install(self) -> None:
        """Install Argo CD and hand it the project, by the commands of `infra/README.md`."""
        root = ["kubectl", "apply", "-f", "argocd/root.yaml"]
        upstream = ["kubectl", "apply", "--server-side", "--force-conflicts"]
        self.run(*upstream, "-k", "argocd/base/argo-cd")
        installation.install_platform(self.here)  # meanwhile Argo CD's programs start
        self.kubernetes.kubectl(
            *("wait", "deployment", "--all", "-n", "argocd"),
            *("--for=condition=Available", "--timeout=5m"),
        )
        self.run("sh", "argocd/base/administration.sh")
        self.run("sh", "-ec", self.project.access())
        threading.Thread(target=self.remember, args=("root",), daemon=True).start()
        self.run(*root)

    def run(self, *command: str) -> str:
        """Run one of the documented commands in the project, on the cluster's network."""
        return installation.in_the_cluster(
            self.here, self.hosts, "env", "-C", str(self.project.folder), *command
        )

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the project's commands, which knows the cluster, whatever becomes of it."""
        known = {"KUBECONFIG": str(self.here.kubeconfig), "PYTHONPATH": str(TEMPLATE)}
        return subprocess.run(
            [sys.executable, "-m", "delivery", *arguments],
            cwd=self.project.folder,
            env=os.environ | cluster_project.PEOPLE | known,
            capture_output=True,
            text=True,
        )

    def namespace(self, environment: str = "staging") -> str:
        """Where an environment runs, which is also the name of its Application."""
        return f"{cluster_project.NAME}-{environment}"

    def remember(self, name: str) -> None:
        """Note every health of an Application until it is synced and healthy."""
        states = self.seen.setdefault(name, [])
        for seen in self.kubernetes.watch(f"application/{name}", "argocd", PATIENCE):
            states.append(seen.get("status", {}).get("health", {}).get("status", ""))
            if synced(seen):
                return

    def release(self, accuracy: float) -> Release:
        """Train, release by our command, merge what it pushed; the release, once it serves."""
        self.project.train(accuracy)
        branch = re.search(r"release/staging-v\d+", self.project.delivery("release"))
        assert branch
        self.project.merge(branch.group())
        released = self.project.released()
        self.served(released)
        return released

    def deploy(self, release: Release, *environments: str) -> None:
        """Merge release files without our command's checks, and wait until all are served."""
        chosen = environments or ("staging",)
        for each in chosen:
            self.project.deploy_release(release, each)
        for each in chosen:
            self.see(each)
        for each in chosen:
            self.served(release, each)

    def merge_the_other(self) -> Release:
        """Merge another version that staging served well before; it is released first if need be.

        Going back to one of the last three versions takes no pauses.
        """
        present = self.project.released()
        others = [each for each in self.good if each.version != present.version]
        if not others:
            self.release(present.accuracy + 0.01)
            return self.merge_the_other()
        self.project.deploy_release(others[-1])
        return others[-1]

    def toggle(self) -> None:
        """Have staging serve the version that it served before the present one."""
        self.served(self.merge_the_other())

    def next_version(self) -> int:
        """The version after all that were ever released."""
        repository = self.project.repository
        return next_version(all_releases(repository, repository.fetch()))

    def serving(self) -> Release:
        """What staging serves, which is released first if nothing is."""
        self.project.git("pull", "--quiet")
        if not self.project.path().exists():
            return self.release(0.95)
        if self.kubernetes.get("rollout/triton", self.namespace())["status"].get("abort"):
            self.deploy(self.project.build(self.next_version()))  # what a test left broken
        self.served(self.project.released())
        return self.project.released()

    @contextmanager
    def having(
        self, *patches: Object, component: str = "", environment: str = "staging"
    ) -> Iterator[Path]:
        """An overlay with patches, and with a component's line, as long as the context lasts.

        Argo CD has seen each change when it begins and when it ends.
        """
        overlay = self.project.path(environment).with_name("kustomization.yaml")
        before, what = overlay.read_text(), component or "patches"
        try:
            if component:
                cluster_project.add_component(overlay, component)
            cluster_project.add_patches(overlay, *patches)
            self.project.commit(f"Give {environment} {what}")
            self.see(environment)
            yield overlay
        finally:
            overlay.write_text(before)
            self.project.commit(f"Take {what} from {environment}")
            self.see(environment)

    # -- what a person waits for -------------------------------------------------------------------

    def see(self, environment: str = "staging") -> None:
        """Have Argo CD look at Git now, as a webhook has it.

        Who asks while it looks already is taken for answered, so it is asked again.
        """
        self.see_all("models")
        name, head = self.namespace(environment), self.project.git("ls-remote", "origin", "main")
        for _ in range(LOOKS):
            self.look_at(name)
            seen = self.kubernetes.until(f"application/{name}", has_looked)
            known = seen["status"]["sync"].get("revision") or "none"
            if head.startswith(known):
                return
        raise AssertionError(
            f"Argo CD looked at Git {LOOKS} times for {name}, and knows {known}: "
            f"main is at {head.split()[0]}"
        )

    def look_at(self, application: str) -> None:
        """Have Argo CD look at an Application now, if it is there."""
        self.kubernetes.run(
            *("annotate", "--overwrite", "-n", "argocd", f"application/{application}"),
            f"{REFRESH}=normal",
        )

    def see_all(self, generator: str) -> None:
        """Have an ApplicationSet look at Git now, which the first sync makes."""
        self.kubernetes.until(f"applicationset/{generator}", bool)
        self.kubernetes.kubectl(
            *("annotate", "--overwrite", "-n", "argocd", f"applicationset/{generator}"),
            "argocd.argoproj.io/application-set-refresh=true",
        )

    def go_on(self, environment: str = "staging") -> None:
        """End the pause of a new version, once it pauses, as Argo Rollouts' own command does."""
        paused = self.rollout(
            lambda seen: seen.get("status", {}).get("pauseConditions"), environment
        )
        step = paused["status"]["currentStepIndex"]
        self.kubernetes.kubectl(
            *("patch", "rollout/triton", "-n", self.namespace(environment), "--type=merge"),
            *("--subresource=status", "--patch", '{"status": {"pauseConditions": null}}'),
        )
        self.rollout(lambda seen: seen["status"]["currentStepIndex"] > step, environment)

    def application(self, wanted: Callable[[Object], Any], environment: str = "staging") -> Object:
        """Wait for a state of an environment's Application.

        Argo CD is asked to look now and then: what it misses of a change it would see at its next
        look of its own, which may be a minute away.
        """
        name = f"application/{self.namespace(environment)}"
        for number in range(PATIENCE // OFTEN):
            if number:
                self.see_all("models")
            self.look_at(self.namespace(environment))
            found, seen = self.kubernetes.within(OFTEN, name, wanted)
            if found:
                return seen
        return self.kubernetes.until(name, wanted, patience=OFTEN)

    def rollout(self, wanted: Callable[[Object], Any], environment: str = "staging") -> Object:
        """Wait for a state of an environment's Rollout."""
        return self.kubernetes.until("rollout/triton", wanted, self.namespace(environment))

    def served(self, release: Release, environment: str = "staging") -> None:
        """Wait until a release is what an environment serves, and Argo CD says so."""
        self.see(environment)
        rollout = self.rollout(lambda seen: healthy_with(seen, release.version), environment)
        self.application(
            lambda seen: synced(seen) and seen_version(seen) == release.version, environment
        )
        self.answers_alone(release, rollout, environment)
        if environment == "staging":
            self.good[:] = [each for each in self.good if each != release] + [release]

    def scale(self, replicas: int, environment: str = "staging") -> None:
        """Scale as an autoscaler does, and wait for the pods."""
        self.kubernetes.kubectl(
            *("patch", "rollout/triton", "-n", self.namespace(environment), "--type=merge"),
            *("--subresource=scale", "--patch", f'{{"spec": {{"replicas": {replicas}}}}}'),
        )
        self.rollout(lambda seen: servers(seen) == replicas, environment)

    # -- what serves -------------------------------------------------------------------------------

    def address(self, protocol: str, environment: str = "staging") -> str:
        """Host and port of the Service of an environment."""
        service = self.kubernetes.get("service/triton", self.namespace(environment))
        return f"{service['spec']['clusterIP']}:{PORTS[protocol]}"

    def reachable(self, environment: str = "staging") -> dict[str, str]:
        """Wait until the Service takes connections; its addresses, by protocol.

        A node has a Service's new rules a moment after they are made.
        """
        addresses = {protocol: self.address(protocol, environment) for protocol in PORTS}
        for protocol, address in addresses.items():
            self.here.wait_for_port(address.split(":")[0], PORTS[protocol])
        return addresses

    def answers_alone(
        self, release: Release, rollout: Object, environment: str = "staging"
    ) -> None:
        """Wait until callers reach a Rollout's stable version and no other; it is the release."""
        namespace, pods = self.namespace(environment), f"triton-{rollout['status']['stableRS']}-"
        self.kubernetes.until("endpoints/triton", lambda seen: led_to_only(seen, pods), namespace)
        self.here.wait("kube-proxy-1", lambda: self.node_leads_to_only(pods, namespace))
        self.answers(release, environment)

    def node_leads_to_only(self, pods: str, namespace: str) -> bool:
        """Whether a Service leads to pods with names that begin so, and its node's rules as well.

        A node has new rules a moment later, of which answers tell little: old and new pods take
        turns by chance.
        """
        endpoints = self.kubernetes.get("endpoints/triton", namespace)
        known = {each["ip"] for each in addresses(endpoints)}
        return led_to_only(endpoints, pods) and all(
            network.led_to(1, f"{namespace}/triton:{name}") == known for name in PORTS
        )

    def answers(self, release: Release, environment: str = "staging") -> None:
        """Assert that exactly a release answers its golden requests, over HTTP and over gRPC."""
        requests = self.recorded(release)
        for protocol, address in self.reachable(environment).items():
            with Client(protocol, address) as client:
                result = golden.compare(client, requests, batch=16)
            assert result.passed, f"{protocol}: {result}"
            assert result.versions == {release.version}

    def recorded(self, release: Release) -> golden.Golden:
        """The golden requests of a release, out of its image."""
        place = self.project.folder.parent / release.digest.replace(":", "-")
        if not place.exists():
            pull(release.image, place)
        return golden.load(place / "classifier/golden.npz")

    def pods(self, environment: str = "staging") -> list[Object]:
        """The servers of an environment that are not about to end."""
        found = self.kubernetes.items(
            "pods", self.namespace(environment), "app.kubernetes.io/name=triton"
        )
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]


def has_looked(application: Object) -> bool:
    """Whether Argo CD has looked at an Application since it was asked to."""
    asked = REFRESH in application["metadata"].get("annotations", {})
    return not asked and "sync" in application.get("status", {})


def healthy_with(rollout: Object, version: int) -> bool:
    """Whether a Rollout serves a version with all of its replicas."""
    status, wanted = rollout.get("status", {}), rollout["metadata"]["labels"]
    return (
        wanted["app.kubernetes.io/version"] == str(version)
        and status.get("observedGeneration") == str(rollout["metadata"]["generation"])
        and status.get("phase") == "Healthy"
        and status.get("stableRS") == status.get("currentPodHash")
    )


def servers(rollout: Object) -> int:
    """How many servers of a Rollout are ready."""
    return rollout.get("status", {}).get("availableReplicas", 0)


def aborted(rollout: Object, version: int | None = None) -> bool:
    """Whether the newest version was taken away again, if it is that one."""
    is_of = rollout["metadata"]["labels"]["app.kubernetes.io/version"]
    status = rollout.get("status", {})
    known = status.get("observedGeneration") == str(rollout["metadata"]["generation"])
    taken = status.get("abort") and status.get("phase") == "Degraded"  # not still of the one before
    return known and bool(taken) and (version is None or is_of == str(version))


def led_to_only(endpoints: Object, pods: str) -> bool:
    """Whether a Service leads to pods with names that begin so, and to no others."""
    names = [each["targetRef"]["name"] for each in addresses(endpoints)]
    return bool(names) and all(name.startswith(pods) for name in names)


def addresses(endpoints: Object) -> list[Object]:
    """Where a Service leads."""
    return [each for subset in endpoints.get("subsets", []) for each in subset.get("addresses", [])]


def synced(application: Object) -> bool:
    """Whether Argo CD finds what Git says, and finds it well."""
    status = application.get("status", {})
    return (
        status.get("sync", {}).get("status") == "Synced"
        and status.get("health", {}).get("status") == "Healthy"
    )


def seen_version(application: Object) -> int:
    """The version of the model on an Application's tile."""
    return int(application["metadata"]["labels"]["model-version"])
