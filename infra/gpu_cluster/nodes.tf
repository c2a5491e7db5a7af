# How many nodes each group has now: whoever changes a group must not send the autoscaler's nodes away.
data "aws_autoscaling_groups" "made" {
  filter {
    name   = "tag:eks:cluster-name"
    values = [var.name]
  }
}

data "aws_autoscaling_group" "made" {
  for_each = toset(data.aws_autoscaling_groups.made.names)

  name = each.key
}

# The newest machine image for the cluster's version.
data "aws_ssm_parameter" "image" {
  for_each = { system = "standard", gpu = "nvidia" }

  name = "/aws/service/eks/optimized-ami/${var.kubernetes_version}/amazon-linux-2023/x86_64/${each.value}/recommended/release_version"
}

locals {
  # By the name before the number, hexadecimal at its end, that groups get here; none before the first apply.
  nodes = { for group in concat(["system"], keys(var.gpu_node_groups)) : group => max(0, [
    for made in data.aws_autoscaling_group.made : made.desired_capacity if anytrue([
      for tag in made.tag : tag.key == "eks:nodegroup-name" && can(regex("^${group}(-[0-9a-f]{26})?$", tag.value))
    ])
  ]...) }
}

resource "aws_eks_node_group" "system" {
  cluster_name = aws_eks_cluster.this.name
  # A group that is replaced is made anew, with as many nodes, before the old one goes.
  node_group_name_prefix = "system-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = values(var.subnet_ids)
  version                = aws_eks_cluster.this.version
  release_version        = data.aws_ssm_parameter.image["system"].insecure_value
  ami_type               = "AL2023_x86_64_STANDARD"
  instance_types         = var.system_nodes.instance_types

  launch_template {
    id      = aws_launch_template.node["system"].id
    version = aws_launch_template.node["system"].latest_version
  }

  scaling_config {
    min_size     = var.system_nodes.min
    max_size     = var.system_nodes.max
    desired_size = min(var.system_nodes.max, max(var.system_nodes.min, local.nodes["system"]))
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  lifecycle {
    create_before_destroy = true
  }

  depends_on = [aws_eks_addon.node, aws_iam_role_policy_attachment.node]
}

resource "aws_eks_node_group" "gpu" {
  for_each = var.gpu_node_groups

  cluster_name           = aws_eks_cluster.this.name
  node_group_name_prefix = "${each.key}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = [for zone in local.gpu_zones[each.key] : var.subnet_ids[zone]]
  version                = aws_eks_cluster.this.version
  release_version        = data.aws_ssm_parameter.image["gpu"].insecure_value
  ami_type               = "AL2023_x86_64_NVIDIA"
  instance_types         = each.value.instance_types
  capacity_type          = each.value.capacity_type
  labels                 = local.gpu_labels[each.key]

  # Keeps off GPU nodes what does not ask for a GPU.
  taint {
    key    = "nvidia.com/gpu"
    value  = "true"
    effect = "NO_SCHEDULE"
  }

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = min(each.value.max, max(each.value.min, local.nodes[each.key]))
  }

  update_config {
    max_unavailable = 1
  }

  # A node whose GPU broke is replaced; the agent that sees it is one of the add-ons.
  node_repair_config {
    enabled = true
  }

  lifecycle {
    create_before_destroy = true

    # Not a validation of the variable: everything read for it would then wait for the subnets.
    precondition {
      condition     = length(setsubtract(each.value.zones, keys(var.subnet_ids))) == 0
      error_message = "The zones of ${each.key} are ${jsonencode(each.value.zones)}: those with a subnet are ${jsonencode(keys(var.subnet_ids))}."
    }

    precondition {
      condition     = length(local.gpu_zones[each.key]) > 0
      error_message = "No zone of ${each.key} has ${jsonencode(each.value.instance_types)}: there are subnets in ${jsonencode(keys(var.subnet_ids))}, and the type is offered in ${jsonencode(distinct(flatten([for type in each.value.instance_types : data.aws_ec2_instance_type_offerings.gpu[type].locations])))}."
    }

    precondition {
      condition     = length(distinct([for type in each.value.instance_types : local.shapes[type]])) == 1
      error_message = "The instance types of ${each.key} differ: ${jsonencode({ for type in each.value.instance_types : type => local.shapes[type] })}; give each shape a group of its own."
    }
  }

  # In an upgrade what the platform runs on moves before the servers do.
  depends_on = [aws_eks_node_group.system]
}

resource "aws_autoscaling_group_tag" "scale_from_zero" {
  for_each = local.scale_from_zero_hints

  autoscaling_group_name = aws_eks_node_group.gpu[each.value.group].resources[0].autoscaling_groups[0].name

  tag {
    key                 = "k8s.io/cluster-autoscaler/node-template/${trimprefix(each.key, "${each.value.group}/")}"
    value               = each.value.value
    propagate_at_launch = false
  }
}
