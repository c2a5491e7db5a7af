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

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/digits-training" }
  }
}

variables {
  name      = "digits-training"
  cluster   = { name = "digits", arn = "arn:aws:eks:eu-central-1:123456789012:cluster/digits" }
  namespace = "digits-training"
  data      = { bucket = "digits-data" }
}

run "what_is_planned_by_default" {
  command = plan

  # One service account of one cluster gets the role.
  assert {
    condition = jsondecode(aws_iam_role.this.assume_role_policy).Statement[0].Condition == {
      StringEquals = { "aws:SourceAccount" = "123456789012" }
      ArnEquals    = { "aws:SourceArn" = "arn:aws:eks:eu-central-1:123456789012:cluster/digits" }
    }
    error_message = aws_iam_role.this.assume_role_policy
  }

  assert {
    condition     = aws_iam_role.this.permissions_boundary == "arn:aws:iam::123456789012:policy/digits-boundary"
    error_message = "CI may not make a role without the boundary"
  }

  assert {
    condition     = aws_eks_pod_identity_association.this.namespace == "digits-training" && aws_eks_pod_identity_association.this.service_account == "train" && aws_eks_pod_identity_association.this.role_arn == aws_iam_role.this.arn
    error_message = "the role goes to ${aws_eks_pod_identity_association.this.namespace}/${aws_eks_pod_identity_association.this.service_account}"
  }

  # Training reaches one bucket, two prefixes and one key.
  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Sid => statement.Resource } == {
      List            = "arn:aws:s3:::digits-data"
      ReadAndAddData  = "arn:aws:s3:::digits-data/dvc/*"
      KeepCheckpoints = "arn:aws:s3:::digits-data/training/*"
      EncryptData     = "arn:aws:kms:eu-central-1:123456789012:key/*"
    }
    error_message = aws_iam_role_policy.this.policy
  }

  assert {
    condition = one([for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Condition if statement.Sid == "EncryptData"]) == {
      StringEquals               = { "kms:ViaService" = "s3.eu-central-1.amazonaws.com" }
      "ForAnyValue:StringEquals" = { "kms:ResourceAliases" = "alias/digits-data" }
    }
    error_message = aws_iam_role_policy.this.policy
  }

  # Only checkpoints can be deleted.
  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.this.policy).Statement : statement.Sid if strcontains(jsonencode(statement.Action), "Delete")] == ["KeepCheckpoints"]
    error_message = aws_iam_role_policy.this.policy
  }
}

run "a_name_with_an_underscore_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "digits_training"
  }
}

run "the_arn_of_another_cluster_is_refused" {
  command         = plan
  expect_failures = [var.cluster]

  variables {
    cluster = { name = "digits", arn = "arn:aws:eks:eu-central-1:123456789012:cluster/letters" }
  }
}

run "a_pattern_of_namespaces_is_refused" {
  command         = plan
  expect_failures = [var.namespace]

  variables {
    namespace = "*"
  }
}

run "a_pattern_of_service_accounts_is_refused" {
  command         = plan
  expect_failures = [var.service_account]

  variables {
    service_account = "train-*"
  }
}

run "checkpoints_among_the_data_are_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits-data", checkpoints = "dvc" }
  }
}

run "data_among_the_checkpoints_is_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits-data", versions = "training/dvc", checkpoints = "training" }
  }
}

run "checkpoints_below_the_data_are_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits-data", checkpoints = "dvc/files" }
  }
}

run "prefixes_that_only_begin_alike_are_taken" {
  command = plan

  variables {
    data = { bucket = "digits-data", versions = "train", checkpoints = "training" }
  }

  assert {
    condition     = strcontains(aws_iam_role_policy.this.policy, "digits-data/train/*")
    error_message = aws_iam_role_policy.this.policy
  }
}

run "a_malformed_bucket_name_is_refused" {
  command         = plan
  expect_failures = [var.data]

  variables {
    data = { bucket = "digits-.data-" }
  }
}
