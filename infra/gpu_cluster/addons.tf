locals {
  # Network policies of the workloads take effect only with this.
  vpc_cni = jsonencode({ enableNetworkPolicy = "true" })
}

# The version of each that AWS recommends for the cluster's own.
data "aws_eks_addon_version" "this" {
  for_each = toset(["vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns", "eks-node-monitoring-agent", "aws-ebs-csi-driver"])

  addon_name         = each.key
  kubernetes_version = var.kubernetes_version
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
  addon_version               = data.aws_eks_addon_version.this[each.key].version
  configuration_values        = each.value
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"
}

# Their pods need nodes without a taint, so they come after them.
resource "aws_eks_addon" "system" {
  for_each = toset([
    "coredns",
    "eks-node-monitoring-agent", # sees broken GPUs, for the repair of nodes
    "aws-ebs-csi-driver",        # disks that outlive a pod, as Prometheus has
  ])

  cluster_name                = aws_eks_cluster.this.name
  addon_name                  = each.key
  addon_version               = data.aws_eks_addon_version.this[each.key].version
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  dynamic "pod_identity_association" {
    for_each = each.key == "aws-ebs-csi-driver" ? [aws_iam_role.ebs_csi.arn] : []

    content {
      service_account = "ebs-csi-controller-sa"
      role_arn        = pod_identity_association.value
    }
  }

  depends_on = [aws_eks_node_group.system, aws_iam_role_policy_attachment.ebs_csi]
}

# Instead of destroying what serves names and making it again.
moved {
  from = aws_eks_addon.coredns
  to   = aws_eks_addon.system["coredns"]
}
