locals {
  state_bucket = var.state.bucket_arn
  data_bucket  = "arn:${local.partition}:s3:::${var.data.bucket}"
  registries   = [for name in var.registries : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${name}"]
  # Copies of others' images, by what is before their names: modules/image_cache.
  copies = [for upstream in ["docker-hub", "kubernetes", "quay"] : "arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${upstream}/*"]
  iam    = "arn:${local.partition}:iam::${local.account}"
  eks    = "arn:${local.partition}:eks:${local.region}:${local.account}"
  kms    = "arn:${local.partition}:kms:${local.region}:${local.account}"
  logs   = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group"

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
  roles    = [for role in ["flow-logs", "cluster", "node", "autoscaler", "ebs-csi", "training"] : "${local.iam}:role/${var.name}-${role}"]
  ci_roles = [for role in keys(local.subjects) : "${local.iam}:role/${var.name}-${role}"]
  bounded  = { "iam:PermissionsBoundary" = "${local.iam}:policy/${var.name}-boundary" }
  ours     = { StringEquals = { "aws:ResourceTag/Project" = var.name } }

  # What AWS wrote that the roles of the cluster need; nothing else is attached to them.
  attachable = [
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonEKSClusterPolicy",
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonSSMManagedInstanceCore",
    "service-role/AmazonEBSCSIDriverPolicy",
  ]

  # The most that any role of the network and the cluster can do, whatever is written into it: CI makes
  # these roles, and whoever makes a role could take it. Nothing here changes who may do what.
  boundary = [
    {
      Sid    = "Run"
      Effect = "Allow"
      Action = [
        "autoscaling:*",
        "cloudwatch:PutMetricData",
        "ec2:*",
        "ec2messages:*",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
        "eks-auth:AssumeRoleForPodIdentity",
        "eks:Describe*",
        "elasticloadbalancing:*",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey*",
        "kms:ListGrants",
        "kms:ReEncrypt*",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "ssm:Describe*",
        "ssm:Get*",
        "ssm:List*",
        "ssm:PutComplianceItems",
        "ssm:PutConfigurePackageResult",
        "ssm:PutInventory",
        "ssm:Update*Association*",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:*",
      ]
      Resource = "*"
    },
    {
      Sid      = "FillImageCache"
      Effect   = "Allow"
      Action   = ["ecr:BatchImportUpstreamImage", "ecr:CreateRepository"]
      Resource = local.copies
    },
    {
      Sid       = "LinkServices"
      Effect    = "Allow"
      Action    = "iam:CreateServiceLinkedRole"
      Resource  = "${local.iam}:role/aws-service-role/*"
      Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
    },
    {
      Sid      = "UseData"
      Effect   = "Allow"
      Action   = ["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"]
      Resource = [local.data_bucket, "${local.data_bucket}/*"]
    },
    {
      Sid      = "KeepOffTheStates"
      Effect   = "Deny"
      Action   = "kms:*"
      Resource = var.state.key_arn
    },
  ]

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
        "ec2:DescribeInstanceTypeOfferings",
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
        "ecr:DescribePullThroughCacheRules",
        "ecr:GetAuthorizationToken",
        "eks:DescribeAddonVersions",
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
      Sid      = "ReadImagesOfNodes"
      Effect   = "Allow"
      Action   = "ssm:GetParameter"
      Resource = "arn:${local.partition}:ssm:${local.region}::parameter/aws/service/eks/optimized-ami/*"
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
      Sid      = "PullImages" # that a pull request proposes, and those that it replaces
      Effect   = "Allow"
      Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
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
        for policy in concat(keys(local.subjects), ["boundary"]) : "${local.iam}:policy/${var.name}-${policy}"
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
      Sid       = "CreateCluster" # without staying its administrator
      Effect    = "Allow"
      Action    = "eks:CreateCluster"
      Resource  = local.cluster[0]
      Condition = { Bool = { "eks:bootstrapClusterCreatorAdminPermissions" = "false" } }
    },
    {
      Sid    = "WriteCluster"
      Effect = "Allow"
      Action = [
        "eks:AssociateAccessPolicy",
        "eks:CreateAccessEntry",
        "eks:CreateAddon",
        "eks:CreateNodegroup",
        "eks:CreatePodIdentityAssociation",
        "eks:Delete*",
        "eks:DisassociateAccessPolicy",
        "eks:TagResource",
        "eks:UntagResource",
        "eks:Update*",
      ]
      Resource = local.cluster
    },
    {
      Sid       = "LetIn" # nobody whom CI is or could make
      Effect    = "Deny"
      Action    = "eks:CreateAccessEntry"
      Resource  = "*"
      Condition = { ArnLike = { "eks:principalArn" = "${local.iam}:role/${var.name}-*" } }
    },
    {
      Sid      = "MakeAdministrator" # of nobody whom CI is or could make
      Effect   = "Deny"
      Action   = ["eks:AssociateAccessPolicy", "eks:UpdateAccessEntry"]
      Resource = "${local.eks}:access-entry/${var.name}/role/${local.account}/${var.name}-*"
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
      Sid       = "WriteImageCache" # AWS knows no resource for its rules
      Effect    = "Allow"
      Action    = ["ecr:CreatePullThroughCacheRule", "ecr:DeletePullThroughCacheRule", "ecr:UpdatePullThroughCacheRule"]
      Resource  = "*"
      Condition = { StringEquals = { "aws:RequestedRegion" = local.region } }
    },
    {
      Sid      = "WriteDataStore"
      Effect   = "Allow"
      Action   = "s3:*"
      Resource = [local.data_bucket, "${local.data_bucket}/*"]
    },
    {
      Sid    = "WriteRoles" # none that can do more than the boundary
      Effect = "Allow"
      Action = [
        "iam:CreateRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:PutRolePermissionsBoundary",
        "iam:PutRolePolicy",
      ]
      Resource  = local.roles
      Condition = { StringEquals = local.bounded }
    },
    {
      Sid      = "AttachPolicies"
      Effect   = "Allow"
      Action   = "iam:AttachRolePolicy"
      Resource = local.roles
      Condition = {
        StringEquals = local.bounded
        ArnEquals    = { "iam:PolicyARN" = [for policy in local.attachable : "arn:${local.partition}:iam::aws:policy/${policy}"] }
      }
    },
    {
      Sid      = "ForgetRoles"
      Effect   = "Allow"
      Action   = ["iam:DeleteRole", "iam:TagRole", "iam:UntagRole"]
      Resource = local.roles
    },
    {
      Sid      = "PassRoles"
      Effect   = "Allow"
      Action   = "iam:PassRole"
      Resource = local.roles
      Condition = { StringEquals = { "iam:PassedToService" = [
        "eks.amazonaws.com",
        "ec2.amazonaws.com",
        "pods.eks.amazonaws.com",
        "vpc-flow-logs.amazonaws.com",
      ] } }
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
        "pullthroughcache.ecr.amazonaws.com",
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
