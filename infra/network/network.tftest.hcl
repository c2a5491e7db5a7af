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

  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1c", "eu-central-1a", "eu-central-1b", "eu-central-1d"] }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/1234" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/vpc/digits" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/digits-flow-logs" }
  }
}

variables {
  name = "digits"
}

run "what_is_planned_by_default" {
  command = plan

  # Private and public subnets lie in the first three zones by name.
  assert {
    condition     = { for zone, subnet in aws_subnet.private : zone => subnet.cidr_block } == { eu-central-1a = "10.0.0.0/18", eu-central-1b = "10.0.64.0/18", eu-central-1c = "10.0.128.0/18" }
    error_message = "private subnets: ${jsonencode({ for zone, subnet in aws_subnet.private : zone => subnet.cidr_block })}"
  }

  assert {
    condition     = { for zone, subnet in aws_subnet.public : zone => subnet.cidr_block } == { eu-central-1a = "10.0.192.0/22", eu-central-1b = "10.0.196.0/22", eu-central-1c = "10.0.200.0/22" }
    error_message = "public subnets: ${jsonencode({ for zone, subnet in aws_subnet.public : zone => subnet.cidr_block })}"
  }

  assert {
    condition     = !anytrue([for subnet in merge(aws_subnet.private, { for zone, subnet in aws_subnet.public : "public ${zone}" => subnet }) : coalesce(subnet.map_public_ip_on_launch, false)])
    error_message = "a machine would get a public address"
  }

  assert {
    condition     = keys(output.private_subnet_ids) == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    error_message = "the output names the zones ${jsonencode(keys(output.private_subnet_ids))}"
  }

  # Zones that EKS refuses are left out.
  assert {
    condition     = data.aws_availability_zones.available.exclude_zone_ids == toset(["use1-az3", "usw1-az2", "cac1-az3"])
    error_message = "subnets would lie where no cluster can be"
  }

  # One NAT gateway serves every zone by default.
  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a"] && one(distinct(values(local.exits))) == "eu-central-1a"
    error_message = "NAT gateways: ${jsonencode(keys(aws_nat_gateway.this))}"
  }

  # Image pulls stay off the NAT gateway.
  assert {
    condition     = aws_vpc_endpoint.s3.service_name == "com.amazonaws.eu-central-1.s3" && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway"
    error_message = "there is no S3 gateway endpoint"
  }

  assert {
    condition     = [for endpoint in aws_vpc_endpoint.interface : endpoint.service_name] == ["com.amazonaws.eu-central-1.ecr.api", "com.amazonaws.eu-central-1.ecr.dkr"]
    error_message = "ECR is not reached inside the network"
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == "10.0.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    error_message = "the endpoints are open to more than HTTPS from the network"
  }

  # Flow logs are encrypted, kept a year, and written by a role that can do nothing else.
  assert {
    condition     = aws_flow_log.this.traffic_type == "ALL" && aws_cloudwatch_log_group.flow.retention_in_days == 365 && aws_cloudwatch_log_group.flow.kms_key_id == aws_kms_key.logs.arn
    error_message = "flow logs are incomplete, unencrypted or kept for another time"
  }

  assert {
    condition = jsondecode(aws_iam_role.flow.assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = "123456789012" } }
    }]
    error_message = "the role's trust is ${aws_iam_role.flow.assume_role_policy}"
  }

  assert {
    condition     = aws_iam_role.flow.permissions_boundary == "arn:aws:iam::123456789012:policy/digits-boundary"
    error_message = "CI may not make a role without the boundary"
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.flow.policy).Statement[*].Resource == ["arn:aws:logs:eu-central-1:123456789012:log-group:/aws/vpc/digits:*"]
    error_message = "the role may write elsewhere: ${aws_iam_role_policy.flow.policy}"
  }

  assert {
    condition     = jsondecode(aws_kms_key.logs.policy).Statement[1].Condition == { ArnEquals = { "kms:EncryptionContext:aws:logs:arn" = "arn:aws:logs:eu-central-1:123456789012:log-group:/aws/vpc/digits" } }
    error_message = "the key serves other log groups: ${aws_kms_key.logs.policy}"
  }
}

run "shared_addresses_and_a_week_of_logs_are_taken" {
  command = plan

  variables {
    cidr               = "100.64.0.0/16"
    log_retention_days = 7
  }

  assert {
    condition     = aws_vpc.this.cidr_block == "100.64.0.0/16" && aws_cloudwatch_log_group.flow.retention_in_days == 7
    error_message = "the network is ${aws_vpc.this.cidr_block}"
  }
}

run "each_zone_has_its_own_nat_gateway_and_endpoints_on_request" {
  command = plan

  variables {
    egress     = "every_zone"
    zone_count = 2
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a", "eu-central-1b"]
    error_message = "NAT gateways: ${jsonencode(keys(aws_nat_gateway.this))}"
  }

  assert {
    condition     = local.exits == { eu-central-1a = "eu-central-1a", eu-central-1b = "eu-central-1b" }
    error_message = "a zone leaves through another zone's NAT gateway"
  }
}

run "a_name_that_begins_with_a_digit_is_refused" {
  command         = plan
  expect_failures = [var.name]

  variables {
    name = "4digits"
  }
}

run "a_public_range_is_refused" {
  command         = plan
  expect_failures = [var.cidr]

  variables {
    cidr = "8.8.0.0/16"
  }
}

run "a_range_with_host_bits_is_refused" {
  command         = plan
  expect_failures = [var.cidr]

  variables {
    cidr = "10.0.0.1/16"
  }
}

run "a_range_too_small_for_pods_is_refused" {
  command         = plan
  expect_failures = [var.cidr]

  variables {
    cidr = "10.0.0.0/24"
  }
}

run "one_zone_is_refused" {
  command         = plan
  expect_failures = [var.zone_count]

  variables {
    zone_count = 1
  }
}

run "a_region_with_too_few_zones_is_refused" {
  command         = plan
  expect_failures = [data.aws_availability_zones.available]

  override_data {
    target          = data.aws_availability_zones.available
    override_during = plan
    values          = { names = ["us-west-1a", "us-west-1c"] }
  }
}

run "an_unknown_egress_is_refused" {
  command         = plan
  expect_failures = [var.egress]

  variables {
    egress = "two_zones"
  }
}

run "an_endpoint_with_its_region_is_refused" {
  command         = plan
  expect_failures = [var.interface_endpoints]

  variables {
    interface_endpoints = ["com.amazonaws.eu central.ecr"]
  }
}

run "a_retention_that_cloudwatch_lacks_is_refused" {
  command         = plan
  expect_failures = [var.log_retention_days]

  variables {
    log_retention_days = 100
  }
}
