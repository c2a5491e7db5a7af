"""moto's AWS on loopback, with the few EKS calls that moto lacks: `python mock_cloud.py <port>`.

All that the mock cloud does not represent as AWS does is listed here:

* Add-ons, access entries and pod identity associations of EKS do not exist in moto. They are kept
  here in memory, active at once, with the fields that Terraform's provider reads.
* moto forgets a cluster's access and upgrade settings and derives nothing from its network, so
  every plan would replace the cluster. They are kept.
* moto gives each node group an SSH key, loses how it is updated, and names a scaling group that it
  does not make. The first two are put right; the group is made, without machines.
* moto keeps the tags of a launch template among those that the template gives to machines. They are
  left out there.
* moto cannot delete an object that was deleted before, behind its delete marker. It can here.
* moto reads no conditions in bucket policies, so "deny without TLS" would deny everything. Policies
  are stored, not enforced; and nothing is started or billed.
"""

import json
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

# The roles attach policies that AWS keeps in every account; moto reads this when it is imported.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

from moto.autoscaling.models import autoscaling_backends
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.eks import urls
from moto.eks.exceptions import ResourceNotFoundException
from moto.eks.responses import EKSResponse
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket, FakeDeleteMarker
from moto.server import main

Parts = dict[tuple[str, ...], dict[str, Any]]

# Kind in the path: (its name in a response, the field that names one).
KINDS = {
    "addon": ("addon", "addonName"),
    "access-entry": ("accessEntry", "principalArn"),
    "podidentityassociation": ("association", "associationId"),
}

parts: Parts = {}
policies: Parts = {}


def given(response: EKSResponse) -> dict[str, Any]:
    """Return the fields of a request, from its path and its body."""
    path = {name: unquote(value) for name, value in response.uri_match.items()}
    body = json.loads(response.body or "{}")
    return body | path | {"clusterName": path["name"]}


def find(store: Parts, *key: str) -> dict[str, Any]:
    if key not in store:
        raise ResourceNotFoundException(message=f"{'/'.join(key)} does not exist")
    return store[key]


def creates(kind: str) -> Callable[[EKSResponse], ActionResult]:
    wrapper, name = KINDS[kind]

    def create(response: EKSResponse) -> ActionResult:
        fields = given(response)
        fields.setdefault(name, f"a-{uuid.uuid4().hex[:16]}")
        arn = f"arn:aws:eks:{response.region}:{response.current_account}:{kind}"
        arn = f"{arn}/{fields['clusterName']}/{fields[name].rpartition('/')[2]}"
        part = {
            "status": "ACTIVE",
            "health": {"issues": []},
            "addonVersion": "v1.0.0-eksbuild.1",
            "type": "STANDARD",
            "username": fields[name],
            "kubernetesGroups": [],
            "tags": {},
            f"{wrapper}Arn": arn,
        } | fields
        parts[kind, fields["clusterName"], fields[name]] = part
        return ActionResult({wrapper: part})

    return create


def describes(kind: str) -> Callable[[EKSResponse], ActionResult]:
    wrapper, name = KINDS[kind]

    def describe(response: EKSResponse) -> ActionResult:
        fields = given(response)
        return ActionResult({wrapper: find(parts, kind, fields["clusterName"], fields[name])})

    return describe


def deletes(kind: str) -> Callable[[EKSResponse], ActionResult]:
    wrapper, name = KINDS[kind]

    def delete(response: EKSResponse) -> ActionResult:
        fields = given(response)
        part = find(parts, kind, fields["clusterName"], fields[name])
        del parts[kind, fields["clusterName"], fields[name]]
        return ActionResult({wrapper: part})

    return delete


def list_pod_identity_associations(response: EKSResponse) -> ActionResult:
    cluster = given(response)["clusterName"]
    kind = ("podidentityassociation", cluster)
    return ActionResult({"associations": [part for key, part in parts.items() if key[:2] == kind]})


def associate_access_policy(response: EKSResponse) -> ActionResult:
    fields = given(response)
    policy = {"policyArn": fields["policyArn"], "accessScope": fields["accessScope"]}
    policies[fields["clusterName"], fields["principalArn"], fields["policyArn"]] = policy
    return ActionResult(fields | {"associatedAccessPolicy": policy})


def list_associated_access_policies(response: EKSResponse) -> ActionResult:
    fields = given(response)
    holder = (fields["clusterName"], fields["principalArn"])
    find(parts, "access-entry", *holder)
    held = [policy for key, policy in policies.items() if key[:2] == holder]
    return ActionResult({"associatedAccessPolicies": held})


