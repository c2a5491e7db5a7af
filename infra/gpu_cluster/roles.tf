locals {
  managed_policies = "arn:${local.partition}:iam::aws:policy"

  # The most that a role here can do; bootstrap makes it, and CI may make no role without it.
  boundary = "arn:${local.partition}:iam::${local.account}:policy/${var.name}-boundary"

  # EKS tags the scaling groups it makes with this; the autoscaler finds and may change only those.
  owned = "k8s.io/cluster-autoscaler/${var.name}"

  # Who may take a role that EKS gives to pods of this cluster.
  pods = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = aws_eks_cluster.this.arn }
      }
    }]
  })
}

resource "aws_iam_role" "cluster" {
  name                 = "${var.name}-cluster"
  permissions_boundary = local.boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "${local.managed_policies}/AmazonEKSClusterPolicy"
}

resource "aws_iam_role_policy" "cluster_key" {
  name = "encrypt-secrets"
  role = aws_iam_role.cluster.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Encrypt", "kms:Decrypt", "kms:ListGrants", "kms:DescribeKey"]
      Resource = aws_kms_key.this.arn
    }]
  })
}

resource "aws_iam_role" "node" {
  name                 = "${var.name}-node"
  permissions_boundary = local.boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore"])

  role       = aws_iam_role.node.name
  policy_arn = "${local.managed_policies}/${each.key}"
}

# What AWS's policy lacks for the first pull of an image by way of ECR; without a rule for it nothing happens.
resource "aws_iam_role_policy" "image_cache" {
  name = "fill-image-cache"
  role = aws_iam_role.node.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = [for upstream in ["docker-hub", "kubernetes", "quay"] : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${upstream}/*"]
    }]
  })
}

resource "aws_iam_role" "ebs_csi" {
  name                 = "${var.name}-ebs-csi"
  permissions_boundary = local.boundary
  assume_role_policy   = local.pods
}

resource "aws_iam_role_policy_attachment" "ebs_csi" {
  role       = aws_iam_role.ebs_csi.name
  policy_arn = "${local.managed_policies}/service-role/AmazonEBSCSIDriverPolicy"
}

resource "aws_iam_role" "autoscaler" {
  name                 = "${var.name}-autoscaler"
  permissions_boundary = local.boundary
  assume_role_policy   = local.pods
}

resource "aws_iam_role_policy" "autoscaler" {
  name = "resize-node-groups"
  role = aws_iam_role.autoscaler.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look" # AWS knows no narrower resource for these
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*"
      },
      {
        Sid      = "LookAtNodeGroups"
        Effect   = "Allow"
        Action   = "eks:DescribeNodegroup"
        Resource = "arn:${local.partition}:eks:${local.region}:${local.account}:nodegroup/${var.name}/*"
      },
      {
        Sid      = "Resize"
        Effect   = "Allow"
        Action   = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource = "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*"
        Condition = {
          StringEquals = { "aws:ResourceTag/${local.owned}" = "owned" }
        }
      },
    ]
  })
}

resource "aws_eks_pod_identity_association" "autoscaler" {
  cluster_name    = aws_eks_cluster.this.name
  namespace       = var.autoscaler.namespace
  service_account = var.autoscaler.service_account
  role_arn        = aws_iam_role.autoscaler.arn
}
