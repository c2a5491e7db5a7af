# What AWS says of the instance types of the GPU groups: what is in them, and where they can be had.

data "aws_ec2_instance_type" "gpu" {
  for_each = local.gpu_types

  instance_type = each.key

  lifecycle {
    postcondition {
      condition     = contains(self.supported_architectures, "x86_64") && anytrue([for gpu in self.gpus : gpu.manufacturer == "NVIDIA"])
      error_message = "The instance type ${each.key} has no NVIDIA GPU or no x86-64 processor: use, for example, g6.xlarge."
    }
  }
}

data "aws_ec2_instance_type_offerings" "gpu" {
  for_each = local.gpu_types

  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = [each.key]
  }
}

locals {
  gpu_types = toset(flatten([for group in var.gpu_node_groups : group.instance_types]))

  # The autoscaler takes every node of a group for one like the first type's.
  shapes = { for type, has in data.aws_ec2_instance_type.gpu : type => "${has.default_vcpus} vCPUs and ${one(has.gpus).count} ${one(has.gpus).name}" }

  gpus = { for name, group in var.gpu_node_groups : name => one(data.aws_ec2_instance_type.gpu[group.instance_types[0]].gpus) }

  # GiB of the disks that the types have in them; AWS counts in GB.
  own_disks = { for name, group in var.gpu_node_groups : name => min([for type in group.instance_types : floor(0.93 * coalesce(data.aws_ec2_instance_type.gpu[type].total_instance_storage, 0))]...) }

  gpu_zones = { for name, group in var.gpu_node_groups : name => [
    for zone in keys(var.subnet_ids) : zone if(length(group.zones) == 0 || contains(group.zones, zone)) && anytrue([
      for type in group.instance_types : contains(data.aws_ec2_instance_type_offerings.gpu[type].locations, zone)
    ])
  ] }

  gpu_labels = { for name, gpu in local.gpus : name => {
    # The device plugin and the GPU's metrics exporter run where this is set.
    "nvidia.com/gpu.present" = "true"
    # The cluster autoscaler waits for the GPUs of nodes that have this before it adds more.
    "k8s.amazonaws.com/accelerator" = "nvidia-${replace(lower(gpu.name), " ", "-")}"
  } }

  # A group of no nodes has none to learn from: the autoscaler reads what one would be like here.
  # Processors and memory it knows from the type; of a disk, the kubelet gives pods about nine tenths.
  scale_from_zero_hints = merge([for name, gpu in local.gpus : merge(
    { for label, value in local.gpu_labels[name] : "${name}/label/${label}" => { group = name, value = value } },
    { "${name}/taint/nvidia.com/gpu" = { group = name, value = "true:NoSchedule" } },
    { "${name}/resources/nvidia.com/gpu" = { group = name, value = tostring(gpu.count) } },
    { "${name}/resources/ephemeral-storage" = { group = name, value = "${floor(0.9 * (local.own_disks[name] > 0 ? local.own_disks[name] : var.gpu_node_groups[name].disk_gib))}Gi" } },
  )]...)
}
