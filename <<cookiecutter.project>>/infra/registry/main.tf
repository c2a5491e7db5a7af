data "aws_caller_identity" "current" {}

module "registry" {
  source = "../modules/registry"

  name            = var.project
  delete_contents = var.delete_contents
}

module "data_store" {
  source = "../modules/data_store"

  bucket          = "${var.project}-data-${data.aws_caller_identity.current.account_id}"
  delete_contents = var.delete_contents
}
