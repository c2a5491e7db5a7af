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

run "each_role_trusts_exactly_the_runs_that_are_meant" {
  command = plan

  assert {
    condition = { for name, role in aws_iam_role.this : name => jsondecode(role.assume_role_policy).Statement[0].Condition } == {
      plan = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = ["repo:octo@123456/digits@456789:pull_request", "repo:octo@123456/digits@456789:ref:refs/heads/main"]
      } }
      apply = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = ["repo:octo@123456/digits@456789:environment:infrastructure"]
      } }
      publish = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = ["repo:octo@123456/digits@456789:ref:refs/heads/main"]
      } }
    }
    error_message = jsonencode({ for name, role in aws_iam_role.this : name => role.assume_role_policy })
  }

  assert {
    condition     = alltrue([for role in aws_iam_role.this : jsondecode(role.assume_role_policy).Statement[*].Principal == [{ Federated = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com" }]])
    error_message = "a role trusts somebody besides GitHub"
  }
}

run "planning_only_reads" {
  command = plan

  assert {
    condition = alltrue(flatten([for statement in jsondecode(aws_iam_policy.this["plan"].policy).Statement : [
      for action in flatten([statement.Action]) : can(regex("^[a-z0-9]+:(Describe|Get|List|Decrypt)", action))
    ]]))
    error_message = aws_iam_policy.this["plan"].policy
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["plan"].policy, "digits-data/*")
    error_message = "a pull request could read the data"
  }
}

run "publishing_reaches_two_repositories_one_prefix_and_one_key" {
  command = plan

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
}

run "star_stands_only_where_aws_knows_no_name" {
  command = plan

  assert {
    condition = jsonencode(flatten([for name, policy in aws_iam_policy.this : [
      for statement in jsondecode(policy.policy).Statement : "${name} ${statement.Sid}" if contains(flatten([statement.Resource]), "*")
    ]])) == jsonencode(["apply WriteNetwork", "apply CreateKeys", "plan ReadLists", "publish LogIn"])
    error_message = "statements on every resource: ${jsonencode(flatten([for name, policy in aws_iam_policy.this : [for statement in jsondecode(policy.policy).Statement : "${name} ${statement.Sid}" if contains(flatten([statement.Resource]), "*")]]))}"
  }
}

run "applying_cannot_change_the_roles_of_ci" {
  command = plan

  assert {
    condition = flatten([for statement in jsondecode(aws_iam_policy.this["apply"].policy).Statement : statement.Resource if statement.Sid == "WriteRoles"]) == [
      "arn:aws:iam::123456789012:role/digits-flow-logs",
      "arn:aws:iam::123456789012:role/digits-cluster",
      "arn:aws:iam::123456789012:role/digits-node",
      "arn:aws:iam::123456789012:role/digits-autoscaler",
      "arn:aws:iam::123456789012:role/digits-training",
    ]
    error_message = aws_iam_policy.this["apply"].policy
  }

  assert {
    condition     = !strcontains(aws_iam_policy.this["apply"].policy, "digits-tfstate/bootstrap")
    error_message = "CI could rewrite the state of its own roles"
  }
}

run "every_policy_is_short_enough_for_iam" {
  command = plan

  assert {
    condition     = alltrue([for policy in aws_iam_policy.this : length(policy.policy) <= 6144])
    error_message = jsonencode({ for name, policy in aws_iam_policy.this : name => length(policy.policy) })
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
