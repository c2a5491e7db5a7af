data "aws_caller_identity" "current" {}

module "network" {
  source = "../modules/network"
  count  = length(var.network.subnet_ids) == 0 ? 1 : 0

  name                = var.project
  cidr                = var.network.cidr
  zone_count          = var.network.zone_count
  egress              = var.network.egress
  interface_endpoints = var.network.interface_endpoints
  log_retention_days  = var.network.log_retention_days
}

moved {
  from = module.network
  to   = module.network[0]
}

module "gpu_cluster" {
  source = "../modules/gpu_cluster"

  name               = var.project
  kubernetes_version = var.kubernetes_version
  subnet_ids         = merge(var.network.subnet_ids, module.network[*].private_subnet_ids...)
  admins             = var.admins
  endpoint_cidrs     = var.endpoint_cidrs
  private_cidrs      = var.private_cidrs
  system_nodes       = var.system_nodes
  gpu_node_groups    = var.gpu_node_groups
  log_retention_days = var.network.log_retention_days
}

module "training_identity" {
  source = "../modules/training_identity"

  name      = "${var.project}-training"
  cluster   = { name = module.gpu_cluster.name, arn = module.gpu_cluster.arn }
  namespace = "${var.project}-training"

  # What the registry root makes.
  data = { bucket = "${var.project}-data-${data.aws_caller_identity.current.account_id}" }
}
