output "settings" {
  description = "What workflows read: one line each in ../outputs.env."
  value = {
    CLUSTER_NAME = module.gpu_cluster.name
    CLUSTER_ARN  = module.gpu_cluster.arn
  }
}

output "next" {
  description = "How to reach the cluster: what `make infra-apply` ends with."
  value = join(" ", flatten([
    length(var.endpoint_cidrs) > 0 ? "The cluster's API answers ${join(", ", var.endpoint_cidrs)} over the internet." : "The cluster's API does not answer over the internet (endpoint_cidrs).",
    [for network in module.network : "Its nodes call others from ${join(", ", network.egress_ips)}."],
    length(var.private_cidrs) > 0 ? "Inside its network it answers ${join(", ", var.private_cidrs)}." : "Inside its network it answers nodes only (private_cidrs).",
    "From there: aws eks update-kubeconfig --region ${var.region} --name ${module.gpu_cluster.name}",
  ]))
}
