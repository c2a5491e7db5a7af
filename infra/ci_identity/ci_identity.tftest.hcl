# Plans the module with a mocked AWS: no network, no account.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }

  mock_resource "aws_iam_openid_connect_provider" {
    defaults = { arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }
  }

  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/digits" }
  }
}

variables {
  name       = "digits"
  repository = "octo@123456/digits@456789"
  registries = ["digits", "digits-training"]

  state = {
    bucket_arn = "arn:aws:s3:::digits-tfstate"
    key_arn    = "arn:aws:kms:eu-central-1:123456789012:key/1234"
  }

  data = {
    bucket = "digits-data"
    prefix = "dvc"
  }
}

run "what_is_planned_by_default" {
  command = plan

  # Each role trusts exactly the runs that are meant.
  assert {
    condition = { for name, role in aws_iam_role.this : name => jsondecode(role.assume_role_policy).Statement[0].Condition } == {
      plan = {
        StringLike = { "token.actions.githubusercontent.com:sub" = [
          "repo:octo@123456/digits@456789:pull_request",
          "repo:octo@123456/digits@456789:ref:refs/heads/main",
          "repo:octo@123456/digits@456789:ref:refs/heads/gh-readonly-queue/main/*",
        ] }
        StringEquals = {
          "token.actions.githubusercontent.com:aud"           = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:repository_id" = "456789"
        }
      }
      apply = {
        StringLike = { "token.actions.githubusercontent.com:sub" = ["repo:octo@123456/digits@456789:environment:infrastructure"] }
        StringEquals = {
          "token.actions.githubusercontent.com:aud"           = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:repository_id" = "456789"
        }
      }
      publish = {
        StringLike = { "token.actions.githubusercontent.com:sub" = ["repo:octo@123456/digits@456789:ref:refs/heads/main"] }
        StringEquals = {
          "token.actions.githubusercontent.com:aud"           = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:repository_id" = "456789"
          "token.actions.githubusercontent.com:job_workflow_ref" = [
            "octo/digits/.github/workflows/release.yaml@refs/heads/main",
            "octo/digits/.github/workflows/train.yaml@refs/heads/main",
          ]
        }
      }
    }
    error_message = jsonencode({ for name, role in aws_iam_role.this : name => role.assume_role_policy })
  }

  assert {
    condition     = alltrue([for role in aws_iam_role.this : jsondecode(role.assume_role_policy).Statement[*].Principal == [{ Federated = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }]])
    error_message = "a role trusts somebody besides GitHub"
  }

  # Planning only reads.
  assert {
    condition = alltrue(flatten([for statement in jsondecode(aws_iam_policy.this["plan"].policy).Statement : [
      for action in flatten([statement.Action]) : can(regex("^[a-z0-9]+:(Describe|Get|List|Decrypt|BatchGetImage$|BatchCheckLayerAvailability$)", action))
    ]]))
    error_message = aws_iam_policy.this["plan"].policy
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["plan"].policy, "digits-data/*")
    error_message = "a pull request could read the data"
  }

  # Planning pulls the images of two repositories.
  assert {
    condition = { for statement in jsondecode(aws_iam_policy.this["plan"].policy).Statement : jsonencode(statement.Action) => statement.Resource if statement.Sid == "PullImages" } == {
      "[\"ecr:BatchCheckLayerAvailability\",\"ecr:BatchGetImage\",\"ecr:GetDownloadUrlForLayer\"]" = ["arn:aws:ecr:eu-central-1:123456789012:repository/digits", "arn:aws:ecr:eu-central-1:123456789012:repository/digits-training"]
    }
    error_message = aws_iam_policy.this["plan"].policy
  }

  assert {
    condition     = strcontains(aws_iam_policy.this["plan"].policy, "\"ecr:GetAuthorizationToken\"")
    error_message = "checks, promotions and rollbacks could not log in to the registry"
  }

  # Publishing reaches two repositories, one prefix and one key.
  assert {
    condition = { for statement in jsondecode(aws_iam_policy.this["publish"].policy).Statement : statement.Sid => statement.Resource } == {
      LogIn          = "*"
      Push           = ["arn:aws:ecr:eu-central-1:123456789012:repository/digits", "arn:aws:ecr:eu-central-1:123456789012:repository/digits-training"]
      ListData       = "arn:aws:s3:::digits-data"
      ReadAndAddData = "arn:aws:s3:::digits-data/dvc/*"
      EncryptData    = "arn:aws:kms:eu-central-1:123456789012:key/*"
    }
    error_message = aws_iam_policy.this["publish"].policy
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_policy.this["publish"].policy).Statement : statement.Condition if statement.Sid == "EncryptData"]) == {
      StringEquals               = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" }
      "ForAnyValue:StringEquals" = { "kms:ResourceAliases" = "alias/digits-data" }
    }
    error_message = aws_iam_policy.this["publish"].policy
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["publish"].policy, "Delete")
    error_message = "a release could delete a model or data"
  }

  # Star stands only where AWS knows no name.
  assert {
    condition = jsonencode(flatten([for name, policy in aws_iam_policy.this : [
      for statement in jsondecode(policy.policy).Statement : "${name} ${statement.Sid}" if contains(flatten([statement.Resource]), "*")
    ]])) == jsonencode(["apply WriteNetwork", "apply LetIn", "apply CreateKeys", "apply WriteImageCache", "boundary Run", "plan ReadLists", "publish LogIn"])
    error_message = "statements on every resource: ${jsonencode(flatten([for name, policy in aws_iam_policy.this : [for statement in jsondecode(policy.policy).Statement : "${name} ${statement.Sid}" if contains(flatten([statement.Resource]), "*")]]))}"
  }

  # Whatever CI writes into a role stays within the boundary.
  assert {
    condition = !anytrue(flatten([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : [
      for action in flatten([statement.Action]) : endswith(action, ":*") && contains(["iam", "eks", "sts"], split(":", action)[0])
    ]]))
    error_message = "CI may do everything with identities: ${aws_iam_policy.this["apply"].policy}"
  }

  # What AWS lets carry the condition carries it; the others give nobody a right.
  assert {
    condition = alltrue(flatten([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : [
      for action in flatten([statement.Action]) :
      try(statement.Condition.StringEquals["iam:PermissionsBoundary"], "") == "arn:aws:iam::123456789012:policy/digits-boundary"
      || contains(["iam:DeleteRole", "iam:TagRole", "iam:UntagRole", "iam:PassRole", "iam:CreateServiceLinkedRole"], action)
      if startswith(action, "iam:")
    ]]))
    error_message = aws_iam_policy.this["apply"].policy
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : statement.Condition.ArnEquals["iam:PolicyARN"] if contains(flatten([statement.Action]), "iam:AttachRolePolicy")]) == [
      "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly",
      "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
      "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy",
      "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
      "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore",
      "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy",
    ]
    error_message = "CI may attach other policies: ${aws_iam_policy.this["apply"].policy}"
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["apply"].policy, ":policy/digits-boundary\"]") && !strcontains(aws_iam_policy.this["apply"].policy, "PolicyVersion")
    error_message = "CI may write the boundary: ${aws_iam_policy.this["apply"].policy}"
  }

  # The boundary lets no role change who may do what.
  assert {
    condition = sort(distinct(flatten([for statement in jsondecode(aws_iam_policy.this["boundary"].policy).Statement : [
      for action in flatten([statement.Action]) : action if statement.Effect == "Allow" && (startswith(action, "iam:") || startswith(action, "sts:") || startswith(action, "eks:") || action == "*")
    ]]))) == tolist(["eks:Describe*", "iam:CreateServiceLinkedRole"])
    error_message = aws_iam_policy.this["boundary"].policy
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.this["boundary"].policy).Statement : statement.Resource if statement.Effect == "Deny"]) == var.state.key_arn && !strcontains(aws_iam_policy.this["boundary"].policy, "digits-tfstate")
    error_message = "a role of the cluster could read the states"
  }

  # Nodes may fill the image cache, and make no other repository.
  assert {
    condition = { for statement in jsondecode(aws_iam_policy.this["boundary"].policy).Statement : jsonencode(statement.Action) => statement.Resource if strcontains(jsonencode(statement.Action), "ecr:CreateRepository") } == {
      "[\"ecr:BatchImportUpstreamImage\",\"ecr:CreateRepository\"]" = [for upstream in ["docker-hub", "kubernetes", "quay"] : "arn:aws:ecr:eu-central-1:123456789012:repository/${upstream}/*"]
    }
    error_message = aws_iam_policy.this["boundary"].policy
  }

  # CI cannot make itself an administrator of the cluster.
  assert {
    condition = { for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : jsonencode(statement.Action) => coalesce(try(statement.Condition.ArnLike["eks:principalArn"], null), jsonencode(statement.Resource)) if statement.Effect == "Deny" } == {
      "\"eks:CreateAccessEntry\""                                 = "arn:aws:iam::123456789012:role/digits-*"
      "[\"eks:AssociateAccessPolicy\",\"eks:UpdateAccessEntry\"]" = "\"arn:aws:eks:eu-central-1:123456789012:access-entry/digits/role/123456789012/digits-*\""
    }
    error_message = aws_iam_policy.this["apply"].policy
  }

  assert {
    condition     = one([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : statement.Condition if contains(flatten([statement.Action]), "eks:CreateCluster")]) == { Bool = { "eks:bootstrapClusterCreatorAdminPermissions" = "false" } }
    error_message = aws_iam_policy.this["apply"].policy
  }

  # Applying cannot change the roles of CI.
  assert {
    condition = flatten([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : statement.Resource if statement.Sid == "WriteRoles"]) == [
      "arn:aws:iam::123456789012:role/digits-flow-logs",
      "arn:aws:iam::123456789012:role/digits-cluster",
      "arn:aws:iam::123456789012:role/digits-node",
      "arn:aws:iam::123456789012:role/digits-autoscaler",
      "arn:aws:iam::123456789012:role/digits-ebs-csi",
      "arn:aws:iam::123456789012:role/digits-training",
    ]
    error_message = aws_iam_policy.this["apply"].policy
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["apply"].policy, "digits-tfstate/bootstrap")
    error_message = "CI could rewrite the state of its own roles"
  }

  # Every policy is short enough for IAM.
  assert {
    condition     = alltrue([for policy in aws_iam_policy.this : length(policy.policy) <= 6144])
    error_message = jsonencode({ for name, policy in aws_iam_policy.this : name => length(policy.policy) })
  }
}

