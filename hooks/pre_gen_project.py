"""Refuse an answer that would fail later in Kubernetes, AWS or GitHub, before writing a file."""

import json
import os
import re
import sys
from pathlib import Path

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


# Names of devices on Windows, where no folder can have them; names with which `<project>-*` would
# be namespaces of Kubernetes or of the platform; beginnings that AWS takes in no bucket's name.
RESERVED = (
    r"con|prn|aux|nul|com\d|lpt\d|argo|cluster|kube(-.*)?|kuberay|(sthree|amzn-s3-demo)(-.*)?"
)


def project(value: str) -> str | None:
    # The strictest of the names made from it: an S3 bucket, `<project>-tfstate-<account>` (63).
    if not re.fullmatch(r"[a-z](-?[a-z0-9])*", value) or not 3 <= len(value) <= 32:
        return "use 3 to 32 lower-case letters, digits and single hyphens, a letter first"
    if re.fullmatch(RESERVED, value):
        return "use a name that neither Windows, Kubernetes, AWS nor the platform reserves"
    return None


NAME = "[A-Za-z0-9](-?[A-Za-z0-9])*"  # of a user or an organisation, up to 39 characters


def github_owner(value: str) -> str | None:
    if re.fullmatch(NAME, value) and len(value) <= 39:
        return None
    return "use a GitHub name: up to 39 letters, digits and single hyphens"


def approvers(value: str) -> str | None:
    owner, _, team = value.partition("/")
    if re.fullmatch(rf"@{NAME}(/{NAME})?", value) and len(owner) <= 40 and len(team) <= 100:
        return None
    return "use one @user or @organisation/team"


def aws_region(value: str) -> str | None:
    return None if value in REGIONS else "use the code of an AWS region"


def gpu_instance_type(value: str) -> str | None:
    family, _, size = value.partition(".")
    if family in GPU_FAMILIES and re.fullmatch(r"([0-9]+x)?large|xlarge|metal", size):
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

# Cookiecutter stands in the template while a hook runs in the project, wherever its user stood.
BROUGHT = next(Path(f"/proc/{os.getppid()}/cwd").glob("*cookiecutter.project*"), None)

SOURCES = (f"src/{name}" for name in ("delivery", "reporting", "tuning", "workspace"))
for folder in ("infra/modules", "argocd/base", *SOURCES):
    if BROUGHT and not (BROUGHT / folder).is_dir():
        sys.exit(
            f"{folder} is not a folder: this copy of the template lost its symbolic links, as zip "
            "archives do; generate from a git clone or from the repository's address instead."
        )

# Cookiecutter puts a folder that is copied as it is in the place of one that is there.
if BROUGHT and (BROUGHT / ".local").exists() and Path(".local").exists():
    sys.exit(
        f"{Path('.local').absolute()} holds images and data, and the template has a .local that "
        "would take its place: generate from a fresh git clone of the template."
    )
