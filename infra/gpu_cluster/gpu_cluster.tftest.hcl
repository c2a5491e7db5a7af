# Plans the module with a mocked AWS: no network, no account.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }

  mock_data "aws_default_tags" {
    defaults = { tags = { Project = "digits", Environment = "shared" } }
  }

  mock_data "aws_ec2_instance_type" {
    defaults = {
      supported_architectures = ["x86_64"]
      default_vcpus           = 48
      gpus                    = [{ count = 4, manufacturer = "NVIDIA", memory_size = 22888, name = "L4" }]
    }
  }

  mock_data "aws_ec2_instance_type_offerings" {
    defaults = { locations = ["eu-central-1b", "eu-central-1a"] }
  }

  mock_data "aws_eks_addon_version" {
    defaults = { version = "v1.2.3-eksbuild.4" }
  }

  mock_data "aws_ssm_parameter" {
    defaults = { insecure_value = "1.36.1-20261120" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/1234" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/digits" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/eks/digits/cluster" }
  }

  mock_resource "aws_launch_template" {
    defaults = { id = "lt-1234", latest_version = 1 }
  }

  mock_resource "aws_eks_cluster" {
    defaults = {
      arn        = "arn:aws:eks:eu-central-1:123456789012:cluster/digits"
      vpc_config = { cluster_security_group_id = "sg-1234" }
    }
  }

  mock_resource "aws_eks_node_group" {
    defaults = { resources = [{ autoscaling_groups = [{ name = "eks-gpu" }] }] }
  }
}

variables {
  name       = "digits"
  subnet_ids = { eu-central-1a = "subnet-a", eu-central-1b = "subnet-b" }
  admins     = ["arn:aws:iam::123456789012:role/platform"]

  gpu_node_groups = {
    gpu = { instance_types = ["g6.12xlarge"], zones = ["eu-central-1b"] }
  }
}

