# The root `cluster` with what its settings choose; the modules have tests of their own.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_region" {
    defaults = { id = "us-west-1" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-west-1a", "us-west-1c"] }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-west-1:123456789012:key/1234" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-west-1:123456789012:log-group:/aws/vpc/digits" }
  }

  mock_resource "aws_eip" {
    defaults = { public_ip = "203.0.113.7" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/digits" }
  }
}

override_module {
  target = module.gpu_cluster
  outputs = {
    name = "digits"
    arn  = "arn:aws:eks:us-west-1:123456789012:cluster/digits"
  }
}

override_module {
  target = module.training_identity
}

variables {
  project         = "digits"
  region          = "us-west-1"
  admins          = ["arn:aws:iam::123456789012:role/platform"]
  gpu_node_groups = { gpu = { instance_types = ["g6.xlarge"] } }
}

run "a_region_of_two_zones_is_one_setting" {
  command = plan

  variables {
    network = { zone_count = 2, cidr = "10.4.0.0/16" }
  }

  assert {
    condition     = keys(module.network[0].private_subnet_ids) == ["us-west-1a", "us-west-1c"]
    error_message = "there are subnets in ${jsonencode(keys(module.network[0].private_subnet_ids))}"
  }

  assert {
    condition     = strcontains(output.next, "does not answer over the internet") && strcontains(output.next, "answers nodes only")
    error_message = output.next
  }

  assert {
    condition     = strcontains(output.next, "Its nodes call others from 203.0.113.7. Inside its network")
    error_message = output.next
  }
}

run "a_network_that_there_is_is_taken" {
  command = plan

  variables {
    network       = { subnet_ids = { us-west-1a = "subnet-0a", us-west-1c = "subnet-0c" } }
    private_cidrs = ["10.8.0.0/22"]
  }

  assert {
    condition     = length(module.network) == 0
    error_message = "a second network would be made"
  }

  assert {
    condition     = !strcontains(output.next, "call others") && strcontains(output.next, "it answers 10.8.0.0/22. From there: aws eks update-kubeconfig --region us-west-1 --name digits")
    error_message = output.next
  }
}

run "one_subnet_is_no_network" {
  command         = plan
  expect_failures = [var.network]

  variables {
    network = { subnet_ids = { us-west-1a = "subnet-0a" } }
  }
}

run "an_unknown_version_is_refused" {
  command         = plan
  expect_failures = [var.kubernetes_version]

  variables {
    network            = { zone_count = 2 }
    kubernetes_version = "1.99"
  }
}
