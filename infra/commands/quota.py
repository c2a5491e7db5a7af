"""Compare what the planned node groups may grow to with the account's quotas: `quota.py`.

AWS counts processors of running instances, by family, and lets a new account have few or none that
have GPUs: then every node that the autoscaler asks for is refused.

Standard library only, as `roots.py`.
"""

import re
import sys
from collections import Counter

from cost import Plan, read_plan
from failures import InfraError, reported
from roots import aws

# Quotas of EC2 by family of types and by capacity.
CODES = {
    ("G and VT", "ON_DEMAND"): "L-DB2E81BA",
    ("G and VT", "SPOT"): "L-3819A6DF",
    ("P", "ON_DEMAND"): "L-417A185B",
    ("P", "SPOT"): "L-7212CCBC",
    ("Standard", "ON_DEMAND"): "L-1216C47A",
    ("Standard", "SPOT"): "L-34B43A08",
}
FAMILIES = {"g": "G and VT", "gr": "G and VT", "p": "P"}  # by the letters that a type begins with

Quota = tuple[str, str]  # family, capacity


def processors(types: set[str], region: str) -> dict[str, int]:
    """Return how many vCPUs each instance type has. Raises InfraError."""
    asked = ["--instance-types", *sorted(types), "--region", region]
    found = aws("ec2", "describe-instance-types", *asked)["InstanceTypes"]
    return {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in found}


def family(instance_type: str) -> str:
    """Return the family by which AWS counts a type."""
    letters = re.match(r"[a-z]*", instance_type)
    return FAMILIES.get(letters[0] if letters else "", "Standard")


def most(plan: Plan) -> Counter[Quota]:
    """Return the vCPUs of all nodes that there may be at once, by quota. Raises InfraError."""
    groups = plan.of("aws_eks_node_group")
    vcpus = processors({group["instance_types"][0] for group in groups}, plan.region)
    total: Counter[Quota] = Counter()
    for group in groups:
        kind, capacity = group["instance_types"][0], group.get("capacity_type") or "ON_DEMAND"
        total[family(kind), capacity] += vcpus[kind] * group["scaling_config"][0]["max_size"]
    return total


def compare(plan: Plan) -> None:
    """Print each quota beside what may be needed. Raises InfraError where one is too small."""
    lacking = []
    for (kind, capacity), needed in sorted(most(plan).items()):
        of_it = ["--service-code", "ec2", "--quota-code", CODES[kind, capacity]]
        of_it += ["--region", plan.region]
        quota = int(aws("service-quotas", "get-service-quota", *of_it)["Quota"]["Value"])
        print(f"{kind}, {capacity}: at most {needed} vCPUs, the quota is {quota}")
        if quota < needed:
            asked = ["request-service-quota-increase", *of_it, "--desired-value", str(needed)]
            lacking.append(" ".join(["aws", "service-quotas", *asked]))
    if lacking:
        raise InfraError(
            f"{len(lacking)} of the account's quotas would keep nodes from starting: ask for more "
            f"with `{'`, `'.join(lacking)}`, and wait for AWS's yes, hours or days"
        )


def main() -> int:
    """Compare; return the exit status."""
    return reported(lambda: compare(read_plan()))


if __name__ == "__main__":
    sys.exit(main())
