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

variable "image_cache" {
  type        = object({ docker_hub_credential_arn = string })
  description = "Docker Hub, Quay and Kubernetes' registry by way of the account's own, with the secret that modules/image_cache describes; null: not."
  default     = null

  validation {
    condition     = var.image_cache == null || try(length(var.image_cache.docker_hub_credential_arn) > 0, false)
    error_message = "image_cache is ${jsonencode(var.image_cache)}: give docker_hub_credential_arn, or null."
  }
}

variable "delete_contents" {
  type        = bool
  description = "Whether destroying the registry and the data store may delete what is in them."
  default     = false
}
