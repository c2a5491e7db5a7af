data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  issuer    = "token.actions.githubusercontent.com"
  partition = data.aws_partition.current.partition
  account   = data.aws_caller_identity.current.account_id
  region    = data.aws_region.current.id
  provider  = var.oidc_provider_arn == null ? aws_iam_openid_connect_provider.github[0].arn : var.oidc_provider_arn

  # Which runs get which role. A run in a GitHub environment names the environment instead of
  # its branch, so the branches that may apply are set on the environment.
  subjects = {
    plan = [
      "repo:${var.repository}:pull_request",
      "repo:${var.repository}:ref:refs/heads/${var.branch}",
    ]
    apply   = ["repo:${var.repository}:environment:${var.environment}"]
    publish = ["repo:${var.repository}:ref:refs/heads/${var.branch}"]
  }

  # A name can be given to another repository, a number can't; older repositories tell none.
  number = one(regexall("@([0-9]+)$", var.repository))
  # What publishes is one file, and not whatever else runs on the branch.
  names    = replace(var.repository, "/@[0-9]+/", "")
  workflow = "${local.names}/.github/workflows/${var.publish_workflow}@refs/heads/${var.branch}"
  claims = {
    plan    = {}
    apply   = {}
    publish = { "${local.issuer}:job_workflow_ref" = local.workflow }
  }

  policies = {
    plan     = local.plan
    apply    = local.apply
    publish  = local.publish
    boundary = local.boundary
  }

  # Who applies must see what it changes.
  attachments = {
    "plan"             = { role = "plan", policy = "plan" }
    "apply"            = { role = "apply", policy = "apply" }
    "apply also plans" = { role = "apply", policy = "plan" }
    "publish"          = { role = "publish", policy = "publish" }
  }
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.oidc_provider_arn == null ? 1 : 0

  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

resource "aws_iam_role" "this" {
  for_each = local.subjects

  name                 = "${var.name}-${each.key}"
  description          = "GitHub Actions of ${var.repository}: ${each.key}"
  max_session_duration = 3600

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.provider }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = merge(
          {
            "${local.issuer}:aud" = "sts.amazonaws.com"
            "${local.issuer}:sub" = each.value
          },
          local.number == null ? {} : { "${local.issuer}:repository_id" = local.number[0] },
          local.claims[each.key],
        )
      }
    }]
  })
}

resource "aws_iam_policy" "this" {
  for_each = local.policies

  name        = "${var.name}-${each.key}"
  description = each.key == "boundary" ? "The most that roles of ${var.name} can do" : "What GitHub Actions of ${var.repository} need to ${each.key}"
  policy      = jsonencode({ Version = "2012-10-17", Statement = each.value })
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = local.attachments

  role       = aws_iam_role.this[each.value.role].name
  policy_arn = aws_iam_policy.this[each.value.policy].arn
}
