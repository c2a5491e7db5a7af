variable "name" {
  type        = string
  description = "Name of the role."

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) >= 3 && length(var.name) <= 64
    error_message = "name is \"${var.name}\": use 3 to 64 lower-case letters, digits and single hyphens, a letter first."
  }
}

variable "cluster" {
  type = object({
    name = string
    arn  = string
  })
  description = "EKS cluster whose pods get the role."

  validation {
    condition     = can(regex("^arn:[a-z-]+:eks:[a-z0-9-]+:[0-9]{12}:cluster/.+$", var.cluster.arn)) && endswith(var.cluster.arn, "/${var.cluster.name}")
    error_message = "cluster is ${jsonencode(var.cluster)}: give the name and the ARN of one EKS cluster."
  }
}

variable "namespace" {
  type        = string
  description = "Namespace of the pods."

  validation {
    condition     = can(regex("^[a-z0-9](-?[a-z0-9])*$", var.namespace)) && length(var.namespace) <= 63
    error_message = "namespace is \"${var.namespace}\": use the name of one Kubernetes namespace."
  }
}

variable "service_account" {
  type        = string
  description = "Service account of the pods."
  default     = "train"

  validation {
    condition     = can(regex("^[a-z0-9](-?[a-z0-9])*$", var.service_account))
    error_message = "service_account is \"${var.service_account}\": use the name of one Kubernetes service account."
  }
}

variable "data" {
  type = object({
    bucket      = string
    versions    = optional(string, "dvc")
    checkpoints = optional(string, "training")
  })
  description = "Bucket of the data store, the prefix of data and models, and that of checkpoints of runs that are not finished."

  validation {
    condition     = can(regex("^[a-z0-9]([.-]?[a-z0-9]){2,62}$", var.data.bucket)) && length(var.data.bucket) <= 63 && alltrue([for prefix in [var.data.versions, var.data.checkpoints] : can(regex("^[a-z0-9]([a-z0-9/_-]*[a-z0-9])?$", prefix))]) && !startswith("${var.data.versions}/", "${var.data.checkpoints}/") && !startswith("${var.data.checkpoints}/", "${var.data.versions}/")
    error_message = "data is ${jsonencode(var.data)}: give the bucket's name and two prefixes without leading or trailing slash, neither of them in the other: pods delete checkpoints."
  }
}
