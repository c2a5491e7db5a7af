data "aws_default_tags" "current" {}

locals {
  disks = merge(
    { system = { gib = var.system_nodes.disk_gib, iops = null, throughput = null } }, # what every gp3 disk has
    { for name, group in var.gpu_node_groups : name => { gib = group.disk_gib, iops = group.disk_iops, throughput = group.disk_throughput } },
  )

  # Disks in the machine are faster than any that is attached: together they hold images and pods.
  use_own_disks = join("\n", [
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=\"//\"",
    "",
    "--//",
    "Content-Type: application/node.eks.aws",
    "",
    yamlencode({ apiVersion = "node.eks.aws/v1alpha1", kind = "NodeConfig", spec = { instance = { localStorage = { strategy = "RAID0" } } } }),
    "--//--",
    "",
  ])
}

resource "aws_launch_template" "node" {
  for_each = local.disks

  name                   = "${var.name}-${each.key}"
  update_default_version = true
  user_data              = lookup(local.own_disks, each.key, 0) > 0 ? base64encode(local.use_own_disks) : null

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
      volume_size           = each.value.gib
      iops                  = each.value.iops
      throughput            = each.value.throughput
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