run "an_older_repository_has_no_number" {
  command = plan

  variables {
    repository = "octo_corp/digits"
    branch     = "release@2+1"

    publish_workflows = ["publish.yml"]
  }

  assert {
    condition = jsondecode(aws_iam_role.this["publish"].assume_role_policy).Statement[0].Condition == {
      StringLike = { "token.actions.githubusercontent.com:sub" = ["repo:octo_corp/digits:ref:refs/heads/release@2+1"] }
      StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:job_workflow_ref" = [
          "octo_corp/digits/.github/workflows/publish.yml@refs/heads/release@2+1",
        ]
      }
    }
    error_message = aws_iam_role.this["publish"].assume_role_policy
  }
}

run "an_environment_with_a_space_and_a_namespaced_repository_are_taken" {
  command = plan

  variables {
    environment = "Infra of AWS"
    registries  = ["team/digits"]
  }

  assert {
    condition     = strcontains(aws_iam_role.this["apply"].assume_role_policy, ":environment:Infra of AWS") && strcontains(aws_iam_policy.this["publish"].policy, "repository/team/digits")
    error_message = aws_iam_role.this["apply"].assume_role_policy
  }
}

run "the_accounts_only_provider_is_reused_where_there_is_one" {
  command = plan

  variables {
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && output.oidc_provider_arn == var.oidc_provider_arn
    error_message = "a second provider would be made, which AWS refuses"
  }
}

