data "aws_region" "current" {}

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:Zone letters differ by region and account; the first by name are taken, and a new zone sorts behind them
  state = "available"

  # EKS takes no subnets here, whichever letter an account calls them by.
  exclude_zone_ids = ["use1-az3", "usw1-az2", "cac1-az3"]

  # Local and Wavelength zones are opt-in, and EKS control planes do not run there.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  lifecycle {
    postcondition {
      condition     = length(self.names) >= var.zone_count
      error_message = "EKS can use ${length(self.names)} zones of the region and zone_count is ${var.zone_count}: lower it in `network` of terraform.tfvars, or choose another region."
    }
  }
}

locals {
  zones        = slice(sort(data.aws_availability_zones.available.names), 0, var.zone_count)
  egress_zones = var.egress == "every_zone" ? local.zones : [local.zones[0]]
  # The zone whose NAT gateway a zone's private subnet leaves through.
  exits = { for zone in local.zones : zone => contains(local.egress_zones, zone) ? zone : local.zones[0] }

  # A quarter of the range for the private subnet of each zone, because pods live there; the last
  # quarter is cut into small public ones.
  private_cidrs = { for index, zone in local.zones : zone => cidrsubnet(var.cidr, 2, index) }
  public_cidrs  = { for index, zone in local.zones : zone => cidrsubnet(var.cidr, 6, 48 + index) }
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
  enable_dns_support   = true

  tags = { Name = var.name }
}

# Adopted without rules, so nothing that forgets to name a group can talk.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.this.id

  tags = { Name = "${var.name}-closed" }
}

resource "aws_subnet" "private" {
  for_each = local.private_cidrs

  vpc_id            = aws_vpc.this.id
  availability_zone = each.key
  cidr_block        = each.value

  tags = {
    Name                              = "${var.name}-private-${each.key}"
    "kubernetes.io/role/internal-elb" = "1"
  }
}

resource "aws_subnet" "public" {
  for_each = local.public_cidrs

  vpc_id                  = aws_vpc.this.id
  availability_zone       = each.key
  cidr_block              = each.value
  map_public_ip_on_launch = false

  tags = {
    Name                     = "${var.name}-public-${each.key}"
    "kubernetes.io/role/elb" = "1"
  }
}
