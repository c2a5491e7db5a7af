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

variable "egress" {
  type        = string
  description = "\"one_zone\" or \"every_zone\": how many NAT gateways and endpoints there are."
  default     = "one_zone"

  validation {
    condition     = contains(["one_zone", "every_zone"], var.egress)
    error_message = "egress is \"${var.egress}\": use \"one_zone\" or \"every_zone\"."
  }
}

variable "kubernetes_version" {
  type        = string
  description = "Kubernetes minor version, 1.35 or newer."
  default     = "1.36"

  validation {
    condition     = can(regex("^1\\.(3[5-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version is \"${var.kubernetes_version}\": use 1.35 or newer, for example 1.36."
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
    condition     = alltrue([for cidr in var.endpoint_cidrs : can(cidrhost(cidr, 0))])
    error_message = "endpoint_cidrs is ${jsonencode(var.endpoint_cidrs)}: use IPv4 ranges, for example 203.0.113.7/32."
  }
}

variable "gpu_node_groups" {
  type = map(object({
    instance_types = list(string)
    capacity_type  = optional(string, "ON_DEMAND")
    min            = optional(number, 0)
    max            = optional(number, 2)
    disk_gib       = optional(number, 200)
    zones          = optional(set(string), [])
  }))
  description = "Groups of GPU nodes by name; modules/gpu_cluster says what each field means."

  validation {
    condition     = length(var.gpu_node_groups) > 0
    error_message = "gpu_node_groups is ${jsonencode(var.gpu_node_groups)}: describe at least one group."
  }
}
