data "aws_default_tags" "current" {}

data "aws_ec2_instance_type" "gpu" {
  for_each = toset(flatten([for group in var.gpu_node_groups : group.instance_types]))

  instance_type = each.key

  lifecycle {
    postcondition {
      condition     = contains(self.supported_architectures, "x86_64") && anytrue([for gpu in self.gpus : gpu.manufacturer == "NVIDIA"])
      error_message = "The instance type ${each.key} has no NVIDIA GPU or no x86-64 processor: use, for example, g6.xlarge."
    }
  }
}

locals {
  gpus = { for name, group in var.gpu_node_groups : name => one(data.aws_ec2_instance_type.gpu[group.instance_types[0]].gpus) }

  gpu_labels = { for name, gpu in local.gpus : name => {
    # The device plugin and the GPU's metrics exporter run where this is set.
    "nvidia.com/gpu.present" = "true"
    # The cluster autoscaler waits for the GPUs of nodes that have this before it adds more.
    "k8s.amazonaws.com/accelerator" = "nvidia-${replace(lower(gpu.name), " ", "-")}"
  } }

  # A group of no nodes has none to learn from: the autoscaler reads what one would be like here.
  scale_from_zero_hints = merge([for name, gpu in local.gpus : merge(
    { for label, value in local.gpu_labels[name] : "${name}/label/${label}" => { group = name, value = value } },
    { "${name}/taint/nvidia.com/gpu" = { group = name, value = "true:NoSchedule" } },
    { "${name}/resources/nvidia.com/gpu" = { group = name, value = tostring(gpu.count) } },
  )]...)

  disks = merge({ system = var.system_nodes.disk_gib }, { for name, group in var.gpu_node_groups : name => group.disk_gib })
}

resource "aws_launch_template" "node" {
  for_each = local.disks

  name                   = "${var.name}-${each.key}"
  update_default_version = true

  # Pods are one hop further away than the node, so they cannot take the node's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume", "network-interface"])

    content {
      resource_type = tag_specifications.key
      tags          = merge(data.aws_default_tags.current.tags, { Name = "${var.name}-${each.key}" })
    }
  }
}

resource "aws_eks_node_group" "system" {
  cluster_name    = aws_eks_cluster.this.name
  node_group_name = "system"
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = values(var.subnet_ids)
  version         = aws_eks_cluster.this.version
  ami_type        = "AL2023_x86_64_STANDARD"
  instance_types  = var.system_nodes.instance_types

  launch_template {
    id      = aws_launch_template.node["system"].id
    version = aws_launch_template.node["system"].latest_version
  }

  scaling_config {
    min_size     = var.system_nodes.min
    max_size     = var.system_nodes.max
    desired_size = var.system_nodes.min
  }

  update_config {
    max_unavailable = 1
  }

  # The number of nodes belongs to the autoscaler once the group exists.
  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]
  }

  depends_on = [aws_eks_addon.node, aws_iam_role_policy_attachment.node]
}

resource "aws_eks_node_group" "gpu" {
  for_each = var.gpu_node_groups

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for zone, id in var.subnet_ids : id if length(each.value.zones) == 0 || contains(each.value.zones, zone)]
  version         = aws_eks_cluster.this.version
  ami_type        = "AL2023_x86_64_NVIDIA"
  instance_types  = each.value.instance_types
  capacity_type   = each.value.capacity_type
  labels          = local.gpu_labels[each.key]

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
    desired_size = each.value.min
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    ignore_changes = [scaling_config[0].desired_size]

    # Not a validation of the variable: everything read for it would then wait for the subnets.
    precondition {
      condition     = length(setsubtract(each.value.zones, keys(var.subnet_ids))) == 0
      error_message = "The zones of ${each.key} are ${jsonencode(each.value.zones)}: those with a subnet are ${jsonencode(keys(var.subnet_ids))}."
    }
  }

  depends_on = [aws_eks_addon.node, aws_iam_role_policy_attachment.node]
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
