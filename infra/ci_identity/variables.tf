variable "name" {
  type        = string
  description = "Name that the roles carry and that the resources they may touch begin with."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 32
    error_message = "name is \"${var.name}\": use 3 to 32 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "repository" {
  type        = string
  description = "GitHub repository as its tokens name it: owner@id/name@id for repositories created since 15 July 2026, owner/name for older ones."

  validation {
    condition     = can(regex("^[A-Za-z0-9](-?[A-Za-z0-9])*(_[A-Za-z0-9]+)?/[A-Za-z0-9._-]+$", var.repository)) || can(regex("^[A-Za-z0-9](-?[A-Za-z0-9])*(_[A-Za-z0-9]+)?@[0-9]+/[A-Za-z0-9._-]+@[0-9]+$", var.repository))
    error_message = "repository is \"${var.repository}\": use owner/name, or owner@123456/name@456789 for a repository created since 15 July 2026."
  }
}

variable "branch" {
  type        = string
  description = "Branch whose workflows may plan and publish."
  default     = "main"

  validation {
    condition     = can(regex("^[A-Za-z0-9._/@+#-]+$", var.branch))
    error_message = "branch is \"${var.branch}\": name one branch; patterns are refused."
  }
}

variable "environment" {
  type        = string
  description = "GitHub environment whose reviewers approve an apply."
  default     = "infrastructure"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+( [A-Za-z0-9._-]+)*$", var.environment))
    error_message = "environment is \"${var.environment}\": name one environment with letters, digits, dots, hyphens, underscores and single spaces."
  }
}

variable "publish_workflow" {
  type        = string
  description = "File in .github/workflows of the branch that alone may publish."
  default     = "release.yaml"

  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+\\.ya?ml$", var.publish_workflow))
    error_message = "publish_workflow is \"${var.publish_workflow}\": name one file, for example release.yaml."
  }
}

variable "oidc_provider_arn" {
  type        = string
  description = "ARN of the account's OIDC provider for GitHub where there is one already, because AWS takes only one; null makes it."
  default     = null

  validation {
    condition     = var.oidc_provider_arn == null || can(regex("^arn:[a-z-]+:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com$", var.oidc_provider_arn))
    error_message = "oidc_provider_arn is \"${coalesce(var.oidc_provider_arn, "null")}\": use arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com with your account, or null."
  }
}

variable "state" {
  type = object({
    bucket_arn = string
    key_arn    = string
  })
  description = "Bucket of the Terraform state and the key that encrypts it."

  validation {
    condition     = can(regex("^arn:[a-z-]+:s3:::[a-z0-9]([.-]?[a-z0-9]){2,62}$", var.state.bucket_arn)) && can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.state.key_arn))
    error_message = "state is ${jsonencode(var.state)}: give the ARN of a bucket and of a KMS key."
  }
}

variable "registries" {
  type        = set(string)
  description = "Names of the ECR repositories that images are pushed to."

  validation {
    condition     = length(var.registries) > 0 && alltrue([for name in var.registries : can(regex("^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", name))])
    error_message = "registries is ${jsonencode(var.registries)}: give the names of one or more ECR repositories, without their host."
  }
}

variable "data" {
  type = object({
    bucket = string
    prefix = string
  })
  description = "Bucket and prefix of the data versions."

  validation {
    condition     = can(regex("^[a-z0-9]([.-]?[a-z0-9]){2,62}$", var.data.bucket)) && length(var.data.bucket) <= 63 && can(regex("^[a-z0-9]([a-z0-9/_-]*[a-z0-9])?$", var.data.prefix))
    error_message = "data is ${jsonencode(var.data)}: give the bucket's name and a prefix without leading or trailing slash."
  }
}
