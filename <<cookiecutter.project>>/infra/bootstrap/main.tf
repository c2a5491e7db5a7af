data "aws_caller_identity" "current" {}

locals {
  account = data.aws_caller_identity.current.account_id
}

module "state" {
  source = "../modules/data_store"

  bucket          = "${var.project}-tfstate-${local.account}"
  delete_contents = var.delete_contents
}

module "ci_identity" {
  source = "../modules/ci_identity"

  name              = var.project
  repository        = var.github_repository
  oidc_provider_arn = var.oidc_provider_arn

  state = {
    bucket_arn = module.state.arn
    key_arn    = module.state.key_arn
  }

  # What the registry root makes.
  registries = [var.project, "${var.project}-training"]
  data = {
    bucket = "${var.project}-data-${local.account}"
    prefix = "dvc"
  }
}

module "budget" {
  source = "../modules/budget"
  count  = var.budget == null ? 0 : 1

  name               = var.project
  usd                = var.budget.usd
  gpu_hours          = var.budget.gpu_hours
  gpu_instance_types = var.budget.gpu_instance_types
  emails             = var.budget.emails
}
