variable "name" {
  type        = string
  description = "Name that the budgets begin with."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 32
    error_message = "name is \"${var.name}\": use 3 to 32 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "usd" {
  type        = number
  description = "USD in a month, of the whole account."

  validation {
    condition     = var.usd > 0
    error_message = "usd is ${var.usd}: use a number above 0."
  }
}

variable "gpu_hours" {
  type        = number
  description = "Hours in a month that GPU nodes may run, all together."

  validation {
    condition     = var.gpu_hours > 0
    error_message = "gpu_hours is ${var.gpu_hours}: use a number above 0."
  }
}

variable "gpu_instance_types" {
  type        = set(string)
  description = "Instance types of the GPU nodes."

  validation {
    condition     = length(var.gpu_instance_types) > 0 && alltrue([for type in var.gpu_instance_types : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", type))])
    error_message = "gpu_instance_types is ${jsonencode(var.gpu_instance_types)}: name one or more, for example g6.xlarge."
  }
}

variable "emails" {
  type        = set(string)
  description = "Addresses that are told."

  validation {
    condition     = length(var.emails) > 0 && length(var.emails) <= 10 && alltrue([for address in var.emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "emails is ${jsonencode(var.emails)}: give 1 to 10 addresses."
  }
}
