locals {
  state_bucket = var.state.bucket_arn
  data_bucket  = "arn:${local.partition}:s3:::${var.data.bucket}"
  registries   = [for name in var.registries : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${name}"]
  iam          = "arn:${local.partition}:iam::${local.account}"
  eks          = "arn:${local.partition}:eks:${local.region}:${local.account}"
  kms          = "arn:${local.partition}:kms:${local.region}:${local.account}"
  logs         = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group"

  cluster = [
    "${local.eks}:cluster/${var.name}",
    "${local.eks}:nodegroup/${var.name}/*",
    "${local.eks}:addon/${var.name}/*",
    "${local.eks}:access-entry/${var.name}/*",
    "${local.eks}:podidentityassociation/${var.name}/*",
  ]
  log_groups = [
    "${local.logs}:/aws/eks/${var.name}/cluster*",
    "${local.logs}:/aws/vpc/${var.name}*",
  ]
  # The roles of the network and the cluster, by name: CI must not change its own.
  roles    = [for role in ["flow-logs", "cluster", "node", "autoscaler", "training"] : "${local.iam}:role/${var.name}-${role}"]
  ci_roles = [for role in keys(local.subjects) : "${local.iam}:role/${var.name}-${role}"]
  ours     = { StringEquals = { "aws:ResourceTag/Project" = var.name } }

  plan = [
    {
      Sid    = "ReadLists" # AWS knows no narrower resource for these
      Effect = "Allow"
      Action = [
        "autoscaling:DescribeAutoScalingGroups",
        "autoscaling:DescribeTags",
        "ec2:DescribeAddresses",
        "ec2:DescribeAddressesAttribute",
        "ec2:DescribeAvailabilityZones",
        "ec2:DescribeFlowLogs",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInternetGateways",
        "ec2:DescribeLaunchTemplates",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeNatGateways",
        "ec2:DescribeNetworkAcls",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribePrefixLists",
        "ec2:DescribeRouteTables",
        "ec2:DescribeSecurityGroupRules",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcAttribute",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
        "iam:ListOpenIDConnectProviders",
        "kms:ListAliases",
        "logs:DescribeLogGroups",
      ]
      Resource = "*"
    },
    {
      Sid      = "ReadKeys"
      Effect   = "Allow"
      Action   = ["kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListResourceTags"]
      Resource = "${local.kms}:key/*"
    },
    {
      Sid      = "ReadCluster"
      Effect   = "Allow"
      Action   = ["eks:Describe*", "eks:List*"]
      Resource = local.cluster
    },
    {
      Sid      = "ReadLogGroups"
      Effect   = "Allow"
      Action   = "logs:ListTagsForResource"
      Resource = local.log_groups
    },
    {
      Sid      = "ReadRegistry"
      Effect   = "Allow"
      Action   = ["ecr:DescribeRepositories", "ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy", "ecr:ListTagsForResource"]
      Resource = local.registries
    },
    {
      Sid      = "ReadBuckets"
      Effect   = "Allow"
      Action   = ["s3:GetBucket*", "s3:Get*Configuration", "s3:ListBucket"]
      Resource = [local.state_bucket, local.data_bucket]
    },
    {
      Sid    = "ReadIdentities"
      Effect = "Allow"
      Action = ["iam:Get*", "iam:List*"]
      Resource = concat(local.roles, local.ci_roles, [
        for role in keys(local.subjects) : "${local.iam}:policy/${var.name}-${role}"
      ], [local.provider])
    },
    {
      Sid      = "ReadState"
      Effect   = "Allow"
      Action   = "s3:GetObject"
      Resource = "${local.state_bucket}/*"
    },
    {
      Sid      = "DecryptState"
      Effect   = "Allow"
      Action   = "kms:Decrypt"
      Resource = var.state.key_arn
    },
  ]

  apply = [
    {
      Sid      = "WriteState"
      Effect   = "Allow"
      Action   = "s3:PutObject"
      Resource = ["${local.state_bucket}/registry/*", "${local.state_bucket}/cluster/*"]
    },
    {
      Sid      = "Unlock"
      Effect   = "Allow"
      Action   = "s3:DeleteObject"
      Resource = ["${local.state_bucket}/registry/*.tflock", "${local.state_bucket}/cluster/*.tflock"]
    },
    {
      Sid      = "EncryptState"
      Effect   = "Allow"
      Action   = "kms:GenerateDataKey"
      Resource = var.state.key_arn
    },
    {
      Sid       = "WriteNetwork" # ids that AWS gives; the region is what can be known
      Effect    = "Allow"
      Action    = "ec2:*"
      Resource  = "*"
      Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
    },
    {
      Sid       = "WriteScalingHints"
      Effect    = "Allow"
      Action    = ["autoscaling:CreateOrUpdateTags", "autoscaling:DeleteTags"]
      Resource  = "arn:${local.partition}:autoscaling:${local.region}:${local.account}:autoScalingGroup:*"
      Condition = { StringEquals = { "aws:ResourceTag/eks:cluster-name" = var.name } }
    },
    {
      Sid      = "WriteCluster"
      Effect   = "Allow"
      Action   = "eks:*"
      Resource = local.cluster
    },
    {
      Sid      = "WriteLogGroups"
      Effect   = "Allow"
      Action   = "logs:*"
      Resource = local.log_groups
    },
    {
      Sid       = "CreateKeys"
      Effect    = "Allow"
      Action    = ["kms:CreateKey", "kms:TagResource"]
      Resource  = "*"
      Condition = { StringEquals = { "aws:RequestTag/Project" = var.name } }
    },
    {
      Sid       = "WriteKeys"
      Effect    = "Allow"
      Action    = "kms:*"
      Resource  = "${local.kms}:key/*"
      Condition = local.ours
    },
    {
      Sid      = "WriteAliases"
      Effect   = "Allow"
      Action   = ["kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias"]
      Resource = "${local.kms}:alias/${var.data.bucket}"
    },
    {
      Sid      = "WriteRegistry"
      Effect   = "Allow"
      Action   = "ecr:*"
      Resource = local.registries
    },
    {
      Sid      = "WriteDataStore"
      Effect   = "Allow"
      Action   = "s3:*"
      Resource = [local.data_bucket, "${local.data_bucket}/*"]
    },
    {
      Sid      = "WriteRoles"
      Effect   = "Allow"
      Action   = "iam:*"
      Resource = local.roles
    },
    {
      Sid      = "LinkServices"
      Effect   = "Allow"
      Action   = "iam:CreateServiceLinkedRole"
      Resource = "${local.iam}:role/aws-service-role/*"
      Condition = { StringEquals = { "iam:AWSServiceName" = [
        "autoscaling.amazonaws.com",
        "eks-nodegroup.amazonaws.com",
        "eks.amazonaws.com",
        "spot.amazonaws.com",
      ] } }
    },
  ]

  publish = [
    {
      Sid      = "LogIn" # AWS knows no narrower resource for this
      Effect   = "Allow"
      Action   = "ecr:GetAuthorizationToken"
      Resource = "*"
    },
    {
      Sid    = "Push"
      Effect = "Allow"
      Action = [
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:CompleteLayerUpload",
        "ecr:GetDownloadUrlForLayer",
        "ecr:InitiateLayerUpload",
        "ecr:PutImage",
        "ecr:UploadLayerPart",
      ]
      Resource = local.registries
    },
    {
      Sid       = "ListData"
      Effect    = "Allow"
      Action    = "s3:ListBucket"
      Resource  = local.data_bucket
      Condition = { StringLike = { "s3:prefix" = ["${var.data.prefix}/*", var.data.prefix] } }
    },
    {
      Sid      = "ReadAndAddData"
      Effect   = "Allow"
      Action   = ["s3:GetObject", "s3:PutObject"]
      Resource = "${local.data_bucket}/${var.data.prefix}/*"
    },
    {
      Sid      = "EncryptData"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = "${local.kms}:key/*"
      Condition = {
        StringEquals               = { "kms:ViaService" = "s3.${local.region}.amazonaws.com" }
        "ForAnyValue:StringEquals" = { "kms:ResourceAliases" = "alias/${var.data.bucket}" }
      }
    },
  ]
}