run "a_name_that_is_too_long_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "a-name-of-more-than-thirty-two-characters"
  }
}

run "a_pattern_of_repositories_is_refused" {
  command         = plan
  expect_failures = [var.repository]

  variables {
    repository = "octo/*"
  }
}

run "an_owner_with_a_number_and_a_repository_without_is_refused" {
  command         = plan
  expect_failures = [var.repository]

  variables {
    repository = "octo@123456/digits"
  }
}

run "a_pattern_of_branches_is_refused" {
  command         = plan
  expect_failures = [var.branch]

  variables {
    branch = "release/*"
  }
}

run "a_pattern_of_environments_is_refused" {
  command         = plan
  expect_failures = [var.environment]

  variables {
    environment = "*"
  }
}

run "another_providers_arn_is_refused" {
  command         = plan
  expect_failures = [var.oidc_provider_arn]

  variables {
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/gitlab.com"
  }
}

run "a_state_without_its_key_is_refused" {
  command         = plan
  expect_failures = [var.state]

  variables {
    state = { bucket_arn = "arn:aws:s3:::digits-tfstate", key_arn = "" }
  }
}

run "a_registry_pattern_is_refused" {
  command         = plan
  expect_failures = [var.registries]

  variables {
    registries = ["digits", "*"]
  }
}

run "a_prefix_that_is_the_whole_bucket_is_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits-data", prefix = "" }
  }
}

run "a_pattern_of_workflows_is_refused" {
  command         = plan
  expect_failures = [var.publish_workflows]

  variables {
    publish_workflows = ["release.yaml", "*.yaml"]
  }
}

run "nobody_who_publishes_is_refused" {
  command         = plan
  expect_failures = [var.publish_workflows]

  variables {
    publish_workflows = []
  }
}

run "a_malformed_registry_is_refused" {
  command         = plan
  expect_failures = [var.registries]

  variables {
    registries = ["digits-/x"]
  }
}

run "a_malformed_bucket_is_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits..data", prefix = "dvc" }
  }
}

run "a_bucket_that_is_too_short_is_refused" {
  command         = plan
  expect_failures = [var.state]

  variables {
    state = { bucket_arn = "arn:aws:s3:::a-", key_arn = "arn:aws:kms:eu-central-1:123456789012:key/1234" }
  }
}