run "what_is_planned_by_default" {
  command = plan

  # The API is private and opened only to the ranges given.
  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_private_access && !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "the API is reached from the internet"
  }

  # Only named identities administer the cluster.
  assert {
    condition     = aws_eks_cluster.this.access_config[0].authentication_mode == "API" && aws_eks_cluster.this.access_config[0].bootstrap_cluster_creator_admin_permissions == false
    error_message = "whoever applies becomes an administrator"
  }

  assert {
    condition     = keys(aws_eks_access_policy_association.admin) == ["arn:aws:iam::123456789012:role/platform"]
    error_message = "administrators: ${jsonencode(keys(aws_eks_access_policy_association.admin))}"
  }

  # Secrets and logs are encrypted with a key that serves nothing else.
  assert {
    condition     = aws_eks_cluster.this.encryption_config[0].provider[0].key_arn == aws_kms_key.this.arn && aws_eks_cluster.this.encryption_config[0].resources == toset(["secrets"])
    error_message = "secrets are not encrypted with the cluster's key"
  }

  assert {
    condition     = length(aws_eks_cluster.this.enabled_cluster_log_types) == 5 && aws_cloudwatch_log_group.control_plane.kms_key_id == aws_kms_key.this.arn && aws_cloudwatch_log_group.control_plane.name == "/aws/eks/digits/cluster"
    error_message = "control-plane logs are incomplete, unencrypted or elsewhere"
  }

  assert {
    condition     = jsondecode(aws_kms_key.this.policy).Statement[1].Condition == { ArnEquals = { "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/eks/digits/cluster" } }
    error_message = "the key serves other log groups: ${aws_kms_key.this.policy}"
  }

  # Network policies take effect.
  assert {
    condition     = jsondecode(aws_eks_addon.node["vpc-cni"].configuration_values) == { enableNetworkPolicy = "true" }
    error_message = "network policies would be ignored"
  }

  assert {
    condition     = concat(keys(aws_eks_addon.node), keys(aws_eks_addon.system)) == ["eks-pod-identity-agent", "kube-proxy", "vpc-cni", "aws-ebs-csi-driver", "coredns", "eks-node-monitoring-agent"]
    error_message = "add-ons are missing"
  }

  # Broken nodes are replaced and can be looked into.
  assert {
    condition     = alltrue([for group in [aws_eks_node_group.system, aws_eks_node_group.gpu["gpu"]] : group.node_repair_config[0].enabled])
    error_message = "a node whose GPU broke stays"
  }

  assert {
    condition     = contains(keys(aws_iam_role_policy_attachment.node), "AmazonSSMManagedInstanceCore")
    error_message = "nobody can get into a node"
  }

  # Disks unpack an image faster than gp3 comes.
  assert {
    condition     = [for disk in aws_launch_template.node["gpu"].block_device_mappings[0].ebs : [disk.iops, disk.throughput]] == [[3000, 500]]
    error_message = "the disk is ${jsonencode(aws_launch_template.node["gpu"].block_device_mappings[0].ebs)}"
  }

  # GPU nodes scale from zero and take only what asks for a GPU.
  assert {
    condition     = aws_eks_node_group.gpu["gpu"].ami_type == "AL2023_x86_64_NVIDIA" && aws_eks_node_group.gpu["gpu"].scaling_config[0].min_size == 0
    error_message = "GPU nodes have another image or never go away"
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].taint == toset([{ key = "nvidia.com/gpu", value = "true", effect = "NO_SCHEDULE" }])
    error_message = "the taint is ${jsonencode(aws_eks_node_group.gpu["gpu"].taint)}"
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].labels == tomap({ "nvidia.com/gpu.present" = "true", "k8s.amazonaws.com/accelerator" = "nvidia-l4" })
    error_message = "the labels are ${jsonencode(aws_eks_node_group.gpu["gpu"].labels)}"
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].subnet_ids == toset(["subnet-b"])
    error_message = "GPU nodes start outside the zone given"
  }

  # The autoscaler knows a GPU node before there is one.
  assert {
    condition = { for hint in aws_autoscaling_group_tag.scale_from_zero : hint.tag[0].key => hint.tag[0].value } == {
      "k8s.io/cluster-autoscaler/node-template/label/k8s.amazonaws.com/accelerator" = "nvidia-l4"
      "k8s.io/cluster-autoscaler/node-template/label/nvidia.com/gpu.present"        = "true"
      "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage"         = "180Gi"
      "k8s.io/cluster-autoscaler/node-template/resources/nvidia.com/gpu"            = "4"
      "k8s.io/cluster-autoscaler/node-template/taint/nvidia.com/gpu"                = "true:NoSchedule"
    }
    error_message = jsonencode({ for hint in aws_autoscaling_group_tag.scale_from_zero : hint.tag[0].key => hint.tag[0].value })
  }

  # Nodes may have ECR fetch what was never pulled.
  assert {
    condition = jsondecode(aws_iam_role_policy.image_cache.policy).Statement == [{
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = [for upstream in ["docker-hub", "kubernetes", "quay"] : "arn:aws:ecr:eu-central-1:123456789012:repository/${upstream}/*"]
    }]
    error_message = aws_iam_role_policy.image_cache.policy
  }

  # No pod gets a node's credentials and disks are encrypted.
  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1])
    error_message = "a pod reaches the metadata of its node"
  }

  assert {
    condition     = alltrue([for template in aws_launch_template.node : template.block_device_mappings[0].ebs[0].encrypted == "true"])
    error_message = "a disk is not encrypted"
  }

  assert {
    condition     = alltrue([for template in aws_launch_template.node : alltrue([for made in template.tag_specifications : made.tags["Project"] == "digits" && made.tags["Environment"] == "shared"])])
    error_message = "machines and disks lack the tags of the project"
  }

  # The autoscaler resizes this cluster's groups and nothing else.
  assert {
    condition = jsondecode(aws_iam_role.autoscaler.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = { "aws:SourceAccount" = "123456789012" }
        ArnEquals    = { "aws:SourceArn" = "arn:aws:eks:eu-central-1:123456789012:cluster/digits" }
      }
    }]
    error_message = aws_iam_role.autoscaler.assume_role_policy
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.autoscaler.policy).Statement : statement if statement.Sid == "Resize"]) == {
      Sid       = "Resize"
      Effect    = "Allow"
      Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
      Resource  = "arn:aws:autoscaling:eu-central-1:123456789012:autoScalingGroup:*"
      Condition = { StringEquals = { "aws:ResourceTag/k8s.io/cluster-autoscaler/digits" = "owned" } }
    }
    error_message = aws_iam_role_policy.autoscaler.policy
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.autoscaler.policy).Statement : statement.Sid if statement.Resource == "*"] == ["Look"]
    error_message = aws_iam_role_policy.autoscaler.policy
  }

  assert {
    condition     = aws_eks_pod_identity_association.autoscaler.namespace == "cluster-autoscaler" && aws_eks_pod_identity_association.autoscaler.service_account == "cluster-autoscaler"
    error_message = "the role goes to another service account than argocd/ installs"
  }

  # No role can do more than the boundary.
  assert {
    condition     = alltrue([for role in [aws_iam_role.cluster, aws_iam_role.node, aws_iam_role.autoscaler, aws_iam_role.ebs_csi] : role.permissions_boundary == "arn:aws:iam::123456789012:policy/digits-boundary"])
    error_message = "CI may not make a role without the boundary"
  }
}

