"""A Kubernetes cluster of this machine's own, without a container engine: programs as processes.

The control plane and each node run in a network namespace (network.py). Everything they write is in
one folder, every process they start is in one control group, so all of it can be taken away.
"""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import trustme

import network

GROUPS = "merge-to-serve-cluster-"  # each cluster's control group, by the process of its tests
GROUP = f"{GROUPS}{os.getpid()}"  # of everything that is started here
REGISTRY = "127.0.0.1:5000"  # the same address on this machine and on every node
PAUSE = "registry.k8s.io/pause:3.10.1"
PATIENCE = 120  # seconds that a program has to get ready
ADMIN, NODE = "admin", "system:node:"
USERS = {  # a token for each, and its groups
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:kube-proxy": "",
}


class ClusterError(RuntimeError):
    """The cluster could not be made; the message has the reason and the end of the log."""


@dataclass
class LocalCluster:
    """One cluster: `folder` holds its state, `programs` its programs by name.

    Use `cluster(...)`, which takes everything away at its end.
    """

    folder: Path
    programs: dict[str, Path]
    authority: trustme.CA
    stack: ExitStack
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    commands: dict[str, tuple[int, list[str], dict[str, str]]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """How an administrator reaches the API server."""
        return self.folder / f"{ADMIN}.json"

    @property
    def logs(self) -> Path:
        """What the programs print, a file for each."""
        return self.folder / "logs"

    def start(self, name: str, node: int, command: Sequence[str], **environment: str) -> None:
        """Start a program in a node's network, or in this machine's (0)."""
        self.commands[name] = (node, list(command), environment)
        enter = "".join(f"echo $$ > {group}/cgroup.procs;" for group in groups())
        where = ["nsenter", f"--net=/run/netns/{network.namespace(node)}"] if node else []
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                ["sh", "-c", f'{enter} exec "$@"', "sh", *where, *command],
                env={
                    **os.environ,
                    "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, name: str, with_signal: int = signal.SIGTERM) -> None:
        """End a program and wait until it is gone."""
        process = self.running.pop(name)
        process.send_signal(with_signal)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self) -> None:
        """End every program; whatever they started themselves goes with the control group."""
        for process in self.running.values():
            process.kill()
            process.wait()

    def restart(self, name: str) -> None:
        """Start a program that was stopped, as it was started before."""
        node, command, environment = self.commands[name]
        self.start(name, node, command, **environment)

    def wait_for(self, url: str, name: str) -> None:
        """Wait until a program says that it is well. Raises ClusterError."""
        self.wait(name, lambda: self._answers(url))

    def _answers(self, url: str) -> bool:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        request = Request(url, headers={"Authorization": f"Bearer {token(ADMIN)}"})
        try:
            with urlopen(
                request, timeout=2, context=context if url[:5] == "https" else None
            ) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False

    def wait_for_port(self, host: str, port: int, name: str = "kube-proxy-1") -> None:
        """Wait until a program, or a service, takes connections. Raises ClusterError."""

        def connects() -> bool:
            with suppress(OSError), socket.create_connection((host, port), timeout=2):
                return True
            return False

        self.wait(name, connects)

    def write(self, name: str, content: str | dict) -> str:
        """Write a file of settings, an object as JSON, which is YAML too; give its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
        return str(path)

    def kubectl(self, *arguments: str, content: str | None = None) -> str:
        """Run kubectl as administrator. Raises subprocess.CalledProcessError."""
        return subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            check=True,
            input=content,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    def issue(self, name: str, *names: str) -> tuple[str, str]:
        """Certificate and key of a name, for host names and addresses; paths of both files."""
        made = self.authority.issue_cert(*names, common_name=name)
        paths = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        made.private_key_pem.write_to_path(paths[1])
        paths[0].unlink(missing_ok=True)
        for pem in made.cert_chain_pems:
            pem.write_to_path(paths[0], append=True)
        return str(paths[0]), str(paths[1])

    def write_kubeconfig(self, user: str) -> str:
        """A file with which a program is `user` to the API server."""
        cluster = {
            "server": f"https://{network.address(1)}:6443",
            "certificate-authority": f"{self.folder}/authority.crt",
        }
        return self.write(
            f"{user.replace(':', '-')}.json",
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "here", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": token(user)}}],
                "contexts": [{"name": "here", "context": {"cluster": "here", "user": user}}],
                "current-context": "here",
            },
        )

    # -- control plane -----------------------------------------------------------------------------

    def start_control_plane(self) -> None:
        """etcd, the API server, controllers and scheduler, and the names of services."""
        here = network.address(1)
        self.start(
            "etcd",
            1,
            ["etcd", f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync", "--log-level=error"],
        )
        self.wait_for_etcd()
        certificate, key = self.issue(
            "api", here, str(network.SERVICES[1]), "kubernetes.default.svc", "kubernetes.default"
        )
        front, front_key = self.issue("front-proxy", "front-proxy")
        tokens = "".join(f'{token(user)},{user},{user},"{g}"\n' for user, g in USERS.items())
        for number in (1, 2):
            user = f"{NODE}{network.namespace(number)}"
            tokens += f'{token(user)},{user},{user},"system:nodes"\n'
        self.start(
            "kube-apiserver",
            1,
            [
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                f"--advertise-address={here}",
                f"--service-cluster-ip-range={network.SERVICES}",
                f"--tls-cert-file={certificate}",
                f"--tls-private-key-file={key}",
                f"--token-auth-file={self.write('tokens.csv', tokens)}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder}/api.key",
                f"--service-account-signing-key-file={self.folder}/api.key",
                "--kubelet-preferred-address-types=InternalIP",
                f"--requestheader-client-ca-file={self.folder}/authority.crt",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                f"--proxy-client-cert-file={front}",
                f"--proxy-client-key-file={front_key}",
                "--allow-privileged",
            ],
        )
        self.wait_for_api()
        self.start(
            "kube-controller-manager",
            1,
            [
                "kube-controller-manager",
                f"--kubeconfig={self.write_kubeconfig('system:kube-controller-manager')}",
                f"--root-ca-file={self.folder}/authority.crt",
                f"--service-account-private-key-file={self.folder}/api.key",
                "--use-service-account-credentials",
                "--leader-elect=false",
                "--horizontal-pod-autoscaler-sync-period=2s",
            ],
        )
        self.start(
            "kube-scheduler",
            1,
            [
                "kube-scheduler",
                f"--kubeconfig={self.write_kubeconfig('system:kube-scheduler')}",
                "--leader-elect=false",
            ],
        )

    def wait_for_api(self) -> None:
        """Wait until the API server answers. Raises ClusterError."""
        self.wait_for(f"https://{network.address(1)}:6443/readyz", "kube-apiserver")

    def wait_for_etcd(self) -> None:
        """etcd listens on its namespace's loopback only, so it is asked there."""
        probe = ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/2379"]
        ask = ["nsenter", f"--net=/run/netns/{network.namespace(1)}", *probe]
        self.wait("etcd", lambda: not subprocess.run(ask, capture_output=True).returncode)

    def wait(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait until a program is ready.

        Raises:
            ClusterError: it ended, or is not ready within PATIENCE.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self.running[name].poll() is None:
            if ready():
                return
            time.sleep(0.2)
        last = (self.logs / f"{name}.log").read_text(errors="replace")[-3000:]
        raise ClusterError(f"{name} did not get ready; the end of its log:\n{last}")

    def start_names(self, hosts: dict[str, str]) -> None:
        """CoreDNS on the first node's address; `hosts` are names outside of the cluster."""
        lines = "".join(f"    {where} {name}\n" for name, where in hosts.items())
        corefile = f""".:53 {{
  bind {network.address(1)}
  hosts {{
{lines}    fallthrough
  }}
  kubernetes cluster.local {{
    kubeconfig {self.kubeconfig}
  }}
}}
"""
        self.start("coredns", 1, ["coredns", "-conf", self.write("Corefile", corefile)])

    # -- nodes -------------------------------------------------------------------------------------

    def add_node(self, number: int) -> str:
        """A node with its runtime, kubelet and service proxy; gives its name once it is ready."""
        name, folder = network.namespace(number), self.folder / f"node-{number}"
        if number > 1:
            self.stack.enter_context(network.node(number))
        user = f"{NODE}{name}"
        make_groups(f"{GROUP}/{folder.name}")
        settings = self.write(f"node-{number}/containerd.toml", runtime(folder))
        self.start(f"containerd-{number}", number, ["containerd", "--config", settings])
        self.wait(f"containerd-{number}", (folder / "containerd.sock").exists)
        self.write(
            f"node-{number}/registries/_default/hosts.toml",
            f'server = "http://{REGISTRY}"\n[host."http://{REGISTRY}"]\n',
        )
        self.write(f"node-{number}/cni/pods.conflist", pod_network(folder, number))
        self.start(
            f"registry-{number}",
            number,
            ["docker-registry", "serve", f"{self.folder}/registry.json"],
        )
        self.start(
            f"kubelet-{number}",
            number,
            [
                "kubelet",
                f"--kubeconfig={self.write_kubeconfig(user)}",
                f"--config={self.write(f'node-{number}/kubelet.json', kubelet(folder))}",
                f"--root-dir={folder}/kubelet",
                f"--hostname-override={name}",
                f"--node-ip={network.address(number)}",
            ],
        )
        proxy = {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "clientConnection": {"kubeconfig": self.write_kubeconfig("system:kube-proxy")},
            "hostnameOverride": name,
            "mode": "iptables",
            "clusterCIDR": str(network.PODS),
            # Kernel-wide figures that a network namespace may not set.
            "conntrack": {
                "maxPerCore": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
        self.start(
            f"kube-proxy-{number}",
            number,
            ["kube-proxy", f"--config={self.write(f'node-{number}/kube-proxy.json', proxy)}"],
        )
        self.wait_for_node(name, number)
        return name

    def remove_node(self, number: int) -> None:
        """Take a node away that has been drained."""
        for name in ("kubelet", "kube-proxy", "containerd", "registry"):
            self.stop(f"{name}-{number}")
        self.kubectl("delete", "node", network.namespace(number))

    def wait_for_node(self, name: str, number: int) -> None:
        """Wait until the API server takes a node for ready. Raises ClusterError."""
        ready = ["wait", f"node/{name}", "--for=condition=Ready", "--timeout=5s"]
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *ready]
        self.wait(
            f"kubelet-{number}", lambda: not subprocess.run(command, capture_output=True).returncode
        )


def runtime(folder: Path) -> str:
    """Settings of containerd for a node in `folder`."""
    cri = "plugins.'io.containerd.cri.v1"
    return f"""version = 3
root = "{folder}/containerd"
state = "{folder}/run"
[grpc]
address = "{folder}/containerd.sock"
[ttrpc]
address = "{folder}/containerd.sock.ttrpc"
[{cri}.runtime']
# Without the right to lower it, which a container on this machine may lack.
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[{cri}.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{folder}/cni"
[{cri}.images'.pinned_images]
sandbox = "{PAUSE}"
[{cri}.images'.registry]
config_path = "{folder}/registries"
"""


def pod_network(folder: Path, number: int) -> dict:
    """Pods are routed, not bridged: what leaves one passes the node's firewall, for services."""
    return {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{folder}/addresses",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": str(network.pods(number))}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def kubelet(folder: Path) -> dict:
    """Settings of a node's kubelet."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        # Of its own: a kubelet ends whatever it finds below and does not know.
        "cgroupRoot": f"/{GROUP}/{folder.name}",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "podLogsDir": f"{folder}/pod-logs",
        "clusterDNS": [network.address(1)],
        "clusterDomain": "cluster.local",
        # Nobody else reaches it: its namespace has no other way in.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        # No share of the disk: 1 % of a large one that is nearly full is still gigabytes.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        # What ends while the API server is away is there again soon after it.
        "crashLoopBackOff": {"maxContainerRestartPeriod": "5s"},
        "failSwapOn": False,
        "maxPods": 200,
        "registryPullQPS": 0,
        "serializeImagePulls": False,
    }


def token(user: str) -> str:
    """The password of a user, good on a cluster that nobody else can reach."""
    return re.sub(r"[^a-z0-9]", "-", f"token-of-{user}")


def hierarchies() -> list[Path]:
    """The root of each of the kernel's hierarchies of control groups."""
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [each for each in root.iterdir() if (each / "cgroup.procs").exists() and each.is_mount()]


def groups(name: str = GROUP) -> list[Path]:
    """A cluster's control group, once for each hierarchy."""
    return [each / name for each in hierarchies()]


def processes(name: str) -> set[int]:
    """The ids of all that runs in a cluster's control group, containers too."""
    found: set[int] = set()
    for path in (path for group in groups(name) for path in group.rglob("cgroup.procs")):
        with suppress(OSError):  # a group that has just gone
            found |= {int(line) for line in path.read_text().split()}
    return found


def end_group(name: str = GROUP) -> None:
    """End all that runs in a cluster's control group, and take it away."""
    while left := processes(name):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    for group in groups(name):
        remove_group(group)


def folder_of(process: int | str) -> Path:
    """The folder of the cluster that the tests of a process make; short, as sockets lie in it."""
    return Path(tempfile.gettempdir(), f"mts-{process}")


def end_left_behind() -> None:
    """End the clusters whose tests were killed, and so could not; take their folders away."""
    found = {path.name for each in hierarchies() for path in each.glob(f"{GROUPS}*")}
    for name in found:
        process = name.removeprefix(GROUPS)
        if not Path("/proc", process).exists():
            end_group(name)
            shutil.rmtree(folder_of(process), ignore_errors=True)


def make_groups(name: str = GROUP) -> None:
    """Make a cluster's control group, or one below it, in each hierarchy."""
    for group in groups(name):
        group.mkdir(exist_ok=True)
        if (group / "cpuset.cpus").exists():  # version 1 gives a new group none
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (group / setting).write_text((group.parent / setting).read_text())


def remove_group(group: Path) -> None:
    """Take a control group away, with all below it, once the kernel is done with what has ended.

    Raises OSError after ten seconds.
    """
    end = time.monotonic() + 10
    while group.exists():
        try:
            below = [path for path in group.rglob("*/") if path.is_dir()]
            for path in (*sorted(below, key=lambda each: -len(each.parts)), group):
                path.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


@contextmanager
def control_group() -> Iterator[None]:
    """The control group; what is in it at the end is ended."""
    end_left_behind()
    make_groups()
    try:
        yield
    finally:
        end_group()


@contextmanager
def state(folder: Path) -> Iterator[None]:
    """A folder for state, taken away with everything that is mounted in it."""
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        below = [line.split()[4] for line in mounts if line.split()[4].startswith(f"{folder}/")]
        for mount in reversed(below):
            subprocess.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(
    folder: Path, programs: dict[str, Path], registry: Path, hosts: dict[str, str]
) -> Iterator[LocalCluster]:
    """A cluster of one node, as long as the context lasts.

    `folder` must not exist; `registry` holds the images of every registry; `hosts` are the names
    outside of the cluster that its pods may know, with their addresses.
    """
    with ExitStack() as stack:
        stack.enter_context(network.bridge())
        stack.enter_context(network.node(1))
        stack.enter_context(state(folder))
        stack.enter_context(control_group())
        made = LocalCluster(folder, programs, trustme.CA(), stack)
        made.logs.mkdir()
        made.authority.cert_pem.write_to_path(str(folder / "authority.crt"))
        (folder / "bin").mkdir()
        for name, path in programs.items():
            (folder / "bin" / name).symlink_to(path)
        made.start("registry", 0, registry_command(made, registry))
        made.write_kubeconfig(ADMIN)
        stack.callback(made.end)
        made.start_control_plane()
        made.start_names(hosts)
        made.add_node(1)
        yield made


def registry_command(cluster: LocalCluster, storage: Path) -> list[str]:
    """A registry over a folder. Each node has one at the same address, over the same folder."""
    settings = {
        "version": "0.1",
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    return ["docker-registry", "serve", cluster.write("registry.json", settings)]
