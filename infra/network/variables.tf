variable "name" {
  type        = string
  description = "Name of the network; everything in it carries it."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 32
    error_message = "name is \"${var.name}\": use 3 to 32 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "cidr" {
  type        = string
  description = "Private IPv4 range of the network, /16 to /20: every pod takes an address of it."
  default     = "10.0.0.0/16"

  validation {
    condition     = try(cidrhost(var.cidr, 0) == split("/", var.cidr)[0], false) && can(regex("^(10\\.|100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.).*/(1[6-9]|20)$", var.cidr))
    error_message = "cidr is \"${var.cidr}\": give a private range from /16 to /20 by its first address, for example 10.0.0.0/16."
  }
}

variable "zone_count" {
  type        = number
  description = "Availability zones to spread over; EKS needs two."
  default     = 3

  validation {
    condition     = contains([2, 3], var.zone_count)
    error_message = "zone_count is ${var.zone_count}: use 2 or 3."
  }
}

variable "egress" {
  type        = string
  description = "\"one_zone\": one NAT gateway and endpoints in one zone, the cheaper; \"every_zone\": both in each zone, which outlives the loss of a zone."
  default     = "one_zone"

  validation {
    condition     = contains(["one_zone", "every_zone"], var.egress)
    error_message = "egress is \"${var.egress}\": use \"one_zone\" or \"every_zone\"."
  }
}

variable "interface_endpoints" {
  type        = set(string)
  description = "AWS services reached inside the network instead of through NAT. Image layers come through the S3 gateway endpoint, which is free."
  default     = ["ecr.api", "ecr.dkr"]

  validation {
    condition     = alltrue([for service in var.interface_endpoints : can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", service))])
    error_message = "interface_endpoints is ${jsonencode(var.interface_endpoints)}: name services without the region, for example \"ecr.api\"."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days that flow logs are kept."
  default     = 365

  validation {
    condition     = contains([7, 14, 30, 60, 90, 180, 365, 400, 545, 731, 1096, 1827, 3653], var.log_retention_days)
    error_message = "log_retention_days is ${var.log_retention_days}: CloudWatch takes 7, 14, 30, 60, 90, 180, 365, 400, 545, 731, 1096, 1827 or 3653 here."
  }
}
