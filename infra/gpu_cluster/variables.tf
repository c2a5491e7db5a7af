variable "name" {
  type        = string
  description = "Name of the cluster; everything of it carries it."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 32
    error_message = "name is \"${var.name}\": use 3 to 32 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "kubernetes_version" {
  type        = string
  description = "Kubernetes minor version; 1.35 is the first that mounts images as volumes without a feature gate."
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.(3[5-9]|4[0-5])$", var.kubernetes_version))
    error_message = "kubernetes_version is \"${var.kubernetes_version}\": use a version of EKS, 1.35 or newer, for example 1.36."
  }
}

variable "subnet_ids" {
  type        = map(string)
  description = "Private subnets of the nodes and of the control plane's interfaces, by availability zone."

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "subnet_ids is ${jsonencode(var.subnet_ids)}: EKS needs subnets in two zones or more."
  }
}

variable "admins" {
  type        = set(string)
  description = "ARNs of the IAM roles and users that administer the cluster; nobody else gets in."

  validation {
    condition     = length(var.admins) > 0 && alltrue([for arn in var.admins : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/[A-Za-z0-9+=,.@_/-]+$", arn))])
    error_message = "admins is ${jsonencode(var.admins)}: name at least one IAM role or user by its ARN, for example arn:aws:iam::123456789012:role/platform; for a session of arn:aws:sts::123456789012:assumed-role/platform/you that is the role."
  }
}

variable "endpoint_cidrs" {
  type        = set(string)
  description = "IPv4 ranges that reach the cluster's API from the internet; none by default, so the API is reached from inside the network only."
  default     = []

  validation {
    condition     = alltrue([for cidr in var.endpoint_cidrs : can(cidrnetmask(cidr)) && can(regex("/(1[6-9]|2[0-9]|3[0-2])$", cidr))])
    error_message = "endpoint_cidrs is ${jsonencode(var.endpoint_cidrs)}: use IPv4 ranges from /16 to /32, for example 203.0.113.7/32; the whole internet is refused."
  }

  validation {
    condition     = !anytrue([for cidr in var.endpoint_cidrs : can(regex("^(0|10|127|22[4-9]|2[3-5][0-9])\\.|^100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\\.|^169\\.254\\.|^172\\.(1[6-9]|2[0-9]|3[01])\\.|^192\\.168\\.", cidr))])
    error_message = "endpoint_cidrs is ${jsonencode(var.endpoint_cidrs)}: EKS takes no private or reserved range here; networks that are connected to this one go into private_cidrs."
  }
}

variable "private_cidrs" {
  type        = set(string)
  description = "IPv4 ranges of connected networks (VPN, bastion, peering) that reach the cluster's API inside the network."
  default     = []

  validation {
    condition     = alltrue([for cidr in var.private_cidrs : can(cidrnetmask(cidr)) && can(regex("/([89]|[12][0-9]|3[0-2])$", cidr))])
    error_message = "private_cidrs is ${jsonencode(var.private_cidrs)}: use IPv4 ranges from /8 to /32, for example 10.8.0.0/22; everybody's is refused."
  }
}

variable "system_nodes" {
  type = object({
    instance_types = optional(list(string), ["t3.large"])
    min            = optional(number, 2)
    max            = optional(number, 4)
    disk_gib       = optional(number, 50)
  })
  description = "Nodes for everything that needs no GPU: DNS, Argo CD, monitoring."
  default     = {}

  validation {
    condition     = length(var.system_nodes.instance_types) > 0 && length(distinct(var.system_nodes.instance_types)) == length(var.system_nodes.instance_types) && alltrue([for type in var.system_nodes.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", type))]) && var.system_nodes.min >= 1 && var.system_nodes.max >= var.system_nodes.min && var.system_nodes.disk_gib >= 20
    error_message = "system_nodes is ${jsonencode(var.system_nodes)}: name instance types, each once, 1 <= min <= max, and a disk of 20 GiB or more."
  }
}

variable "gpu_node_groups" {
  type = map(object({
    instance_types = list(string)
    capacity_type  = optional(string, "ON_DEMAND")
    min            = optional(number, 0)
    max            = optional(number, 6)
    disk_gib       = optional(number, 200)
    # Of gp3, which comes with 125 MiB/s: an image of 15 GB is unpacked at the disk's speed.
    disk_iops       = optional(number, 3000)
    disk_throughput = optional(number, 500)
    zones           = optional(set(string), [])
  }))
  description = "Groups of GPU nodes by name, each scaled on its own between min and max nodes. Instance types of one group must have the same GPUs and processors. The disk holds the server image, unpacked 30 GB and more, where the types have none of their own. No zones means all that have the type."

  validation {
    condition     = alltrue([for name, group in var.gpu_node_groups : can(regex("^[a-z](-?[a-z0-9])*$", name)) && name != "system" && length(name) <= 32])
    error_message = "gpu_node_groups has the names ${jsonencode(keys(var.gpu_node_groups))}: use up to 32 lower-case letters, digits and single hyphens; \"system\" is taken."
  }

  validation {
    condition     = alltrue([for group in var.gpu_node_groups : length(group.instance_types) > 0 && length(distinct(group.instance_types)) == length(group.instance_types) && alltrue([for type in group.instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", type))]) && contains(["ON_DEMAND", "SPOT"], group.capacity_type)])
    error_message = "gpu_node_groups is ${jsonencode(var.gpu_node_groups)}: each group needs instance types, such as g6.xlarge, each once, and its capacity_type is ON_DEMAND or SPOT."
  }

  validation {
    condition     = alltrue([for group in var.gpu_node_groups : group.min >= 0 && group.max >= max(group.min, 1) && group.disk_gib >= 100])
    error_message = "gpu_node_groups is ${jsonencode(var.gpu_node_groups)}: each group needs 0 <= min <= max, max of 1 or more, and a disk of 100 GiB or more."
  }

  validation {
    condition     = alltrue([for group in var.gpu_node_groups : group.disk_iops >= 3000 && group.disk_iops <= 16000 && group.disk_throughput >= 125 && group.disk_throughput <= min(1000, group.disk_iops / 4)])
    error_message = "gpu_node_groups is ${jsonencode(var.gpu_node_groups)}: gp3 takes disk_iops of 3000 to 16000, and disk_throughput of 125 to 1000 and at most a quarter of disk_iops."
  }
}

variable "autoscaler" {
  type = object({
    namespace       = optional(string, "cluster-autoscaler")
    service_account = optional(string, "cluster-autoscaler")
  })
  description = "Service account that may resize the node groups."
  default     = {}

  validation {
    condition     = alltrue([for name in values(var.autoscaler) : can(regex("^[a-z0-9](-?[a-z0-9])*$", name))])
    error_message = "autoscaler is ${jsonencode(var.autoscaler)}: use Kubernetes names, for example cluster-autoscaler."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that the control plane's logs are kept."
  default     = 365

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400, 545, 731, 1096, 1827, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}: CloudWatch takes 7, 14, 30, 60, 90, 180, 365, 400, 545, 731, 1096, 1827 or 3653 here."
  }
}
