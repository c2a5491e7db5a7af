locals {
  # Network policies of the workloads take effect only with this.
  vpc_cni = jsonencode({ enableNetworkPolicy = "true" })
}

# Nodes become ready only with a network, so these come before them.
resource "aws_eks_addon" "node" {
  for_each = {
    vpc-cni                = local.vpc_cni
    kube-proxy             = null
    eks-pod-identity-agent = null
  }

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  configuration_values        = each.value
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

# Its pods need nodes without a taint, so it comes after them.
resource "aws_eks_addon" "coredns" {
  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = "coredns"
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.system]
}
