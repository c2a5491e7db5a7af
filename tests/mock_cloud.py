"""moto's AWS on loopback, with the few EKS calls that moto lacks: `python mock_cloud.py <port>`.

All that the mock cloud does not represent as AWS does is listed here:

* Add-ons, access entries and pod identity associations of EKS do not exist in moto. They are kept
  here in memory, active at once, with the fields that Terraform's provider reads. So are versions:
  of add-ons, of nodes' images, and the updates to them, each of which is done at once.
* moto forgets a cluster's access and upgrade settings and derives nothing from its network, so
  every plan would replace the cluster. They are kept.
* moto gives each node group an SSH key, loses how it is updated and repaired, and names a scaling
  group that it does not make. The first is put right; the group is made, with AWS's tags, without
  machines, and goes with the node group.
* moto says yes to what AWS refuses. What is refused here, too: see `refuse`.
* Rules by which ECR stands before other registries do not exist in moto. They are kept here; no
  image is fetched, so the repositories that ECR would make are made by whoever tries it.
* EKS writes its last logs after a cluster is gone, and makes their log group again for it.
* moto keeps the tags of a launch template among those that the template gives to machines. They are
  left out there.
* moto cannot delete an object that was deleted before, behind its delete marker. It can here.
* moto reads no conditions in bucket policies, so "deny without TLS" would deny everything. Policies
  are stored, not enforced; and nothing is started or billed.
"""

import ipaddress
import json
import os
import re
import sys
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

# The roles attach policies that AWS keeps in every account; moto reads this when it is imported.
os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"

from moto.autoscaling.models import autoscaling_backends
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.models import ec2_backends
from moto.ec2.models.launch_templates import LaunchTemplate
from moto.ecr.responses import ECRResponse
from moto.eks import urls
from moto.eks.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.eks.responses import EKSResponse
from moto.iam.access_control import PermissionResult
from moto.logs.models import LogsBackend
from moto.s3.models import FakeBucket, FakeDeleteMarker
from moto.secretsmanager.models import secretsmanager_backends
from moto.server import main
from moto.servicequotas.models import ServiceQuotasBackend
from moto.ssm.models import Parameter, SimpleSystemManagerBackend

Parts = dict[tuple[str, ...], dict[str, Any]]

# Kind in the path: (its name in a response, the field that names one).
KINDS = {
    "addon": ("addon", "addonName"),
    "access-entry": ("accessEntry", "principalArn"),
    "podidentityassociation": ("association", "associationId"),
}

VERSIONS = ("1.34", "1.35", "1.36", "1.37")  # of Kubernetes, that EKS has
NO_CLUSTER = {"use1-az3", "usw1-az2", "cac1-az3"}  # zones in which EKS takes no subnets
RESERVED = [  # ranges that the public end of a cluster's API takes no callers from
    ipaddress.ip_network(each)
    for each in "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 "
    "192.168.0.0/16 224.0.0.0/3".split()
]
# Registries that ECR can stand before, and whether it asks for an account there.
UPSTREAMS = {
    **dict.fromkeys(("public.ecr.aws", "quay.io", "registry.k8s.io"), False),
    **dict.fromkeys(("ghcr.io", "registry-1.docker.io", "registry.gitlab.com"), True),
}
IMAGE = re.compile(r"/aws/service/eks/optimized-ami/([0-9.]+)/.*/release_version")

parts: Parts = {}
policies: Parts = {}
caches: dict[str, dict[str, Any]] = {}  # ECR's rules by the prefix of their copies
gone: set[str] = set()  # log groups of clusters that were deleted


def refuse(wrong: bool, message: str) -> None:
    """Answer as AWS does to a request that it does not take."""
    if wrong:
        raise InvalidParameterException(message=message)


def newest(version: str, name: str) -> str:
    """Return the version of an add-on that belongs to a version of Kubernetes."""
    refuse(version not in VERSIONS, f"{name}: no such version of Kubernetes: {version}")
    return f"v{version}.0-eksbuild.1"


def given(response: EKSResponse) -> dict[str, Any]:
    """Return the fields of a request, from its path and its body."""
    path = {name: unquote(value) for name, value in response.uri_match.items()}
    body = json.loads(response.body or "{}")
    return body | path | {"clusterName": path["name"]}


def find(store: Parts, *key: str) -> dict[str, Any]:
    if key not in store:
        raise ResourceNotFoundException(message=f"{'/'.join(key)} does not exist")
    return store[key]


def done(kind: str) -> ActionResult:
    """Answer an update; nothing takes time here."""
    return ActionResult({"update": {"id": uuid.uuid4().hex, "status": "Successful", "type": kind}})


def describe_update(response: EKSResponse) -> ActionResult:
    return done("VersionUpdate")


