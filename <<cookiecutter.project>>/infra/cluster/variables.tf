variable "project" {
  type        = string
  description = "Name of the project; the resources are named after it."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.project)) && length(var.project) >= 3 && length(var.project) <= 32
    error_message = "project is \"${var.project}\": use 3 to 32 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "environment" {
  type        = string
  description = "Value of the tag Environment. Staging and production of the model are namespaces of one cluster, so they share these resources."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.environment))
    error_message = "environment is \"${var.environment}\": use lower-case letters, digits and single hyphens, for example shared."
  }
}

variable "region" {
  type        = string
  description = "AWS region of everything."

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region is \"${var.region}\": use the code of an AWS region, for example eu-central-1."
  }
}

variable "network" {
  type = object({
    cidr                = optional(string, "10.0.0.0/16")
    zone_count          = optional(number, 3)
    egress              = optional(string, "one_zone")
    interface_endpoints = optional(set(string), ["ecr.api", "ecr.dkr"])
    log_retention_days  = optional(number, 365)
    subnet_ids          = optional(map(string), {})
  })
  description = "The network that is made; modules/network says what each field means. The days are those of the control plane's logs, too. With subnet_ids, private subnets of a network that there is by their availability zones, none is made."
  default     = {}

  validation {
    condition     = length(var.network.subnet_ids) == 0 || (length(var.network.subnet_ids) >= 2 && alltrue([for zone, id in var.network.subnet_ids : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$", zone)) && can(regex("^subnet-[0-9a-f]+$", id))]))
    error_message = "network is ${jsonencode(var.network)}: name subnets in two zones or more, for example { eu-central-1a = \"subnet-0123\", eu-central-1b = \"subnet-4567\" }."
  }
}

variable "kubernetes_version" {
  type        = string
  description = "Kubernetes minor version, 1.35 or newer."
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.(3[5-9]|4[0-5])$", var.kubernetes_version))
    error_message = "kubernetes_version is \"${var.kubernetes_version}\": use a version of EKS, 1.35 or newer, for example 1.36."
  }
}

variable "admins" {
  type        = set(string)
  description = "ARNs of the IAM roles and users that administer the cluster."

  validation {
    condition     = length(var.admins) > 0
    error_message = "admins is ${jsonencode(var.admins)}: name at least one IAM role or user in terraform.tfvars, or nobody could reach the cluster."
  }
}

variable "endpoint_cidrs" {
  type        = set(string)
  description = "IPv4 ranges that reach the cluster's API from the internet."
  default     = []

  validation {
    condition     = alltrue([for cidr in var.endpoint_cidrs : can(cidrnetmask(cidr))])
    error_message = "endpoint_cidrs is ${jsonencode(var.endpoint_cidrs)}: use IPv4 ranges, for example 203.0.113.7/32."
  }
}

variable "private_cidrs" {
  type        = set(string)
  description = "IPv4 ranges of connected networks (VPN, bastion, peering) that reach the cluster's API inside the network."
  default     = []

  validation {
    condition     = alltrue([for cidr in var.private_cidrs : can(cidrnetmask(cidr))])
    error_message = "private_cidrs is ${jsonencode(var.private_cidrs)}: use IPv4 ranges, for example 10.8.0.0/22."
  }
}

variable "system_nodes" {
  type = object({
    instance_types = optional(list(string), ["t3.large"])
    min            = optional(number, 2)
    max            = optional(number, 4)
    disk_gib       = optional(number, 50)
  })
  description = "Nodes for everything that needs no GPU; modules/gpu_cluster says what each field means."
  default     = {}

  validation {
    condition     = length(var.system_nodes.instance_types) > 0
    error_message = "system_nodes is ${jsonencode(var.system_nodes)}: name an instance type, for example t3.large."
  }
}

variable "gpu_node_groups" {
  type = map(object({
    instance_types  = list(string)
    capacity_type   = optional(string, "ON_DEMAND")
    min             = optional(number, 0)
    max             = optional(number, 6)
    disk_gib        = optional(number, 200)
    disk_iops       = optional(number, 3000)
    disk_throughput = optional(number, 500)
    zones           = optional(set(string), [])
  }))
  description = "Groups of GPU nodes by name; modules/gpu_cluster says what each field means."

  validation {
    condition     = length(var.gpu_node_groups) > 0
    error_message = "gpu_node_groups is ${jsonencode(var.gpu_node_groups)}: describe at least one group."
  }
}
