"""The cost page and the places that outputs are written to, without Terraform."""

import copy
import json
import sys

import pytest

from conftest import TEMPLATE, UNBAKED

sys.path.insert(0, str(TEMPLATE / "infra/commands"))

import quota
from cost import Plan, report
from outputs import with_registry, with_remote
from roots import InfraError

BOOK = json.loads((TEMPLATE / "infra/commands/prices.json").read_text())


def resource(kind: str, index: str | None = None, **values) -> dict:
    return {
        "mode": "managed",
        "address": f"{kind}.this",
        "type": kind,
        "index": index,
        "values": values,
    }


def plan(*resources: dict, region: str = "eu-central-1") -> Plan:
    return Plan(
        [
            {
                "variables": {"region": {"value": region}},
                "planned_values": {
                    "root_module": {
                        "resources": [resources[0]],
                        "child_modules": [{"resources": list(resources[1:])}],
                    }
                },
            }
        ]
    )


def node_group(name: str, kind: str, kept: int) -> tuple[dict, dict]:
    disk = {"ebs": [{"volume_size": 100, "iops": 4000, "throughput": 225}]}
    return (
        resource("aws_launch_template", index=name, block_device_mappings=[disk]),
        resource(
            "aws_eks_node_group",
            node_group_name_prefix=f"{name}-",
            instance_types=[kind],
            capacity_type="SPOT",
            scaling_config=[{"min_size": kept, "max_size": 3}],
        ),
    )


def test_nodes_that_stay_are_priced_with_their_disks():
    page = "\n".join(report(plan(*node_group("gpu", "g6.xlarge", kept=2)), BOOK))
    nodes, disks = 2 * 1.0064 * 730, 2 * (100 * 0.0952 + 1000 * 0.006 + 100 * 0.048)
    assert f"{nodes:.2f}  2 g6.xlarge of node group gpu" in page
    assert f"{disks:.2f}  200 GiB disks of node group gpu" in page
    assert f"{nodes + disks:.2f}  USD a month while nothing runs" in page


def test_a_gpu_hour_of_a_node_of_four_is_a_quarter_of_the_node():
    tag = {"key": "k8s.io/…/resources/nvidia.com/gpu", "value": "4"}
    hint = resource("aws_autoscaling_group_tag", "gpu/resources/nvidia.com/gpu", tag=[tag])
    tag = {"key": "k8s.io/…/resources/ephemeral-storage", "value": "90Gi"}
    disk = resource("aws_autoscaling_group_tag", "gpu/resources/ephemeral-storage", tag=[tag])
    page = "\n".join(report(plan(*node_group("gpu", "g6.12xlarge", kept=0), hint, disk), BOOK))
    assert "1.4386 USD per GPU-hour in gpu (g6.12xlarge, at most 3 nodes), less on spot" in page


def test_a_region_without_prices_is_named():
    lines = list(report(plan(resource("aws_kms_key"), region="sa-east-1"), BOOK))
    assert lines[0].startswith("Prices of us-east-1")
    place = "infra/modules/commands/prices.json"
    assert lines[1] == f"{place} has no prices of sa-east-1; expect other figures there"


def test_an_instance_type_without_a_price_is_refused():
    with pytest.raises(InfraError, match=r"no price of p5\.48xlarge: add it to `instance_hour`"):
        list(report(plan(*node_group("gpu", "p5.48xlarge", kept=1)), BOOK))
    book = copy.deepcopy(BOOK)
    for prices in book["regions"].values():
        prices["instance_hour"]["p5.48xlarge"] = 98.32
    assert list(report(plan(*node_group("gpu", "p5.48xlarge", kept=1)), book))


@pytest.mark.parametrize("place", ["by_use", "free"])
def test_a_type_that_is_named_has_its_place(place):
    with pytest.raises(InfraError, match="what aws_new costs: name it under `by_use` or `free`"):
        list(report(plan(resource("aws_new")), BOOK))
    named = BOOK["by_use"] | {"aws_new": "new"} if place == "by_use" else [*BOOK["free"], "aws_new"]
    assert list(report(plan(resource("aws_new")), BOOK | {place: named}))


def test_a_resource_of_unknown_cost_is_refused():
    with pytest.raises(InfraError, match="does not say what aws_db_instance costs"):
        list(report(plan(resource("aws_db_instance")), BOOK))


def test_the_registry_is_replaced_and_comments_stay():
    params = (
        "seed: 1\nrelease:\n  # where models go\n  registry: oci:.local # a folder\n  other: 2\n"
    )
    assert with_registry(params, "host/name") == params.replace("oci:.local", "host/name")


def test_params_without_a_registry_are_refused():
    with pytest.raises(InfraError, match="no `registry` in its section `release`"):
        with_registry("release:\n  other: 2\nregistry: 3\n", "host/name")


def test_the_remote_is_added_once_and_the_rest_stays():
    config = "[core]\n    analytics = false\n"
    once = with_remote(config, "s3://bucket/dvc")
    assert once == (
        config + "    remote = store\n['remote \"store\"']\n    url = s3://bucket/dvc\n"
    )
    assert with_remote(once, "s3://bucket/dvc") == once


def test_the_shipped_remote_is_replaced():
    shipped = (UNBAKED / ".dvc/config").read_text()
    url = "url = ../.local/data\n"
    assert url in shipped
    assert with_remote(shipped, "s3://bucket/dvc") == shipped.replace(
        url, "url = s3://bucket/dvc\n"
    )


VCPUS = {"t3.large": 2, "g6.xlarge": 4, "gr6.4xlarge": 16, "p5.48xlarge": 192}


def answer(quota_value: float):
    """AWS's command line in an account whose quotas are all the same."""

    def aws(service: str, operation: str, *options: str) -> dict:
        if operation == "describe-instance-types":
            return {
                "InstanceTypes": [
                    {"InstanceType": kind, "VCpuInfo": {"DefaultVCpus": VCPUS[kind]}}
                    for kind in options[1 : options.index("--region")]
                ]
            }
        return {"Quota": {"Value": quota_value}}

    return aws


def test_a_quota_that_is_too_small_is_told_with_the_request(monkeypatch, capsys):
    groups = plan(*node_group("system", "t3.large", kept=2), *node_group("gpu", "g6.xlarge", 0))
    monkeypatch.setattr(quota, "aws", answer(quota_value=6.0))
    with pytest.raises(InfraError) as told:
        quota.compare(groups)
    request = (
        "`aws service-quotas request-service-quota-increase --service-code ec2 --quota-code "
        "L-3819A6DF --region eu-central-1 --desired-value 12`"
    )
    assert (
        f"1 of the account's quotas would keep nodes from starting: ask for more with {request}"
        in str(told.value)
    )
    assert capsys.readouterr().out.splitlines() == [
        "G and VT, SPOT: at most 12 vCPUs, the quota is 6",
        "Standard, SPOT: at most 6 vCPUs, the quota is 6",
    ]
    monkeypatch.setattr(quota, "aws", answer(quota_value=12.0))
    quota.compare(groups)


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        ("g6.xlarge", "G and VT"),
        ("gr6.4xlarge", "G and VT"),
        ("p5.48xlarge", "P"),
        ("t3.large", "Standard"),
    ],
)
def test_aws_counts_types_by_family(kind, family):
    assert quota.family(kind) == family
