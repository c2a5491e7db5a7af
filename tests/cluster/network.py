"""A network of the cluster's own: each node is a network namespace on one bridge.

The bridge itself is in a namespace of the tests' process, so several clusters can be at work, and
nothing of one is reachable from elsewhere or left behind. A namespace gives its node one address;
its pods have a range of their own, and the tests reach nodes, pods and services through the bridge.
"""

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Network
from pathlib import Path

BRIDGE = "mts-cluster"
NODES = IPv4Network("10.199.0.0/24")  # the first address is this machine's
PODS = IPv4Network("10.244.0.0/16")  # 10.244.1.0/24 for the first node, and so on
SERVICES = IPv4Network("10.96.0.0/16")
MACHINE = str(NODES[1])
# Where programs keep what each cluster has to have of its own: iproute2 its namespaces, the kubelet
# its certificate and the socket of device plugins, containerd the socket of its own plugins.
OWN = [Path(each) for each in ("/run/netns", "/var/lib/kubelet", "/run/nri")]
NEW_NETWORK, NEW_MOUNTS = 0x40000000, 0x00020000  # of the kernel's sched.h


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`. Raises subprocess.CalledProcessError."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def address(number: int) -> str:
    """The address of a node, which are counted from 1."""
    return str(NODES[number + 1])


def pods(number: int) -> IPv4Network:
    """The range of a node's pods."""
    return list(PODS.subnets(new_prefix=24))[number]


def namespace(number: int) -> str:
    """The name of a node's network namespace."""
    return f"mts-node-{number}"


def isolate() -> None:
    """Have this thread, and what it starts from now on, see networks and mounts of its own only.

    Raises OSError where the kernel does not let it.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(NEW_NETWORK | NEW_MOUNTS):
        number = ctypes.get_errno()
        raise OSError(number, f"no networks of its own: {os.strerror(number)}")
    subprocess.run(["mount", "--make-rslave", "/"], check=True)
    for folder in OWN:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    ip("link", "set", "lo", "up")


@contextmanager
def bridge() -> Iterator[None]:
    """The bridge, with this machine on it, as long as the context lasts."""
    ip("link", "add", BRIDGE, "type", "bridge")
    try:
        ip("address", "add", f"{MACHINE}/{NODES.prefixlen}", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        ip("route", "add", str(SERVICES), "via", address(1))
        yield
    finally:
        ip("link", "delete", BRIDGE)


@contextmanager
def node(number: int) -> Iterator[str]:
    """A node's namespace on the bridge; gives its name."""
    name, cable = namespace(number), f"mts-cable-{number}"
    ip("netns", "add", name)
    try:
        ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", cable, "master", BRIDGE, "up")
        inside = ("-netns", name)
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "address", "add", f"{address(number)}/{NODES.prefixlen}", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        ip(*inside, "route", "add", "default", "via", MACHINE)
        for other in range(1, number):  # nodes find each other's pods
            ip(*inside, "route", "add", str(pods(other)), "via", address(other))
            ip(
                "-netns",
                namespace(other),
                "route",
                "add",
                str(pods(number)),
                "via",
                address(number),
            )
        ip("route", "add", str(pods(number)), "via", address(number))
        subprocess.run(
            ["nsenter", f"--net=/run/netns/{name}", "sysctl", "-qw", "net.ipv4.ip_forward=1"],
            check=True,
        )
        yield name
    finally:
        # The kernel ends a namespace a while later, and would keep the cable's name until then.
        subprocess.run(["ip", "link", "delete", cable], capture_output=True)
        ip("netns", "delete", name)


def led_to(number: int, port: str) -> set[str]:
    """The pods' addresses to which a node sends callers of a Service's port.

    That is `<namespace>/<name>:<port>`, as kube-proxy writes it beside its rules.
    """
    save = ["nsenter", f"--net=/run/netns/{namespace(number)}", "iptables-save", "-t", "nat"]
    rules = subprocess.run(save, check=True, capture_output=True, text=True).stdout
    return set(re.findall(rf'"{re.escape(port)} -> ([\d.]+):\d+"', rules))


@contextmanager
def diverted(number: int, queue: int) -> Iterator[None]:
    """Have a program judge what a node's pods begin to say or to hear, as long as this lasts.

    The program reads the kernel's queue of that number; while none does, nothing gets through. As
    kube-network-policies has it, what the node itself says, the kubelet's probes, is not judged.
    """
    range_of_pods = str(pods(number))
    rules = [
        ["-m", "owner", "--uid-owner", "0", "-j", "ACCEPT"],
        ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
        ["-s", range_of_pods, "-j", "NFQUEUE", "--queue-num", str(queue)],
        ["-d", range_of_pods, "-j", "NFQUEUE", "--queue-num", str(queue)],
    ]
    # After a Service's address has become a pod's, before a pod's becomes its node's.
    chain = ["nsenter", f"--net=/run/netns/{namespace(number)}", "iptables", "-w", "-t", "mangle"]
    with ExitStack() as stack:
        for rule in rules:
            subprocess.run([*chain, "-A", "POSTROUTING", *rule], check=True)
            stack.callback(subprocess.run, [*chain, "-D", "POSTROUTING", *rule], check=True)
        yield
