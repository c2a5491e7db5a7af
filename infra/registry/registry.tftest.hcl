# Plans the module with a mocked AWS: no network, no account.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/1234" }
  }
}

variables {
  name = "digits"
}

run "what_is_planned_by_default" {
  command = plan

  # A tag never moves and every image is scanned and encrypted.
  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE"
    error_message = "a tag could be moved to another image"
  }

  assert {
    condition     = aws_ecr_repository.this.image_scanning_configuration[0].scan_on_push
    error_message = "images are not scanned"
  }

  assert {
    condition     = aws_ecr_repository.this.encryption_configuration[0].kms_key == aws_kms_key.this.arn && aws_kms_key.this.enable_key_rotation
    error_message = "images are not encrypted with the repository's own, rotating key"
  }

  # Released images are matched first and never expire.
  assert {
    condition = jsondecode(aws_ecr_lifecycle_policy.this.policy).rules[0].selection == {
      tagStatus     = "tagged"
      tagPrefixList = ["v"]
      countType     = "imageCountMoreThan"
      countNumber   = 100000
    }
    error_message = "the lifecycle is ${aws_ecr_lifecycle_policy.this.policy}"
  }

  # Models are deleted with the repository only on request.
  assert {
    condition     = aws_ecr_repository.this.force_delete == false
    error_message = "a destroy would delete the models"
  }
}

run "the_newest_of_the_others_are_kept" {
  command = plan

  variables {
    candidates_kept = 5
  }

  assert {
    condition     = jsondecode(aws_ecr_lifecycle_policy.this.policy).rules[1].selection == { tagStatus = "any", countType = "imageCountMoreThan", countNumber = 5 }
    error_message = "the lifecycle is ${aws_ecr_lifecycle_policy.this.policy}"
  }
}

run "a_name_with_an_underscore_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "digit_classifier"
  }
}

run "keeping_no_candidate_is_refused" {
  command         = plan
  expect_failures = [var.candidates_kept]

  variables {
    candidates_kept = 0
  }
}

run "an_empty_prefix_which_would_keep_everything_is_refused" {
  command         = plan
  expect_failures = [var.release_tag_prefix]

  variables {
    release_tag_prefix = ""
  }
}

run "a_namespaced_name_is_taken" {
  command = plan

  variables {
    name = "team/digits"
  }

  assert {
    condition     = aws_ecr_repository.this.name == "team/digits"
    error_message = "the repository is ${aws_ecr_repository.this.name}"
  }
}

run "a_name_that_ends_in_a_slash_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "team/"
  }
}
