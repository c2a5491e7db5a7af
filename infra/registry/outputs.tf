output "address" {
  description = "Address that images are pushed to and pulled from, <host>/<name>."
  value       = aws_ecr_repository.this.repository_url
}

output "arn" {
  description = "ARN of the repository."
  value       = aws_ecr_repository.this.arn
}