run "ranges_open_the_api_to_themselves" {
  command = plan

  variables {
    endpoint_cidrs = ["203.0.113.7/32"]
  }

  assert {
    condition     = aws_eks_cluster.this.vpc_config[0].endpoint_public_access && aws_eks_cluster.this.vpc_config[0].public_access_cidrs == toset(["203.0.113.7/32"])
    error_message = "the API is open to ${jsonencode(aws_eks_cluster.this.vpc_config[0].public_access_cidrs)}"
  }
}

run "a_network_that_is_connected_reaches_the_api_inside" {
  command = plan

  variables {
    private_cidrs = ["10.8.0.0/22"]
  }

  assert {
    condition     = [for rule in aws_vpc_security_group_ingress_rule.api : [rule.security_group_id, rule.cidr_ipv4, tostring(rule.from_port), tostring(rule.to_port)]] == [["sg-1234", "10.8.0.0/22", "443", "443"]]
    error_message = "the API's addresses let in ${jsonencode([for rule in aws_vpc_security_group_ingress_rule.api : rule.cidr_ipv4])}"
  }

  assert {
    condition     = !aws_eks_cluster.this.vpc_config[0].endpoint_public_access
    error_message = "the API is reached from the internet, too"
  }
}

run "addons_and_images_of_nodes_follow_the_clusters_version" {
  command = plan

  variables {
    kubernetes_version = "1.37"
  }

  assert {
    condition     = alltrue([for addon in data.aws_eks_addon_version.this : addon.kubernetes_version == "1.37"]) && alltrue([for addon in merge(aws_eks_addon.node, aws_eks_addon.system) : addon.addon_version == "v1.2.3-eksbuild.4"])
    error_message = "an add-on stays with the version that it was made with"
  }

  assert {
    condition = { for nodes, image in data.aws_ssm_parameter.image : nodes => image.name } == {
      system = "/aws/service/eks/optimized-ami/1.37/amazon-linux-2023/x86_64/standard/recommended/release_version"
      gpu    = "/aws/service/eks/optimized-ami/1.37/amazon-linux-2023/x86_64/nvidia/recommended/release_version"
    }
    error_message = "the image of the nodes is another version's"
  }

  assert {
    condition     = alltrue([for group in [aws_eks_node_group.system, aws_eks_node_group.gpu["gpu"]] : group.release_version == "1.36.1-20261120"])
    error_message = "nodes keep the image that they were made with"
  }
}

