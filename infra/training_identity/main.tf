# The role of the pods that train: EKS gives it to one service account of one namespace.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.id
  # The most that a role here can do; bootstrap makes it, and CI may make no role without it.
  boundary = "arn:${local.partition}:iam::${local.account}:policy/${var.cluster.name}-boundary"
  bucket   = "arn:${local.partition}:s3:::${var.data.bucket}"
}

resource "aws_iam_role" "this" {
  name                 = var.name
  permissions_boundary = local.boundary

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnEquals    = { "aws:SourceArn" = var.cluster.arn }
      }
    }]
  })
}

resource "aws_iam_role_policy" "this" {
  name = "use-data-store"
  role = aws_iam_role.this.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "List" # of the whole bucket, because asking whether it is there names no prefix
        Effect   = "Allow"
        Action   = "s3:ListBucket"
        Resource = local.bucket
      },
      {
        Sid      = "ReadAndAddData"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${local.bucket}/${var.data.versions}/*"
      },
      {
        Sid      = "KeepCheckpoints" # of a run, until it ends
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]
        Resource = "${local.bucket}/${var.data.checkpoints}/*"
      },
      {
        Sid      = "EncryptData"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = "arn:${local.partition}:kms:${local.region}:${local.account}:key/*"
        Condition = {
          StringEquals               = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" }
          "ForAnyValue:StringEquals" = { "kms:ResourceAliases" = "alias/${var.data.bucket}" }
        }
      },
    ]
  })
}

resource "aws_eks_pod_identity_association" "this" {
  cluster_name    = var.cluster.name
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.this.arn
}
