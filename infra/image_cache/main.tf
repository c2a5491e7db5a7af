# Others' images by way of the account's registry: ECR fetches one when it is pulled for the first time, into
# a repository that it makes for it. nvcr.io is none of the registries that ECR can stand before.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  # By the name that stands before a copy's own; ../../argocd/components/image-cache writes the same ones.
  upstreams = {
    docker-hub = { url = "registry-1.docker.io", credential_arn = var.docker_hub_credential_arn } # which AWS asks for
    kubernetes = { url = "registry.k8s.io", credential_arn = null }
    quay       = { url = "quay.io", credential_arn = null }
  }
}

resource "aws_ecr_pull_through_cache_rule" "this" {
  for_each = local.upstreams

  ecr_repository_prefix = each.key
  upstream_registry_url = each.value.url
  credential_arn        = each.value.credential_arn
}
