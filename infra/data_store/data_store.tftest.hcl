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

  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::digits-data" }
  }
}

variables {
  bucket = "digits-data"
}

run "what_is_planned_by_default" {
  command = plan

  # The bucket keeps versions and is closed to the public.
  assert {
    condition     = aws_s3_bucket_versioning.this.versioning_configuration[0].status == "Enabled"
    error_message = "an overwritten object would be lost"
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls,
      aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls,
      aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "one of the four public access blocks is off"
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default[0].kms_master_key_id == aws_kms_key.this.arn
    error_message = "objects are not encrypted with the bucket's own key"
  }

  # Requests without TLS are denied.
  assert {
    condition = jsondecode(aws_s3_bucket_policy.this.policy) == {
      Version = "2012-10-17"
      Statement = [{
        Sid       = "TlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = ["arn:aws:s3:::digits-data", "arn:aws:s3:::digits-data/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      }]
    }
    error_message = "the bucket's policy is ${aws_s3_bucket_policy.this.policy}"
  }

  # The key belongs to the account and rotates.
  assert {
    condition     = aws_kms_key.this.enable_key_rotation && jsondecode(aws_kms_key.this.policy).Statement[*].Principal == [{ AWS = "arn:aws:iam::123456789012:root" }]
    error_message = "the key's policy is ${aws_kms_key.this.policy}"
  }

  # Objects are deleted with the bucket only on request.
  assert {
    condition     = aws_s3_bucket.this.force_destroy == false
    error_message = "a destroy would delete the objects"
  }
}

run "old_versions_are_forgotten_after_the_days_given" {
  command = plan

  variables {
    noncurrent_days = 7
  }

  assert {
    condition     = one(aws_s3_bucket_lifecycle_configuration.this.rule).noncurrent_version_expiration[0].noncurrent_days == 7
    error_message = "old versions stay longer or shorter than 7 days"
  }
}

run "a_bucket_name_with_capitals_is_refused" {
  command         = plan
  expect_failures = [var.bucket]

  variables {
    bucket = "Digits"
  }
}

run "half_a_day_is_refused" {
  command         = plan
  expect_failures = [var.noncurrent_days]

  variables {
    noncurrent_days = 0.5
  }
}
