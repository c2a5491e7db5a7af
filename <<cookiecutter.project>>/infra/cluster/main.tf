data "aws_caller_identity" "current" {}

module "network" {
  source = "../modules/network"

  name   = var.project
  egress = var.egress
}

module "gpu_cluster" {
  source = "../modules/gpu_cluster"

  name               = var.project
  kubernetes_version = var.kubernetes_version
  subnet_ids         = module.network.private_subnet_ids
  admins             = var.admins
  endpoint_cidrs     = var.endpoint_cidrs
  gpu_node_groups    = var.gpu_node_groups
}

module "training_identity" {
  source = "../modules/training_identity"

  name      = "${var.project}-training"
  cluster   = { name = module.gpu_cluster.name, arn = module.gpu_cluster.arn }
  namespace = "${var.project}-training"

  # What the registry root makes.
  data = { bucket = "${var.project}-data-${data.aws_caller_identity.current.account_id}" }
}
