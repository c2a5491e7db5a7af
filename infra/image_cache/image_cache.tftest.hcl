# Plans the module with a mocked AWS: no network, no account.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }

  mock_data "aws_region" {
    defaults = { id = "eu-central-1" }
  }
}

variables {
  docker_hub_credential_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:ecr-pullthroughcache/docker-hub-a1b2c3"
}

run "three_registries_are_cached_and_one_of_them_asks_who_pulls" {
  command = plan

  assert {
    condition = { for rule in aws_ecr_pull_through_cache_rule.this : rule.ecr_repository_prefix => [rule.upstream_registry_url, coalesce(rule.credential_arn, "nobody")] } == {
      docker-hub = ["registry-1.docker.io", var.docker_hub_credential_arn]
      kubernetes = ["registry.k8s.io", "nobody"]
      quay       = ["quay.io", "nobody"]
    }
    error_message = jsonencode(aws_ecr_pull_through_cache_rule.this)
  }

  assert {
    condition     = output.address == "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    error_message = output.address
  }
}

run "a_secret_that_ecr_may_not_read_is_refused" {
  command         = plan
  expect_failures = [var.docker_hub_credential_arn]

  variables {
    docker_hub_credential_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:docker-hub-a1b2c3"
  }
}