def disassociate_access_policy(response: EKSResponse) -> EmptyResult:
    fields = given(response)
    del policies[fields["clusterName"], fields["principalArn"], fields["policyArn"]]
    return EmptyResult()


def remember_settings(create_cluster: Callable) -> Callable:
    """Keep what moto forgets of a new cluster, with AWS's own defaults."""

    def create(response: EKSResponse) -> ActionResult:
        result = create_cluster(response)
        fields = json.loads(response.body)
        cluster = response.eks_backend.clusters[fields["name"]]
        cluster.access_config = fields["accessConfig"]
        cluster.upgrade_policy = fields["upgradePolicy"]
        ec2 = ec2_backends[response.current_account][response.region]
        network = cluster.resources_vpc_config
        network["vpcId"] = ec2.get_subnet(network["subnetIds"][0]).vpc_id
        group = ec2.create_security_group(
            f"eks-cluster-{cluster.name}", "Made by EKS", vpc_id=network["vpcId"]
        )
        network["clusterSecurityGroupId"] = group.id
        return result

    return create


def forget_group(delete_cluster: Callable) -> Callable:
    """Delete with a cluster the security group that AWS would delete."""

    def delete(response: EKSResponse) -> ActionResult:
        name = response.uri_match["name"]
        network = response.eks_backend.clusters[name].resources_vpc_config
        ec2 = ec2_backends[response.current_account][response.region]
        result = delete_cluster(response)
        ec2.delete_security_group(group_id=network["clusterSecurityGroupId"])
        return result

    return delete


def complete_nodegroup(create_nodegroup: Callable) -> Callable:
    """Put a new node group right, and make the scaling group that moto only names."""

    def create(response: EKSResponse) -> ActionResult:
        result = create_nodegroup(response)
        fields = given(response)
        cluster = response.eks_backend.clusters[fields["clusterName"]]
        node_group = cluster.nodegroups[fields["nodegroupName"]]
        node_group.remote_access = None
        node_group.update_config = fields["updateConfig"]
        autoscaling_backends[response.current_account][response.region].create_auto_scaling_group(
            name=node_group.resources["autoScalingGroups"][0]["name"],
            availability_zones=[],
            desired_capacity=0,
            min_size=0,
            max_size=fields["scalingConfig"]["maxSize"],
            launch_config_name="",
            launch_template={
                "LaunchTemplateId": fields["launchTemplate"]["id"],
                "Version": fields["launchTemplate"]["version"],
            },
            vpc_zone_identifier=",".join(fields["subnets"]),
            default_cooldown=None,
            health_check_period=None,
            health_check_type=None,
            load_balancers=[],
            target_group_arns=[],
            placement_group=None,
            termination_policies=[],
            tags=[],
        )
        return result

    return create


def drop_own_tags(create_version: Callable) -> Callable:
    """Leave a launch template's own tags out of those that it gives to machines."""

    def create(template: LaunchTemplate, data: dict[str, Any], description: str):
        tags = data.get("TagSpecifications", [])
        data["TagSpecifications"] = [s for s in tags if s["ResourceType"] != "launch-template"]
        return create_version(template, data, description)

    return create


def extend_moto() -> None:
    for kind, noun in (
        ("addon", "addon"),
        ("access-entry", "access_entry"),
        ("podidentityassociation", "pod_identity_association"),
    ):
        setattr(EKSResponse, f"create_{noun}", creates(kind))
        setattr(EKSResponse, f"describe_{noun}", describes(kind))
        setattr(EKSResponse, f"delete_{noun}", deletes(kind))
    for call in (
        associate_access_policy,
        list_associated_access_policies,
        disassociate_access_policy,
        list_pod_identity_associations,
    ):
        setattr(EKSResponse, call.__name__, call)
    EKSResponse.create_cluster = remember_settings(EKSResponse.create_cluster)
    EKSResponse.delete_cluster = forget_group(EKSResponse.delete_cluster)
    EKSResponse.create_nodegroup = complete_nodegroup(EKSResponse.create_nodegroup)
    FakeDeleteMarker.dispose = lambda *_: None
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL
    LaunchTemplate.create_version = drop_own_tags(LaunchTemplate.create_version)
    path = r"{0}/clusters/(?P<name>[^/]+)/(?P<part>addons|access-entries|pod-identity-associations)"
    urls.url_paths[path + "$"] = EKSResponse.dispatch
    urls.url_paths[path + "/(?P<rest>.+)$"] = EKSResponse.dispatch


if __name__ == "__main__":
    extend_moto()
    main(["--host", "127.0.0.1", "--port", sys.argv[1]])
