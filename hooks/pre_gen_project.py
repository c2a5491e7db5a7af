"""Refuse an answer that would fail later in Kubernetes, AWS or GitHub, before writing a file."""

import json
import re
import sys

ANSWERS = json.loads(r"""<< cookiecutter | tojson >>""")

# Regions of the commercial, China and GovCloud partitions.
# Source: AWS General Reference, "Regional endpoints".
REGIONS = """
af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2
ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6
ap-southeast-7 ca-central-1 ca-west-1 cn-north-1 cn-northwest-1 eu-central-1 eu-central-2
eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1
me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-gov-east-1 us-gov-west-1 us-west-1
us-west-2
""".split()

# x86-64 families with an NVIDIA GPU of compute capability 7.5 or newer, which Triton needs.
GPU_FAMILIES = "g4dn g5 g6 g6e g6f gr6 gr6f g7e p4d p4de p5 p5e p5en p6-b200 p6-b300".split()


def project(value: str) -> str | None:
    # The strictest of the names made from it: an S3 bucket, `<project>-tfstate-<account>` (63).
    if re.fullmatch(r"[a-z](-?[a-z0-9])*", value) and 3 <= len(value) <= 32:
        return None
    return "use 3 to 32 lower-case letters, digits and single hyphens, a letter first"


def github_owner(value: str) -> str | None:
    if re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}", value) and len(value) <= 39:
        return None
    return "use a GitHub name: up to 39 letters, digits and single hyphens"


def approvers(value: str) -> str | None:
    name = r"[A-Za-z0-9](-?[A-Za-z0-9])*"
    if re.fullmatch(rf"@{name}(/{name})?", value):
        return None
    return "use one @user or @organisation/team"


def aws_region(value: str) -> str | None:
    return None if value in REGIONS else "use the code of an AWS region"


def gpu_instance_type(value: str) -> str | None:
    family, _, size = value.partition(".")
    if family in GPU_FAMILIES and re.fullmatch(r"(\d+x)?large|xlarge|metal", size):
        return None
    return f"use an x86-64 NVIDIA type of one of {', '.join(GPU_FAMILIES)}"


CHECKS = {  # answer: (check, a good answer)
    "project": (project, "digit-classifier"),
    "github_owner": (github_owner, "acme"),
    "approvers": (approvers, "@acme/ml-platform"),
    "aws_region": (aws_region, "eu-central-1"),
    "gpu_instance_type": (gpu_instance_type, "g6.xlarge"),
}

for name, (check, example) in CHECKS.items():
    value = str(ANSWERS[name])
    if rule := check(value):
        shown = value if len(value) <= 80 else value[:77] + "..."
        sys.exit(f"{name} is {shown!r}: {rule}, for example {example!r}.")
