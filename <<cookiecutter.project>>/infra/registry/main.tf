data "aws_caller_identity" "current" {}

module "registry" {
  source = "../modules/registry"

  name            = var.project
  delete_contents = var.delete_contents
}

# An image that trained is of no use any more once its model is: nothing marks one as released.
module "training_registry" {
  source = "../modules/registry"

  name            = "${var.project}-training"
  candidates_kept = 10
  delete_contents = var.delete_contents
}

module "image_cache" {
  source = "../modules/image_cache"
  count  = var.image_cache == null ? 0 : 1

  docker_hub_credential_arn = var.image_cache.docker_hub_credential_arn
}

module "data_store" {
  source = "../modules/data_store"

  bucket          = "${var.project}-data-${data.aws_caller_identity.current.account_id}"
  delete_contents = var.delete_contents
}