def update_cluster_version(response: EKSResponse) -> ActionResult:
    fields = given(response)
    cluster = response.eks_backend.clusters[fields["clusterName"]]
    now, then = (VERSIONS.index(each) for each in (cluster.version, fields["version"]))
    refuse(then != now + 1, f"Unsupported update from {cluster.version} to {fields['version']}")
    cluster.version = fields["version"]
    return done("VersionUpdate")


def describe_addon_versions(response: EKSResponse) -> ActionResult:
    name, version = (response.querystring[each][0] for each in ("addonName", "kubernetesVersion"))
    fits = [{"clusterVersion": version, "defaultVersion": True}]
    found = {"addonVersion": newest(version, name), "compatibilities": fits}
    return ActionResult({"addons": [{"addonName": name, "addonVersions": [found]}]})


def check_addon(response: EKSResponse, fields: dict[str, Any]) -> None:
    """Refuse an add-on that does not fit the cluster."""
    version = response.eks_backend.clusters[fields["clusterName"]].version
    fits = newest(version, fields["addonName"])
    refuse(fields["addonVersion"] != fits, f"{fields['addonVersion']} does not fit {version}")


def update_addon(response: EKSResponse) -> ActionResult:
    fields = given(response)
    check_addon(response, fields)
    find(parts, "addon", fields["clusterName"], fields["addonName"]).update(fields)
    return done("AddonUpdate")


def associate(response: EKSResponse, fields: dict[str, Any]) -> list[str]:
    """Make the associations that an add-on asks for; return their ARNs."""
    made = []
    for asked in fields.get("podIdentityAssociations") or []:
        number = f"a-{uuid.uuid4().hex[:16]}"
        arn = f"arn:aws:eks:{response.region}:{response.current_account}:podidentityassociation"
        made.append(f"{arn}/{fields['clusterName']}/{number}")
        parts["podidentityassociation", fields["clusterName"], number] = asked | {
            "clusterName": fields["clusterName"],
            "namespace": "kube-system",
            "associationId": number,
            "associationArn": made[-1],
            "tags": {},
        }
    return made