run "a_group_that_is_changed_keeps_as_many_nodes_as_it_has" {
  command = plan

  override_data {
    target          = data.aws_autoscaling_groups.made
    override_during = plan
    values          = { names = ["eks-gpu"] }
  }

  override_data {
    target          = data.aws_autoscaling_group.made
    override_during = plan
    values = {
      desired_capacity = 5
      tag              = [{ key = "eks:nodegroup-name", value = "gpu-2026112600000000000000001b", propagate_at_launch = true }]
    }
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].scaling_config[0].desired_size == 5 && aws_eks_node_group.system.scaling_config[0].desired_size == 2
    error_message = "GPU nodes: ${aws_eks_node_group.gpu["gpu"].scaling_config[0].desired_size}, system nodes: ${aws_eks_node_group.system.scaling_config[0].desired_size}"
  }
}

run "more_nodes_at_least_are_more_nodes_now" {
  command = plan

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.12xlarge"], min = 2 } }
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].scaling_config[0].desired_size == 2
    error_message = "EKS would refuse ${aws_eks_node_group.gpu["gpu"].scaling_config[0].desired_size} nodes"
  }
}

run "gpu_nodes_start_only_where_their_type_is_offered" {
  command = plan

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.12xlarge"] } }
  }

  override_data {
    target          = data.aws_ec2_instance_type_offerings.gpu
    override_during = plan
    values          = { locations = ["eu-central-1a", "eu-central-1c"] }
  }

  assert {
    condition     = aws_eks_node_group.gpu["gpu"].subnet_ids == toset(["subnet-a"])
    error_message = "GPU nodes would start in ${jsonencode(aws_eks_node_group.gpu["gpu"].subnet_ids)}"
  }
}

run "a_type_that_no_zone_offers_is_refused" {
  command         = plan
  expect_failures = [aws_eks_node_group.gpu]

  override_data {
    target          = data.aws_ec2_instance_type_offerings.gpu
    override_during = plan
    values          = { locations = ["eu-central-1c"] }
  }
}

run "types_of_different_shapes_in_one_group_are_refused" {
  command         = plan
  expect_failures = [aws_eks_node_group.gpu]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.12xlarge", "g6.xlarge"] } }
  }

  override_data {
    target          = data.aws_ec2_instance_type.gpu["g6.xlarge"]
    override_during = plan
    values = {
      supported_architectures = ["x86_64"]
      default_vcpus           = 4
      gpus                    = [{ count = 1, manufacturer = "NVIDIA", memory_size = 22888, name = "L4" }]
    }
  }
}

run "disks_in_the_machine_hold_images_and_pods_and_the_autoscaler_knows_them" {
  command = plan

  override_data {
    target          = data.aws_ec2_instance_type.gpu
    override_during = plan
    values = {
      supported_architectures = ["x86_64"]
      default_vcpus           = 4
      total_instance_storage  = 250
      gpus                    = [{ count = 1, manufacturer = "NVIDIA", memory_size = 22888, name = "L4" }]
    }
  }

  assert {
    condition     = strcontains(base64decode(aws_launch_template.node["gpu"].user_data), "\"strategy\": \"RAID0\"") && aws_launch_template.node["system"].user_data == null
    error_message = "the disks stay unused"
  }

  assert {
    condition     = aws_autoscaling_group_tag.scale_from_zero["gpu/resources/ephemeral-storage"].tag[0].value == "208Gi"
    error_message = aws_autoscaling_group_tag.scale_from_zero["gpu/resources/ephemeral-storage"].tag[0].value
  }
}

run "a_name_with_two_hyphens_in_a_row_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "digits--2"
  }
}

run "a_version_without_image_volumes_is_refused" {
  command         = plan
  expect_failures = [var.kubernetes_version]

  variables {
    kubernetes_version = "1.34"
  }
}

run "a_single_zone_is_refused" {
  command         = plan
  expect_failures = [var.subnet_ids]

  variables {
    subnet_ids      = { eu-central-1a = "subnet-a" }
    gpu_node_groups = {}
  }
}

run "a_cluster_that_nobody_can_reach_is_refused" {
  command         = plan
  expect_failures = [var.admins]

  variables {
    admins = []
  }
}

run "a_session_in_place_of_its_role_is_refused" {
  command         = plan
  expect_failures = [var.admins]

  variables {
    admins = ["arn:aws:sts::123456789012:assumed-role/platform/me"]
  }
}

