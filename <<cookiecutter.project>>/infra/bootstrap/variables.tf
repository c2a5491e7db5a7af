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

variable "github_repository" {
  type        = string
  description = "GitHub repository as its tokens name it: owner@id/name@id for repositories created since 15 July 2026, owner/name for older ones."

  validation {
    condition     = can(regex("^[^/@]+(@[0-9]+)?/[^/@]+(@[0-9]+)?$", var.github_repository))
    error_message = "github_repository is \"${var.github_repository}\": use owner/name or owner@id/name@id."
  }
}

variable "oidc_provider_arn" {
  type        = string
  description = "ARN of the account's OIDC provider for GitHub where there is one already; null makes it."
  default     = null

  validation {
    condition     = var.oidc_provider_arn == null || can(regex(":oidc-provider/", var.oidc_provider_arn))
    error_message = "oidc_provider_arn is \"${coalesce(var.oidc_provider_arn, "null")}\": use the ARN of an OIDC provider, or null."
  }
}

variable "budget" {
  type = object({
    usd                = number
    gpu_hours          = number
    gpu_instance_types = set(string)
    emails             = set(string)
  })
  description = "What a month may cost before somebody is told; modules/budget says what each field means. null: nobody is."
  default     = null

  validation {
    condition     = var.budget == null || try(length(var.budget.emails) > 0, false)
    error_message = "budget is ${jsonencode(var.budget)}: name at least one address in emails."
  }
}

variable "delete_contents" {
  type        = bool
  description = "Whether destroying the state bucket may delete the states in it."
  default     = false
}