def creates(kind: str) -> Callable[[EKSResponse], ActionResult]:
    wrapper, name = KINDS[kind]

    def create(response: EKSResponse) -> ActionResult:
        fields = given(response)
        fields.setdefault(name, f"a-{uuid.uuid4().hex[:16]}")
        if kind == "addon":
            check_addon(response, fields)
            fields["podIdentityAssociations"] = associate(response, fields)
        arn = f"arn:aws:eks:{response.region}:{response.current_account}:{kind}"
        arn = f"{arn}/{fields['clusterName']}/{fields[name].rpartition('/')[2]}"
        part = {
            "status": "ACTIVE",
            "health": {"issues": []},
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
        for arn in part.get("podIdentityAssociations", []):
            del parts["podidentityassociation", fields["clusterName"], arn.rpartition("/")[2]]
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
        fields = json.loads(response.body)
        check_network(response, fields["resourcesVpcConfig"])
        newest(fields["version"], fields["name"])
        result = create_cluster(response)
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


def check_network(response: EKSResponse, network: dict[str, Any]) -> None:
    """Refuse subnets and callers as EKS does."""
    ec2 = ec2_backends[response.current_account][response.region]
    zones = {ec2.get_subnet(each).availability_zone_id for each in network["subnetIds"]}
    refuse(bool(zones & NO_CLUSTER), f"UnsupportedAvailabilityZoneException: {zones & NO_CLUSTER}")
    refuse(len(zones) < 2, "Subnets specified must be in at least two different AZs")
    for cidr in network.get("publicAccessCidrs") or []:
        callers = ipaddress.ip_network(cidr)
        refuse(callers.version == 6, f"The following CIDRs are invalid: {cidr}")
        refuse(any(map(callers.subnet_of, RESERVED)), f"CIDRs are reserved: {cidr}")


def forget_group(delete_cluster: Callable) -> Callable:
    """Delete with a cluster the security group that AWS would delete."""

    def delete(response: EKSResponse) -> ActionResult:
        name = response.uri_match["name"]
        network = response.eks_backend.clusters[name].resources_vpc_config
        ec2 = ec2_backends[response.current_account][response.region]
        result = delete_cluster(response)
        gone.add(f"/aws/eks/{name}/cluster")
        ec2.delete_security_group(group_id=network["clusterSecurityGroupId"])
        return result

    return delete


def complete_nodegroup(create_nodegroup: Callable) -> Callable:
    """Put a new node group right, and make the scaling group that moto only names."""

    def create(response: EKSResponse) -> ActionResult:
        fields = given(response)
        cluster = response.eks_backend.clusters[fields["clusterName"]]
        check_nodes(fields["scalingConfig"])
        check_places(response, fields)
        check_image(fields["releaseVersion"], fields["version"], cluster.version)
        result = create_nodegroup(response)
        node_group = cluster.nodegroups[fields["nodegroupName"]]
        node_group.remote_access = None
        node_group.update_config = fields["updateConfig"]
        node_group.node_repair_config = fields["nodeRepairConfig"]
        group_tags = {
            "eks:cluster-name": cluster.name,
            "eks:nodegroup-name": fields["nodegroupName"],
            f"k8s.io/cluster-autoscaler/{cluster.name}": "owned",
        }
        autoscaling_backends[response.current_account][response.region].create_auto_scaling_group(
            name=node_group.resources["autoScalingGroups"][0]["name"],
            availability_zones=[],
            desired_capacity=0,  # see `resize`
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
            tags=[
                {
                    "Key": key,
                    "Value": value,
                    "PropagateAtLaunch": True,
                    "ResourceId": node_group.resources["autoScalingGroups"][0]["name"],
                    "ResourceType": "auto-scaling-group",
                }
                for key, value in group_tags.items()
            ],
        )
        resize(response, node_group)
        return result

    return create


def scaling_group(response: EKSResponse, node_group: Any) -> Any:
    """Return the scaling group of a node group."""
    groups = autoscaling_backends[response.current_account][response.region].autoscaling_groups
    return groups[node_group.resources["autoScalingGroups"][0]["name"]]


def resize(response: EKSResponse, node_group: Any) -> None:
    """Have the scaling group say how many nodes there should be, and start none."""
    scaling_group(response, node_group).desired_capacity = node_group.scaling_config["desiredSize"]


def check_nodes(sizes: dict[str, int]) -> None:
    wrong = not sizes["minSize"] <= sizes["desiredSize"] <= sizes["maxSize"]
    refuse(wrong, f"desired capacity {sizes['desiredSize']} is not between min and max")


def check_places(response: EKSResponse, fields: dict[str, Any]) -> None:
    """Refuse subnets in a zone that offers none of the types, and those without a way out."""
    ec2 = ec2_backends[response.current_account][response.region]
    offers = ec2.describe_instance_type_offerings(
        "availability-zone", {"instance-type": fields["instanceTypes"]}
    )
    zones = {ec2.get_subnet(each).availability_zone for each in fields["subnets"]}
    lacking = zones - {each["Location"] for each in offers}
    refuse(bool(lacking), f"{fields['instanceTypes']} are not offered in {lacking}")
    leads_out = {
        subnet
        for table in ec2.route_tables.values()
        if any(route.nat_gateway for route in table.routes)
        for subnet in table._associations.values()
    }
    stranded = {*fields["subnets"]} - leads_out
    refuse(bool(stranded), f"NodeCreationFailure: machines in {stranded} cannot join")


def check_image(image: str, version: str, cluster_version: str) -> None:
    refuse(not image.startswith(version), f"image {image} is not one of {version}")
    refuse(version != cluster_version, f"nodes of {version} in a cluster of {cluster_version}")


def check_sizes(update_nodegroup_config: Callable) -> Callable:
    """Refuse sizes that do not fit together; AWS looks at all three."""

    def update(response: EKSResponse) -> ActionResult:
        fields = given(response)
        group = response.eks_backend.clusters[fields["clusterName"]].nodegroups[
            fields["nodegroupName"]
        ]
        check_nodes(group.scaling_config | (fields.get("scalingConfig") or {}))
        result = update_nodegroup_config(response)
        resize(response, group)
        return result

    return update


def update_nodegroup_version(response: EKSResponse) -> ActionResult:
    fields = given(response)
    cluster = response.eks_backend.clusters[fields["clusterName"]]
    group = cluster.nodegroups[fields["nodegroupName"]]
    group.version = fields.get("version", group.version)
    group.release_version = fields.get("releaseVersion", group.release_version)
    check_image(group.release_version, group.version, cluster.version)
    if template := fields.get("launchTemplate"):
        group.launch_template["version"] = template["version"]
    return done("VersionUpdate")


def forget_scaling_group(delete_nodegroup: Callable) -> Callable:
    """Delete with a node group the scaling group that AWS would delete."""

    def delete(response: EKSResponse) -> ActionResult:
        fields = given(response)
        cluster = response.eks_backend.clusters[fields["clusterName"]]
        name = scaling_group(response, cluster.nodegroups[fields["nodegroupName"]]).name
        del autoscaling_backends[response.current_account][response.region].autoscaling_groups[name]
        return delete_nodegroup(response)

    return delete


def image_of_nodes(get_parameter: Callable) -> Callable:
    """Know the newest image of a version's nodes."""

    def get(backend: SimpleSystemManagerBackend, name: str) -> Parameter | None:
        if found := IMAGE.fullmatch(name):
            return Parameter(
                account_id=backend.account_id,
                name=name,
                value=f"{found[1]}.1-20261120",
                parameter_type="String",
                description="",
                allowed_pattern=None,
                keyid=None,
                last_modified_date=0,
                version=1,
                data_type="text",
            )
        return get_parameter(backend, name)

    return get


def quota_of_processors(backend: ServiceQuotasBackend, service_code: str, quota_code: str) -> dict:
    """Let the account have some instances of every family; moto knows no such quota."""
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": 64.0}


def write_last_logs(delete_log_group: Callable) -> Callable:
    """Make the log group of a deleted cluster once more, as EKS does."""

    def delete(backend: LogsBackend, log_group_name: str) -> None:
        delete_log_group(backend, log_group_name)
        if log_group_name in gone:
            gone.remove(log_group_name)
            backend.create_log_group(log_group_name, {})

    return delete


class EcrError(ServiceException):
    """What ECR refuses; moto tells an error's service by the module of its class."""

    __module__ = "moto.ecr.exceptions"


def create_pull_through_cache_rule(response: ECRResponse) -> ActionResult:
    """Keep a rule. Refuse registries that ECR knows not, and secrets that it cannot read."""
    rule = json.loads(response.body)
    prefix, upstream = rule["ecrRepositoryPrefix"], rule["upstreamRegistryUrl"]
    if prefix in caches:
        raise EcrError("PullThroughCacheRuleAlreadyExistsException", prefix)
    if upstream not in UPSTREAMS:
        raise EcrError("UnsupportedUpstreamRegistryException", upstream)
    if UPSTREAMS[upstream]:
        known = secretsmanager_backends[response.current_account][response.region].secrets
        if rule.get("credentialArn") not in {each.arn for each in known.values()}:
            raise EcrError("SecretNotFoundException", str(rule.get("credentialArn")))
    caches[prefix] = rule | {"registryId": response.current_account}
    return ActionResult(caches[prefix])


def describe_pull_through_cache_rules(response: ECRResponse) -> ActionResult:
    prefixes = json.loads(response.body).get("ecrRepositoryPrefixes") or [*caches]
    if unknown := {*prefixes} - caches.keys():
        raise EcrError("PullThroughCacheRuleNotFoundException", str(unknown))
    return ActionResult({"pullThroughCacheRules": [caches[prefix] for prefix in prefixes]})


def delete_pull_through_cache_rule(response: ECRResponse) -> ActionResult:
    return ActionResult(caches.pop(json.loads(response.body)["ecrRepositoryPrefix"]))


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
        describe_addon_versions,
        describe_update,
        update_addon,
        update_cluster_version,
        update_nodegroup_version,
    ):
        setattr(EKSResponse, call.__name__, call)
    EKSResponse.create_cluster = remember_settings(EKSResponse.create_cluster)
    EKSResponse.delete_cluster = forget_group(EKSResponse.delete_cluster)
    EKSResponse.create_nodegroup = complete_nodegroup(EKSResponse.create_nodegroup)
    EKSResponse.delete_nodegroup = forget_scaling_group(EKSResponse.delete_nodegroup)
    EKSResponse.update_nodegroup_config = check_sizes(EKSResponse.update_nodegroup_config)
    SimpleSystemManagerBackend.get_parameter = image_of_nodes(
        SimpleSystemManagerBackend.get_parameter
    )
    for rules in (
        create_pull_through_cache_rule,
        delete_pull_through_cache_rule,
        describe_pull_through_cache_rules,
    ):
        setattr(ECRResponse, rules.__name__, rules)
    ServiceQuotasBackend.get_service_quota = quota_of_processors
    LogsBackend.delete_log_group = write_last_logs(LogsBackend.delete_log_group)
    FakeDeleteMarker.dispose = lambda *_: None
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL
    LaunchTemplate.create_version = drop_own_tags(LaunchTemplate.create_version)
    kinds = "addons|access-entries|pod-identity-associations|updates"
    path = rf"{{0}}/clusters/(?P<name>[^/]+)/(?P<part>{kinds})"
    group = r"{0}/clusters/(?P<name>[^/]+)/node-groups/(?P<nodegroupName>[^/]+)"
    for each in (
        path + "$",
        path + "/(?P<rest>.+)$",
        group + "/update-version$",
        r"{0}/addons/supported-versions$",
    ):
        urls.url_paths[each] = EKSResponse.dispatch


if __name__ == "__main__":
    extend_moto()
    main(["--host", "127.0.0.1", "--port", sys.argv[1]])
