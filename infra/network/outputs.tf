output "private_subnet_ids" {
  description = "Ids of the private subnets by availability zone."
  value       = { for zone, subnet in aws_subnet.private : zone => subnet.id }

  # Machines that start in them at once need a way out, and may not need it longer than it is there.
  depends_on = [aws_route.nat, aws_route_table_association.private, aws_vpc_endpoint.interface, aws_vpc_endpoint.s3]
}

output "egress_ips" {
  description = "Addresses that the nodes show to the internet, for allow lists of others."
  value       = [for address in aws_eip.nat : address.public_ip]
}
