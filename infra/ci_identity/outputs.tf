output "role_arns" {
  description = "ARNs of the roles for plan, apply and publish."
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}

output "oidc_provider_arn" {
  description = "ARN of the account's OIDC provider for GitHub."
  value       = local.provider
}
