output "settings" {
  description = "What workflows read: one line each in ../outputs.env."
  value = {
    CLUSTER_NAME = module.gpu_cluster.name
    CLUSTER_ARN  = module.gpu_cluster.arn
  }
}
