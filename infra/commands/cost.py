"""Print what the planned resources cost while nothing runs, and per hour of a GPU: `cost.py`.

Reads the plans that `roots.py plan` left and `prices.json`. The floor counts what is billed by the
hour or month from the first day; what is billed by use is listed without a figure.

Standard library only, as `roots.py`.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from failures import InfraError, reported
from roots import INFRA, ROOTS, document

Resource = dict[str, Any]
Line = tuple[str, float]  # what, and USD in a month

PRICES = Path(__file__).with_name("prices.json")
PLACE = "infra/modules/commands/prices.json"  # as its user sees it
DEFAULT_REGION = "us-east-1"


class Plan:
    """Every resource and the region of the planned roots, as `terraform show -json` tells them."""

    def __init__(self, documents: list[dict[str, Any]]):
        self.region = documents[0]["variables"]["region"]["value"]
        self.resources = [
            resource
            for document in documents
            for resource in walk(document["planned_values"]["root_module"])
            if resource["mode"] == "managed"
        ]

    def of(self, kind: str) -> list[Resource]:
        """Return the planned values of every resource of a type, with their addresses."""
        return [
            resource["values"] | {"address": resource["address"], "key": resource.get("index")}
            for resource in self.resources
            if resource["type"] == kind
        ]


def walk(module: dict[str, Any]) -> Iterator[Resource]:
    """Yield the resources of a module and of those that it calls."""
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from walk(child)


def read_plan() -> Plan:
    """Read the saved plans. Raises InfraError when there are none."""
    planned = [root for root in ROOTS if (INFRA / root / "planned.tfplan").exists()]
    if not planned:
        raise InfraError("nothing is planned yet: run `make infra-plan` first")
    try:
        return Plan([document(root, "show", "-json", "planned.tfplan") for root in planned])
    except InfraError as error:
        raise InfraError(f"run `make infra-plan` again, as {error}") from None


def instance_price(prices: dict[str, Any], instance_type: str) -> float:
    """Return USD in an hour of an instance. Raises InfraError when prices.json lacks it."""
    if instance_type not in prices["instance_hour"]:
        raise InfraError(
            f"{PLACE} has no price of {instance_type}: add it to `instance_hour`, "
            "from https://aws.amazon.com/ec2/pricing/on-demand/"
        )
    return prices["instance_hour"][instance_type]


def group_name(group: Resource) -> str:
    """Return the name of a node group without the number that AWS's has at its end."""
    return group["node_group_name_prefix"].removesuffix("-")


def disk_price(prices: dict[str, Any], disk: dict[str, Any]) -> float:
    """Return USD in a month of a gp3 disk, which comes with 3000 IOPS and 125 MiB/s."""
    return (
        disk["volume_size"] * prices["gp3_gib_month"]
        + ((disk.get("iops") or 3000) - 3000) * prices["gp3_iops_month"]
        + ((disk.get("throughput") or 125) - 125) * prices["gp3_mibps_month"]
    )


def node_lines(plan: Plan, prices: dict[str, Any], hours: int) -> Iterator[Line]:
    """Price the nodes that every group keeps, with their disks."""
    disks = {
        template["key"]: template["block_device_mappings"][0]["ebs"][0]
        for template in plan.of("aws_launch_template")
    }
    for group in plan.of("aws_eks_node_group"):
        name, kept = group_name(group), group["scaling_config"][0]["min_size"]
        if kept:
            kind = group["instance_types"][0]
            hour = instance_price(prices, kind)
            yield f"{kept} {kind} of node group {name}", kept * hour * hours
            gib, disk = kept * disks[name]["volume_size"], disk_price(prices, disks[name])
            yield f"{gib} GiB disks of node group {name}", kept * disk


def floor_lines(plan: Plan, prices: dict[str, Any], hours: int) -> list[Line]:
    """Price what is billed by the hour or month whether or not anything runs."""
    nat_gateways = len(plan.of("aws_nat_gateway"))
    interfaces = [e for e in plan.of("aws_vpc_endpoint") if e["vpc_endpoint_type"] == "Interface"]
    # An interface endpoint stands in each zone with a NAT gateway: modules/network/endpoints.tf.
    counted = (
        ("EKS control plane", len(plan.of("aws_eks_cluster")), prices["cluster_hour"] * hours),
        ("NAT gateway", nat_gateways, prices["nat_gateway_hour"] * hours),
        ("public IPv4 address", len(plan.of("aws_eip")), prices["public_ipv4_hour"] * hours),
        (
            "interface endpoint",
            len(interfaces) * nat_gateways,
            prices["interface_endpoint_hour"] * hours,
        ),
        ("KMS key", len(plan.of("aws_kms_key")), prices["key_month"]),
    )
    lines = [(f"{number} {what}", number * price) for what, number, price in counted if number]
    return lines + list(node_lines(plan, prices, hours))


def gpu_lines(plan: Plan, prices: dict[str, Any]) -> Iterator[str]:
    """Say what an hour of a GPU costs in each group of GPU nodes."""
    gpus = {
        tag["key"].split("/")[0]: int(tag["tag"][0]["value"])
        for tag in plan.of("aws_autoscaling_group_tag")
        if tag["key"].endswith("/resources/nvidia.com/gpu")
    }
    for group in plan.of("aws_eks_node_group"):
        name = group_name(group)
        if name in gpus:
            kind = group["instance_types"][0]
            hour = instance_price(prices, kind) / gpus[name]
            spot = ", less on spot" if group["capacity_type"] == "SPOT" else ""
            most = group["scaling_config"][0]["max_size"]
            yield f"{hour:.4f} USD per GPU-hour in {name} ({kind}, at most {most} nodes){spot}"


def refuse_unknown_types(plan: Plan, known: set[str]) -> None:
    """Raise InfraError for a type that prices.json does not speak of: its cost would be missing."""
    unknown = sorted({resource["type"] for resource in plan.resources} - known)
    if unknown:
        raise InfraError(
            f"{PLACE} does not say what {', '.join(unknown)} costs: name it under "
            "`by_use` or `free`, or price it in infra/modules/commands/cost.py"
        )


PRICED = {
    "aws_eip",
    "aws_eks_cluster",
    "aws_eks_node_group",
    "aws_kms_key",
    "aws_nat_gateway",
    "aws_vpc_endpoint",
}


def report(plan: Plan, book: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the cost page."""
    refuse_unknown_types(plan, PRICED | set(book["by_use"]) | set(book["free"]))
    region = plan.region if plan.region in book["regions"] else DEFAULT_REGION
    prices, hours = book["regions"][region], book["hours_per_month"]
    yield f"Prices of {region}, {book['date']}: {book['source']}"
    if region != plan.region:
        yield f"{PLACE} has no prices of {plan.region}; expect other figures there"
    lines = floor_lines(plan, prices, hours)
    yield ""
    for what, month in lines:
        yield f"{month:10.2f}  {what}"
    yield f"{sum(month for _, month in lines):10.2f}  USD a month while nothing runs"
    yield ""
    yield from gpu_lines(plan, prices)
    used = Counter(r["type"] for r in plan.resources if r["type"] in book["by_use"])
    by_use = ", ".join(f"{number} × {book['by_use'][kind]}" for kind, number in used.items())
    yield f"By use, on top: {by_use}, traffic through NAT and endpoints"


def main() -> int:
    """Print the page; return the exit status."""
    return reported(lambda: print(*report(read_plan(), json.loads(PRICES.read_text())), sep="\n"))


if __name__ == "__main__":
    sys.exit(main())