run "an_api_open_to_the_whole_internet_is_refused" {
  command         = plan
  expect_failures = [var.endpoint_cidrs]

  variables {
    endpoint_cidrs = ["0.0.0.0/0"]
  }
}

run "half_of_the_internet_is_refused_too" {
  command         = plan
  expect_failures = [var.endpoint_cidrs]

  variables {
    endpoint_cidrs = ["128.0.0.0/1"]
  }
}

run "system_nodes_that_may_all_go_away_are_refused" {
  command         = plan
  expect_failures = [var.system_nodes]

  variables {
    system_nodes = { min = 0 }
  }
}

run "a_gpu_group_named_system_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { system = { instance_types = ["g6.xlarge"] } }
  }
}

run "a_capacity_type_that_aws_lacks_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.xlarge"], capacity_type = "CHEAP" } }
  }
}

run "a_disk_too_small_for_the_server_image_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.xlarge"], disk_gib = 30 } }
  }
}

run "a_zone_without_a_subnet_is_refused" {
  command         = plan
  expect_failures = [aws_eks_node_group.gpu]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.xlarge"], zones = ["eu-central-1c"] } }
  }
}

run "an_instance_type_without_an_nvidia_gpu_is_refused" {
  command         = plan
  expect_failures = [data.aws_ec2_instance_type.gpu]

  override_data {
    target          = data.aws_ec2_instance_type.gpu
    override_during = plan
    values = {
      supported_architectures = ["x86_64"]
      gpus                    = [{ count = 1, manufacturer = "AMD", memory_size = 8192, name = "Radeon Pro V520" }]
    }
  }
}

run "a_service_account_with_capitals_is_refused" {
  command         = plan
  expect_failures = [var.autoscaler]

  variables {
    autoscaler = { service_account = "Autoscaler" }
  }
}

run "logs_that_are_kept_for_ever_are_refused" {
  command         = plan
  expect_failures = [var.log_retention_days]

  variables {
    log_retention_days = 0
  }
}

run "a_version_that_there_is_not_is_refused" {
  command         = plan
  expect_failures = [var.kubernetes_version]

  variables {
    kubernetes_version = "1.99"
  }
}

run "a_pattern_of_administrators_is_refused" {
  command         = plan
  expect_failures = [var.admins]

  variables {
    admins = ["arn:aws:iam::123456789012:role/*"]
  }
}

run "ipv6_is_refused" {
  command         = plan
  expect_failures = [var.endpoint_cidrs]

  variables {
    endpoint_cidrs = ["2001:db8::/32"]
  }
}

run "a_private_range_of_the_internet_is_refused" {
  command         = plan
  expect_failures = [var.endpoint_cidrs]

  variables {
    endpoint_cidrs = ["100.64.0.0/16"]
  }
}

run "everybody_inside_is_refused_too" {
  command         = plan
  expect_failures = [var.private_cidrs]

  variables {
    private_cidrs = ["0.0.0.0/0"]
  }
}

run "ipv6_inside_is_refused_too" {
  command         = plan
  expect_failures = [var.private_cidrs]

  variables {
    private_cidrs = ["fd00::/8"]
  }
}

run "an_empty_instance_type_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { gpu = { instance_types = [""] } }
  }
}

run "a_doubled_instance_type_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.xlarge", "g6.xlarge"] } }
  }
}

run "a_disk_faster_than_gp3_is_refused" {
  command         = plan
  expect_failures = [var.gpu_node_groups]

  variables {
    gpu_node_groups = { gpu = { instance_types = ["g6.xlarge"], disk_iops = 3000, disk_throughput = 800 } }
  }
}

run "logs_that_are_kept_a_week_are_taken" {
  command = plan

  variables {
    log_retention_days = 7
  }

  assert {
    condition     = aws_cloudwatch_log_group.control_plane.retention_in_days == 7
    error_message = "logs are kept for ${aws_cloudwatch_log_group.control_plane.retention_in_days} days"
  }
}
