variable "docker_hub_credential_arn" {
  type        = string
  description = "ARN of the secret with an account of Docker Hub, in the registry's own region; its name begins with ecr-pullthroughcache/."

  validation {
    condition     = can(regex("^arn:aws(-[a-z]+)*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:ecr-pullthroughcache/[A-Za-z0-9/_+=.@-]+$", var.docker_hub_credential_arn))
    error_message = "docker_hub_credential_arn is \"${var.docker_hub_credential_arn}\": use the ARN of a secret whose name begins with ecr-pullthroughcache/."
  }
}
