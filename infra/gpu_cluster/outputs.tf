output "name" {
  description = "Name of the cluster, for kubectl and the cluster autoscaler."
  value       = aws_eks_cluster.this.name
}

output "arn" {
  description = "ARN of the cluster, which `aws eks update-kubeconfig` also names the context after."
  value       = aws_eks_cluster.this.arn
}
